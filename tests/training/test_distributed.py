"""Two real processes make the steps that one makes."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from asterisk.model.config import ModelConfig
from asterisk.training.batches import Targets
from asterisk.training.distil import Distillation, read_curve
from asterisk.training.distributed import Processes, processes
from asterisk.training.recipe import TrainingRecipe
from asterisk.training.student import identity_student
from training.toy import material, rows, texts, write_targets

WORKER = """
import sys
from pathlib import Path
from training.test_distributed import distil

distil(*map(Path, sys.argv[1:]))
left = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").glob("*")]
assert not any("gloo" in name for name in left), f"threads that outlive the group: {left}"
"""
RECIPE = TrainingRecipe(
    passes=240,
    batch_tokens=128,
    pair_weight=0.5,
    pair_every=3,
    pairs=5,
    amp="off",
    evaluate_every=4,
    relation_weight=0.5,
    relation_after=0.5,
    contrast_weight=0.2,
    contrast_after=0.25,
)


def distil(targets, out):
    torch.set_num_threads(1)
    projection = np.load(targets / "projection.npy")
    config = ModelConfig(hidden_size=32, intermediate_size=64)
    train = Targets(targets / "train", 200, projection)
    held_out = Targets(targets / "held-out", 40, projection)
    pairs = np.stack([np.arange(50), np.arange(50) + 50], axis=1)
    with processes("cpu") as these:
        student = identity_student(config, rows(), seed=these.rank)  # the first one's must win
        Distillation(student, material(train, held_out, RECIPE, pairs), out, these).finish()


def launch(*arguments, count):
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={count}", "--standalone"]
    return subprocess.run(
        [sys.executable, *launcher, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=500,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_make_one_run(tmp_path):
    write_targets(tmp_path / "targets", texts(200, 0), texts(40, 1))
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    for name in "12":
        (tmp_path / name).mkdir()
    distil(tmp_path / "targets", tmp_path / "1")
    done = launch(worker, tmp_path / "targets", tmp_path / "2", count=2)
    assert done.returncode == 0, done.stderr.decode()[-3_000:]
    paths = (tmp_path / name / "state.pt" for name in "12")
    one, two = (torch.load(path, weights_only=True) for path in paths)
    assert one["step"] == two["step"]
    assert one["seen"] == two["seen"]
    looks = [row["held_out_cosine"] for row in read_curve(tmp_path / "1" / "curve.csv")]
    assert one["best"] == max(looks) > looks[0] + 0.01
    for name, value in two["model"].items():
        assert np.allclose(value, one["model"][name], atol=2e-3), name
    assert two["best"] == pytest.approx(one["best"], abs=1e-3)


def test_shares_make_the_batch_and_keep_pairs():
    batch = list(range(10))
    shares = [Processes(3, rank).share(batch, paired=False) for rank in range(3)]
    assert sorted(n for share in shares for n in share) == batch
    for rank in range(3):
        share = Processes(3, rank).share(batch, paired=True)
        half = len(share) // 2
        assert [n + 5 for n in share[:half]] == share[half:]
    assert Processes(4, 3).share([1], paired=False) == []

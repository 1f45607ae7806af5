"""The pipeline: it learns, uses its blocks, and a run that is cut resumes to the same weights."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import asterisk
from asterisk.cli import train
from asterisk.common.errors import ArtifactError, InputError
from asterisk.model.config import Dense, ModelConfig
from asterisk.model.encoder import Encoder
from asterisk.tokenizer import gpt2
from asterisk.training import bag, card
from asterisk.training.batches import Targets, open_material
from asterisk.training.distil import (
    Distillation,
    cosine_to_teacher,
    read_curve,
    student_and_teacher,
)
from asterisk.training.distributed import Processes
from asterisk.training.pipeline import save_run_config
from asterisk.training.recipe import PRESETS, TrainingRecipe
from asterisk.training.student import identity_student, token_means
from asterisk.training.teachers.targets import TargetsInfo
from asterisk.training.teachers.teacher import EncoderTeacher, find
from training.toy import material, rows, texts, write_corpus, write_targets

CONFIG = ModelConfig(hidden_size=32, intermediate_size=64)
RECIPE = TrainingRecipe(
    passes=1_000,
    batch_tokens=128,
    evaluate_every=20,
    relation_weight=0.5,
    relation_after=0.5,
    contrast_weight=0.2,
    contrast_after=0.6,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A corpus, its targets, and the start that a real teacher would take minutes for."""
    folder = tmp_path_factory.mktemp("data")
    train, held_out = texts(400, 0), texts(80, 1)
    pairs = np.stack([np.arange(100), np.arange(100) + 100], axis=1)
    write_corpus(folder / "corpus", train, held_out, pairs)
    write_targets(folder / "targets", train, held_out)
    write_targets(folder / "black-box", train, held_out, tokens=False)
    return folder


@pytest.fixture(scope="module")
def known(data):
    projection = np.load(data / "targets" / "projection.npy")
    folder = data / "targets"
    return Targets(folder / "train", 400, projection), Targets(folder / "held-out", 80, projection)


@pytest.fixture(scope="module")
def begun():
    return identity_student(CONFIG, rows(), seed=0)


def begin(folder, begun, known, recipe=RECIPE):
    folder.mkdir(exist_ok=True)
    return Distillation(deepcopy(begun), material(*known, recipe), folder, Processes())


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, begun, known):
    run = begin(tmp_path_factory.mktemp("whole"), begun, known)
    run.finish()
    return run


def test_it_learns_and_uses_both_blocks(whole, begun, known):
    before = cosine_to_teacher(begun, known[1])
    after, theirs = student_and_teacher(whole.model, known[1])
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(after, theirs).mean() > before + 0.03
    for block in range(2):
        without, _ = student_and_teacher(whole.model, known[1], skip=block)
        assert cosine(after, without).mean() < 0.999


def test_a_seed_gives_one_run(tmp_path, whole, begun, known):
    again = begin(tmp_path, begun, known)
    again.finish()
    assert same(whole.model, again.model)
    assert (tmp_path / "curve.csv").read_bytes() == (whole.folder / "curve.csv").read_bytes()


class Cut(Exception):
    pass


@pytest.mark.parametrize("lost", [0, 25])
def test_a_run_that_is_cut_resumes_to_the_same_weights(tmp_path, whole, begun, known, lost):
    """The last save is ``lost`` steps before the cut; looks at held-out texts lie between."""
    run = begin(tmp_path, begun, known)

    def watch(seen, figures):
        if run.step == 30:
            run._save()
        if run.step == 30 + lost:
            raise Cut

    with pytest.raises(Cut):
        run.finish(watch)
    second = begin(tmp_path, begun, known)
    assert second.step == 30
    second.finish()
    assert same(whole.model, second.model)
    assert (tmp_path / "curve.csv").read_bytes() == (whole.folder / "curve.csv").read_bytes()


def test_state_of_an_earlier_version_is_read(tmp_path, whole, begun, known):
    state = torch.load(whole.state_path, weights_only=True)
    kept = {name: state[name] for name in ("step", "seen", "model", "optimisers")}
    torch.save(kept, tmp_path / "state.pt")
    (tmp_path / "curve.csv").write_text(
        "texts,sentence_loss,token_loss,held_out_cosine\n"
        "10,0.5,0.6,0.7,0.01\n99999999,0.5,0.6,0.9\n"
    )
    run = begin(tmp_path, begun, known)
    assert run.finished
    assert same(run.model, whole.model)
    assert [row["passes"] for row in run.curve] == [10]
    assert run.curve[0]["cosine_loss"] == 0.5


def test_patience_stops_and_keeps_the_best(tmp_path, begun, known):
    recipe = replace(RECIPE, patience=2, evaluate_every=5, learning_rate=0.5, passes=100_000)
    recipe = replace(recipe, matrix_learning_rate=0.5, table_learning_rate=0.5)
    run = begin(tmp_path, begun, known, recipe)
    run.finish()
    assert run.misses == 2
    assert run.seen < 20_000
    best = max(row["held_out_cosine"] for row in run.curve)
    assert cosine_to_teacher(run.model, known[1]) == pytest.approx(best, abs=1e-6)
    assert begin(tmp_path, begun, known, recipe).finished


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_runs(tmp_path, data, begun, preset):
    recipe = replace(PRESETS[preset], passes=80, epochs=0, batch_tokens=128, pairs=8, patience=0)
    for folder in ("targets", "black-box"):
        opened = open_material(data / "corpus", data / folder, recipe)
        (tmp_path / folder).mkdir()
        run = Distillation(deepcopy(begun), opened, tmp_path / folder, Processes())
        run.finish()
        assert run.seen >= 80
        assert not same(run.model, begun)


def test_material(data):
    opened = open_material(data / "corpus", data / "targets", PRESETS["original"])
    assert len(opened.train) == 360
    assert opened.evaluated == range(360, 400)
    assert opened.pairs.max() < 360
    assert opened.recipe.passes == 5 * 2 * len(opened.pairs)
    with pytest.raises(InputError, match="too few for a batch"):
        open_material(data / "corpus", data / "targets", TrainingRecipe(pair_weight=1, pairs=500))


def test_targets_of_another_corpus(data, tmp_path):
    some = texts(400, 0), texts(80, 1)
    write_targets(tmp_path / "targets", *some, corpus={"train": "0" * 64})
    with pytest.raises(ArtifactError, match="another corpus"):
        open_material(data / "corpus", tmp_path / "targets", RECIPE)
    (tmp_path / "targets" / "targets.json").unlink()
    with pytest.raises(ArtifactError, match="--teacher"):
        open_material(data / "corpus", tmp_path / "targets", RECIPE)
    info = TargetsInfo.open(tmp_path / "targets", "all-MiniLM-L6-v2")
    named = open_material(data / "corpus", tmp_path / "targets", RECIPE, info=info)
    assert named.info.uncased


def test_case_is_folded_only_where_the_teacher_sees_none(data, tmp_path):
    assert open_material(data / "corpus", data / "targets", RECIPE).train.fold is not None
    write_targets(tmp_path / "cased", texts(400, 0), texts(80, 1), uncased=False)
    opened = open_material(data / "corpus", tmp_path / "cased", RECIPE)
    assert opened.train.fold is None
    assert not opened.recipe.fold_case


def test_a_folder_belongs_to_one_recipe(tmp_path, whole):
    def choices(recipe):
        return {"recipe": {"passes": recipe.passes, "seed": recipe.seed}, "model": {"layers": 2}}

    recipe = replace(RECIPE, passes=1_000)
    save_run_config(tmp_path, recipe, choices(recipe))
    save_run_config(tmp_path, recipe, choices(recipe))
    with pytest.raises(ArtifactError, match="begun with seed 0, not 1"):
        save_run_config(tmp_path, recipe, choices(replace(recipe, seed=1)))
    with pytest.raises(ArtifactError, match="passes 1000, not 500"):
        save_run_config(tmp_path, recipe, choices(replace(recipe, passes=500)))
    longer = replace(recipe, passes=2_000)
    save_run_config(tmp_path, longer, choices(longer))
    torch.save({"seen": 1_001}, tmp_path / "state.pt")  # the third loss begins at 1,000
    with pytest.raises(ArtifactError, match="until the decay"):
        save_run_config(tmp_path, longer, choices(replace(recipe, passes=4_000)))


def test_a_run_made_longer_is_the_longer_run(tmp_path, begun, known):
    """Apart from its warm-up, nothing before the decay depends on the length."""
    longer = replace(
        RECIPE, warmup=0.0, passes=360, decay=0.25, relation_weight=0.0, contrast_weight=0.0
    )
    expected = begin(tmp_path / "expected", begun, known, longer)
    expected.finish()
    run = begin(tmp_path / "run", begun, known, replace(longer, passes=240))

    def cut(seen, figures):
        if seen > 120:
            run._save()
            raise Cut

    with pytest.raises(Cut):
        run.finish(cut)
    run = begin(tmp_path / "run", begun, known, longer)
    run.finish()
    assert same(run.model, expected.model)


@pytest.mark.parametrize("layers", [0, 1])
def test_fewer_layers(tmp_path, known, layers):
    start = identity_student(replace(CONFIG, num_layers=layers), rows(), seed=0)
    run = begin(tmp_path, start, known, replace(RECIPE, passes=300))
    run.finish()
    assert run.best > 0.3


def test_a_wider_student_starts_at_the_same_vectors(known, begun):
    wide = identity_student(
        replace(CONFIG, hidden_size=64, dense=(Dense(32),), intermediate_size=64), rows(), seed=0
    )
    ours, _ = student_and_teacher(wide, known[1])
    narrow, _ = student_and_teacher(begun, known[1])
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(ours, narrow).mean() > 0.95
    ratio = ours.norm(dim=-1) / narrow.norm(dim=-1)
    assert ratio.mean().item() == pytest.approx(1, abs=0.1)


def test_token_means_are_the_targets(data, known):
    """A frequent token's row is near the mean of its targets; the real teacher reads the rest."""
    try:
        teacher = EncoderTeacher(find("all-MiniLM-L6-v2"))
    except asterisk.common.errors.MissingExtra:
        pytest.skip("the packaged teacher is not installed")

    class Few:
        size = teacher.size

        def read(self, some):
            return teacher.read(some[:1]) * len(some)

    projection = np.ones((32, teacher.size), "f4")
    means = token_means(ModelConfig(), known[0], Few(), projection)
    shard = known[0].shard(0)
    token = int(np.bincount(shard.ids).argmax())
    there = shard.ids == token
    expected = (shard.tokens[there] * shard.scales[there, None]).mean(0)
    assert np.corrcoef(means[token], expected)[0, 1] > 0.95


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    some = [{"passes": n, "cosine_loss": 1 / (n + 1), "held_out_cosine": n / 9} for n in range(9)]
    card.draw_curve(tmp_path / "a.png", some, 0.8)
    card.draw_curve(tmp_path / "b.png", [], None)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def seeded(run):
    """Save the start that a teacher would be asked for."""
    run.mkdir(parents=True, exist_ok=True)
    np.save(run / "rows.npy", rows())
    return run


@pytest.fixture(scope="module")
def command_run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    seeded(folder / "run")
    done = _call(data, folder, "targets")
    assert done.returncode == 0, done.stderr.decode()
    return folder, done


# Neighbours and partners among a few hundred texts would cost the cosine that is looked at.
OPTIONS = (
    *("--passes", "1500", "--batch-tokens", "128", "--evaluate-every", "20", "--seed", "3"),
    *("--relation-weight", "0", "--contrast-weight", "0", "--decay", "0.25"),
)


def _call(data, folder, targets, *options):
    line = [data / "corpus", data / targets]
    line += ["--out", folder / "out", "--run", folder / "run", *OPTIONS, *options]
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = train.main(list(map(str, line)))
        except SystemExit as refused:  # argparse's
            status = refused.code
    return SimpleNamespace(returncode=status, stderr=printed.getvalue().encode())


def test_the_command_makes_a_checkpoint(command_run, data):
    folder, done = command_run
    assert b"distil: " in done.stderr
    assert b"left" in done.stderr
    text = (folder / "out" / "README.md").read_text()
    assert "block 2 bypassed" in text
    assert "best static token table" in text
    assert "CC BY-SA 3.0" in text
    assert "| mine | your own |" in text
    assert (folder / "out" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert bag.read_cosines(folder / "run" / "bag")["line"] > 0
    looks = [row["held_out_cosine"] for row in read_curve(folder / "run" / "curve.csv")]
    assert looks[-1] > looks[0] + 0.01


def test_the_checkpoint_gives_the_vectors_of_training(command_run, data):
    """On mixed case too, although training renamed every token to its lower-case twin."""
    folder, _ = command_run
    fold = open_material(data / "corpus", data / "targets", RECIPE).train.fold
    state = torch.load(folder / "run" / "state.pt", weights_only=True)
    model = Encoder(replace(ModelConfig(), hidden_size=32, intermediate_size=128))
    model.load_state_dict(state["model"])
    mixed = [text.title() for text in texts(20, 5)] + texts(20, 6)
    tokenizer = gpt2()
    with asterisk.load(folder / "out") as runtime, torch.inference_mode():
        for text in mixed:
            ids = fold[tokenizer.encode(text)]
            trained = torch.nn.functional.normalize(model(torch.from_numpy(ids)[None])[0], dim=0)
            assert np.allclose(runtime.encode(text), trained, atol=3e-3)  # stored in 16 bits


def test_a_finished_run_is_described_again(command_run, data):
    folder, _ = command_run
    before = (folder / "run" / "state.pt").read_bytes()
    done = _call(data, folder, "targets")
    assert done.returncode == 0
    assert len((folder / "run" / "state.pt").read_bytes()) == len(before)
    done = _call(data, folder, "targets", "--seed", "4")
    assert done.returncode == ArtifactError.status
    assert b"begun with seed 3, not 4" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_run_from_a_checkpoint_begins_where_it_ended(command_run, data, tmp_path):
    folder, _ = command_run
    start = ("--from", folder / "out", "--bag", "no")
    done = _call(data, tmp_path, "targets", *start, "--passes", "60")
    assert done.returncode == 0, done.stderr.decode()
    before, after = (read_curve(where / "run" / "curve.csv") for where in (folder, tmp_path))
    assert before[-1]["held_out_cosine"] == pytest.approx(after[0]["held_out_cosine"], abs=1e-3)
    assert "after what the checkpoint it began with" in " ".join(
        (tmp_path / "out" / "README.md").read_text().split()
    )
    other = _call(data, tmp_path, "targets", "--bag", "no", "--passes", "60")
    assert b"begun with fingerprint" in other.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--layers", "3"), b"num_layers 3: what the student begins with has 2"),
        ((), b"was trained in another space"),
    ],
)
def test_a_checkpoint_that_is_no_start(command_run, data, tmp_path, options, told):
    folder, _ = command_run
    targets = data / "targets"
    if not options:
        targets = tmp_path / "turned"
        shutil.copytree(data / "targets", targets)
        projection = np.load(targets / "projection.npy")
        np.save(targets / "projection.npy", projection[::-1].copy())
    done = _call(data, tmp_path, targets, "--from", folder / "out", *options)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_killed_at_any_moment(command_run, data, tmp_path):
    folder, _ = command_run
    seeded(tmp_path / "run")
    line = [sys.executable, "-c", _OFTEN, data / "corpus", data / "targets"]
    line += ["--out", tmp_path / "out", "--run", tmp_path / "run", *OPTIONS]
    process = subprocess.Popen(list(map(str, line)), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = _call(data, tmp_path, "targets")
    assert done.returncode == 0, done.stderr.decode()
    one, two = (
        torch.load(where / "run" / "state.pt", weights_only=True) for where in (folder, tmp_path)
    )
    assert one["step"] == two["step"]
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in one["model"])


_OFTEN = """
import sys
from asterisk.cli import train
from asterisk.training import distil
distil.SAVE_EVERY = 0.2
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("--bag", "only"), ("--hidden", "64", "--bag", "no"), ("--preset", "leaf")]
)
def test_other_commands(data, tmp_path, options):
    from sentence_transformers import SentenceTransformer

    if "only" not in options:
        seeded(tmp_path / "run")
    done = _call(data, tmp_path, "black-box", "--passes", "60", *options)
    assert done.returncode == 0, done.stderr.decode()
    opened = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    made = opened.encode(["The River bank", "the river bank"])
    assert made.shape == (2, 32)
    assert np.allclose(made[0], made[1], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--temperature", "0"), b"--temperature must be"),
        (("--preset", "nothing"), b"invalid choice"),
        (("--learning-rate", "nan"), b"not a finite number"),
        (("--texts", "-1"), b"not a positive number"),
    ],
)
def test_what_cannot_be_meant_is_one_line(data, tmp_path, options, told):
    done = _call(data, tmp_path / "o", "targets", *options)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "o").exists()


def test_what_is_not_ours_is_left_alone(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    done = _call(data, tmp_path, "targets")
    assert done.returncode == 7
    assert b"left alone" in done.stderr
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
    (tmp_path / "corpus").mkdir()
    shutil.copytree(data / "targets", tmp_path / "targets")
    done = _call(tmp_path, tmp_path / "new", "targets")
    assert done.returncode == 5
    assert b"asterisk-data" in done.stderr
    assert not (tmp_path / "new").exists()

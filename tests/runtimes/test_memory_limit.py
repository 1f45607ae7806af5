"""Memory limits on the real engines: kept in a control group of that size, and by peak RSS."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import asterisk
from asterisk.common.errors import BudgetError, UsageError
from asterisk.runtimes.memory_budget import MB, parse
from asterisk.tokenizer import gpt2
from runtimes.control_groups import group

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]
CHILD = Path(__file__).with_name("memory_limit_child.py")
ARTIFACTS = [("onnx", "int8"), ("tflite", "int8"), ("gguf", "q8_0")]
COUNT = 150


@pytest.fixture(scope="module")
def texts(lines, tmp_path_factory) -> Path:
    """Real words in texts of 1 to beyond 512 tokens, as many of each power of two."""
    chance = random.Random(6)
    words = " ".join(lines).split()
    path = tmp_path_factory.mktemp("budget") / "texts.txt"
    made = []
    for _ in range(COUNT):
        start = chance.randrange(len(words) - 600)
        made.append(" ".join(words[start : start + int(2 ** chance.uniform(0, 9.2))]))
    path.write_text("\n".join(made) + "\n", "utf-8")
    return path


@pytest.fixture(params=ARTIFACTS, ids=lambda pair: pair[0])
def artifact(request, artifact_of) -> Path:
    return artifact_of(*request.param)


def child(*args: object) -> list[str]:
    return [sys.executable, str(CHILD), *map(str, args)]


def embed(*args: object) -> list[str]:
    return [sys.executable, "-m", "asterisk.cli.embed", *map(str, args)]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@cache
def least(folder: Path) -> str:
    """Return the amount that a refusal names."""
    refused = run(embed(folder, "--max-memory", "1M"))
    assert refused.returncode == BudgetError.status, refused.stderr
    return re.search(r"needs about (\d+M)", refused.stderr)[1]


@pytest.mark.parametrize("limit", ["least", "128M"])
def test_a_process_lives_in_a_group_of_exactly_its_limit(artifact, texts, limit, tmp_path):
    amount = least(artifact) if limit == "least" else limit
    with group(parse(amount)) as made:
        if made is None:
            pytest.skip("no control group can be made here")
        out = tmp_path / "v.npy"
        options = ["--threads", 2, "--max-memory", amount, "--out", out]
        ended = made.run(embed(artifact, texts, *options))
    assert ended.status == 0, ended.errors
    assert ended.killed == 0
    assert np.load(out).shape == (COUNT, 256)
    assert 10 * MB < ended.anonymous < parse(amount)
    assert ("1 thread instead of 2" in ended.errors) == ("limit of" in ended.errors)


def test_a_group_kills_what_takes_more_than_it_may(artifact_of, texts, tmp_path):
    """The tests above can fail: without a limit, or with a quarter of the estimate, they would."""
    folder = artifact_of("gguf", "q8_0")
    limit = parse(least(folder))
    for options in (("0",), (str(limit), str(tmp_path / "v.npy"), "quartered")):
        with group(limit) as made:
            if made is None:
                pytest.skip("no control group can be made here")
            args = options if len(options) > 1 else (*options, str(tmp_path / "v.npy"))
            ended = made.run(child(folder, texts, 2, *args))
        assert ended.status in (-9, 137)
        assert ended.killed == 1


def test_a_peak_stays_under_the_limit_and_vectors_are_the_same(artifact, texts, tmp_path):
    limit = parse(least(artifact))
    free, bound, tight = (tmp_path / f"{name}.npy" for name in ("free", "bound", "tight"))
    unlimited = json.loads(run(child(artifact, texts, 4, 0, free)).stdout)
    roomy = json.loads(run(child(artifact, texts, 2, 192 * MB, bound)).stdout)
    least_of_all = json.loads(run(child(artifact, texts, 4, limit, tight)).stdout)
    # Each page of a file counts once, however many sessions map it.
    charged = [
        max(seen["own"] + seen["libraries"] + seen["files"], one * seen["peak"])
        for seen, one in ((unlimited, 0), (roomy, 0), (least_of_all, 1))
    ]
    assert charged[0] > limit
    assert charged[1] <= 192 * MB
    assert charged[2] <= limit
    assert least_of_all["threads"] == 1
    longest = least_of_all["longest"]
    assert longest in (128, 256)  # steps that a few MB lie between
    assert (roomy["threads"], roomy["longest"]) == (2, 512)
    tokenizer = gpt2()
    lengths = [len(tokenizer.encode(text)) for text in texts.read_text("utf-8").splitlines()]
    assert least_of_all["truncated"] == sum(length > longest for length in lengths) > 20
    assert unlimited["truncated"] == roomy["truncated"] == sum(length > 512 for length in lengths)
    vectors, short = np.load(free), np.array(lengths) <= longest
    assert np.array_equal(np.load(bound), vectors)
    assert np.array_equal(np.load(tight)[short], vectors[short])
    assert not np.array_equal(np.load(tight), vectors)


def test_too_little_is_refused_in_one_line(artifact, texts, tmp_path):
    ended = run(embed(artifact, texts, "--max-memory", "32M"))
    assert ended.returncode == BudgetError.status == 10
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert re.search(r"needs about \d+M for texts of 128 tokens on one thread", line)
    assert "a memory limit of 32M is not enough" in line
    named = re.search(r"needs about (\d+M)", line)[1]
    taken = run(embed(artifact, texts, "--max-memory", named, "--out", tmp_path / "v.npy"))
    assert taken.returncode == 0, taken.stderr


def test_the_groups_own_limit_counts_where_it_is_lower(artifact_of, texts):
    folder = artifact_of("tflite", "int8")
    with group(40 * MB) as made:
        if made is None:
            pytest.skip("no control group can be made here")
        ended = made.run(embed(folder, texts, "--max-memory", "1G"))
    assert ended.status == BudgetError.status
    assert "the control group's limit of 40M is not enough" in ended.errors


def test_long_texts_are_refused_where_that_is_asked_for(artifact_of, texts):
    folder = artifact_of("tflite", "int8")
    options = ["--max-memory", least(folder), "--on-long", "error"]
    ended = run(embed(folder, texts, *options))
    assert ended.returncode == 4
    assert re.search(r"a text has more than (128|256) tokens", ended.stderr)


def test_lines_are_bounded_and_blocks_end_early(artifact_of, tmp_path):
    folder = artifact_of("tflite", "int8")
    amount = least(folder)
    lines = tmp_path / "lines.txt"
    wide = "\N{GRINNING FACE}" + "a " * 5_000  # four bytes a character in memory
    lines.write_text("\n".join([wide] * 200), "utf-8")
    with group(parse(amount)) as made:
        if made is not None:
            out = tmp_path / "v.npy"
            ended = made.run(embed(folder, lines, "--max-memory", amount, "--out", out))
            assert ended.status == 0, ended.errors
            assert len(np.load(out)) == 200
    lines.write_text("a " * (1 << 20))
    ended = run(embed(folder, lines, "--max-memory", amount))
    assert ended.returncode == 4
    assert re.search(r"line 1: longer than \d+ KB", ended.stderr)


def test_what_cannot_be_limited_is_refused(toy_folder, artifact_of):
    with pytest.raises(UsageError, match="keeps to no memory limit"):
        asterisk.load(toy_folder, max_memory=1 << 30)
    folder = artifact_of("tflite", "int8")
    for amount in (0, -1, True, 1.5, "128M"):
        with pytest.raises(UsageError, match="max_memory must be 1 or more"):
            asterisk.load(folder, max_memory=amount)


def test_a_runtime_has_its_budget(artifact_of):
    folder = artifact_of("tflite", "int8")
    with asterisk.load(folder) as runtime:
        assert runtime.budget is None
    with asterisk.load(folder, threads=2, max_memory=2 << 30) as runtime:
        assert (runtime.budget.threads, runtime.budget.longest) == (2, 512)
        assert runtime.budget.message == ""
        assert runtime.embed_ids([1] * 512).shape == (256,)

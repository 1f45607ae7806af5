"""The order of measurement, and plans in TOML: one line for anything that makes no sense."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.bench import plan
from asterisk.bench.plan import Cell, Row, cells
from asterisk.cli.bench import _buckets, main, parser, planned
from asterisk.common.errors import AsteriskError, InputError, UsageError

ROWS = ["a", "b", "c"]


def test_the_same_seed_gives_the_same_order_and_another_another():
    assert cells(ROWS, (1, 2), 3, 7) == cells(ROWS, (1, 2), 3, 7)
    assert cells(ROWS, (1, 2), 3, 7) != cells(ROWS, (1, 2), 3, 8)


def test_every_round_has_every_cell_once_and_memory_comes_first():
    planned = cells(ROWS, (1, 2), 3, 1)
    assert [cell.kind for cell in planned[:3]] == ["memory"] * 3
    rounds = [planned[3 + 6 * n : 9 + 6 * n] for n in range(3)]
    assert len(planned) == 21
    for number, some in enumerate(rounds):
        assert {cell.repetition for cell in some} == {number}
        assert Counter((cell.row, cell.threads) for cell in some) == Counter(
            (row, threads) for row in ROWS for threads in (1, 2)
        )
    assert len({tuple((cell.row, cell.threads) for cell in some) for some in rounds}) > 1


def test_memory_is_read_in_as_many_processes_as_asked_for():
    planned = cells(ROWS, (1,), 1, 1, weighings=9)
    memory = [(cell.row, cell.repetition) for cell in planned[:27]]
    assert Counter(memory) == Counter((row, number) for row in ROWS for number in range(9))
    assert {cell.kind for cell in planned[:27]} == {"memory"}
    assert len(planned) == 30


def test_latency_is_measured_at_the_fewest_threads_only():
    kinds = {cell.threads: cell.kind for cell in cells(ROWS, (4, 2), 1, 1)[3:]}
    assert kinds == {2: "latency", 4: "throughput"}


def test_a_row_survives_json():
    row = Row("a", "A", "r", "m:f", "p", ("x",), ("y",), 1, thresholds={"cosine_min": 0.9})
    from dataclasses import asdict

    assert Row.from_dict(asdict(row)) == row
    assert str(Cell("a", "latency", 1, 0)) == "a latency, 1 thread, process 1"


WHOLE = """
runtime = ["onnx", "gguf"]
no-peers = true
checkpoint = "c"
artifacts = "a"
out = "o"
threads = [4, 1]
buckets = [128, 8]
processes = 9
thorough = true
seed = 7
timeout = 60
target = ["local:cpus=0", "emu:a72"]
keep = true
peer-python = "p"
"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def read(text, *argv):
    arguments = parser().parse_args(["--plan", "plan.toml", *argv])
    Path("plan.toml").write_text(text, "utf-8")
    return planned(arguments, ["--plan", "plan.toml", *argv])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_plan_says_what_the_command_line_says():
    options = "c --runtime onnx,gguf --no-peers --artifacts a --out o --threads 1,4"
    options += " --buckets 8,128 --processes 9 --thorough --seed 7 --timeout 60 --keep"
    options += " --target local:cpus=0 --target emu:cortex-a72 --peer-python p"
    given = parser().parse_args([*options.split(), "--plan", "plan.toml"])
    assert vars(read(WHOLE)) == vars(given)


def test_every_option_of_a_run_can_be_in_a_plan():
    apart = {"help", "plan"}
    options = {
        action.option_strings[0].removeprefix("--")
        for action in parser()._actions
        if action.dest not in apart and action.option_strings
    }
    missing = options - set(plan.KEYS)
    assert not missing & {"runtime", "target", "threads", "buckets", "processes", "artifacts"}
    assert set(plan.KEYS) <= options | {"checkpoint"}


def test_options_given_win_over_the_plan():
    found = read(WHOLE, "--seed", "8", "--runtime", "tflite", "--target", "local")
    assert (found.seed, found.runtime) == (8, "tflite")
    assert found.target == ["local"]
    assert found.processes == 9


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("thread = 1", "there is no 'thread' in a plan; there are: runtime,"),
        ("threads = 'two'", "threads must be a number from 1 to 256, not 'two'"),
        ("threads = [true]", "threads must be a number"),
        ("threads = []", "threads is an empty list"),
        ("buckets = 513", "buckets must be a number from 1 to 512"),
        ("no-peers = 1", "no-peers must be true or false"),
        ("out = ['a']", "out must be a text"),
        ("target = 'ssh://-oX'", "is no host's name"),
        ("target = ['local', 'local']", "named twice"),
        ("[effort]\ncalls = 1", "there is no 'effort'"),
        ("seed = 1.5", "seed must be a number"),
        ("x = ", "is not TOML"),
        ("a = 1\na = 2", "is not TOML"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_one_line(text, told, capsys):
    Path("p.toml").write_text(text, "utf-8")
    assert main(["--plan", "p.toml"]) in (UsageError.status, InputError.status)
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert "p.toml" in line


def test_a_plan_that_is_not_there_is_one_line(capsys):
    assert main(["--plan", "none.toml"]) == InputError.status
    assert capsys.readouterr().err.count("\n") == 1


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(plan.KEYS)) | st.text(max_size=6), JSON))
def test_any_value_is_taken_with_its_type_or_refused_in_one_line(values):
    try:
        found = plan.check(values)
    except AsteriskError as refused:
        assert "\n" not in str(refused)  # noqa: PT017
        assert len(str(refused)) < 400  # noqa: PT017
        return
    types = {key: type(value) for key, value in found.items()}
    kinds = {"runtime": str, "threads": tuple, "buckets": tuple, "target": list, "seed": int}
    assert all(types[key] is kind for key, kind in kinds.items() if key in types)


@pytest.mark.parametrize("text", ["", "0", "513", "8,", "8;9", "９"])
def test_buckets_are_lengths(text):
    with pytest.raises(argparse.ArgumentTypeError):
        _buckets(text)
    assert _buckets("128,8,8") == (8, 128)

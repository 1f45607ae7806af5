"""Plans in TOML: all the command line has, and one line for anything else."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asterisk.bench import plan as planfile
from asterisk.cli.bench import main, parser
from asterisk.common.errors import AsteriskError, InputError, UsageError

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
    return planfile.planned(parser(), arguments, ["--plan", "plan.toml", *argv])


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
    apart = {"help", "plan", "pareto", "data", "split"}
    options = {
        action.option_strings[0].removeprefix("--")
        for action in parser()._actions
        if action.dest not in apart and action.option_strings
    }
    missing = options - set(planfile.KEYS)
    assert not missing & {"runtime", "target", "threads", "buckets", "processes", "artifacts"}
    assert set(planfile.KEYS) <= options | {"checkpoint"}


def test_options_given_win_over_the_plan():
    found = read(WHOLE, "--seed", "8", "--runtime", "tflite", "--target", "local")
    assert (found.seed, found.runtime) == (8, "tflite")
    assert found.target == ["local"]
    assert found.processes == 9


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("thread = 1", "there is no 'thread' in a plan; there are: runtime,"),
        ("threads = 'two'", "threads is a number from 1 to 256, not 'two'"),
        ("threads = [true]", "threads is a number"),
        ("threads = []", "threads is an empty list"),
        ("buckets = 513", "buckets is a number from 1 to 512"),
        ("no-peers = 1", "no-peers is true or false"),
        ("out = ['a']", "out is a text"),
        ("target = 'ssh://-oX'", "is no host's name"),
        ("target = ['local', 'local']", "named twice"),
        ("[effort]\ncalls = 1", "there is no 'effort'"),
        ("seed = 1.5", "seed is a number"),
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


@given(st.dictionaries(st.sampled_from(sorted(planfile.KEYS)) | st.text(max_size=6), JSON))
def test_any_value_is_taken_with_its_type_or_refused_in_one_line(values):
    try:
        found = planfile.check(values)
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
        planfile.buckets(text)
    assert planfile.buckets("128,8,8") == (8, 128)

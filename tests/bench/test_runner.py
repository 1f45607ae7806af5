"""The command, from a checkpoint to a table; a machine that is slowed down meanwhile."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from asterisk.bench import machine, process
from asterisk.bench.collect import RunState
from asterisk.bench.plan import Effort
from asterisk.bench.runner import Request, Work, _on_target
from asterisk.bench.targets import LOCAL, Session
from asterisk.cli.bench import choose, main
from asterisk.common import texts
from asterisk.common.errors import UnknownName, UsageError


def test_names_of_runtimes():
    runtimes, peers = choose("all", without_peers=False)
    assert runtimes[:4] == ("torch", "onnx", "tflite", "gguf")
    assert peers == ("original", "minilm")
    assert choose("gguf,onnx", without_peers=False) == (("onnx", "gguf"), ())
    assert choose("minilm,torch", without_peers=False) == (("torch",), ("minilm",))
    assert choose("all", without_peers=True)[1] == ()
    every = ("original", "minilm", "dynamic", "dynamic-per-channel", "sentence-transformers")
    every += ("sentence-transformers-onnx", "fastembed", "openvino", "openvino-weights")
    every += ("model2vec",)
    assert choose("all,peers", without_peers=False) == (runtimes, every)
    assert choose("fastembed,dynamic", without_peers=False) == ((), ("dynamic", "fastembed"))
    with pytest.raises(UnknownName, match="no runtime named 'tensorrt'"):
        choose("onnx,tensorrt", without_peers=False)
    with pytest.raises(UsageError):
        choose("peers", without_peers=True)


@pytest.fixture
def other_python(tmp_path):
    """An interpreter elsewhere, which notes what it is asked to run and can see."""
    path = tmp_path / "python"
    path.write_text(
        f'#!/bin/sh\necho "$@ $PYTHONPATH" >> {tmp_path}/log\nexec {sys.executable} "$@"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.slow
def test_from_a_checkpoint_to_a_table_with_a_peer_under_an_interpreter_of_its_own(
    toy_folder, tmp_path, command, other_python
):
    out = tmp_path / "o"
    options = ["--peer-python", other_python, "--artifacts", tmp_path / "a", "--out", out]
    options += ["--processes", 1, "--seed", 3]
    done = command("bench", toy_folder, "--runtime", "onnx,dynamic", *options)
    assert done.returncode == 0, done.stderr.decode()
    assert b"onnx int8: writing" in done.stderr
    text = (out / "latest.md").read_text("utf-8")
    assert done.stdout.decode() == text
    assert "x dynamic" in text
    assert "the engine alone" in text
    report = json.loads((out / "latest.json").read_text("utf-8"))
    assert report["settings"]["seed"] == 3
    ours, theirs = report["rows"]
    assert (ours["name"], theirs["name"], theirs["model"]) == ("onnx", "dynamic", "")
    assert ours["fidelity"]["cosine_mean"] > 0.998
    assert ours["below"] == []
    assert 0.9 < ours["fidelity"]["spearman"] <= 1
    assert 0 <= ours["fidelity"]["flipped"] < 0.5
    mixed = report["interchange"]["onnx"]["torch"]
    assert mixed["cosine_mean"] == pytest.approx(ours["fidelity"]["cosine_mean"])
    assert report["interchange"]["torch"]["torch"]["overlap_at_10"] == 1
    assert set(ours["latency"]) == {"8", "20", "128"}
    assert set(ours["throughput"]) == {"1", "2"}
    # Of the same checkpoint: compared with the same FP32 vectors, over all texts.
    assert theirs["fidelity"]["texts"] == ours["fidelity"]["texts"] == len(texts.load())
    assert 0.9 < theirs["fidelity"]["cosine_mean"] < 1
    assert (ours["padding"], theirs["padding"] > 0) == (0, True)
    for kind in ("faster", "faster_engine"):
        assert set(ours[kind]["dynamic"]) == {"8", "20", "128"}
    assert "tokenizers (peers)" in report["machine"]["packages"]
    log = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    ran = [words[2] for words in log]
    assert ran == ["asterisk.bench.prepare", *["asterisk.bench.worker"] * 3]
    home = str(Path(process.__file__).parents[2])
    assert all(words[3].split(os.pathsep)[0] == home for words in log)


def test_a_wrong_name_is_refused_before_anything_is_done(capsys):
    assert main(["--runtime", "tensorrt"]) == 2
    assert "no runtime named 'tensorrt'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        (".", 5, "is not a checkpoint"),
        ("nowhere", 2, "neither a checkpoint folder nor a name on the hub"),
        ("someone/nothing", 5, "cannot be fetched"),
    ],
)
def test_a_missing_checkpoint_is_one_line(tmp_path, command, name, status, told):
    options = ["--out", tmp_path / "o", "--runtime", "onnx,dynamic"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = command("bench", name, *options, cwd=tmp_path, env=environment)
    assert done.returncode == status
    assert told in done.stderr.decode()
    assert done.stderr.decode().count("\n") == 1
    assert not (tmp_path / "o").exists()


PREPARED = {
    "buckets": {"8": ["a", "b"], "20": ["c"], "128": ["d"]},
    "mixed": ["a", "b", "c"],
    "long": "long",
    "texts": ["one", "two"],
}
QUIET = {"load": 0.0, "governor": "performance", "temperature_c": 50.0}


class Board(Session):
    """This machine, under the firmware of a Raspberry Pi."""

    def __init__(self, words, temperatures=()):
        super().__init__(LOCAL)
        self.words, self.temperatures = list(words), list(temperatures)

    def state(self):
        word = self.words.pop(0)
        if word is None:
            raise process.CellError("it does not tell")
        told = machine.state() | QUIET | {"throttled": word}
        return told | ({"temperature_c": self.temperatures.pop(0)} if self.temperatures else {})


@pytest.fixture
def measured(tmp_path, row_of):
    """Measure two rows in two rounds; the board is looked at four times."""

    def run(board, load=0.0):
        effort = Effort(2, 1, 0.0, 3, 0.0, 0.2, 5)
        request = Request((), (), tmp_path, tmp_path, tmp_path, (1,), effort, 1, 60.0)
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        rows = {name: row_of(name) for name in ("good", "refuse")}
        work = Work(folder, rows, PREPARED, request, session=board, load=load)
        state = RunState()
        _on_target(work, LOCAL, list(rows.values()), state, lambda line: None)
        assert board.words == []
        return state

    return run


def test_a_run_that_was_throttled_is_void_for_every_row(measured):
    done = measured(Board(["0x20000", "0x20000", "0x60004", "0x60000"]))
    good, refuse = done.results
    assert good.invalid == refuse.invalid == ["throttled during the run: throttled"]
    assert good.latency["8"].samples == 6  # kept all the same
    told = done.targets["local"]
    states = [told["before"], *told["between"], told["after"]]
    assert [state["throttled"] for state in states] == ["0x20000", "0x20000", "0x60004", "0x60000"]
    assert told["warnings"] == [
        "before the run, since boot, the firmware saw: ARM frequency capped",
        "throttled during the run: throttled",
    ]


def test_a_run_that_was_not_is_sound(measured):
    done = measured(Board(["0x50000"] * 4, [50.0, 65.5, 51.0, 52.0]))
    assert [result.invalid for result in done.results] == [[], []]
    assert done.targets["local"]["warnings"] == [
        "before the run, since boot, the firmware saw: under-voltage, throttled",
        "the temperature rose from 50 to 66 °C",
    ]


def test_a_look_that_fails_costs_no_measurement(measured):
    done = measured(Board(["0x0", None, None, "0x0"]))
    assert done.targets["local"]["between"] == []
    good, refuse = done.results
    assert good.failures == []
    assert len(refuse.failures) == 3


def test_what_preparing_loaded_the_machine_with_is_no_reason_to_doubt(measured):
    """Exports and peers are built first; another program was there before that, or was not."""
    for load, warnings in ((0.1, []), (2.0, ["the machine was busy before the run (load 2.0)"])):
        done = measured(Busy(["0x0"] * 4), load)
        assert done.targets["local"]["warnings"] == warnings


class Busy(Board):
    def state(self):
        return super().state() | {"load": 1.4}

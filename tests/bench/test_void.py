"""A machine that is slowed down while it is measured."""

from __future__ import annotations

import pytest

from asterisk.bench import machine
from asterisk.bench import process as spawn
from asterisk.bench.collect import RunState as Done
from asterisk.bench.plan import Effort
from asterisk.bench.runner import Request, Work, _on
from asterisk.bench.targets import LOCAL, LocalSession

PREPARED = {
    "buckets": {"8": ["a", "b"], "20": ["c"], "128": ["d"]},
    "mixed": ["a", "b", "c"],
    "long": "long",
    "texts": ["one", "two"],
}
QUIET = {"load": 0.0, "governor": "performance", "temperature_c": 50.0}


class Board(LocalSession):
    """This machine, under the firmware of a Raspberry Pi."""

    def __init__(self, words, temperatures=()):
        super().__init__(LOCAL)
        self.words, self.temperatures = list(words), list(temperatures)

    def state(self):
        word = self.words.pop(0)
        if word is None:
            raise spawn.CellError("it does not tell")
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
        done = Done()
        _on(work, LOCAL, list(rows.values()), done, lambda line: None)
        assert board.words == []
        return done

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

"""One run against another, on synthetic samples and on those of 36 recorded processes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from asterisk.bench.comparison import Comparison, Limit, compare, parse_limits
from asterisk.bench.results import Report, RowResult
from asterisk.common.errors import UsageError

LIMITS = parse_limits("p50:5%,pss:3%,cosine:0.995,size:1%,instructions:1%")
TIMES = {"onnx": {"8": 0.12, "20": 0.21, "128": 1.1}, "tflite": {"8": 0.07, "20": 0.13, "128": 0.9}}
BETWEEN, WITHIN = 0.03, 0.1  # standard deviations of processes, and of calls in one
SAMPLES = 40
ROUNDS = 100
RECORDED = json.loads(Path(__file__).with_name("processes.json").read_text("utf-8"))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """The interval bears on no verdict and takes most of the time."""
    monkeypatch.setattr("asterisk.bench.statistics.RESAMPLES", 5)


@pytest.fixture
def made(report):
    """Make a report from rows, on the machine of the recorded one."""

    def make(rows: list[RowResult]) -> Report:
        runtimes = [row.name for row in rows]
        return replace(report, rows=rows, settings=report.settings | {"runtimes": runtimes})

    return make


def result(name="onnx", *, samples=None, pss=(), cosine=0.9994, **changed) -> RowResult:
    row = RowResult(name, name, "int8", False, 10_000_000)
    row.samples_ns = samples or {}
    row.weighings = [{"steady": {"pss": round(value)}} for value in pss]
    if cosine is not None:
        row.fidelity = {"cosine_mean": cosine, "overlap_at_10": 0.97}
    for attribute, value in changed.items():
        setattr(row, attribute, value)
    return row


def processes(draw: np.random.Generator, ms: float, count: int) -> list[list[int]]:
    """Calls of ``count`` processes: each process has a speed of its own, a few calls are late."""
    speed = np.exp(draw.normal(0, BETWEEN, (count, 1)))
    calls = np.exp(draw.normal(0, WITHIN, (count, SAMPLES)))
    late = np.where(draw.random((count, SAMPLES)) < 0.02, draw.uniform(1, 8, (count, SAMPLES)), 1)
    return (ms * 1e6 * speed * calls * late).astype(int).tolist()


def synthetic(draw, *, slower=1.0, heavier=0.0, cosine=0.9994, count=9) -> list[RowResult]:
    rows = []
    for name, times in TIMES.items():
        samples = {tokens: processes(draw, ms * slower, count) for tokens, ms in times.items()}
        pss = 30e6 + heavier + draw.normal(0, 0.02 * 30e6, count)
        rows.append(result(name, samples=samples, pss=pss.tolist(), cosine=cosine))
    return rows


def figures(found: Comparison) -> list[str]:
    return [line.figure for line in found.failed]


def verdicts(found: Comparison, figure: str) -> set[str]:
    return {line.verdict for line in found.lines if line.figure == figure}


@pytest.mark.parametrize("limits", [LIMITS, {"p50": Limit(0.0), "pss": Limit(0.0)}])
def test_the_same_against_itself_alarms_in_at_most_one_of_twenty(made, limits):
    """Also where no effect is too small, and the test alone has to tell noise from a change."""
    draw = np.random.default_rng(5)
    alarms = sum(
        bool(compare(made(synthetic(draw)), made(synthetic(draw)), limits).failed)
        for _ in range(ROUNDS)
    )
    assert alarms <= ROUNDS * 0.05


def test_recorded_processes_against_each_other_alarm_in_at_most_one_of_twenty(made):
    """Nine against nine others of the same 36, of a machine that was busy: up to 9 ms for 1.5."""
    draw = random.Random(5)
    alarms = 0
    for _ in range(ROUNDS):
        sides = []
        places = draw.sample(range(36), 18)
        for chosen in (places[:9], places[9:]):
            rows = [
                result(
                    name,
                    samples={
                        tokens: [[medians[place]] for place in chosen]
                        for tokens, medians in RECORDED["p50_ns"].get(name, {}).items()
                    },
                    pss=[read[place] for place in chosen],
                )
                for name, read in RECORDED["pss_bytes"].items()
            ]
            sides.append(made(rows))
        found = compare(*sides, LIMITS)
        assert sum(line.p is not None for line in found.lines) == 9
        alarms += bool(found.failed)
    assert alarms <= ROUNDS * 0.05


@pytest.mark.parametrize(
    ("figure", "change"),
    [
        ("p50", {"slower": 1.1}),
        ("pss", {"heavier": 5e6}),
        ("cosine", {"cosine": 0.9974}),
    ],
)
def test_what_got_worse_is_caught_and_nothing_else(made, figure, change):
    draw = np.random.default_rng(6)
    caught = others = 0
    for _ in range(20):
        found = compare(made(synthetic(draw)), made(synthetic(draw, **change)), LIMITS)
        caught += any(line.figure == figure for line in found.failed)
        others += any(line.figure != figure for line in found.failed)
    assert caught == 20
    assert others <= 1


def test_a_shift_in_recorded_processes_is_caught(made):
    """Odd against even ones, the even ones 10 % slower and 5 MB heavier."""
    rows = [
        [
            result(
                name,
                samples={
                    tokens: [[round(value * (1 + 0.1 * even))] for value in medians[even::2]]
                    for tokens, medians in RECORDED["p50_ns"].get(name, {}).items()
                },
                pss=[value + 5e6 * even for value in read[even::2]],
            )
            for name, read in RECORDED["pss_bytes"].items()
        ]
        for even in (0, 1)
    ]
    found = compare(made(rows[0]), made(rows[1]), LIMITS)
    assert verdicts(found, "pss") == {"regression"}
    assert [line.verdict for line in found.lines if line.row == "tflite"][:4] == ["regression"] * 4
    back = compare(made(rows[1]), made(rows[0]), LIMITS)
    assert verdicts(back, "pss") == {"better"}
    assert back.failed == []


@pytest.mark.parametrize("count", [1, 3, 8])
def test_with_fewer_than_nine_processes_nothing_is_decided(made, count):
    draw = np.random.default_rng(7)
    sides = [made(synthetic(draw, slower=1 + 2 * new, count=count)) for new in (0, 1)]
    for old, new in (sides, sides[::-1], (sides[0], sides[0])):
        found = compare(old, new, LIMITS)
        assert verdicts(found, "p50") == verdicts(found, "pss") == {"inconclusive"}
        assert verdicts(found, "cosine") == verdicts(found, "size") == {"ok"}
        assert found.failed == []
    mixed = compare(sides[0], made(synthetic(draw, slower=3, count=9)), LIMITS)
    assert verdicts(mixed, "p50") == {"inconclusive"}


def test_a_large_change_that_may_be_chance_is_no_pass(made):
    """Half of the processes are twice as slow: medians far apart, and yet no evidence."""
    fast, slow = [[100]] * 5 + [[200]] * 4, [[100]] * 4 + [[200]] * 5
    old, new = (made([result(samples={"8": list(some)})]) for some in (fast, slow))
    assert verdicts(compare(old, new, LIMITS), "p50") == {"inconclusive"}
    assert verdicts(compare(new, old, LIMITS), "p50") == {"inconclusive"}


def test_exact_figures_are_hard_whatever_the_number_of_processes(made):
    old = made([result(instructions={"8": 2.0, "20": 5.0})])

    def failing(**changed):
        return [
            (line.figure, line.verdict)
            for line in compare(old, made([result(**changed)]), LIMITS).failed
            if line.figure not in ("p50", "pss")
        ]

    same = {"instructions": {"8": 2.0, "20": 5.0}}
    assert failing(**same) == []
    assert failing(instructions={"8": 2.01, "20": 5.04}) == []
    assert failing(instructions={"8": 2.0, "20": 5.06}) == [("instructions", "regression")]
    assert failing(instructions={"8": 2.0}) == [("instructions", "missing")]
    assert failing(**same, size=10_090_000) == []
    assert failing(**same, size=10_110_000) == [("size", "regression")]
    assert failing(**same, cosine=0.9985) == []
    assert failing(**same, cosine=0.9974) == [("cosine", "regression")]
    assert failing(**same, cosine=None) == [("cosine", "missing")]
    assert failing(**same, below=["cosine_min is low"]) == [("cosine", "regression")]


def test_a_floor_holds_however_low_the_old_run_was(made):
    old = made([result(cosine=0.990)])
    assert [line.figure for line in compare(old, old, parse_limits("cosine:0.995")).failed] == [
        "cosine"
    ]
    assert compare(old, old, parse_limits("cosine:.99")).failed == []
    assert [line.figure for line in compare(old, old, parse_limits("overlap:0.98")).failed] == [
        "overlap"
    ]


def test_a_peer_s_fidelity_has_no_floor_but_may_not_fall(made):
    """MiniLM in int8 lies below 0.995 by itself."""
    old = made([result(cosine=0.9943, peer=True)])
    assert not compare(old, old, parse_limits("cosine:0.995")).failed
    new = made([result(cosine=0.9923, peer=True)])
    assert [line.figure for line in compare(old, new, parse_limits("cosine:0.995")).failed] == [
        "cosine"
    ]


def test_only_what_was_named_can_fail(made):
    old, new = made([result()]), made([result(cosine=0.9, size=20_000_000)])
    assert verdicts(compare(old, new, {}), "size") == {"regression"}
    assert compare(old, new, {}).failed == []
    assert [line.figure for line in compare(old, new, parse_limits("size:1%")).failed] == ["size"]


def test_what_is_gone_is_no_pass(made):
    old = made([result("onnx"), result("gguf")])
    new = made([result("onnx")])
    assert compare(old, new, parse_limits("size:1%")).failed == []  # nobody asked for gguf
    new.settings["runtimes"] = ["onnx", "gguf"]
    assert [line.row for line in compare(old, new, parse_limits("size:1%")).failed] == ["gguf"]
    old.rows.pop()
    never = compare(new, new, parse_limits("instructions:1%"))
    assert "instructions is in neither report: nothing was judged by it" in never.notes
    assert never.failed == []


def test_void_times_decide_nothing(made):
    draw = np.random.default_rng(8)
    old, new = made(synthetic(draw)), made(synthetic(draw, slower=2, heavier=1e7))
    new.rows[0].invalid = ["throttled"]
    old.rows[0].shared = ["onnxruntime"]
    found = compare(old, new, LIMITS)
    first = [line for line in found.lines if line.row == "onnx"]
    assert {line.verdict for line in first if line.figure in ("p50", "pss")} == {"inconclusive"}
    assert any("throttled" in line.why for line in first)
    assert {line.row for line in found.failed} == {"tflite"}


@pytest.mark.parametrize("name", ["cpu", "cores", "architecture", "isa"])
def test_unlike_machines_are_refused_where_times_matter(made, name):
    old = made([result()])
    new = replace(old, machine=old.machine | {name: "another"})
    with pytest.raises(UsageError, match=f"unlike machines.*{name} was .*--force"):
        compare(old, new, LIMITS)
    with pytest.raises(UsageError):
        compare(old, new, {})
    assert compare(old, new, LIMITS, force=True).notes
    exact = compare(old, new, parse_limits("cosine:0.99,size:1%"))
    assert exact.failed == []
    assert "times and memory are therefore not compared" in exact.notes
    assert not verdicts(exact, "pss") | verdicts(exact, "p50")


def test_a_target_is_compared_with_its_own_machine(made):
    rows = [result(target="ssh://pi"), result(target="emu:cortex-a72", instructions={"8": 1.0})]
    old, new = made(rows), made(rows)
    machines = {"ssh://pi": "ssh", "emu:cortex-a72": "emu"}
    old.targets = {
        name: {"kind": kind, "machine": {"cpu": "BCM2711"}} for name, kind in machines.items()
    }
    new.targets = {
        name: {"kind": kind, "machine": {"cpu": "BCM2711" if kind == "ssh" else "other host"}}
        for name, kind in machines.items()
    }
    new.machine = {"cpu": "another controller"}
    assert compare(old, new, parse_limits("instructions:1%")).failed == []
    compare(old, new, {})
    new.targets["ssh://pi"]["machine"] = {"cpu": "BCM2712"}
    with pytest.raises(UsageError, match="cpu on ssh://pi was BCM2711, is BCM2712"):
        compare(old, new, {})


def test_other_circumstances_are_told(made):
    old = made([result()])
    packages = {"numpy": "9.9", "new": "1"}
    changed = old.machine | {"packages": packages, "python": "4.0"}
    new = replace(old, machine=changed, checkpoint={"name": "toy", "fingerprint": "1"})
    notes = " ".join(chain(compare(old, new, {}).notes))
    assert "another checkpoint" in notes
    assert "python was 3.11.7, is 4.0" in notes
    assert "numpy was 2.4.6, is 9.9" in notes
    assert "new" not in notes.split()


@pytest.mark.parametrize(
    "text",
    [
        *("", "p50", "p50:", "p50:5", "p50:-5%", "p50:5%,", "p50:5%,p50:6%", "speed:5%", "p50:5MB"),
        *("cosine:5%", "cosine:1.1", "cosine:nan", "size:1e3%", "pss:5GB", "p50:99999%", "p50:٥%"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(text):
    with pytest.raises(UsageError, match="--fail-on"):
        parse_limits(text)


def test_limits():
    assert parse_limits("p50:5%, pss:5MB,cosine:0.995") == {
        "p50": Limit(0.05),
        "pss": Limit(amount=5.0),
        "cosine": Limit(amount=0.001, floor=0.995),
    }
    assert parse_limits("pss:5MB")["pss"].exceeded(100.0, 105.1)
    assert not parse_limits("pss:5MB")["pss"].exceeded(100.0, 105.0)

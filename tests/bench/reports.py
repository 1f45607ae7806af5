"""Reports to render: one in which everything is known, and odd ones without end."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st

from asterisk.bench.results import Report, RowResult
from asterisk.bench.statistics import summarise

RECORDED = Path(__file__).with_name("recorded.json")
HOSTILE = '<script>alert("x")</script>&\'|=1+1'


def recorded() -> Report:
    """Return the report that some earlier run left."""
    return Report.from_json(RECORDED.read_text("utf-8"))


def full() -> Report:
    """Return the recorded report with a figure for every field, on three targets."""
    report = recorded()
    report.warnings.append(f"a warning {HOSTILE}")
    rows = []
    for number, row in enumerate(report.rows, 1):
        row.samples_ns = {
            tokens: [
                [int(figures.p50 * 1e6 * (1 + 0.01 * (n % 7) + p * 0.1)) for n in range(60)]
                for p in range(3)
            ]
            for tokens, figures in row.latency.items()
        }
        row.parts_ms = {
            tokens: {"tokenize": 0.01 * number, "embed_ids": figures.p50 - 0.01 * number}
            for tokens, figures in row.latency.items()
        }
        row.memory["batch"] = {name: None if pss is None else pss + number * 1_000_000
                               for name, pss in row.memory["long"].items()}  # fmt: skip
        row.faster = {"original": {"8": 2.0 + number}, "minilm": {"128": 0.5 * number}}
        row.faster_engine = {peer: {"20": 3.0 + number} for peer in row.faster}
        row.padding = 0.1 * number
        if row.fidelity:
            row.fidelity |= {"texts": 900 + number, "spearman": 1 - number / 1e3}
            row.fidelity["flipped"] = number / 1e3
            row.stability = 1 - number / 1e6
        rows.append(row)
    pi = replace(deepcopy(rows[1]), target="ssh://pi@pi5.local:22", invalid=["it was throttled"])
    emulated = RowResult("onnx", "ONNX Runtime", "int8", peer=False, size=16_200_000)
    emulated.target = "emu:cortex-a53"
    emulated.instructions = {"8": 1.5, "20": 3.25, "128": 22.0}
    emulated.fidelity = dict(rows[1].fidelity or {})
    other = replace(deepcopy(emulated), name="other", title=HOSTILE)
    other.instructions = {tokens: 2 * figure for tokens, figure in emulated.instructions.items()}
    report.rows = [*rows, pi, emulated, other]
    report.targets = {
        "local": {"kind": "local", "machine": report.machine, "warnings": report.warnings},
        pi.target: {"kind": "ssh", "machine": {"cpu": "Raspberry Pi 5"}, "warnings": ["it is hot"]},
        emulated.target: {"kind": "emu", "machine": {"cpu": HOSTILE}, "warnings": []},
    }
    known = {"cosine_mean": 0.9995, "overlap_at_10": 0.987}
    report.interchange = {"torch": {"onnx": known, "gguf": known}, HOSTILE: {"onnx": known}}
    return report


words = st.text(max_size=30) | st.sampled_from([HOSTILE, "=1", "\x1b[2J", "\ud800", "a\nb", ""])
size = st.integers(0, 1 << 62)
maybe = st.none() | size
positive = st.floats(1e-12, 1e18, allow_nan=False) | st.integers(0, 1 << 61)
samples = st.lists(st.lists(st.integers(1, 1 << 50), min_size=1, max_size=40), max_size=4)
share = st.floats(-1, 1)
BUCKETS = ("8", "20", "128")


@st.composite
def rows(draw: st.DrawFn) -> RowResult:
    """Draw a row of which any part may be missing."""
    row = RowResult(draw(words), draw(words), draw(words), draw(st.booleans()), draw(size))
    row.target = draw(st.sampled_from(["local", "ssh://pi@pi5", "emu:cortex-a72"]))
    for tokens in draw(st.sets(st.sampled_from(BUCKETS))):
        found = draw(samples)
        figures = summarise(found or [[draw(st.integers(1, 1 << 50))]])
        row.latency[tokens] = figures
        if found:
            row.samples_ns[tokens] = found
    row.throughput = draw(st.dictionaries(st.sampled_from(["1", "2"]), positive))
    row.instructions = draw(st.just({}) | st.dictionaries(st.sampled_from(BUCKETS), positive))
    row.start_ms = draw(st.dictionaries(st.sampled_from(["import", "load", "first"]), positive))
    phases = st.sampled_from(["start", "import", "steady", "long", "batch", "other"])
    row.memory = draw(
        st.dictionaries(phases, st.dictionaries(st.sampled_from(["pss", "private"]), maybe))
    )
    named = st.sampled_from(["cosine_mean", "cosine_min", "overlap_at_10", "spearman"])
    row.fidelity = draw(st.none() | st.dictionaries(named, share))
    row.stability = draw(st.none() | share)
    for name in ("below", "invalid", "failures"):
        setattr(row, name, draw(st.lists(words, max_size=2)))
    return row


@st.composite
def odd(draw: st.DrawFn) -> Report:
    """Draw a report of up to five odd rows, or of none."""
    report = recorded()
    report.rows = draw(st.lists(rows(), max_size=5))
    report.warnings = draw(st.lists(words, max_size=2))
    report.checkpoint = {"name": draw(words)}
    report.targets = {"emu:cortex-a72": {"kind": "emu"}}
    report.interchange = draw(
        st.dictionaries(words, st.dictionaries(words, st.just({"cosine_mean": 0.5})), max_size=2)
    )
    return report

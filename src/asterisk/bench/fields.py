"""The columns of the tables: one list, from which every rendering is made.

A column is a heading, an explanation, a function from a row to its text and the numbers behind that
text. To add one, add it here: Markdown, CSV and HTML follow.
"""

from __future__ import annotations

from collections.abc import Callable

from asterisk.bench.cells import (
    FAILED,
    MB,
    NONE,
    UNAVAILABLE,
    Field,
    Group,
    Number,
    Show,
    Value,
    is_emulated,
    joined,
)
from asterisk.bench.plan import STEADY
from asterisk.bench.results import Report, RowResult
from asterisk.bench.time_fields import instruction_fields, time_fields


def fields(report: Report) -> list[Field]:
    """Return the columns of ``report``, in the order of the tables."""
    return [
        *_names(),
        *_summary(report),
        *time_fields(report),
        *instruction_fields(report),
        *_memory(report),
        *_fidelity(),
    ]


def _names() -> list[Field]:
    return [
        Field(
            "runtime",
            "the engine, or the system of others",
            lambda row: row.title,
            (Value("name", lambda row: row.name), Value("runtime", lambda row: row.title)),
            hides=False,
        ),
        Field(
            "recipe",
            "how the weights are stored and computed with",
            lambda row: row.recipe,
            (Value("recipe", lambda row: row.recipe),),
            hides=False,
        ),
        Field(
            "target",
            "the machine it ran on; emu is an emulated one, which has no times",
            lambda row: row.target,
            (Value("target", lambda row: row.target),),
        ),
    ]


def _summary(report: Report) -> list[Field]:
    """Return what a row is chosen by, once more in one table; the CSV has it from the others."""
    group = Group(
        "In short",
        "Median ms of one text on one thread, end to end / the engine alone; texts/s of a list of "
        "mixed lengths on one thread; MB of 10^6 bytes; cosine and overlap of ten neighbours with "
        "FP32 PyTorch of the same checkpoint.",
        lambda row: not is_emulated(report, row),
    )
    buckets = sorted({STEADY, max(report.settings["buckets"])} & {*report.settings["buckets"]})

    def latency(tokens: str) -> Show:
        def show(row: RowResult) -> str:
            figures = row.latency.get(tokens)
            whole = None if figures is None else figures.p50
            return joined((whole, row.parts_ms.get(tokens, {}).get("embed_ids")))

        return show

    def pss(row: RowResult) -> str:
        value = row.memory.get("steady", {}).get("pss")
        return NONE if value is None else f"{value / MB:.1f}"

    def rate(row: RowResult) -> str:
        return f"{row.throughput['1']:,.0f}" if "1" in row.throughput else NONE

    def fidelity(row: RowResult) -> str:
        # Another model is compared with its own FP32: that stands in the table of the fidelity.
        found = {} if row.model else row.fidelity or {}
        forms = {"cosine_mean": "{:.5f}", "cosine_min": "{:.4f}", "overlap_at_10": "{:.3f}"}
        texts = [forms[name].format(found[name]) if name in found else NONE for name in forms]
        return " / ".join(texts) if found else NONE

    columns = (
        *((f"{n} tokens, ms", "end to end / the engine alone", latency(str(n))) for n in buckets),
        ("texts/s", "texts a second of a long list, on one thread", rate),
        ("PSS, MB", "proportional set size after 200 calls at 20 tokens", pss),
        ("size, MB", "the model's files", lambda row: f"{row.size / MB:.1f}"),
        ("cosine mean / min / overlap@10", "agreement with FP32", fidelity),
    )
    timed = len(buckets) + 1
    return [
        Field(heading, about, show, (), group, timed=number < timed, hides=False)
        for number, (heading, about, show) in enumerate(columns)
    ]


def _memory(report: Report) -> list[Field]:
    any_real = any(not is_emulated(report, row) for row in report.rows)
    group = Group(
        "Memory and size",
        "MB of 10^6 bytes, of a process of its own that runs no clock. The model is its files, "
        "installed its packages and all they need.",
        lambda row: not (any_real and is_emulated(report, row)),
    )

    def field(heading: str, about: str, phase: str, kind: str) -> Field:
        def show(row: RowResult) -> str:
            if is_emulated(report, row):
                return NONE
            if phase not in row.memory:
                return NONE if row.memory else FAILED
            value = row.memory[phase].get(kind)
            return UNAVAILABLE if value is None else f"{value / MB:.1f}"

        def read(row: RowResult) -> Number | None:
            return None if is_emulated(report, row) else row.memory.get(phase, {}).get(kind)

        return Field(heading, about, show, (Value(f"{kind} {phase} (bytes)", read),), group)

    return [
        field("PSS, MB", "proportional set size after 200 calls at 20 tokens", "steady", "pss"),
        field("after 512", "PSS after one text of 512 tokens", "long", "pss"),
        field("after batch", "PSS after that and a list of 32 texts of 128", "batch", "pss"),
        field("private", "memory that no other process shares, as steady", "steady", "private"),
        field("peak RSS", "the largest resident set until then, as steady", "steady", "peak"),
        Field(
            "model, MB",
            "the artifact's or the checkpoint's files",
            lambda row: f"{row.size / MB:.1f}",
            (Value("model (bytes)", lambda row: row.size),),
            group,
        ),
        Field(
            "installed, MB",
            "the engine's packages and all they require, numpy included",
            lambda row: NONE if row.installed is None else f"{row.installed['bytes'] / MB:.0f}",
            (Value("installed (bytes)", lambda row: (row.installed or {}).get("bytes")),),
            group,
        ),
    ]


def _fidelity() -> list[Field]:
    group = Group(
        "Fidelity",
        "Against FP32 PyTorch of the same checkpoint, over the same texts; of a peer with another "
        "model, against its own FP32.",
        lambda row: True,
    )

    def field(heading: str, about: str, name: str, show: Callable[[float], str]) -> Field:
        def read(row: RowResult) -> Number | None:
            return (row.fidelity or {}).get(name)

        def text(row: RowResult) -> str:
            value = read(row)
            return NONE if value is None else show(value)

        return Field(heading, about, text, (Value(_UNITS.get(name, name), read),), group)

    return [
        field("cosine mean", "mean cosine to FP32", "cosine_mean", "{:.5f}".format),
        field("1 %", "1st percentile of the cosines to FP32", "cosine_p1", "{:.4f}".format),
        field("min", "smallest cosine to FP32", "cosine_min", "{:.4f}".format),
        field("overlap@10", "share of the same ten neighbours", "overlap_at_10", "{:.3f}".format),
        field(
            "Spearman", "rank correlation of all pairwise similarities", "spearman", "{:.4f}".format
        ),
        field(
            "flipped",
            "share of the duplicates (cosine of at least 0.7) that only one of this and FP32 finds",
            "flipped",
            "{:.1%}".format,
        ),
        Field(
            "stability",
            "smallest cosine between a text embedded alone and among texts of other lengths",
            lambda row: NONE if row.stability is None else f"{row.stability:.6f}",
            (Value("stability (cosine)", lambda row: row.stability),),
            group,
        ),
        field("texts", "how many texts were compared", "texts", "{:.0f}".format),
        Field(
            "state",
            "measured, below its thresholds, void (its times mean nothing), or failed",
            state,
            (
                Value("below thresholds", lambda row: "; ".join(row.below)),
                Value("void because", lambda row: "; ".join(row.invalid)),
                Value("failures", lambda row: "; ".join(row.failures)),
            ),
            group,
        ),
    ]


_UNITS = {
    **{name: f"{name} (cosine)" for name in ("cosine_mean", "cosine_p1", "cosine_min")},
    **{name: f"{name} (share)" for name in ("overlap_at_10", "flipped")},
    "spearman": "spearman (correlation)",
    "texts": "texts compared (count)",
}


def state(row: RowResult) -> str:
    """Say in a word how far the row's figures can be trusted."""
    told = (("below", row.below), ("void", row.invalid), ("failed", row.failures))
    return ", ".join(word for word, lines in told if lines) or "measured"

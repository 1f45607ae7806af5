"""The columns of the tables: one list, from which every rendering is made.

A column is a heading, an explanation, a function from a row to its text and the numbers behind that
text. To add one, add it here: Markdown, CSV and HTML follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from asterisk.bench.cells import FAILED, MB, NONE, UNAVAILABLE, Field, Group, Number, Value, joined
from asterisk.bench.results import Report, RowResult


def is_emulated(report: Report, row: RowResult) -> bool:
    """Return whether ``row`` ran under emulation, where times and memory mean nothing."""
    return report.targets.get(row.target, {}).get("kind") == "emu" or bool(row.instructions)


def fields(report: Report) -> list[Field]:
    """Return the columns of ``report``, in the order of the tables."""
    return [*_names(), *_time(report), *_instructions(report), *_memory(report), *_fidelity()]


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


def _time(report: Report) -> list[Field]:
    buckets: Sequence[int] = report.settings["buckets"]

    def real(row: RowResult) -> bool:
        return not is_emulated(report, row)

    latency = Group(
        "Latency",
        "ms, end to end (tokenise, infer, normalise), one text a call on one thread: "
        "p50 / p90 / p95. Struck out: below its recipe's fidelity thresholds, or void.",
        real,
    )
    peers = Group(
        "Against the systems of others",
        f"The peer's p50 over the row's at {_slashed(buckets)} tokens: 10 means ten times as fast.",
        real,
    )
    parts = Group(
        "Parts of a call",
        "Medians of the tokenizer alone / of the engine alone.",
        real,
    )
    rate = Group(
        "Throughput and start",
        "texts/s of a list of mixed lengths. Start is import, load and first vector, with the "
        "files in the page cache.",
        real,
    )
    return [
        *(_latency(tokens, latency) for tokens in map(str, buckets)),
        *(_faster(peer, buckets, peers) for peer in report.settings["peers"]),
        *(_parts(tokens, parts) for tokens in map(str, buckets)),
        *(_throughput(threads, rate) for threads in threads_of(report)),
        Field(
            "start, ms",
            "import, load and first vector together",
            lambda row: f"{sum(row.start_ms.values()):.0f}" if row.start_ms else FAILED,
            (Value("start (ms)", lambda row: sum(row.start_ms.values()) or None),),
            rate,
            timed=True,
        ),
        Field(
            "import / load / first, ms",
            "the start's three phases: importing the engine, loading the model, the first vector",
            lambda row: joined(row.start_ms.get(phase) for phase in _PHASES),
            tuple(Value(f"{phase} (ms)", _item("start_ms", phase)) for phase in _PHASES),
            rate,
            timed=True,
        ),
    ]


_PARTS = {"tokenize": "tokenise", "embed_ids": "infer"}
_PHASES = ("import", "load", "first")


def _parts(tokens: str, group: Group) -> Field:
    def part(name: str) -> Callable[[RowResult], float | None]:
        return lambda row: row.parts_ms.get(tokens, {}).get(name)

    return Field(
        f"at {tokens} tokens, ms",
        f"medians of the tokenizer alone / of the engine alone for {tokens} tokens",
        lambda row: joined(part(name)(row) for name in _PARTS),
        tuple(
            Value(f"{told} at {tokens} tokens (ms)", part(name)) for name, told in _PARTS.items()
        ),
        group,
        timed=True,
    )


def _latency(tokens: str, group: Group) -> Field:
    def show(row: RowResult) -> str:
        figures = row.latency.get(tokens)
        return FAILED if figures is None else joined((figures.p50, figures.p90, figures.p95))

    def read(name: str) -> Callable[[RowResult], Number | None]:
        return lambda row: getattr(row.latency.get(tokens), name, None)

    named = ("p50", "p90", "p95", "p99", "low", "high")
    return Field(
        f"{tokens} tokens, ms",
        f"p50 / p90 / p95 of one text of {tokens} tokens",
        show,
        tuple(Value(f"{name} at {tokens} tokens (ms)", read(name)) for name in named),
        group,
        timed=True,
    )


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 0.95 else f"{ratio:.2f}"


def _faster(peer: str, buckets: Sequence[int], group: Group) -> Field:
    def show(row: RowResult) -> str:
        ratios = row.faster.get(peer, {})
        told = [ratios.get(str(tokens)) for tokens in buckets]
        if not any(ratio is not None for ratio in told):
            return NONE
        return " / ".join(NONE if ratio is None else _times(ratio) for ratio in told)

    def read(tokens: str) -> Callable[[RowResult], Number | None]:
        return lambda row: row.faster.get(peer, {}).get(tokens)

    return Field(
        f"x {peer}",
        f"times as fast as {peer}, by tokens",
        show,
        tuple(
            Value(f"{peer} p50 over own at {tokens} tokens (ratio)", read(str(tokens)))
            for tokens in buckets
        ),
        group,
        timed=True,
    )


def threads_of(report: Report) -> list[str]:
    """Return the numbers of threads that were asked for, of all or of single targets."""
    asked = {str(count) for count in report.settings["threads"]}
    return sorted(asked.union(*(row.throughput for row in report.rows)), key=int)


def _throughput(threads: str, group: Group) -> Field:
    def show(row: RowResult) -> str:
        if threads in row.throughput:
            return f"{row.throughput[threads]:,.0f}"
        # A target may have threads of its own: then the others were not asked for.
        return NONE if row.throughput and not row.failures else FAILED

    counted = f"{threads} thread{'' if threads == '1' else 's'}"
    return Field(
        f"texts/s, {counted}",
        f"texts a second of a long list, on {counted}",
        show,
        (Value(f"throughput on {counted} (texts/s)", _item("throughput", threads)),),
        group,
        timed=True,
    )


def _instructions(report: Report) -> list[Field]:
    group = Group(
        "Instructions",
        "Million guest instructions an encode, counted under emulation: how much work it is, "
        "never how long it takes.",
        lambda row: is_emulated(report, row),
    )

    def field(tokens: str) -> Field:
        return Field(
            f"{tokens} tokens, M instr.",
            f"million instructions for one text of {tokens} tokens, emulated targets only",
            lambda row: (
                f"{row.instructions[tokens]:,.2f}"
                if tokens in row.instructions
                else (FAILED if is_emulated(report, row) else NONE)
            ),
            (
                Value(
                    f"instructions at {tokens} tokens (million)",
                    _item("instructions", tokens),
                ),
            ),
            group,
            timed=True,
        )

    found = {tokens for row in report.rows for tokens in row.instructions}
    return [field(tokens) for tokens in sorted(found, key=int)]


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
        "Against the row's own FP32 vectors of the same texts.",
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


def _item(attribute: str, key: str) -> Callable[[RowResult], Number | None]:
    def read(row: RowResult) -> Number | None:
        figures: Mapping[str, Number] = getattr(row, attribute)
        return figures.get(key)

    return read


def _slashed(numbers: Sequence[int]) -> str:
    return " / ".join(map(str, numbers))

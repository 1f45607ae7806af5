"""The columns of times: latency, parts, throughput, start; and of instructions in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from asterisk.bench.cells import FAILED, NONE, Field, Group, Number, Value, is_emulated, joined
from asterisk.bench.results import Report, RowResult


def time_fields(report: Report) -> list[Field]:
    """Return the columns of times and rates, in the order of the tables."""
    buckets: Sequence[int] = report.settings["buckets"]

    def real(row: RowResult) -> bool:
        return not is_emulated(report, row)

    latency = Group(
        "Latency",
        "ms, end to end (tokenise, infer, normalise), one text a call on one thread: "
        "p50 / p90 / p95. Struck out: below its recipe's fidelity thresholds, or void.",
        real,
    )
    told = f"The peer's over the row's at {_slashed(buckets)} tokens: 10 means ten times as fast."
    peers = Group("Against the systems of others", f"p50, end to end. {told}", real)
    engines = Group(
        "Against the systems of others, the engine alone",
        f"Medians for token ids that are given. {told}",
        real,
    )
    others = {row.name for row in report.rows if row.peer and row.model}
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
        *(
            _faster(peer, buckets, group, attribute, peer in others)
            for group, attribute in ((peers, "faster"), (engines, "faster_engine"))
            for peer in report.settings["peers"]
        ),
        *(_parts(tokens, parts) for tokens in map(str, buckets)),
        *(_throughput(threads, rate) for threads in threads_of(report)),
        Field(
            "padding",
            "share of padding among the tokens that the list is computed with",
            lambda row: NONE if row.padding is None else f"{row.padding:.0%}",
            (Value("padding (share)", lambda row: row.padding),),
            rate,
            hides=False,
        ),
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
    return f"{ratio:.1f}" if ratio >= 9.95 else f"{ratio:.2f}"


def _faster(
    peer: str, buckets: Sequence[int], group: Group, attribute: str, another_model: bool
) -> Field:
    def found(row: RowResult) -> Mapping[str, float]:
        ratios: Mapping[str, Mapping[str, float]] = getattr(row, attribute)
        return ratios.get(peer, {})

    def show(row: RowResult) -> str:
        ratios = found(row)
        told = [ratios.get(str(tokens)) for tokens in buckets]
        if not any(ratio is not None for ratio in told):
            return NONE
        return " / ".join(NONE if ratio is None else _times(ratio) for ratio in told)

    def read(tokens: str) -> Callable[[RowResult], Number | None]:
        return lambda row: found(row).get(tokens)

    engine = ", the engine alone" if attribute == "faster_engine" else ""
    what = f"{peer}{engine or ' p50'}"
    return Field(
        f"x {peer}{' (another model)' if another_model else ''}",
        f"times as fast as {peer}, by tokens{engine}",
        show,
        tuple(
            Value(f"{what} over own at {tokens} tokens (ratio)", read(str(tokens)))
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


def instruction_fields(report: Report) -> list[Field]:
    """Return a column for each length of which instructions were counted."""
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


def _item(attribute: str, key: str) -> Callable[[RowResult], Number | None]:
    def read(row: RowResult) -> Number | None:
        figures: Mapping[str, Number] = getattr(row, attribute)
        return figures.get(key)

    return read


def _slashed(numbers: Sequence[int]) -> str:
    return " / ".join(map(str, numbers))

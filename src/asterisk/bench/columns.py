"""The columns of the tables: one list, from which every rendering is made.

A column is a heading, an explanation, a function from a row to its text and the numbers behind that
text. To add one, add it here: Markdown, CSV and HTML follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from asterisk.bench.plan import STEADY
from asterisk.bench.results import Report, RowResult

NONE = "-"
UNAVAILABLE = "unavailable"
FAILED = "failed"
MB = 1e6
PARTS = {"tokenize": "tokenise", "embed_ids": "infer"}
PHASES = ("import", "load", "first")
Number = int | float
Show = Callable[[RowResult], str]
Read = Callable[[RowResult], Number | None]


@dataclass(frozen=True, slots=True)
class Group:
    """Columns that stand in one table; ``holds`` says which rows it is about."""

    title: str
    note: str
    holds: Callable[[RowResult], bool]


@dataclass(frozen=True, slots=True)
class Value:
    """A column of the CSV: a heading with its unit, and a row's number or text, None if unknown."""

    heading: str
    read: Callable[[RowResult], Number | str | None]


@dataclass(frozen=True, slots=True)
class Field:
    """A column: its heading, what it is, the text of a row's cell, and the ``values`` behind it.

    ``group`` is the table it stands in, None for the columns that name a row in all of them. The
    first of ``values`` is what a table is sorted by. ``timed`` cells mean nothing, and are struck
    out, where a row is invalid or below its thresholds. One that ``hides`` is stated once above the
    table where all rows agree.
    """

    heading: str
    about: str
    show: Show
    values: tuple[Value, ...]
    group: Group | None = None
    timed: bool = False
    hides: bool = True

    def struck(self, row: RowResult) -> bool:
        """Return whether this row's figure is to be struck out."""
        void = bool(row.below or row.invalid)
        return self.timed and void and self.show(row) not in (NONE, FAILED, UNAVAILABLE)


def joined(values: Iterable[float | None]) -> str:
    """Show some milliseconds, a dash for each that is missing; one dash if all are."""
    texts = [NONE if value is None else ms(value) for value in values]
    return " / ".join(texts) if set(texts) - {NONE} else NONE


def ms(value: float) -> str:
    """Show milliseconds with three significant digits."""
    return f"{value:.{2 if value >= 1 else 3}f}" if value < 10 else f"{value:.1f}"


def is_emulated(report: Report, row: RowResult) -> bool:
    """Return whether ``row`` ran under emulation, where times and memory mean nothing."""
    return report.targets.get(row.target, {}).get("kind") == "emu" or bool(row.instructions)


def threads_of(report: Report) -> list[str]:
    """Return the numbers of threads that were asked for, of all or of single targets."""
    asked = {str(count) for count in report.settings["threads"]}
    return sorted(asked.union(*(row.throughput for row in report.rows)), key=int)


def state(row: RowResult) -> str:
    """Say in a word how far the row's figures can be trusted."""
    reasons = (("below", row.below), ("void", row.invalid), ("failed", row.failures))
    return ", ".join(word for word, lines in reasons if lines) or "measured"


def fields(report: Report) -> list[Field]:
    """Return the columns of ``report``, in the order of the tables."""
    return [
        *_names(),
        *_summary(report),
        *_times(report),
        *_instructions(report),
        *_memory(report),
        *_fidelity(),
    ]


def _names() -> list[Field]:
    runtime, recipe, target = (attrgetter(name) for name in ("title", "recipe", "target"))
    names = (Value("name", attrgetter("name")), Value("runtime", runtime))
    stored = "how the weights are stored and computed with"
    where = "the machine it ran on; emu is an emulated one, which has no times"
    return [
        Field("runtime", "the engine, or the system of others", runtime, names, hides=False),
        Field("recipe", stored, recipe, (Value("recipe", recipe),), hides=False),
        Field("target", where, target, (Value("target", target),)),
    ]


def _figure(
    names: tuple[str, str], about: str, read: Read, form: Callable[[float], str], group: Group,
    *, missing: str = NONE, **options: bool,
) -> Field:  # fmt: skip
    """Return a column of one number; ``names`` are its headings in the tables and in the CSV."""

    def show(row: RowResult) -> str:
        number = read(row)
        return missing if number is None else form(number)

    return Field(names[0], about, show, (Value(names[1], read),), group, **options)


def _megabytes(size: float) -> str:
    return f"{size / MB:.1f}"


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
            whole = getattr(row.latency.get(tokens), "p50", None)
            return joined((whole, row.parts_ms.get(tokens, {}).get("embed_ids")))

        return show

    def pss(row: RowResult) -> str:
        value = row.memory.get("steady", {}).get("pss")
        return NONE if value is None else _megabytes(value)

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
        ("size, MB", "the model's files", lambda row: _megabytes(row.size)),
        ("cosine mean / min / overlap@10", "agreement with FP32", fidelity),
    )
    timed = len(buckets) + 1
    return [
        Field(heading, about, show, (), group, timed=number < timed, hides=False)
        for number, (heading, about, show) in enumerate(columns)
    ]


def _times(report: Report) -> list[Field]:
    buckets: Sequence[int] = report.settings["buckets"]
    lengths = " / ".join(map(str, buckets))

    def real(row: RowResult) -> bool:
        return not is_emulated(report, row)

    note = f"The peer's over the row's at {lengths} tokens: 10 means ten times as fast."
    others, alone = "Against the systems of others", "the engine alone"
    latency = Group(
        "Latency",
        "ms, end to end (tokenise, infer, normalise), one text a call on one thread: "
        "p50 / p90 / p95. Struck out: below its recipe's fidelity thresholds, or void.",
        real,
    )
    peers = Group(others, f"p50, end to end. {note}", real)
    engines = Group(f"{others}, {alone}", f"Medians for token ids that are given. {note}", real)
    parts = Group("Parts of a call", f"Medians of the tokenizer alone / of {alone}.", real)
    rate = Group(
        "Throughput and start",
        "texts/s of a list of mixed lengths. Start is import, load and first vector, with the "
        "files in the page cache.",
        real,
    )
    with_own_model = {row.name for row in report.rows if row.peer and row.model}
    return [
        *(_latency(tokens, latency) for tokens in map(str, buckets)),
        *(
            _faster(peer, buckets, group, attribute, peer in with_own_model)
            for group, attribute in ((peers, "faster"), (engines, "faster_engine"))
            for peer in report.settings["peers"]
        ),
        *(_parts(tokens, parts) for tokens in map(str, buckets)),
        *(_throughput(threads, rate) for threads in threads_of(report)),
        _figure(("padding", "padding (share)"),
                "share of padding among the tokens that the list is computed with",
                attrgetter("padding"), "{:.0%}".format, rate, hides=False),
        _figure(("start, ms", "start (ms)"), "import, load and first vector together",
                lambda row: sum(row.start_ms.values()) or None, "{:.0f}".format, rate,
                missing=FAILED, timed=True),
        Field("import / load / first, ms",
              "the start's three phases: importing the engine, loading the model, the first vector",
              lambda row: joined(row.start_ms.get(phase) for phase in PHASES),
              tuple(Value(f"{phase} (ms)", _item("start_ms", phase)) for phase in PHASES),
              rate, timed=True),
    ]  # fmt: skip


def _latency(tokens: str, group: Group) -> Field:
    def show(row: RowResult) -> str:
        figures = row.latency.get(tokens)
        return FAILED if figures is None else joined((figures.p50, figures.p90, figures.p95))

    def read(name: str) -> Read:
        return lambda row: getattr(row.latency.get(tokens), name, None)

    names = ("p50", "p90", "p95", "p99", "low", "high")
    values = tuple(Value(f"{name} at {tokens} tokens (ms)", read(name)) for name in names)
    about = f"p50 / p90 / p95 of one text of {tokens} tokens"
    return Field(f"{tokens} tokens, ms", about, show, values, group, timed=True)


def _parts(tokens: str, group: Group) -> Field:
    def part(name: str) -> Callable[[RowResult], float | None]:
        return lambda row: row.parts_ms.get(tokens, {}).get(name)

    def show(row: RowResult) -> str:
        return joined(part(name)(row) for name in PARTS)

    about = f"medians of the tokenizer alone / of the engine alone for {tokens} tokens"
    values = [Value(f"{word} at {tokens} tokens (ms)", part(name)) for name, word in PARTS.items()]
    return Field(f"at {tokens} tokens, ms", about, show, tuple(values), group, timed=True)


def _faster(
    peer: str, buckets: Sequence[int], group: Group, attribute: str, another_model: bool
) -> Field:
    def ratios(row: RowResult) -> list[float | None]:
        found: Mapping[str, Mapping[str, float]] = getattr(row, attribute)
        return [found.get(peer, {}).get(str(tokens)) for tokens in buckets]

    def text(ratio: float | None) -> str:
        return NONE if ratio is None else f"{ratio:.1f}" if ratio >= 9.95 else f"{ratio:.2f}"

    def show(row: RowResult) -> str:
        texts = [text(ratio) for ratio in ratios(row)]
        return " / ".join(texts) if set(texts) - {NONE} else NONE

    def read(number: int) -> Read:
        return lambda row: ratios(row)[number]

    engine = ", the engine alone" if attribute == "faster_engine" else ""
    what = f"{peer}{engine or ' p50'}"
    heading = f"x {peer}{' (another model)' if another_model else ''}"
    about = f"times as fast as {peer}, by tokens{engine}"
    values = tuple(
        Value(f"{what} over own at {tokens} tokens (ratio)", read(number))
        for number, tokens in enumerate(buckets)
    )
    return Field(heading, about, show, values, group, timed=True)


def _throughput(threads: str, group: Group) -> Field:
    def show(row: RowResult) -> str:
        if threads in row.throughput:
            return f"{row.throughput[threads]:,.0f}"
        # A target may have threads of its own: then the others were not asked for.
        return NONE if row.throughput and not row.failures else FAILED

    counted = f"{threads} thread{'' if threads == '1' else 's'}"
    about = f"texts a second of a long list, on {counted}"
    value = Value(f"throughput on {counted} (texts/s)", _item("throughput", threads))
    return Field(f"texts/s, {counted}", about, show, (value,), group, timed=True)


def _instructions(report: Report) -> list[Field]:
    """Return a column for each length of which instructions were counted."""
    group = Group(
        "Instructions",
        "Million guest instructions an encode, counted under emulation: how much work it is, "
        "never how long it takes.",
        lambda row: is_emulated(report, row),
    )

    return [
        _figure((f"{tokens} tokens, M instr.", f"instructions at {tokens} tokens (million)"),
                f"million instructions for one text of {tokens} tokens, emulated targets only",
                _item("instructions", tokens), "{:,.2f}".format, group,
                missing=FAILED, timed=True)
        for tokens in sorted({n for row in report.rows for n in row.instructions}, key=int)
    ]  # fmt: skip


def _item(attribute: str, key: str) -> Read:
    def read(row: RowResult) -> Number | None:
        figures: Mapping[str, Number] = getattr(row, attribute)
        return figures.get(key)

    return read


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
            return UNAVAILABLE if value is None else _megabytes(value)

        def read(row: RowResult) -> Number | None:
            return None if is_emulated(report, row) else row.memory.get(phase, {}).get(kind)

        return Field(heading, about, show, (Value(f"{kind} {phase} (bytes)", read),), group)

    return [
        field("PSS, MB", "proportional set size after 200 calls at 20 tokens", "steady", "pss"),
        field("after 512", "PSS after one text of 512 tokens", "long", "pss"),
        field("after batch", "PSS after that and a list of 32 texts of 128", "batch", "pss"),
        field("private", "memory that no other process shares, as steady", "steady", "private"),
        field("peak RSS", "the largest resident set until then, as steady", "steady", "peak"),
        _figure(("model, MB", "model (bytes)"), "the artifact's or the checkpoint's files",
                attrgetter("size"), _megabytes, group),
        _figure(("installed, MB", "installed (bytes)"),
                "the engine's packages and all they require, numpy included",
                lambda row: None if row.installed is None else row.installed["bytes"],
                lambda size: f"{size / MB:.0f}", group),
    ]  # fmt: skip


def _fidelity() -> list[Field]:
    group = Group(
        "Fidelity",
        "Against FP32 PyTorch of the same checkpoint, over the same texts; of a peer with another "
        "model, against its own FP32.",
        lambda row: True,
    )

    def field(heading: str, about: str, name: str, unit: str, form: str) -> Field:
        def read(row: RowResult) -> Number | None:
            return (row.fidelity or {}).get(name)

        return _figure((heading, unit.format(name)), about, read, form.format, group)

    cosine, share = "{} (cosine)", "{} (share)"
    ranks = "rank correlation of all pairwise similarities"
    flipped = (
        "share of the duplicates (cosine of at least 0.7) that only one of this and FP32 finds"
    )
    return [
        field("cosine mean", "mean cosine to FP32", "cosine_mean", cosine, "{:.5f}"),
        field("1 %", "1st percentile of the cosines to FP32", "cosine_p1", cosine, "{:.4f}"),
        field("min", "smallest cosine to FP32", "cosine_min", cosine, "{:.4f}"),
        field("overlap@10", "share of the same ten neighbours", "overlap_at_10", share, "{:.3f}"),
        field("Spearman", ranks, "spearman", "{} (correlation)", "{:.4f}"),
        field("flipped", flipped, "flipped", share, "{:.1%}"),
        _figure(("stability", "stability (cosine)"),
                "smallest cosine between a text embedded alone and among texts of other lengths",
                attrgetter("stability"), "{:.6f}".format, group),
        field("texts", "how many texts were compared", "texts", "texts compared (count)", "{:.0f}"),
        Field("state", "measured, below its thresholds, void (its times mean nothing), or failed",
              state, (Value("below thresholds", lambda row: "; ".join(row.below)),
                      Value("void because", lambda row: "; ".join(row.invalid)),
                      Value("failures", lambda row: "; ".join(row.failures))), group),
    ]  # fmt: skip

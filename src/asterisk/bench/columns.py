"""The columns of the tables: one list, from which Markdown, CSV and HTML are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from asterisk.bench.plan import STEADY
from asterisk.bench.results import Report, RowResult

NONE = "-"
UNAVAILABLE = "unavailable"
FAILED = "failed"
MB = 1e6
PARTS = {"tokenize": "tokenise", "embed_ids": "infer"}
PHASES = ("import", "load", "first")
# Heading, figure of the fidelity, its unit in the CSV, form and explanation.
FIDELITY = (
    ("cosine mean", "cosine_mean", "cosine", "{:.5f}", "mean cosine to FP32"),
    ("1 %", "cosine_p1", "cosine", "{:.4f}", "1st percentile of the cosines to FP32"),
    ("min", "cosine_min", "cosine", "{:.4f}", "smallest cosine to FP32"),
    ("overlap@10", "overlap_at_10", "share", "{:.3f}", "share of the same ten neighbours"),
    ("Spearman", "spearman", "correlation", "{:.4f}",
     "rank correlation of all pairwise similarities"),
    ("flipped", "flipped", "share", "{:.1%}",
     "share of the duplicates (cosine of at least 0.7) that only one of this and FP32 finds"),
)  # fmt: skip
Number = int | float
Show = Callable[[RowResult], str]
Read = Callable[[RowResult], Any]  # a number or text, None if unknown


@dataclass(frozen=True, slots=True)
class Group:
    """Columns that stand in one table; ``holds`` says which rows it is about."""

    title: str
    note: str
    holds: Callable[[RowResult], bool]


@dataclass(frozen=True, slots=True)
class Field:
    """A column: its heading, what it is, the text of a row's cell, and the ``values`` behind it.

    Those are the CSV's columns: headings with their units, and what each has of a row.
    """

    heading: str
    about: str
    show: Show
    values: Mapping[str, Read]  # a table is sorted by the first
    group: Group | None = None  # the table it stands in; None where it names a row in all of them
    timed: bool = False  # means nothing where a row is invalid or below its thresholds
    hides: bool = True  # is stated once above the table where all rows agree

    def struck(self, row: RowResult) -> bool:
        """Return whether this row's figure is to be struck out."""
        void = bool(row.below or row.invalid)
        return self.timed and void and self.show(row) not in (NONE, FAILED, UNAVAILABLE)

    def marked(self, row: RowResult) -> str:
        """Return the cell's text in Markdown."""
        return f"~~{self.show(row)}~~" if self.struck(row) else self.show(row)


def joined(texts: Iterable[str]) -> str:
    """Join the texts of some figures; one dash if all of them are missing."""
    texts = list(texts)
    return " / ".join(texts) if set(texts) - {NONE} else NONE


def ms(value: float | None) -> str:
    """Show milliseconds with three significant digits, a dash for None."""
    if value is None:
        return NONE
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
        Field("runtime", "the engine, or the system of others", _at("title"),
              {"name": _at("name"), "runtime": _at("title")}, hides=False),
        Field("recipe", "how the weights are stored and computed with", _at("recipe"),
              {"recipe": _at("recipe")}, hides=False),
        Field("target", "the machine it ran on; emu is an emulated one, which has no times",
              _at("target"), {"target": _at("target")}),
        *_summary(report),
        *_times(report),
        *_instructions(report),
        *_memory(report),
        *_fidelity(),
    ]  # fmt: skip


def _at(*path: str) -> Read:
    """Return a function from a row to what an attribute, or keys in it, have; None if missing."""

    def read(row: RowResult) -> Any:
        value: Any = row
        for key in path:
            value = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
        return value

    return read


def _text(read: Read, form: str, missing: str = NONE, unit: float = 1) -> Show:
    """Return a function from a row to the text of a number, shown as ``form`` in ``unit``."""

    def show(row: RowResult) -> str:
        number = read(row)
        return missing if number is None else form.format(number / unit)

    return show


def _figures(
    heading: str, about: str, group: Group, values: Mapping[str, Read], *,
    text: Callable[[Any], str] = ms, shown: int | None = None, missing: str = NONE,
) -> Field:  # fmt: skip
    """Return a timed column of several numbers, of which the first ``shown`` are in the tables."""
    reads = list(values.values())[:shown]

    def show(row: RowResult) -> str:
        found = joined(text(read(row)) for read in reads)
        return missing if found == NONE else found

    return Field(heading, about, show, values, group, timed=True)


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
        both = _at("latency", tokens, "p50"), _at("parts_ms", tokens, "embed_ids")
        return lambda row: joined(ms(read(row)) for read in both)

    def fidelity(row: RowResult) -> str:
        # Another model is compared with its own FP32: that stands in the table of the fidelity.
        found = {} if row.model else row.fidelity or {}
        forms = {"cosine_mean": "{:.5f}", "cosine_min": "{:.4f}", "overlap_at_10": "{:.3f}"}
        texts = [forms[name].format(found[name]) if name in found else NONE for name in forms]
        return " / ".join(texts) if found else NONE

    def field(heading: str, about: str, show: Show, *, timed: bool = False) -> Field:
        return Field(heading, about, show, {}, group, timed=timed, hides=False)

    alone, pss = "end to end / the engine alone", _at("memory", "steady", "pss")
    rate = _text(_at("throughput", "1"), "{:,.0f}")
    return [
        *(field(f"{n} tokens, ms", alone, latency(str(n)), timed=True) for n in buckets),
        field("texts/s", "texts a second of a long list, on one thread", rate, timed=True),
        field("PSS, MB", "proportional set size after 200 calls at 20 tokens", _megabytes(pss)),
        field("size, MB", "the model's files", _megabytes(_at("size"))),
        field("cosine mean / min / overlap@10", "agreement with FP32", fidelity),
    ]


def _megabytes(read: Read) -> Show:
    return _text(read, "{:.1f}", unit=MB)


def _times(report: Report) -> list[Field]:
    lengths = [str(tokens) for tokens in report.settings["buckets"]]

    def table(title: str, note: str) -> Group:
        return Group(title, note, lambda row: not is_emulated(report, row))

    note = f"The peer's over the row's at {' / '.join(lengths)} tokens: 10 means ten times as fast."
    others, alone = "Against the systems of others", "the engine alone"
    latency = table(
        "Latency",
        "ms, end to end (tokenise, infer, normalise), one text a call on one thread: "
        "p50 / p90 / p95. Struck out: below its recipe's fidelity thresholds, or void.",
    )
    peers = table(others, f"p50, end to end. {note}")
    engines = table(f"{others}, {alone}", f"Medians for token ids that are given. {note}")
    parts = table("Parts of a call", f"Medians of the tokenizer alone / of {alone}.")
    rate = table(
        "Throughput and start",
        "texts/s of a list of mixed lengths. Start is import, load and first vector, with the "
        "files in the page cache.",
    )
    other_models = {row.name for row in report.rows if row.peer and row.model}

    def quantiles(n: str) -> Field:
        about = f"p50 / p90 / p95 of one text of {n} tokens"
        names = ("p50", "p90", "p95", "p99", "low", "high")
        values = {f"{name} at {n} tokens (ms)": _at("latency", n, name) for name in names}
        return _figures(f"{n} tokens, ms", about, latency, values, shown=3, missing=FAILED)

    def faster(peer: str, group: Group, attribute: str, of: str, about: str) -> Field:
        heading = f"x {peer}{' (another model)' if peer in other_models else ''}"
        about = f"times as fast as {peer}, by tokens{about}"
        values = {
            f"{peer}{of} over own at {n} tokens (ratio)": _at(attribute, peer, n) for n in lengths
        }
        return _figures(heading, about, group, values, text=_ratio)

    def apart(n: str) -> Field:
        about = f"medians of the tokenizer alone / of the engine alone for {n} tokens"
        values = {f"{PARTS[p]} at {n} tokens (ms)": _at("parts_ms", n, p) for p in PARTS}
        return _figures(f"at {n} tokens, ms", about, parts, values)

    def start(row: RowResult) -> float | None:
        return sum(row.start_ms.values()) or None

    shares = "share of padding among the tokens that the list is computed with"
    phases = "the start's three phases: importing the engine, loading the model, the first vector"
    names = report.settings["peers"]
    suffix = f", {alone}"
    padding = _at("padding")
    return [
        *map(quantiles, lengths),
        *(faster(peer, peers, "faster", " p50", "") for peer in names),
        *(faster(peer, engines, "faster_engine", suffix, suffix) for peer in names),
        *map(apart, lengths),
        *(_throughput(threads, rate) for threads in threads_of(report)),
        Field("padding", shares, _text(padding, "{:.0%}"), {"padding (share)": padding}, rate,
              hides=False),
        Field("start, ms", "import, load and first vector together", _text(start, "{:.0f}", FAILED),
              {"start (ms)": start}, rate, timed=True),
        _figures("import / load / first, ms", phases, rate,
                 {f"{phase} (ms)": _at("start_ms", phase) for phase in PHASES}),
    ]  # fmt: skip


def _ratio(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.1f}" if ratio >= 9.95 else f"{ratio:.2f}"


def _throughput(threads: str, group: Group) -> Field:
    read = _at("throughput", threads)

    def show(row: RowResult) -> str:
        # A target may have threads of its own: then the others were not asked for.
        missing = NONE if row.throughput and not row.failures else FAILED
        return _text(read, "{:,.0f}", missing)(row)

    counted = f"{threads} thread{'' if threads == '1' else 's'}"
    about = f"texts a second of a long list, on {counted}"
    values = {f"throughput on {counted} (texts/s)": read}
    return Field(f"texts/s, {counted}", about, show, values, group, timed=True)


def _instructions(report: Report) -> list[Field]:
    group = Group(
        "Instructions",
        "Million guest instructions an encode, counted under emulation: how much work it is, "
        "never how long it takes.",
        lambda row: is_emulated(report, row),
    )

    def field(n: str) -> Field:
        read = _at("instructions", n)
        about = f"million instructions for one text of {n} tokens, emulated targets only"
        values = {f"instructions at {n} tokens (million)": read}
        show = _text(read, "{:,.2f}", FAILED)
        return Field(f"{n} tokens, M instr.", about, show, values, group, timed=True)

    return [field(n) for n in sorted({n for row in report.rows for n in row.instructions}, key=int)]


def _memory(report: Report) -> list[Field]:
    any_real = any(not is_emulated(report, row) for row in report.rows)
    group = Group(
        "Memory and size",
        "MB of 10^6 bytes, of a process of its own that runs no clock. The model is its files, "
        "installed its packages and all they need.",
        lambda row: not (any_real and is_emulated(report, row)),
    )

    def field(heading: str, about: str, phase: str, kind: str) -> Field:
        def read(row: RowResult) -> Number | None:
            return None if is_emulated(report, row) else row.memory.get(phase, {}).get(kind)

        def show(row: RowResult) -> str:
            missing = UNAVAILABLE if phase in row.memory else NONE if row.memory else FAILED
            return _text(read, "{:.1f}", NONE if is_emulated(report, row) else missing, MB)(row)

        return Field(heading, about, show, {f"{kind} {phase} (bytes)": read}, group)

    size, installed = _at("size"), _at("installed", "bytes")
    return [
        field("PSS, MB", "proportional set size after 200 calls at 20 tokens", "steady", "pss"),
        field("after 512", "PSS after one text of 512 tokens", "long", "pss"),
        field("after batch", "PSS after that and a list of 32 texts of 128", "batch", "pss"),
        field("private", "memory that no other process shares, as steady", "steady", "private"),
        field("peak RSS", "the largest resident set until then, as steady", "steady", "peak"),
        Field("model, MB", "the artifact's or the checkpoint's files", _megabytes(size),
              {"model (bytes)": size}, group),
        Field("installed, MB", "the engine's packages and all they require, numpy included",
              _text(installed, "{:.0f}", unit=MB), {"installed (bytes)": installed}, group),
    ]  # fmt: skip


def _fidelity() -> list[Field]:
    group = Group(
        "Fidelity",
        "Against FP32 PyTorch of the same checkpoint, over the same texts; of a peer with another "
        "model, against its own FP32.",
        lambda row: True,
    )

    def field(heading: str, value: str, read: Read, form: str, about: str) -> Field:
        return Field(heading, about, _text(read, form), {value: read}, group)

    texts = "how many texts were compared"
    stability = "smallest cosine between a text embedded alone and among texts of other lengths"
    trust = "measured, below its thresholds, void (its times mean nothing), or failed"
    reasons: dict[str, Read] = {
        "below thresholds": lambda row: "; ".join(row.below),
        "void because": lambda row: "; ".join(row.invalid),
        "failures": lambda row: "; ".join(row.failures),
    }
    return [
        *(
            field(heading, f"{name} ({unit})", _at("fidelity", name), form, about)
            for heading, name, unit, form, about in FIDELITY
        ),
        field("stability", "stability (cosine)", _at("stability"), "{:.6f}", stability),
        field("texts", "texts compared (count)", _at("fidelity", "texts"), "{:.0f}", texts),
        Field("state", trust, state, reasons, group),
    ]

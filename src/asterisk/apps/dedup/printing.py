"""Found clusters as a report to read, as JSON and as TSV."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from asterisk.apps.dedup.result import Found
from asterisk.common.terminal import printable

FIRST_WORDS = 72  # characters
SHOWN = 10  # clusters, and members of each, in a report
COLUMNS = ("cluster", "representative", "similarity", "row", "source", "key", "title", "text")

_CONTROLS = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}

Facts = Callable[[int], dict[str, str]]
"""Gives a row's ``source``, ``key``, ``title`` and ``text``."""


def write(found: Found, facts: Facts, format: str, file: TextIO, **told: Any) -> None:
    """Write ``found`` as "report", "json" or "tsv"; ``told`` are further facts of a JSON object."""
    for line in FORMATS[format](found, facts, told):
        file.write(line + "\n")


def report(found: Found, facts: Facts, told: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a report: counts, then the largest clusters with the members' cosines."""
    yield (
        f"{_many(found.rows, 'text')}: {found.exact:,} exact copies, {found.empty:,} empty, "
        f"{found.rows - found.exact - found.empty:,} compared"
        + ("" if found.complete else " within cells of their neighbours")
    )
    yield f"threshold {found.threshold:.4g}{told.get('chosen', '')}"
    if found.cut:
        yield f"{_many(found.cut, 'text')} longer than the model reads: compared by the beginning"
    share = found.removed / max(1, found.rows)
    yield (
        f"{_many(len(found.clusters), 'cluster')}; {found.removed:,} texts ({share:.1%}) repeat "
        f"another, {found.rows - found.removed:,} stay"
    )
    for number, cluster in enumerate(found.clusters[:SHOWN], 1):
        yield ""
        yield f"cluster {number}: {len(cluster.members):,} texts"
        yield f"  stays  {_line(facts(cluster.representative))}"
        others = [
            pair
            for pair in zip(cluster.similarities, cluster.members, strict=True)
            if pair[1] != cluster.representative
        ]
        for cosine, row in others[:SHOWN]:
            yield f"  {cosine:.3f}  {_line(facts(row))}"
        if len(others) > SHOWN:
            yield f"         and {len(others) - SHOWN:,} more"
    if len(found.clusters) > SHOWN:
        yield ""
        yield f"{_many(len(found.clusters) - SHOWN, 'more cluster')}; --format json or tsv has all"


def as_json(found: Found, facts: Facts, told: dict[str, Any]) -> Iterator[str]:
    """Yield one JSON object, a cluster a line within it."""
    head = {
        "threshold": found.threshold,
        "texts": found.rows,
        "empty": found.empty,
        "exact": found.exact,
        "truncated": found.cut,
        "complete": found.complete,
        "removed": found.removed,
        **{name: value for name, value in told.items() if name != "chosen"},
    }
    yield json.dumps(head)[:-1] + ', "clusters": ['
    for number, cluster in enumerate(found.clusters):
        members = [
            {"row": row, "similarity": round(cosine, 6), **_brief(facts(row))}
            for row, cosine in zip(cluster.members, cluster.similarities, strict=True)
        ]
        value = {"representative": cluster.representative, "members": members}
        yield json.dumps(value) + ("," if number + 1 < len(found.clusters) else "")
    yield "]}"


def as_tsv(found: Found, facts: Facts, _: dict[str, Any]) -> Iterator[str]:
    """Yield a header and a line a member, in cells that `escaped` made."""
    yield "\t".join(COLUMNS)
    for number, cluster in enumerate(found.clusters, 1):
        for row, cosine in zip(cluster.members, cluster.similarities, strict=True):
            stands = str(int(row == cluster.representative))
            cells = [str(number), stands, f"{cosine:.6f}", str(row)]
            yield "\t".join([*cells, *(escaped(value) for value in _brief(facts(row)).values())])


FORMATS: dict[str, Callable[[Found, Facts, dict[str, Any]], Iterator[str]]] = {
    "report": report,
    "json": as_json,
    "tsv": as_tsv,
}


def kept(found: Found, facts: Facts, as_table: bool, file: TextIO) -> None:
    """Write the records that stay, whole and in their order: JSON lines, or a table."""
    names = COLUMNS[4:]
    if as_table:
        file.write("\t".join(names) + "\n")
    for row in found.kept():
        record = facts(row)
        if as_table:
            file.write("\t".join(escaped(record[name]) for name in names) + "\n")
        else:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def escaped(text: str) -> str:
    r"""Return ``text`` as a cell: ``\\``, ``\t``, ``\n``, ``\r``, other controls as ``\x1b``."""
    if text.isprintable() and "\\" not in text:
        return text
    return _CONTROLS.sub(lambda found: _ESCAPES.get(found[0], f"\\x{ord(found[0]):02x}"), text)


def first_words(text: str, most: int = FIRST_WORDS) -> str:
    """Return the beginning of ``text``, safe to print."""
    text = printable(text[: 4 * most])
    if len(text) <= most:
        return text
    end = text.rfind(" ", most // 2, most)
    return text[: end if end > 0 else most - 1] + "…"


def _brief(record: dict[str, str]) -> dict[str, str]:
    return {**record, "text": first_words(record["text"])}


def _line(record: dict[str, str]) -> str:
    key = f" [{printable(record['key'])[:40]}]" if record["key"] else ""
    where = printable(record["source"]) + key
    return f"{first_words(record['title'] or record['text'])}  ({where})"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

"""Which column, or member, is a record's text, title and id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from asterisk.common.terminal import escaped
from asterisk.sources.document import Unreadable
from asterisk.sources.options import Options

TEXT = ("text", "body", "content")  # the first that is there, unless the user names one
TITLE = ("title",)
ID = ("id",)


class Columns(NamedTuple):
    """Positions from 0; None for a title or id that is not there."""

    text: int
    title: int | None
    id: int | None


def names(given: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names to look for."""
    return usual if given is None else (given,)


def numbered(options: Options) -> bool:
    """Tell whether columns are given, and all of them by number."""
    given = [options.field, options.title_field, options.id_field]
    told = [field for field in given if field is not None]
    return options.field is not None and all(_number(field) is not None for field in told)


def find(header: Sequence[str], options: Options, *, named: bool = True) -> Columns:
    """Return the columns by the names in ``header``, without regard to case, or by number.

    ``named`` False: the first row is no header, and numbers are all that counts.

    Unreadable if there is no text's column, or none that the user has named.
    """
    text = _place(header, options.field, TEXT, named)
    if text is None:
        if options.field is None and len(header) == 1:
            return Columns(0, None, None)
        has = escaped(", ".join(name.strip() for name in header[:20])[:200])
        raise Unreadable(
            f"no column {' or '.join(names(options.field, TEXT))} among: {has} "
            "(--field takes a name or a number)"
        )
    found = []
    for given, usual in ((options.title_field, TITLE), (options.id_field, ID)):
        place = _place(header, given, usual, named)
        if place is None and given is not None:
            raise Unreadable(f"no column {given}")
        found.append(place)
    return Columns(text, *found)


def _place(
    header: Sequence[str], given: str | None, usual: tuple[str, ...], named: bool
) -> int | None:
    number = None if given is None else _number(given)
    folded = [name.strip().casefold() for name in header] if named else []
    for name in names(given, usual):
        if name.casefold() in folded:
            return folded.index(name.casefold())
    return number - 1 if number is not None and number <= len(header) else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text[:9]) > 0 else None

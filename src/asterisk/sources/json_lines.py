"""JSON lines: a string, or an object with a text, perhaps a title and an id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from asterisk.sources.columns import ID, TEXT, TITLE, names
from asterisk.sources.document import Unreadable
from asterisk.sources.line_stream import ENDS, lines
from asterisk.sources.opening import Opened, Piece


def read_json_lines(file: Opened) -> Iterator[Piece]:
    """Yield a document a line; lines that are none are reported, blank ones are not."""
    options = file.options
    texts = names(options.field, TEXT)
    titles, ids = names(options.title_field, TITLE), names(options.id_field, ID)
    for number, line in lines(file):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            if not line.endswith(ENDS):
                raise Unreadable(f"{place} is not JSON and has no line end: cut off?") from None
            file.skip(place, "not JSON")
            continue
        if isinstance(value, str):
            yield Piece(place, str(number), "", value)
            continue
        text = _member(value, texts)
        if not isinstance(text, str):
            wanted = " or ".join(repr(name) for name in texts)
            file.skip(place, f"neither a string nor an object with a string in {wanted}")
            continue
        title, key = _member(value, titles), _member(value, ids)
        yield Piece(place, _key(key, number), title if isinstance(title, str) else "", text)


def _member(value: Any, wanted: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        for name in wanted:
            if value.get(name) is not None:
                return value[name]
    return None


def _key(given: Any, number: int) -> str:
    is_key = isinstance(given, (str, int)) and not isinstance(given, bool)
    return str(given if is_key else number)

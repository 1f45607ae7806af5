"""Preparations by name: which fields of a record make a row, and which rows are kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from asterisk.training.corpora.sources import Pick, Row

_PARAGRAPH = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Preset:
    """How records become rows, and the fewest words that each text of a row must have."""

    pick: Pick
    fewest_words: int
    summary: str


def newsroom(record: dict[str, Any]) -> Row:
    """Return an article's summary with its first paragraph; no row if it lacks one of them."""
    summary, text = record.get("summary"), record.get("text")
    if not isinstance(summary, str) or not isinstance(text, str):
        return ()
    paragraph = _PARAGRAPH.split(text.strip(), maxsplit=1)[0]
    return (summary, paragraph) if summary.strip() and paragraph else ()


PRESETS = {
    "newsroom": Preset(
        newsroom,
        fewest_words=6,
        summary="NEWSROOM's JSON lines: a summary with its article's first paragraph, both over "
        "five words, as the original project prepared them",
    )
}

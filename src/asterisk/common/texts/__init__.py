"""About a thousand real texts, for benchmarks, fidelity checks, golden vectors and tests.

``SOURCES.md`` says where each comes from and under which licence. The rows are shuffled once and
for all, so the first N of them are a varied sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["KINDS", "Text", "load"]

KINDS = ("news", "note", "question", "definition", "fragment", "passage", "rough")  # of a text


@dataclass(frozen=True, slots=True)
class Text:
    """One text, with its kind and the key of its source in ``SOURCES.md``."""

    id: str
    kind: str
    source: str
    text: str


@cache
def load() -> tuple[Text, ...]:
    """Return every text, in the order of the file."""
    table = files(__name__).joinpath("texts.tsv").read_text(encoding="utf-8")
    rows = table.removesuffix("\n").split("\n")[1:]
    return tuple(Text(*row.split("\t")) for row in rows)

"""What is deduplicated: documents from files, or those of an index with their vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from asterisk.apps.dedup.collecting import Collected, Copies
from asterisk.apps.dedup.normal import digest
from asterisk.apps.dedup.spool import Rows, Spool
from asterisk.apps.dedup.vectors import Vectors
from asterisk.common.vectors import to_int8

if TYPE_CHECKING:
    from asterisk.apps.search import Index
    from asterisk.sources import Document

NAMES = ("source", "key", "title", "text")


def gathered(documents: Iterable[Document], spool: Spool) -> Copies:
    """Put ``documents`` into ``spool``, to be compared by `text_of`."""
    collected = Collected(spool)
    for document in documents:
        value = _value(document)
        collected.append(value, text_of(value))
    return collected.finish()


def text_of(value: Any) -> str:
    """Return what is compared of a value in the spool: the title, unless the text repeats it."""
    _, _, title, text = value
    return text if not title or text.startswith(title) else f"{title}\n{text}"


def facts(spool: Spool, row: int) -> dict[str, str]:
    """Return what a row is, by name."""
    return dict(zip(NAMES, spool[row], strict=True))


def from_index(index: Index, spool: Spool) -> tuple[Copies, Vectors]:
    """Put an index's documents into ``spool``; return the vectors of the distinct ones as well.

    A document's vector is the mean of its passages'.
    """
    numbers: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    rows = Rows(np.int8)
    for ids, block in index.vectors():
        numbers.append(np.array(ids, np.int64))
        rows.append(to_int8(np.ascontiguousarray(block, np.float32)))
    passages = Vectors(rows.finish(index.dimension), rows.release)
    ids = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
    collected, made = Collected(spool), Rows(np.int8)
    own: list[int] = []
    known: set[bytes] = set()
    last: Document | None = None

    def complete() -> None:
        if last is None:
            return
        value = _value(last)
        told = digest(text_of(value))
        collected.append(value, told)
        if told and told not in known:  # copies have the first one's vector
            known.add(told)
            made.append(_mean(passages, np.array(own)))

    for place in np.argsort(ids, kind="stable"):
        document, _ = index.passage(int(ids[place]))
        if last is None or (document.source, document.key) != (last.source, last.key):
            complete()
            last, own = document, []
        own.append(int(place))
    complete()
    return collected.finish(), Vectors(made.finish(index.dimension), made.release)


def _mean(passages: Vectors, own: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    if len(own) == 1:
        return passages.rows[own]
    lengths = np.sqrt(np.maximum(passages.squares[own], 1))[:, None]
    mean = (passages.rows[own] / lengths).mean(axis=0, keepdims=True)
    return to_int8(mean.astype(np.float32))


def _value(document: Document) -> list[str]:
    return [document.source, document.key, document.title, document.text]

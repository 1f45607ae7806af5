"""Labelled texts: ``label<TAB>text`` a line, UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asterisk.common.digest import sha256
from asterisk.common.errors import InputError
from asterisk.common.text_files import read_records as read

LONGEST_LABEL = 200  # characters
MOST_LABELS = 10_000


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts and the label of each; ``places`` say where each stands, for messages."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    places: tuple[str, ...]


def load(path: Path) -> Labelled:
    """Read a file, or standard input for ``-``.

    A text may hold further tabs. InputError names the line that has no tab, no text, or a label
    that cannot be one; blank lines are passed over.
    """
    rows = list(_rows(path))
    if not rows:
        raise InputError(f"{path}: no labelled texts")
    labels, texts, places = zip(*rows, strict=True)
    return Labelled(texts, labels, places)


def held_out(given: Labelled, share: int) -> tuple[list[int], list[int]]:
    """Split the texts by their hash: the numbers of those kept, and of one in ``share`` apart.

    A text stands on the same side in every file and every run. InputError if a side is empty.
    """
    sides: tuple[list[int], list[int]] = ([], [])
    for number, text in enumerate(given.texts):
        digest = sha256()
        digest.update(text.encode("utf-8", "replace"))
        sides[digest.digest()[0] % share == 0].append(number)
    if not all(sides):
        raise InputError("too few texts to hold some apart: name others by --dev")
    return sides


def check_label(label: str) -> str:
    """Return ``label``; InputError if it is empty, too long, or would spoil a line of output."""
    if not label.strip() or len(label) > LONGEST_LABEL or not label.isprintable():
        raise InputError(f"{label[:40]!r} cannot be a label")
    return label


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    for record in read([path], json_lines=False, field=""):
        if not record.text.strip():
            continue
        label, tab, text = record.text.partition("\t")
        if not tab:
            raise InputError(f"{record.place}: no tab between label and text")
        if not text.strip():
            raise InputError(f"{record.place}: empty text")
        try:
            yield check_label(label.strip()), text, record.place
        except InputError as failure:
            raise InputError(f"{record.place}: {failure}") from None

"""Texts to search: files that are given, else those that ship, repeated with edits.

Standard library only; a ``.zst`` file needs the zstandard package.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asterisk.common import texts
from asterisk.common.errors import InputError
from asterisk.common.text_files import lines

SUMMARIES = ("eval/agnews/train.tsv", "eval/agnews/test.tsv")
PASSAGES = ("train/wiki_section_passage.tsv.zst", "train/wiki_title_lead.tsv.zst")
SHORTEST = 30  # characters: below this a row is a heading, not a text
QUERY_WORDS = 8
SEED = 7


@dataclass(frozen=True, slots=True)
class Corpus:
    """Distinct texts to index, queries from texts that are not indexed, and where they are from."""

    source: str
    texts: tuple[str, ...]
    queries: tuple[str, ...]


def corpus(files: Sequence[Path], size: int, queries: int) -> Corpus:
    """Return ``size`` texts and ``queries`` queries from ``files``, or from what ships if none.

    Of a line with tabs the last column is the text. A query is the first eight words of a text
    that is not indexed. InputError for files with fewer texts.
    """
    if not files:
        source = f"{len(texts.load())} texts that ship, repeated with edits"
        rows: Iterator[str] = _edited()
    else:
        source = ", ".join(file.name for file in files)
        rows = _rows(files)
    found: dict[str, None] = {}
    for text in rows:
        found[text] = None
        if len(found) == size + queries:
            break
    else:
        raise InputError(f"{source}: {len(found)} texts, and {size + queries} are needed")
    every = list(found)
    # What is asked comes from all over the files, as what is found does.
    random.Random(SEED).shuffle(every)
    asked = tuple(" ".join(text.split()[:QUERY_WORDS]) for text in every[size:])
    return Corpus(source, tuple(every[:size]), asked)


def there(data: Path, names: Sequence[str]) -> list[Path]:
    """Return the files ``names`` in ``data``; none unless all are there and can be read."""
    found = [data / name for name in names]
    readable = any(name.endswith(".zst") for name in names) <= _has_zstandard()
    return found if readable and all(file.is_file() for file in found) else []


def _has_zstandard() -> bool:
    from importlib.util import find_spec

    return find_spec("zstandard") is not None


def _rows(files: Sequence[Path]) -> Iterator[str]:
    for file in files:
        for _, line in lines(file, errors="replace"):
            text = line.rpartition("\t")[2].strip()
            if len(text) >= SHORTEST:
                yield text


def _edited() -> Iterator[str]:
    """Give the texts that ship, then again and again with some words of another one put in."""
    draw = random.Random(SEED)
    shipped = [text.text for text in texts.load() if len(text.text) >= SHORTEST]
    yield from shipped
    while True:
        for text in shipped:
            words, others = text.split(), draw.choice(shipped).split()
            at, start = draw.randrange(len(words) + 1), draw.randrange(len(others))
            yield " ".join([*words[:at], *others[start : start + 3], *words[at:]])

"""WordPiece over one mapped table, with BERT's normaliser and pre-tokeniser.

The ids are those of Hugging Face's tokenizers with ``split_special_tokens=True``. Everything that
is known about characters is in the table, so they are the same on every Python.
"""

from __future__ import annotations

import mmap
import os
import re
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from asterisk.tokenizer.mapped import map_file
from asterisk.tokenizer.tokenizer import SURROGATES, Tokenizer, joined_surrogates
from asterisk.tokenizer.wordpiece_table import (
    APART,
    HANGUL,
    KEPT,
    REMOVED,
    REMOVED_STARTER,
    SPACE,
    STARTER,
    Table,
)

_CHUNK = re.compile(r"[^ \t\n\r]+")  # these four are white space to every normaliser
_CHUNK_AFTER_SPACE = re.compile(r"[ \t\n\r]*[^ \t\n\r]+|[ \t\n\r]+")
_STARTERS = re.compile(f"{STARTER}+")
_KEPT_CHUNKS = 8192  # about 200 bytes each
_KEPT_LENGTH = 24  # characters; longer chunks seldom come back
_KEPT_POINTS = 2048  # about 100 bytes each
_STEP = 4096  # characters of a longer chunk that are read at once


class WordPiece(Tokenizer):
    """Text to token ids. Pickles as its path, or whole where it has none."""

    __slots__ = ("_chunks", "_table")

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        """Read the table in ``data``; ArtifactError if it is not a sound one."""
        self._table = table = Table(data, path)
        self._chunks = _Chunks(table)
        self.vocab_size = table.facts[0]
        self.prefix = tuple(table.prefix)
        self.suffix = tuple(table.suffix)
        self.pad_id = table.facts[4] - 1 if table.facts[4] else None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> WordPiece:
        """Map the table at ``path``, about 1 MB, and check all of it.

        Raises ArtifactError if it cannot be read or is not a sound table.
        """
        return cls(map_file(path), Path(path))

    def __reduce__(self) -> tuple[object, ...]:
        if self._table.path is None:
            return WordPiece, (bytes(self._table.data),)
        return WordPiece.open, (self._table.path,)

    def words(self, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield pieces of ``text``, each with its ids; joined, the pieces are ``text``.

        A piece is what stands between two places with white space, led by it; a longer one is cut
        beside punctuation and ideographs too.
        """
        for match in _CHUNK_AFTER_SPACE.finditer(text):
            piece = match[0]
            parts = [piece] if len(piece) <= _KEPT_LENGTH else self._chunks.cut(piece)
            for part in parts:
                yield part, self._chunks[part.strip(" \t\n\r")]

    def _all(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._chunks.__getitem__, text.split(" "))))

    def _first(self, text: str, limit: int) -> list[int]:
        if len(text) <= 8 * limit + 64:
            return self._all(text)[:limit]
        ids: list[int] = []
        for match in _CHUNK.finditer(text):
            if match.end() - match.start() <= _STEP:
                ids += self._chunks[match[0]]
            else:
                ids += self._chunks.first(match[0], limit - len(ids))
            if len(ids) >= limit:
                break
        return ids[:limit]


class _Chunks(dict[str, tuple[int, ...]]):
    """Text without spaces to ids, a bounded memory that fills itself; a look-up never fails.

    White space is never anything but the end of a word, so a text is its chunks one by one. Safe
    in several threads: an entry never changes, and losing one costs only time.
    """

    __slots__ = (
        "_buckets",
        "_classes",
        "_composed",
        "_continuing",
        "_longest",
        "_longest_word",
        "_movable",
        "_shift",
        "_table",
        "_unknown",
    )

    def __init__(self, table: Table) -> None:
        self._table = table
        self._buckets = table.buckets
        self._shift = 33 - len(self._buckets).bit_length()
        self._continuing = bytes(table.continuing)
        _, self._unknown, self._longest_word, self._longest, _ = table.facts
        self._composed = _Composed(table)
        self._classes = {chr(entry >> 8): entry & 0xFF for entry in table.combining}
        self._movable: re.Pattern[str] | None = None

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        ids = tuple(self._ids(chunk))
        if len(chunk) <= _KEPT_LENGTH:
            if len(self) >= _KEPT_CHUNKS:
                self.clear()
            self[chunk] = ids
        return ids

    def _ids(self, chunk: str) -> list[int]:
        if not chunk.isascii() and SURROGATES.search(chunk):
            chunk = joined_surrogates(chunk)
        ids: list[int] = []
        for word in chunk.translate(self._composed).split(" "):
            if word:
                self._add(word, ids)
        return ids

    def first(self, chunk: str, limit: int) -> list[int]:
        """Return at least ``limit`` ids of a long ``chunk`` or all, and read no more of it."""
        ids: list[int] = []
        rest, at = "", 0
        while at < len(chunk) and len(ids) < limit:
            end = at + _STEP
            if "\ud800" <= chunk[end - 1 : end] <= "\udbff":
                end += 1  # perhaps a surrogate pair
            part = chunk[at:end]
            if not part.isascii():
                part = joined_surrogates(part)
            *words, rest = (rest + part.translate(self._composed)).split(" ")
            for word in words:
                if word:
                    self._add(word, ids)
            if len(rest) > _STEP:
                rest = self._shortened(rest)
            at = end
        if rest and len(ids) < limit:
            self._add(rest, ids)
        return ids

    def _shortened(self, word: str) -> str:
        """Return a start of a word, made short, that ends in the same ids."""
        kept = word.replace(STARTER, "")
        if len(kept) > self._longest_word:
            return kept[: self._longest_word + 1]  # [UNK], whatever follows
        return _STARTERS.sub(STARTER, word)

    def cut(self, piece: str) -> list[str]:
        """Return ``piece`` in parts, cut where one character ends a word or begins another."""
        if SURROGATES.search(piece):
            return [piece]
        parts, start, ended = [], 0, False
        for i, character in enumerate(piece):
            composed = self._composed[ord(character)]
            if (ended or composed.startswith(" ")) and piece[start:i].strip(" \t\n\r"):
                parts.append(piece[start:i])
                start = i
            ended = composed.endswith(" ")
        return [*parts, piece[start:]]

    def _add(self, word: str, ids: list[int]) -> None:
        """Add the ids of ``word``, a composed string without spaces, to ``ids``."""
        if word.isascii():
            data = word.encode()
        else:
            if self._classes:
                word = self._ordered(word)
            if not word:
                return
            data = word.encode()
        if len(word) > self._longest_word:
            ids.append(self._unknown)
            return
        token = self._find(data)
        if token >= 0:
            ids.append(token)
            return
        # The longest token that the rest begins with, again and again.
        tokens: list[int] = []
        start, length, head = 0, len(word), b""
        while start < length:
            for end in range(min(length, start + self._longest), start, -1):
                token = self._find(head + word[start:end].encode())
                if token >= 0:
                    break
            else:
                ids.append(self._unknown)
                return
            tokens.append(token)
            start, head = end, self._continuing
        ids += tokens

    def _find(self, token: bytes) -> int:
        """Return the id of ``token``, -1 if it is not in the vocabulary."""
        table, key = self._table, zlib.crc32(token)
        bucket, mark = key >> self._shift, key & 0xFFFF
        for i in range(self._buckets[bucket], self._buckets[bucket + 1]):
            if table.marks[i] == mark:
                start, end = table.offsets[i], table.offsets[i + 1]
                if table.data[table.text_start + start : table.text_start + end] == token:
                    return int(table.ids[i])
        return -1

    def _ordered(self, word: str) -> str:
        """Return ``word`` in canonical order; what is left to order is rare."""
        movable = self._movable
        if movable is None:
            self._movable = movable = re.compile(f"[{''.join(self._classes)}]{{2,}}")
        word = movable.sub(lambda run: "".join(sorted(run[0], key=self._classes.__getitem__)), word)
        return word.replace(STARTER, "")


class _Composed(dict[int, str]):
    """Code point to what normaliser and pre-tokeniser make of it, found when first asked for."""

    __slots__ = ("_table",)

    def __init__(self, table: Table) -> None:
        self._table = table

    def __missing__(self, point: int) -> str:
        runs = self._table.runs
        kind = runs[bisect_right(runs, point << 3 | 7) - 1] & 7
        if kind == KEPT:
            composed = chr(point)
        elif kind == SPACE:
            composed = " "
        elif kind == REMOVED:
            composed = ""
        elif kind == REMOVED_STARTER:
            composed = STARTER
        elif kind == APART:
            composed = f" {chr(point)} "
        elif kind == HANGUL:
            composed = _jamo(point)
        else:
            composed = self._replacement(point)
        if len(self) >= _KEPT_POINTS:
            self.clear()
        self[point] = composed
        return composed

    def _replacement(self, point: int) -> str:
        table = self._table
        i = bisect_left(table.from_points, point)
        if i == len(table.from_points) or table.from_points[i] != point:
            return chr(point)
        start, end = table.to_ends[i], table.to_ends[i + 1]
        return bytes(table.to[start:end]).decode("utf-8", "surrogatepass")


def _jamo(point: int) -> str:
    """Return the letters of a Hangul syllable (The Unicode Standard, 3.12)."""
    syllable = point - 0xAC00
    lead, vowel, tail = syllable // 588, syllable % 588 // 28, syllable % 28
    letters = chr(0x1100 + lead) + chr(0x1161 + vowel)
    return letters + chr(0x11A7 + tail) if tail else letters

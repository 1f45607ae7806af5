"""WordPiece over one mapped table, with BERT's normaliser and pre-tokeniser.

The ids are those of Hugging Face's tokenizers with ``split_special_tokens=True``. Everything that
has to be known about characters is in the table, so they are the same on every Python.
"""

from __future__ import annotations

import mmap
import re
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from asterisk.tokenizer.tokenizer import (
    SURROGATES,
    U8,
    U16,
    U32,
    MappedTable,
    Tokenizer,
    joined_surrogates,
)

# What becomes of a code point.
KEPT, SPACE, REMOVED, REMOVED_STARTER, APART, HANGUL, REPLACED = range(7)
# Stands in the composed string for a removed character of no combining class: characters with a
# class do not change places across it. It never comes from a text, where surrogates are read first.
STARTER = "\ud800"
_CHUNK = re.compile(r"[^ \t\n\r]+")  # these four are white space to every normaliser
_CHUNK_AFTER_SPACE = re.compile(r"[ \t\n\r]*[^ \t\n\r]+|[ \t\n\r]+")
_STARTERS = re.compile(f"{STARTER}+")
_CACHED_CHUNKS = 8192  # about 200 bytes each
_CACHED_LENGTH = 24  # characters; longer chunks seldom come back
_CACHED_POINTS = 2048  # about 100 bytes each
_STEP = 4096  # characters of a longer chunk that are read at once


class WordPieceTable(MappedTable):
    """A WordPiece tokenizer's file.

    What the normaliser and the pre-tokeniser make of each code point is composed into one string,
    in which spaces end words.
    """

    magic = b"astrWPC1"

    runs: U32  # first code point << 3 | kind (KEPT, ...) of each run of code points of one kind
    from_points: U32  # the code points of kind REPLACED, ascending
    to_ends: U32  # where the replacement of each begins in `to`, in bytes; one more
    combining: U32  # code point << 8 | combining class of each character that has one and is not
    # removed, ascending; empty unless accents are stripped
    buckets: U32  # where the tokens of each CRC-32 >> shift begin; one more at the end
    ids: U32  # the vocabulary's id of each token, by CRC-32
    offsets: U32  # where the text of each token begins, by CRC-32; one more at the end
    prefix: U32  # ids of the special tokens before a text
    suffix: U32  # and after it
    facts: U32  # vocabulary size; id of [UNK]; most characters of a word; characters of the longest
    # token; id + 1 of the padding token, 0 if there is none
    marks: U16  # CRC-32 & 0xffff of each token
    to: U8  # the replacements in UTF-8, with lone surrogates
    continuing: U8  # what a token within a word begins with, "##"
    text: U8  # the tokens in UTF-8, one after the other

    def consistent(self) -> bool:
        """Whether every index that the file holds stays inside the section it points into."""
        tokens, buckets = len(self.ids), len(self.buckets) - 1
        if len(self.facts) != 5 or not tokens:
            return False
        size, unknown, _, _, pad = self.facts
        return (
            tokens <= size
            and max(self.ids) < size
            and max(unknown, pad - 1, *self.prefix, *self.suffix) < size
            and buckets > 0
            and buckets & (buckets - 1) == 0
            and buckets <= 1 << 32
            and max(self.buckets) == tokens
            and len(self.marks) == tokens
            and len(self.offsets) == tokens + 1
            and max(self.offsets) == len(self.text)
            and len(self.to_ends) == len(self.from_points) + 1
            and max(self.to_ends) == len(self.to)
            and len(self.runs) > 0
            and self.runs[0] >> 3 == 0
            and max(self.from_points, default=0) <= 0x10FFFF
            and max(self.combining, default=0) >> 8 <= 0x10FFFF
        )


class WordPiece(Tokenizer):
    """Text to token ids."""

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        """Read the table in ``data``; ArtifactError if it is not a sound one."""
        super().__init__(data, path)
        self._table = table = WordPieceTable(data, path)
        self._chunks = _Chunks(table)
        self.vocab_size, *_, pad = table.facts
        self.prefix, self.suffix = tuple(table.prefix), tuple(table.suffix)
        self.pad_id = pad - 1 if pad else None

    def words(self, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield pieces of ``text``, each with its ids; joined, the pieces are ``text``.

        A piece is a run of other characters than white space, led by the white space before it; a
        longer one is cut beside punctuation and ideographs too.
        """
        for match in _CHUNK_AFTER_SPACE.finditer(text):
            piece = match[0]
            parts = [piece] if len(piece) <= _CACHED_LENGTH else self._chunks.cut(piece)
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
    """Text without spaces to ids: a cache of bounded size that fills itself.

    White space only ends words, so a text is its chunks one by one. Safe in several threads: an
    entry never changes, and losing one costs only time.
    """

    __slots__ = (
        *("_buckets", "_classes", "_composed", "_continuing", "_longest", "_longest_word"),
        *("_movable", "_shift", "_table", "_text_start", "_unknown"),
    )

    def __init__(self, table: WordPieceTable) -> None:
        self._table, self._buckets = table, table.buckets
        self._shift = 33 - len(table.buckets).bit_length()
        self._text_start = len(table.data) - len(table.text)
        self._continuing = bytes(table.continuing)
        _, self._unknown, self._longest_word, self._longest, _ = table.facts
        self._composed = _Composed(table)
        self._classes = {chr(entry >> 8): entry & 0xFF for entry in table.combining}
        self._movable: re.Pattern[str] | None = None

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        text = chunk
        if not chunk.isascii() and SURROGATES.search(chunk):
            text = joined_surrogates(chunk)
        found: list[int] = []
        for word in text.translate(self._composed).split(" "):
            if word:
                self._add(word, found)
        ids = tuple(found)
        if len(chunk) <= _CACHED_LENGTH:
            if len(self) >= _CACHED_CHUNKS:
                self.clear()
            self[chunk] = ids
        return ids

    def first(self, chunk: str, limit: int) -> list[int]:
        """Return at least ``limit`` ids of a long ``chunk`` or all, and read no more of it."""
        ids: list[int] = []
        rest, start = "", 0
        while start < len(chunk) and len(ids) < limit:
            end = start + _STEP
            if "\ud800" <= chunk[end - 1 : end] <= "\udbff":
                end += 1  # perhaps a surrogate pair
            part = chunk[start:end]
            if not part.isascii():
                part = joined_surrogates(part)
            *words, rest = (rest + part.translate(self._composed)).split(" ")
            for word in words:
                if word:
                    self._add(word, ids)
            if len(rest) > _STEP:  # a shorter start of the word with the same ids
                letters = rest.replace(STARTER, "")
                if len(letters) > self._longest_word:
                    rest = letters[: self._longest_word + 1]  # [UNK], whatever follows
                else:
                    rest = _STARTERS.sub(STARTER, rest)
            start = end
        if rest and len(ids) < limit:
            self._add(rest, ids)
        return ids

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
        if self._classes and not word.isascii():
            word = self._ordered(word)
            if not word:
                return
        if len(word) > self._longest_word:
            ids.append(self._unknown)
            return
        token = self._find(word.encode())
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
                if table.data[self._text_start + start : self._text_start + end] == token:
                    return int(table.ids[i])
        return -1

    def _ordered(self, word: str) -> str:
        """Return ``word`` in canonical order; what is left to order is rare."""
        if self._movable is None:
            self._movable = re.compile(f"[{''.join(self._classes)}]{{2,}}")
        order = self._classes.__getitem__
        word = self._movable.sub(lambda run: "".join(sorted(run[0], key=order)), word)
        return word.replace(STARTER, "")


class _Composed(dict[int, str]):
    """Code point to what normaliser and pre-tokeniser make of it, found when first asked for."""

    __slots__ = ("_table",)

    def __init__(self, table: WordPieceTable) -> None:
        self._table = table

    def __missing__(self, point: int) -> str:
        table, composed = self._table, chr(point)
        kind = table.runs[bisect_right(table.runs, point << 3 | 7) - 1] & 7
        if kind == HANGUL:  # the letters of a syllable (The Unicode Standard, 3.12)
            syllable = point - 0xAC00
            lead, vowel, tail = syllable // 588, syllable % 588 // 28, syllable % 28
            composed = chr(0x1100 + lead) + chr(0x1161 + vowel) + (chr(0x11A7 + tail) * bool(tail))
        elif kind == REPLACED:
            i = bisect_left(table.from_points, point)
            if i < len(table.from_points) and table.from_points[i] == point:
                start, end = table.to_ends[i], table.to_ends[i + 1]
                composed = bytes(table.to[start:end]).decode("utf-8", "surrogatepass")
        else:
            simple = {SPACE: " ", REMOVED: "", REMOVED_STARTER: STARTER, APART: f" {composed} "}
            composed = simple.get(kind, composed)
        if len(self) >= _CACHED_POINTS:
            self.clear()
        self[point] = composed
        return composed

r"""Byte-level BPE over one mapped table: GPT-2's, RoBERTa's and any other of that kind.

The ids are those of Hugging Face's tokenizers with ``split_special_tokens=True``: no special token
is read out of a text, and none is added. A text is cut into words (`Splitter`), and a word is in
the cache, a whole token of the table, or merged from its bytes (`Merger`).
"""

from __future__ import annotations

import mmap
import re
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import accumulate, chain, pairwise
from pathlib import Path

from asterisk.common.errors import InputError
from asterisk.tokenizer.tokenizer import (
    SURROGATES,
    U8,
    U16,
    U32,
    MappedTable,
    Tokenizer,
    joined_surrogates,
    utf8,
)

# The table that comes with this package: GPT-2's, with ``[PAD]`` and ``[MASK]`` after its own.
BUILTIN = Path(__file__).with_name("gpt2.bin")

LETTER, NUMBER, SPACE, OTHER = range(4)  # GPT-2's classes of characters
_BYTES = 256  # tokens of one byte; merge 0 makes the next
_NO_RANK = 1 << 16  # above every rank
_SCANNED = 24  # bytes of a word up to which a scan for the best pair beats a heap
_GAP = 32  # bytes; see Merger.certain
_CACHED_WORDS = 8192  # about 200 bytes each
_CACHED_LENGTH = 24  # characters; longer words seldom come back
_CACHED_POINTS = 2048  # code points, about 100 bytes each

# The pattern treats none of the four apart from its class: contractions are lower-case letters, and
# only a literal space may lead a word.
_ASCII = {LETTER: "A", NUMBER: "0", SPACE: "\t", OTHER: "!"}
_NON_ASCII = re.compile(r"[^\x00-\x7f]+")
# Letters come first because they are commonest; only contractions and symbols overlap.
_WORD = re.compile(
    r" ?[A-Za-z]+|'(?:[stmd]|re|ve|ll)| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII
)


class BPETable(MappedTable):
    """A byte-level BPE's file.

    In it tokens have numbers of their own: 0 to 255 are the bytes (in the vocabulary's order), then
    comes what each merge makes, by rank, then tokens that no text leads to, such as special ones.

    The two maps are perfect hashes: ``slots[(key + displacements[key % B]) % S]`` is the only slot
    where a key can be; a reader compares the key itself.
    """

    magic = b"astrBPE2"

    pairs: U32  # left << 16 | right of each merge, by rank; it makes token 256 + rank
    bases: U32  # where the text of token 256 * i begins
    classes: U32  # first code point << 2 | class of each run of equal Unicode class
    ids: U32  # the vocabulary's id of each token; empty if each is its own
    prefix: U32  # ids of the special tokens before a text
    suffix: U32  # and after it
    facts: U32  # bytes of the longest merged token; id + 1 of the padding and the mask token, or 0
    offsets: U16  # where token i's text begins, past bases[i >> 8]; one more at the end
    pair_displacements: U16  # pair of tokens to rank
    pair_slots: U16
    word_displacements: U16  # CRC-32 of a word to the token that is the whole word
    word_slots: U16
    byte_tokens: U8  # the token of each byte
    text: U8  # the bytes of all tokens, one after the other

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token, by its number in the table."""
        bases, offsets, after = self.bases, self.offsets, token + 1
        start = bases[token >> 8] + offsets[token]
        return bytes(self.text[start : bases[after >> 8] + offsets[after]])

    def consistent(self) -> bool:
        """Whether every index that the file holds stays inside the section it points into."""
        merges, tokens = len(self.pairs), len(self.offsets) - 1
        maps = self.pair_displacements, self.pair_slots, self.word_displacements, self.word_slots
        ids = (*self.prefix, *self.suffix, *(max(fact - 1, 0) for fact in self.facts[1:]))
        return (
            _BYTES + merges <= tokens
            and len(self.ids) in (0, tokens)
            and max(self.ids, default=0) < tokens
            and max(ids, default=0) < tokens
            and len(self.facts) == 3
            and len(self.bases) == (tokens >> 8) + 1
            and len(self.byte_tokens) == _BYTES
            and all(maps)
            and max(self.pair_slots) < max(merges, 1)
            and max(self.word_slots) < _BYTES + merges
            and merges > 0
            and len(self.classes) > 0
            and self.classes[0] >> 2 == 0
        )


class Splitter(dict[int, str]):
    r"""Cuts text into words where GPT-2's pattern cuts it.

    The pattern is ``'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+``.
    The standard library's ``re`` knows neither ``\p{L}`` nor one fixed version of Unicode, so the
    pattern here is in ASCII and every other code point is first replaced by an ASCII character of
    its class, which the mapping finds. Lengths do not change, so the cuts are those of the text.
    """

    __slots__ = ("_classes",)

    def __init__(self, classes: U32) -> None:
        self._classes = classes

    def __missing__(self, point: int) -> str:
        if 0xD800 <= point < 0xE000:
            raise KeyError(point)  # so that ``translate`` leaves it
        run = self._classes[bisect_right(self._classes, point << 2 | 3) - 1]
        if len(self) >= _CACHED_POINTS:
            self.clear()
        self[point] = character = _ASCII[run & 3]
        return character

    def __call__(self, text: str) -> list[str]:
        """Return the words of ``text``; joined, they are ``text`` again."""
        if text.isascii():
            return _WORD.findall(text)
        ascii_text = _NON_ASCII.sub(lambda run: run[0].translate(self), text)
        if not ascii_text.isascii():
            # Two letters or two symbols are cut nowhere between them, so a surrogate pair may
            # stand for one.
            ascii_text = SURROGATES.sub(
                lambda found: self[ord(joined_surrogates(found[0]))] * len(found[0]), ascii_text
            )
        ends = accumulate(map(len, _WORD.findall(ascii_text)), initial=0)
        return [text[start:end] for start, end in pairwise(ends)]


class Merger:
    """Merges the bytes of a word: the lowest-ranked pair first, the leftmost of equals."""

    def __init__(self, table: BPETable) -> None:
        self._table = table
        self._byte_tokens = bytes(table.byte_tokens)
        self._map = table.pairs, table.pair_displacements, table.pair_slots

    def __call__(self, word: bytes) -> list[int]:
        """Return the tokens of ``word``."""
        tokens = list(word.translate(self._byte_tokens))
        pairs, displacements, slots = self._map
        buckets, size = len(displacements), len(slots)
        ranks = []  # of each token with its right neighbour; a call a look-up would cost a quarter
        for left, right in pairwise(tokens):
            key = left << 16 | right
            rank = slots[(key + displacements[key % buckets]) % size]
            ranks.append(rank if pairs[rank] == key else _NO_RANK)
        ranks.append(_NO_RANK)
        if len(tokens) > _SCANNED:
            return self._merge_by_heap(tokens, ranks)
        # O(n²), which for most words is the quickest.
        while (best := min(ranks)) != _NO_RANK:
            i = ranks.index(best)
            del tokens[i], ranks[i]
            tokens[i] = token = best + _BYTES
            if i + 1 < len(tokens):
                key = token << 16 | tokens[i + 1]
                rank = slots[(key + displacements[key % buckets]) % size]
                ranks[i] = rank if pairs[rank] == key else _NO_RANK
            if i:
                key = tokens[i - 1] << 16 | token
                rank = slots[(key + displacements[key % buckets]) % size]
                ranks[i - 1] = rank if pairs[rank] == key else _NO_RANK
        return tokens

    def _merge_by_heap(self, tokens: list[int], ranks: list[int]) -> list[int]:
        """Merge in O(n log n): a heap of rank and position over a linked list of tokens."""
        pairs, displacements, slots = self._map
        buckets, size = len(displacements), len(slots)
        count = len(tokens)
        shift = count.bit_length()
        mask = (1 << shift) - 1
        before = list(range(-1, count - 1))
        after = list(range(1, count + 1))
        heap = [rank << shift | i for i, rank in enumerate(ranks) if rank != _NO_RANK]
        heapify(heap)
        while heap:
            entry = heappop(heap)
            i, rank = entry & mask, entry >> shift
            right = after[i]
            # An entry is stale once either of its two tokens has been merged into another; a
            # swallowed token is -1, which no pair contains.
            if right == count or tokens[i] << 16 | tokens[right] != pairs[rank]:
                continue
            tokens[i], tokens[right] = rank + _BYTES, -1
            after[i] = beyond = after[right]
            if beyond != count:
                before[beyond] = i
            for left in (before[i], i):
                if left >= 0 and after[left] != count:
                    key = tokens[left] << 16 | tokens[after[left]]
                    rank = slots[(key + displacements[key % buckets]) % size]
                    if pairs[rank] == key:
                        heappush(heap, rank << shift | left)
        return [token for token in tokens if token >= 0]

    def certain(self, data: bytes, count: int) -> list[int]:
        """Return at least ``count`` tokens that open every word beginning with ``data``, or none.

        A word's first tokens can depend on bytes far to the right, so no fixed margin is safe. Two
        facts about merging the lowest rank first help:

        1. Where tokens of an encoding meet, both sides are the encodings of their own bytes,
           because no merge crossed that boundary.
        2. Two encodings stand side by side unchanged exactly if the two tokens that meet there,
           merged alone, stay those two tokens: up to a first crossing merge each side runs as it
           would alone.

        Let no token be longer than M bytes. Some token of the word then ends at one of the last M
        positions of ``data``. If a boundary `_GAP` bytes before them holds whichever of these it
        is, then the tokens up to that boundary are the word's, whatever follows.
        """
        token_bytes = self._table.token_bytes
        first = len(data) - self._table.facts[0] + 1  # the earliest of the last positions
        tokens = self(data)
        ends = list(accumulate(len(token_bytes(token)) for token in tokens))
        number = sum(end <= first - _GAP for end in ends)
        if number < max(count, 1):
            return []
        left, boundary = tokens[number - 1], ends[number - 1]
        followers = {self(data[boundary:end])[0] for end in range(first, len(data) + 1)}
        holds = all(
            self(token_bytes(left) + token_bytes(right)) == [left, right] for right in followers
        )
        return tokens[:number] if holds else []


class _Words(dict[str, tuple[int, ...]]):
    """Word to ids: a cache of bounded size that fills itself.

    Safe in several threads: an entry never changes, and losing one costs only time.
    """

    __slots__ = ("_merge", "_table")  # a quarter quicker than a dict's own attributes

    def __init__(self, table: BPETable, merge: Merger) -> None:
        self._table, self._merge = table, merge

    def __missing__(self, word: str) -> tuple[int, ...]:
        data, table = utf8(word), self._table
        key, displacements, slots = zlib.crc32(data), table.word_displacements, table.word_slots
        token = slots[(key + displacements[key % len(displacements)]) % len(slots)]
        whole = table.token_bytes(token) == data
        tokens = (token,) if whole else tuple(self._merge(data))
        if table.ids:
            tokens = tuple(map(table.ids.__getitem__, tokens))
        if len(word) <= _CACHED_LENGTH:
            if len(self) >= _CACHED_WORDS:
                self.clear()
            self[word] = tokens
        return tokens


class ByteLevelBPE(Tokenizer):
    """Text to token ids and back."""

    mask_id: int | None

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        """Read the table in ``data``; ArtifactError if it is not a sound one."""
        super().__init__(data, path)
        self._table = table = BPETable(data, path)
        self._merge = Merger(table)
        self._split = Splitter(table.classes)
        self._words = _Words(table, self._merge)
        self._numbers: array[int] | None = None  # in the table, of each id
        self.vocab_size = len(table.offsets) - 1
        self.prefix, self.suffix = tuple(table.prefix), tuple(table.suffix)
        self.pad_id, self.mask_id = (fact - 1 if fact else None for fact in table.facts[1:])

    def words(self, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield each word of ``text`` with its ids; joined, the words are ``text``."""
        for word in self._split(text):
            yield word, self._words[word]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``, with U+FFFD for bytes that are not UTF-8."""
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token, for a special one its name's; InputError for no token."""
        if not 0 <= token < self.vocab_size:
            raise InputError(f"token {token} is not in 0..{self.vocab_size - 1}")
        ids = self._table.ids
        if not ids:
            return self._table.token_bytes(token)
        if self._numbers is None:  # encoding has no need of them
            self._numbers = array("I", bytes(4 * len(ids)))
            for number, id_ in enumerate(ids):
                self._numbers[id_] = number
        return self._table.token_bytes(self._numbers[token])

    def merges(self) -> Iterator[tuple[int, int]]:
        """Yield the two tokens of each merge, by rank."""
        ids = self._table.ids or range(self.vocab_size)
        for pair in self._table.pairs:
            yield ids[pair >> 16], ids[pair & 0xFFFF]

    def _all(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._words.__getitem__, self._split(text))))

    def _first(self, text: str, limit: int) -> list[int]:
        size = 6 * limit + 64  # enough characters for nearly every text
        while size < len(text):
            if "\ud800" <= text[size - 1] <= "\udbff":
                size += 1  # what follows may be the other half of a surrogate pair
            tokens = self._first_of_any(text[:size], limit)
            if len(tokens) >= limit:
                return tokens[:limit]
            size *= 2
        return self._all(text)[:limit]

    def _first_of_any(self, text: str, limit: int) -> list[int]:
        """Return ids that open every text beginning with ``text``; too few if ``limit`` is far."""
        *words, last = self._split(text)
        if words and words[-1] == "'":  # perhaps of a contraction that ends beyond
            words.pop()
            last = ""
        tokens = list(chain.from_iterable(map(self._words.__getitem__, words)))
        if len(tokens) < limit:
            # The last character may be another word's, as the last of several spaces is.
            data = utf8(joined_surrogates(last)[:-1])
            certain = self._merge.certain(data, limit - len(tokens))
            tokens += map(self._table.ids.__getitem__, certain) if self._table.ids else certain
        return tokens


def gpt2() -> ByteLevelBPE:
    """Open the built-in table: GPT-2's vocabulary and ``[PAD]`` and ``[MASK]`` after it."""
    return ByteLevelBPE.open(BUILTIN)


def encode_with_offsets(
    tokenizer: ByteLevelBPE, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the ids of ``text`` and for each the ``[start, end)`` it covers, in characters.

    A token of part of a character covers all of it, a leading space belongs to its token: Hugging
    Face's offsets with ``trim_offsets=False``.
    """
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    start = 0
    for word, tokens in tokenizer.words(text):
        # The character that each byte of the word belongs to; a surrogate pair is one.
        owners = [
            (start + match.start(), start + match.end())
            for match in re.finditer(f"{SURROGATES.pattern}|.", word, re.DOTALL)
            for _ in utf8(match[0])
        ]
        ends = accumulate((len(tokenizer.token_bytes(token)) for token in tokens), initial=0)
        ids += tokens
        spans += [(owners[first][0], owners[end - 1][1]) for first, end in pairwise(ends)]
        start += len(word)
    return ids, spans

"""Mapped tokenizer files from what a tokenizer does: WordPiece's and byte-level BPE's."""

from __future__ import annotations

import json
import re
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from asterisk.tokenizer import bpe_table, wordpiece_table
from asterisk.tokenizer.mapped import pack
from asterisk.tokenizer.merge import Merger
from asterisk.tokenizer.perfect import place
from asterisk.tokenizer.wordpiece_table import (
    APART,
    HANGUL,
    KEPT,
    REMOVED,
    REMOVED_STARTER,
    REPLACED,
    SPACE,
    STARTER,
)

_POINTS = 0x110000


@cache
def unicode_facts() -> dict[str, Any]:
    """Return what ``probe`` found out about characters."""
    facts: dict[str, Any] = json.loads(Path(__file__).with_name("unicode.json").read_bytes())
    return facts


def byte_level_bpe(
    tokens: Sequence[bytes],
    byte_ids: Sequence[int],
    merges: Sequence[tuple[int, int, int]],
    *,
    prefix: Sequence[int],
    suffix: Sequence[int],
    pad: int | None,
    mask: int | None,
) -> bytes | None:
    """Return the file of a byte-level BPE tokenizer, None where the form cannot hold it.

    ``tokens`` are the bytes of each id, ``byte_ids`` the ids of the bytes 0 to 255, ``merges`` the
    ids of the two tokens of each merge and of what it makes, by rank. What two merges make, or
    merges and bytes together, has to be distinct.
    """
    makes = [*sorted(byte_ids), *(made for _, _, made in merges)]
    if not merges or len(set(makes)) != len(makes) or len(makes) > 1 << 16:
        return None
    used = set(makes)
    ids = [*makes, *(i for i in range(len(tokens)) if i not in used)]
    number = {id_: i for i, id_ in enumerate(ids)}
    pairs = [number[left] << 16 | number[right] for left, right, _ in merges]
    if len(set(pairs)) != len(pairs):
        return None
    texts = [tokens[i] for i in ids]
    starts = list(accumulate(map(len, texts), initial=0))
    bases = starts[::256]
    offsets = [start - bases[i >> 8] for i, start in enumerate(starts)]
    if max(offsets) > 0xFFFF:
        return None
    longest = max(map(len, texts[: len(makes)]))
    displacements, slots = place({pair: rank for rank, pair in enumerate(pairs)})
    sections = {
        "pairs": _pack("I", pairs),
        "bases": _pack("I", bases),
        "classes": _pack("I", unicode_facts()["classes"]),
        "ids": _pack("I", ids) if ids != list(range(len(ids))) else b"",
        "prefix": _pack("I", prefix),
        "suffix": _pack("I", suffix),
        "facts": _pack("I", [longest, *(0 if i is None else i + 1 for i in (pad, mask))]),
        "offsets": _pack("H", offsets),
        "pair_displacements": _pack("H", displacements),
        "pair_slots": _pack("H", slots),
        "word_displacements": _pack("H", [0]),
        "word_slots": _pack("H", [0]),
        "byte_tokens": bytes(number[i] for i in byte_ids),
        "text": b"".join(texts),
    }
    merge = Merger(bpe_table.Table(pack(bpe_table.MAGIC, bpe_table.SECTIONS, sections)))
    displacements, slots = place(_whole_words(merge, texts[: len(makes)]))
    sections["word_displacements"] = _pack("H", displacements)
    sections["word_slots"] = _pack("H", slots)
    return pack(bpe_table.MAGIC, bpe_table.SECTIONS, sections)


def _whole_words(merge: Merger, tokens: Sequence[bytes]) -> dict[int, int]:
    """Return CRC-32 to token for every token that its own bytes merge into.

    Of two with one CRC-32 the later is left out, and found by merging like any other word.
    """
    words: dict[int, int] = {}
    for token, text in enumerate(tokens):
        if merge(text) == [token]:
            words.setdefault(zlib.crc32(text), token)
    return words


def wordpiece(
    vocab: Mapping[str, int],
    *,
    vocab_size: int,
    unknown: int,
    longest_word: int,
    continuing: str,
    lowercase_first: bool,
    clean_text: bool,
    handle_chinese_chars: bool,
    strip_accents: bool,
    lowercase: bool,
    prefix: Sequence[int],
    suffix: Sequence[int],
    pad: int | None,
) -> bytes:
    """Return the file of a WordPiece tokenizer with BERT's normaliser and pre-tokeniser.

    ``vocab`` is token to id, ``longest_word`` the most characters of a word that is not [UNK].
    ``lowercase_first``: every character is lower-cased before the normaliser.
    """
    composed = _composed(
        lowercase_first=lowercase_first,
        clean_text=clean_text,
        handle_chinese_chars=handle_chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    by_sum = sorted((zlib.crc32(token.encode()), token.encode(), i) for token, i in vocab.items())
    bits = max(len(by_sum) - 1, 1).bit_length()
    buckets = [0] * ((1 << bits) + 1)
    for checksum, _, _ in by_sum:
        buckets[(checksum >> (32 - bits)) + 1] += 1
    facts = (vocab_size, unknown, longest_word, max(map(len, vocab)), 0 if pad is None else pad + 1)
    sections = {
        **composed,
        "buckets": _pack("I", list(accumulate(buckets))),
        "ids": _pack("I", [i for _, _, i in by_sum]),
        "offsets": _pack("I", list(accumulate((len(t) for _, t, _ in by_sum), initial=0))),
        "prefix": _pack("I", prefix),
        "suffix": _pack("I", suffix),
        "facts": _pack("I", facts),
        "marks": _pack("H", [checksum & 0xFFFF for checksum, _, _ in by_sum]),
        "continuing": continuing.encode(),
        "text": b"".join(token for _, token, _ in by_sum),
    }
    return pack(wordpiece_table.MAGIC, wordpiece_table.SECTIONS, sections)


def _composed(
    *,
    lowercase_first: bool,
    clean_text: bool,
    handle_chinese_chars: bool,
    strip_accents: bool,
    lowercase: bool,
) -> dict[str, bytes]:
    """Return the sections that say what becomes of each code point, all steps in one."""
    facts = unicode_facts()
    sets = {
        name: {p for first, last in facts[name] for p in range(first, last + 1)}
        for name in ("control", "space", "cjk", "marks", "white", "punctuation")
    }
    control, space, cjk, marks, white, punctuation = sets.values()
    nfd, lower, combining = facts["nfd"], facts["lower"], facts["combining"]

    def compose(point: int) -> str:
        text = chr(point)
        if lowercase_first:
            text = lower.get(text, text)
        if clean_text:
            text = "".join(" " if ord(c) in space else c for c in text if ord(c) not in control)
        if handle_chinese_chars:
            text = "".join(f" {c} " if ord(c) in cjk else c for c in text)
        if strip_accents:
            text = "".join(nfd.get(c, c) for c in text)
            text = "".join(
                c if ord(c) not in marks else "" if c in combining else STARTER for c in text
            )
        if lowercase:
            text = "".join(lower.get(c, c) for c in text)
        return "".join(
            " " if ord(c) in white else f" {c} " if ord(c) in punctuation else c for c in text
        )

    kinds = bytearray(_POINTS)  # KEPT
    if handle_chinese_chars:
        for first, last in facts["cjk"]:
            kinds[first : last + 1] = bytes([APART]) * (last + 1 - first)
    if clean_text:
        for first, last in facts["control"]:
            kinds[first : last + 1] = bytes([REMOVED]) * (last + 1 - first)
    if strip_accents:
        kinds[0xAC00:0xD7A4] = bytes([HANGUL]) * (0xD7A4 - 0xAC00)
    replaced = {}
    special = {*map(ord, nfd), *map(ord, lower), *space, *white, *punctuation, *marks}
    for point in sorted(special):
        text = compose(point)
        simple = {chr(point): KEPT, "": REMOVED, STARTER: REMOVED_STARTER, f" {chr(point)} ": APART}
        kinds[point] = SPACE if text and not text.strip(" ") else simple.get(text, REPLACED)
        if kinds[point] == REPLACED:
            replaced[point] = text
    to = [text.encode("utf-8", "surrogatepass") for text in replaced.values()]
    kept = {c: number for c, number in combining.items() if ord(c) not in marks}
    runs = re.finditer(rb"(.)\1*", bytes(kinds), re.DOTALL)
    return {
        "runs": _pack("I", [run.start() << 3 | run[1][0] for run in runs]),
        "from_points": _pack("I", list(replaced)),
        "to_ends": _pack("I", list(accumulate(map(len, to), initial=0))),
        "combining": _pack(
            "I", [ord(c) << 8 | n for c, n in kept.items()] if strip_accents else []
        ),
        "to": b"".join(to),
    }


def _pack(kind: str, values: Iterable[int]) -> bytes:
    return array(kind, values).tobytes()

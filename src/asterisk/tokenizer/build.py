"""Mapped tokenizer files from what a tokenizer does."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate, count
from pathlib import Path
from typing import Any

from asterisk.tokenizer.bpe import BPETable, Merger
from asterisk.tokenizer.huggingface import BYTES, CHARACTERS, Part
from asterisk.tokenizer.wordpiece import (
    APART,
    HANGUL,
    KEPT,
    REMOVED,
    REMOVED_STARTER,
    REPLACED,
    SPACE,
    STARTER,
    WordPieceTable,
)


@cache
def unicode_facts() -> dict[str, Any]:
    """Return the content of ``unicode.json``: what Hugging Face's library knows about characters.

    ``classes`` are GPT-2's, as ``first code point << 2 | class`` of each run. The others are what
    BERT's normaliser and pre-tokeniser go by: sets of code points as ``[first, last]`` of each run
    (``control`` characters vanish in the clean-up, ``space`` ones become a space there, ``cjk``
    ones are set apart, accent stripping removes ``marks``; ``white`` and ``punctuation`` end a
    word) and mappings from a character to what replaces it (``nfd`` without Hangul, which is
    algorithmic; ``lower``). ``combining`` is the combining class of every character that has one.

    The library's parts bring several versions of Unicode, so ``tests/tokenizer/unicode_probe.py``
    makes the file by asking them.
    """
    facts: dict[str, Any] = json.loads(Path(__file__).with_name("unicode.json").read_bytes())
    return facts


def byte_level_bpe(
    model: Mapping[str, Any],
    tokens: Sequence[str],
    *,
    prefix: Sequence[int],
    suffix: Sequence[int],
    pad: int | None,
    mask: int | None,
) -> bytes:
    """Return the file of a byte-level BPE tokenizer that fits it.

    ``model`` is that of a ``tokenizer.json`` and ``tokens`` are by id; the others are ids.
    """
    vocab, merges = model["vocab"], model["merges"]
    byte_ids = [vocab[character] for character in CHARACTERS]
    made = [left + right for left, right in merges]
    makes = [*sorted(byte_ids), *(vocab[token] for token in made)]
    data = [token.encode() for token in tokens]
    for token in (*CHARACTERS, *made):
        data[vocab[token]] = bytes(BYTES[character] for character in token)
    used = set(makes)
    ids = [*makes, *(i for i in range(len(tokens)) if i not in used)]
    number = {id_: i for i, id_ in enumerate(ids)}
    pairs = [number[vocab[left]] << 16 | number[vocab[right]] for left, right in merges]
    texts = [data[i] for i in ids]
    starts = list(accumulate(map(len, texts), initial=0))
    bases = starts[::256]
    longest = max(map(len, texts[: len(makes)]))
    pair_displacements, pair_slots = perfect_hash({pair: rank for rank, pair in enumerate(pairs)})
    sections: dict[str, Iterable[int]] = {
        "pairs": pairs,
        "bases": bases,
        "classes": unicode_facts()["classes"],
        "ids": ids if ids != list(range(len(ids))) else (),
        "prefix": prefix,
        "suffix": suffix,
        "facts": [longest, *(0 if i is None else i + 1 for i in (pad, mask))],
        "offsets": [start - bases[i >> 8] for i, start in enumerate(starts)],
        "pair_displacements": pair_displacements,
        "pair_slots": pair_slots,
        "word_displacements": [0],
        "word_slots": [0],
        "byte_tokens": [number[i] for i in byte_ids],
        "text": b"".join(texts),
    }
    # Every token that its own bytes merge into. Of two with one CRC-32 the later is left out, and
    # found by merging like any other word.
    merge = Merger(BPETable(BPETable.pack(sections)))
    words: dict[int, int] = {}
    for token, text in enumerate(texts[: len(makes)]):
        if merge(text) == [token]:
            words.setdefault(zlib.crc32(text), token)
    sections["word_displacements"], sections["word_slots"] = perfect_hash(words)
    return BPETable.pack(sections)


def perfect_hash(values: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Return displacements and slots: ``slots[(k + displacements[k % B]) % S]`` is k's value.

    Keys and values are integers from 0. S is the least prime that leaves one slot in a hundred
    free, B the least prime over a quarter of S that works; nothing is drawn by chance, so one
    mapping always gives one result. Slots that no key owns hold 0.
    """

    def is_prime(n: int) -> bool:
        return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))

    size = next(filter(is_prime, count(len(values) + len(values) // 100 + 1)))
    for buckets in filter(is_prime, count(size // 4 + 1)):
        if found := _displaced(values, buckets, size):
            return found
    raise AssertionError("unreachable: there are always more primes")


def _displaced(
    values: Mapping[int, int], buckets: int, size: int
) -> tuple[list[int], list[int]] | None:
    groups: list[list[int]] = [[] for _ in range(buckets)]
    for key in values:
        groups[key % buckets].append(key)
    every = (1 << size) - 1
    free = every
    displacements, slots = [0] * buckets, [0] * size
    # The fullest buckets choose first, while there are many free slots; a lone key fits any.
    for bucket in sorted(range(buckets), key=lambda b: (-len(groups[b]), b)):
        keys = sorted(groups[bucket])
        if not keys:
            break
        homes = [key % size for key in keys]
        fits = every if len(set(homes)) == len(homes) else 0
        for home in homes:  # bit d is set where slot (home + d) % size is free
            fits &= free >> home | free << (size - home) & every
        if not fits:
            return None
        displacements[bucket] = displacement = (fits & -fits).bit_length() - 1
        for key, home in zip(keys, homes, strict=True):
            slot = (home + displacement) % size
            slots[slot] = values[key]
            free &= ~(1 << slot)
    return displacements, slots


def wordpiece(
    model: Mapping[str, Any],
    normalizers: Sequence[Part],
    *,
    size: int,
    prefix: Sequence[int],
    suffix: Sequence[int],
    pad: int | None,
) -> bytes:
    """Return the file of a WordPiece tokenizer of ``size`` ids, with BERT's pre-tokeniser.

    ``model`` is that of a ``tokenizer.json``. ``normalizers`` are none, a BertNormalizer, or
    Lowercase and a BertNormalizer.
    """
    vocab = model["vocab"]
    by_sum = sorted((zlib.crc32(token.encode()), token.encode(), i) for token, i in vocab.items())
    checksums, tokens, ids = zip(*by_sum, strict=True)
    bits = max(len(by_sum) - 1, 1).bit_length()
    buckets = [0] * ((1 << bits) + 1)
    for checksum in checksums:
        buckets[(checksum >> (32 - bits)) + 1] += 1
    sections: dict[str, Iterable[int]] = {
        **_composed(normalizers),
        "buckets": accumulate(buckets),
        "ids": ids,
        "offsets": accumulate(map(len, tokens), initial=0),
        "prefix": prefix,
        "suffix": suffix,
        "facts": (
            *(size, vocab[model["unk_token"]], model["max_input_chars_per_word"]),
            *(max(map(len, vocab)), 0 if pad is None else pad + 1),
        ),
        "marks": [checksum & 0xFFFF for checksum in checksums],
        "continuing": model["continuing_subword_prefix"].encode(),
        "text": b"".join(tokens),
    }
    return WordPieceTable.pack(sections)


def _composed(normalizers: Sequence[Part]) -> dict[str, Iterable[int]]:
    """Return the sections that say what becomes of each code point, all steps in one."""
    *lowercase_first, options = normalizers or [{}]
    names = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    clean_text, handle_chinese_chars, strip_accents, lowercase = map(options.get, names)
    facts = unicode_facts()
    points = {
        name: [point for first, last in facts[name] for point in range(first, last + 1)]
        for name in ("control", "space", "cjk", "marks", "white", "punctuation")
    }
    nfd, lower, combining = facts["nfd"], facts["lower"], facts["combining"]
    cleaned = {**dict.fromkeys(points["space"], " "), **dict.fromkeys(points["control"], "")}
    apart = {point: f" {chr(point)} " for point in points["cjk"] + points["punctuation"]}
    marks = {point: "" if chr(point) in combining else STARTER for point in points["marks"]}
    lowered = str.maketrans(lower)
    steps = [
        step
        for wanted, step in (
            (lowercase_first, lowered),
            (clean_text, cleaned),
            (handle_chinese_chars, {point: apart[point] for point in points["cjk"]}),
            (strip_accents, str.maketrans(nfd)),
            (strip_accents, marks),
            (lowercase, lowered),
            (True, {point: apart[point] for point in points["punctuation"]}),
            (True, dict.fromkeys(points["white"], " ")),
        )
        if wanted
    ]
    kinds = bytearray(0x110000)  # KEPT
    for wanted, runs, kind in (
        (handle_chinese_chars, facts["cjk"], APART),
        (clean_text, facts["control"], REMOVED),
        (strip_accents, [(0xAC00, 0xD7A3)], HANGUL),
    ):
        for first, last in runs if wanted else ():
            kinds[first : last + 1] = bytes([kind]) * (last + 1 - first)
    replaced = {}
    special = {*map(ord, nfd), *map(ord, lower), *marks}
    for point in sorted(special.union(*(points[n] for n in ("space", "white", "punctuation")))):
        text = chr(point)
        for step in steps:
            text = text.translate(step)
        simple = {chr(point): KEPT, "": REMOVED, STARTER: REMOVED_STARTER, f" {chr(point)} ": APART}
        kinds[point] = SPACE if text and not text.strip(" ") else simple.get(text, REPLACED)
        if kinds[point] == REPLACED:
            replaced[point] = text
    to = [text.encode("utf-8", "surrogatepass") for text in replaced.values()]
    classes = [ord(c) << 8 | number for c, number in combining.items() if ord(c) not in marks]
    found = re.finditer(rb"(.)\1*", bytes(kinds), re.DOTALL)
    return {
        "runs": [run.start() << 3 | run[1][0] for run in found],
        "from_points": replaced,
        "to_ends": accumulate(map(len, to), initial=0),
        "combining": classes if strip_accents else (),
        "to": b"".join(to),
    }

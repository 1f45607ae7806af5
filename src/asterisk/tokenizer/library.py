"""Any other tokenizer, by the ``tokenizers`` package: Unigram, other normalisers, and so on.

A Unigram vocabulary of 250,002 tokens, the size of XLM-RoBERTa's, takes about 1.2 s and 350 MB to
open, which is why the two common kinds have files of their own.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from asterisk.common.errors import ArtifactError, MissingExtra, one_line
from asterisk.tokenizer.huggingface import NORMALIZERS, PRE_TOKENIZERS, Part, steps
from asterisk.tokenizer.tokenizer import SURROGATES, Tokenizer, joined_surrogates

MOST_BYTES = 64 << 20
# Characters of a text that are read for a limit where no safe position to cut it is known.
MOST_READ = 1 << 18

# Normalisers that change nothing across "a b", and pre-tokenisers that always split it.
_LOCAL = {
    *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled"),
    "StripAccents",
}
_PARTING = ("BertPreTokenizer", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit")


class LibraryTokenizer(Tokenizer):
    """Text to token ids by Hugging Face's library."""

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        """Read a ``tokenizer.json``; MissingExtra if the library is not installed."""
        if path and len(data) > MOST_BYTES:
            raise ArtifactError(f"{path}: is larger than {MOST_BYTES >> 20} MB")
        super().__init__(b"" if path else data, path)
        name = str(path or "the tokenizer")
        self._engine = engine = _engine(bytes(data), name)
        self.pad_id = None if engine.padding is None else int(engine.padding["pad_id"])
        engine.no_padding()
        engine.no_truncation()
        engine.encode_special_tokens = True
        self.vocab_size = engine.get_vocab_size(with_added_tokens=True)
        letter = engine.encode("a")
        special = letter.special_tokens_mask
        before = special.index(0) if 0 in special else len(special)
        self.prefix = tuple(letter.ids[:before])
        self.suffix = tuple(letter.ids[before + special.count(0) :])
        self._parts_words = _parts_words(engine, name)

    def words(self, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield pieces of ``text``, each with its ids; joined, the pieces are ``text``.

        A piece is a word of the pre-tokeniser, led by what that drops before it.
        """
        # Where each character of what the library reads begins: a surrogate pair is one.
        second = {found.start() + 1 for found in SURROGATES.finditer(text) if len(found[0]) == 2}
        starts = [i for i in range(len(text) + 1) if i not in second] if second else None
        encoded = self._encoded(text)
        number = start = 0
        for _, group in groupby(encoded.word_ids):
            tokens = slice(number, number := number + sum(1 for _ in group))
            end = max(end for _, end in encoded.offsets[tokens])
            if number == len(encoded.word_ids):
                end = len(text)
            elif starts is not None:
                end = starts[end]
            end = max(start, end)
            yield text[start:end], tuple(encoded.ids[tokens])
            start = end
        if start < len(text):
            yield text[start:], ()

    def _encoded(self, text: str) -> Any:
        return self._engine.encode(joined_surrogates(text), add_special_tokens=False)

    def _all(self, text: str) -> list[int]:
        ids: list[int] = self._encoded(text).ids
        return ids

    def _first(self, text: str, limit: int) -> list[int]:
        """Return the first ids from as little of ``text`` as decides them.

        A text can be cut before a single space between two ASCII words, if the normalisers look no
        further than a character's marks and the pre-tokeniser splits at spaces. With others, and in
        a text without such a position, the ids are those of its first ``MOST_READ`` characters.
        """
        size = 8 * limit + 256
        most = max(MOST_READ, 64 * limit)
        while size < len(text):
            ids = self._all(text[: _last_cut(text, size) if self._parts_words else 0])
            if len(ids) >= limit:
                return ids[:limit]
            if size >= most:
                return self._all(text[:size])[:limit]
            size *= 4
        return self._all(text)[:limit]


def in_one_spelling(definition: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a ``tokenizer.json`` as the library writes it; ``where`` is for its errors."""
    text = json.dumps(definition, ensure_ascii=False)
    spelt: dict[str, Any] = json.loads(_engine(text.encode(), where).to_str())
    return spelt


def _engine(data: bytes, where: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtra("tokenizers", "tokenizers") from error
    try:
        return tokenizers.Tokenizer.from_buffer(data)
    except BaseException as error:
        # Neither the library's errors nor its panics have a class that can be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ArtifactError(f"{where}: not a tokenizer: {one_line(error)}") from error


def _parts_words(engine: Any, where: str) -> bool:
    """Whether a text can be cut before the space in "a b"."""

    def parts(kind: str, supported: tuple[str, ...]) -> list[Part]:
        part = getattr(engine, kind)
        return steps(part and json.loads(part.__getstate__()), kind, supported, where)

    first, *_ = parts("pre_tokenizer", PRE_TOKENIZERS) or [{"type": ""}]
    added = [t.content for t in engine.get_added_tokens_decoder().values() if not t.special]
    return (
        first["type"] in _PARTING
        and first.get("split", True)
        and first.get("use_regex", True)
        and all(
            step["type"] in _LOCAL or step.get("pattern") == {"Regex": " {2,}"}
            for step in parts("normalizer", NORMALIZERS)
        )
        and all(content.split() == [content] for content in added)
    )


def _last_cut(text: str, size: int) -> int:
    """Return the last position before ``size`` where a space parts two ASCII words, 0 if none."""
    cut = text.rfind(" ", 1, size)
    while cut > 0:
        sides = text[cut - 1] + text[cut + 1 : cut + 2]
        if len(sides) == 2 and sides.isascii() and sides.isalnum():
            return cut
        cut = text.rfind(" ", 1, cut)
    return 0

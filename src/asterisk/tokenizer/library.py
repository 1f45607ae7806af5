"""Any other tokenizer, by the ``tokenizers`` package: Unigram, other normalisers, and so on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asterisk.errors import ArtifactError, MissingExtra, one_line
from asterisk.tokenizer.tokenizer import Tokenizer, joined_surrogates

MOST_BYTES = 64 << 20
# Where a space parts two words whatever the pre-tokeniser; see ``_first``.
_PARTED = re.compile(r"(?<=[0-9A-Za-z]) (?=[0-9A-Za-z])")


class LibraryTokenizer(Tokenizer):
    """Text to token ids by Hugging Face's library. Pickles as its path, or whole."""

    __slots__ = ("_data", "_engine", "_path")

    def __init__(self, data: bytes, path: Path | None = None) -> None:
        """Read the ``tokenizer.json`` in ``data``.

        Raises ArtifactError if the library cannot, and MissingExtra if it is not installed.
        """
        name = str(path or "the tokenizer")
        self._data = data if path is None else b""
        self._path = path
        self._engine = engine = _engine(data, name)
        padding = engine.padding
        self.pad_id = None if padding is None else int(padding["pad_id"])
        engine.no_padding()
        engine.no_truncation()
        engine.encode_special_tokens = True
        self.vocab_size = engine.get_vocab_size(with_added_tokens=True)
        around = engine.encode("a").special_tokens_mask
        before = around.index(0) if 0 in around else len(around)
        ids = engine.encode("a").ids
        self.prefix = tuple(ids[:before])
        self.suffix = tuple(i for i, special in zip(ids, around, strict=True) if special)[before:]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> LibraryTokenizer:
        """Read the ``tokenizer.json`` at ``path``; errors as the constructor's."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read: {error}") from error
        if len(data) > MOST_BYTES:
            raise ArtifactError(f"{path}: is larger than {MOST_BYTES >> 20} MB")
        return cls(data, path)

    def __reduce__(self) -> tuple[object, ...]:
        if self._path is None:
            return LibraryTokenizer, (self._data,)
        return LibraryTokenizer.open, (self._path,)

    def words(self, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield pieces of ``text``, each with its ids; joined, the pieces are ``text``."""
        raise NotImplementedError

    def _all(self, text: str) -> list[int]:
        ids: list[int] = self._engine.encode(joined_surrogates(text), add_special_tokens=False).ids
        return ids

    def _first(self, text: str, limit: int) -> list[int]:
        return self._all(text)[:limit]


def in_one_spelling(definition: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a ``tokenizer.json`` as the library writes it, which reads old spellings too.

    Raises ArtifactError, with ``where`` for the file, if it cannot read it.
    """
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
    except Exception as error:  # the library raises no class of its own
        raise ArtifactError(f"{where}: not a tokenizer: {one_line(error)}") from error

"""Text to token ids: WordPiece and byte-level BPE from mapped files, the rest by a library.

The two mapped kinds need the standard library alone, any other the ``tokenizers`` package.
"""

from __future__ import annotations

import os
from pathlib import Path

from asterisk.common.errors import ArtifactError
from asterisk.tokenizer.bpe import BUILTIN, ByteLevelBPE, gpt2
from asterisk.tokenizer.tokenizer import Tokenizer

__all__ = ["BUILTIN", "ByteLevelBPE", "Tokenizer", "gpt2", "open_tokenizer"]


def open_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Open a mapped tokenizer file, known by its first bytes, or a ``tokenizer.json``.

    Raises ArtifactError if it cannot be read or is not a sound file of a kind that is known, and
    MissingExtra if it is a ``tokenizer.json`` and the ``tokenizers`` package is not installed.
    """
    from asterisk.tokenizer import bpe_table, mapped, wordpiece_table

    try:
        with Path(path).open("rb") as file:
            start = file.read(mapped.MAGIC)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    if start == bpe_table.MAGIC:
        return ByteLevelBPE.open(path)
    if start == wordpiece_table.MAGIC:
        from asterisk.tokenizer.wordpiece import WordPiece

        return WordPiece.open(path)
    if start.lstrip().startswith(b"{"):
        from asterisk.tokenizer.library import LibraryTokenizer

        return LibraryTokenizer.open(path)
    raise ArtifactError(f"{path}: is not a tokenizer table")

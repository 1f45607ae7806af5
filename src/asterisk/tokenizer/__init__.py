"""Text to token ids: WordPiece and byte-level BPE from mapped files, the rest by a library.

The two mapped kinds need the standard library alone, any other the ``tokenizers`` package.
"""

from __future__ import annotations

import os
from pathlib import Path

from asterisk.common.errors import ArtifactError
from asterisk.tokenizer.bpe import BUILTIN, BPETable, ByteLevelBPE, gpt2
from asterisk.tokenizer.tokenizer import Tokenizer

__all__ = ["BUILTIN", "ByteLevelBPE", "Tokenizer", "gpt2", "open_tokenizer"]


def open_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Open a mapped tokenizer file, recognised by its first bytes, or a ``tokenizer.json``.

    ArtifactError if it is no sound file of these kinds, MissingExtra for a ``tokenizer.json``
    without the ``tokenizers`` package.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    if start == BPETable.magic:
        return ByteLevelBPE.open(path)
    if start.lstrip().startswith(b"{"):
        from asterisk.tokenizer.library import LibraryTokenizer

        return LibraryTokenizer.open(path)
    from asterisk.tokenizer.wordpiece import WordPiece, WordPieceTable

    if start == WordPieceTable.magic:
        return WordPiece.open(path)
    raise ArtifactError(f"{path}: is not a tokenizer table")

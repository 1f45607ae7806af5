"""GPT-2's tokenizer from one memory-mapped file, with the standard library alone."""

from __future__ import annotations

from asterisk.tokenizer.tokenizer import BUILTIN, Tokenizer

__all__ = ["BUILTIN", "Tokenizer"]

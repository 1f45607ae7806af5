"""What a model folder's tokenizer does, and the file that does the same on a device.

A tokenizer is known by what it does and not by the bytes of its files: `asterisk.tokenizer.folder`
brings every folder to one definition, which ``TokenizerSource`` compiles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from asterisk.tokenizer import build, huggingface
from asterisk.tokenizer.alphabet import BYTES, CHARACTERS
from asterisk.tokenizer.bpe import BUILTIN, ByteLevelBPE, gpt2
from asterisk.tokenizer.definition import NORMALIZERS, around, steps
from asterisk.tokenizer.huggingface import SPECIALS
from asterisk.tokenizer.tokenizer import Tokenizer

COMPACT, JSON = "tokenizer.bin", "tokenizer.json"
GPT2_IDENTITY = "76b9fbc592010b2b231b7e9ad3f6de8aacac3b1e185e05be1b01c75dc80e23cc"
"""The built-in tokenizer's, so that it need not be built to be recognised."""


@dataclass(frozen=True)
class TokenizerSource:
    """One tokenizer, whole.

    ``definition`` is a ``tokenizer.json`` that does what transformers does with the folder: its
    normaliser, pre-tokeniser, model, post-processor and added tokens, each in one spelling.
    ``tokens`` are by id; an id without one has a made-up name. ``special`` has the ids of those of
    ``unk``, ``cls``, ``sep``, ``pad``, ``mask``, ``bos`` and ``eos`` that there are.
    """

    kind: Literal["wordpiece", "byte_level_bpe", "library"]
    definition: Mapping[str, Any]
    tokens: tuple[str, ...]
    special: Mapping[str, int]

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self.tokens)

    def identity(self) -> str:
        """Return the SHA-256 of what the tokenizer does, in hex.

        The same for every way to write the same tokenizer down; special tokens count where they
        are put around a text.
        """
        return self._identity

    @cached_property
    def _identity(self) -> str:
        definition = self.definition
        does = {
            **{
                k: definition[k] for k in ("normalizer", "pre_tokenizer", "model", "post_processor")
            },
            "added_tokens": [t for t in definition["added_tokens"] if not t["special"]],
        }
        text = json.dumps(does, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def compile(self) -> tuple[str, bytes]:
        """Return the name and the bytes of the file that ``open_tokenizer`` opens.

        The same source always gives the same bytes.
        """
        if self.kind == "library":
            text = json.dumps(self.definition, ensure_ascii=False, separators=(",", ":"))
            return JSON, text.encode()
        return COMPACT, self._compact

    def open(self) -> Tokenizer:
        """Open the tokenizer without a file on disk.

        Raises MissingExtra if it takes the ``tokenizers`` package and that is not installed.
        """
        if self.kind == "byte_level_bpe":
            return ByteLevelBPE(self._compact)
        if self.kind == "wordpiece":
            from asterisk.tokenizer.wordpiece import WordPiece

            return WordPiece(self._compact)
        from asterisk.tokenizer.library import LibraryTokenizer

        return LibraryTokenizer(self.compile()[1])

    def to_json(self) -> str:
        """Return the text of a ``tokenizer.json`` that does the same in Hugging Face's library."""
        if self._is_builtin():
            return huggingface.to_json(gpt2())
        return json.dumps(self.definition, ensure_ascii=False)

    def settings(self, max_length: int) -> dict[str, object]:
        """Return the content of the ``tokenizer_config.json`` to go with `to_json`.

        ``max_length`` is in tokens, special ones included.
        """
        if self._is_builtin():
            return huggingface.config(max_length)
        named = {f"{name}_token": self.tokens[token] for name, token in self.special.items()}
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_length,
            "split_special_tokens": True,
            "clean_up_tokenization_spaces": False,
            **named,
        }

    @cached_property
    def _compact(self) -> bytes:
        data = self._wordpiece() if self.kind == "wordpiece" else self._byte_level_bpe()
        if data is None:
            raise AssertionError("unreachable: a source of this kind fits its form")
        return data

    @property
    def specials(self) -> int:
        """How many special tokens stand around a text."""
        return sum(map(len, self._around))

    @property
    def _around(self) -> tuple[list[int], list[int]]:
        ids = {token: i for i, token in enumerate(self.tokens)}
        before, after = around(self.definition["post_processor"], ids, "the tokenizer")
        return [ids[name] for name in before], [ids[name] for name in after]

    def _wordpiece(self) -> bytes:
        model = self.definition["model"]
        normalizer = self.definition["normalizer"]
        *first, options = steps(normalizer, "normalizer", NORMALIZERS, "") or [{}]
        prefix, suffix = self._around
        return build.wordpiece(
            model["vocab"],
            vocab_size=self.vocab_size,
            unknown=model["vocab"][model["unk_token"]],
            longest_word=model["max_input_chars_per_word"],
            continuing=model["continuing_subword_prefix"],
            lowercase_first=bool(first),
            clean_text=options.get("clean_text", False),
            handle_chinese_chars=options.get("handle_chinese_chars", False),
            strip_accents=options.get("strip_accents", False),
            lowercase=options.get("lowercase", False),
            prefix=prefix,
            suffix=suffix,
            pad=self.special.get("pad"),
        )

    def _byte_level_bpe(self) -> bytes | None:
        if self._is_builtin():
            return BUILTIN.read_bytes()
        model = self.definition["model"]
        vocab = model["vocab"]
        texts = [token.encode() for token in self.tokens]
        merges = []
        for left, right in model["merges"]:
            merges.append((vocab[left], vocab[right], vocab[left + right]))
        for token in (*CHARACTERS, *(left + right for left, right in model["merges"])):
            texts[vocab[token]] = bytes(BYTES[c] for c in token)
        prefix, suffix = self._around
        return build.byte_level_bpe(
            texts,
            [vocab[character] for character in CHARACTERS],
            merges,
            prefix=prefix,
            suffix=suffix,
            pad=self.special.get("pad"),
            mask=self.special.get("mask"),
        )

    def _is_builtin(self) -> bool:
        return (
            self.tokens[50256:] == SPECIALS
            and (self.special.get("pad"), self.special.get("mask")) == (50257, 50258)
            and self.identity() == GPT2_IDENTITY
        )

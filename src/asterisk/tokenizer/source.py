"""What a model folder's tokenizer does, and the file that does the same on a device.

A tokenizer is recognised by what it does and not by the bytes of its files:
`asterisk.tokenizer.folder` brings every folder to one definition, which ``TokenizerSource``
compiles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from asterisk.tokenizer import build, huggingface
from asterisk.tokenizer.bpe import BUILTIN, ByteLevelBPE, gpt2
from asterisk.tokenizer.huggingface import (
    BYTES,
    CHARACTERS,
    NORMALIZERS,
    PRE_TOKENIZERS,
    SPECIALS,
    byte_level,
    steps,
)
from asterisk.tokenizer.library import LibraryTokenizer
from asterisk.tokenizer.tokenizer import Tokenizer
from asterisk.tokenizer.wordpiece import WordPiece

COMPACT, JSON = "tokenizer.bin", "tokenizer.json"
# The built-in tokenizer's, so that it need not be built to be recognised.
GPT2_IDENTITY = "76b9fbc592010b2b231b7e9ad3f6de8aacac3b1e185e05be1b01c75dc80e23cc"
Kind = Literal["wordpiece", "byte_level_bpe", "library"]


@dataclass(frozen=True)
class TokenizerSource:
    """One tokenizer, whole.

    ``definition`` is a ``tokenizer.json`` that does what transformers does with the folder: its
    normaliser, pre-tokeniser, model, post-processor and added tokens, each in one spelling.
    """

    kind: Kind
    definition: Mapping[str, Any]
    tokens: tuple[str, ...]  # by id, with made-up names where the ids have gaps
    special: Mapping[str, int]  # ids of unk, cls, sep, pad, mask, bos and eos, where they exist

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self.tokens)

    @property
    def specials(self) -> int:
        """How many special tokens stand around a text."""
        return sum(map(len, self._around))

    def identity(self) -> str:
        """Return the SHA-256 of what the tokenizer does, in hex, however it is written down.

        Special tokens count where they are put around a text.
        """
        return self._identity

    @cached_property
    def _identity(self) -> str:
        parts = ("normalizer", "pre_tokenizer", "model", "post_processor")
        does = {part: self.definition[part] for part in parts}
        does["added_tokens"] = [t for t in self.definition["added_tokens"] if not t["special"]]
        text = json.dumps(does, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def compile(self) -> tuple[str, bytes]:
        """Return the name and the bytes, always the same, of the file for ``open_tokenizer``."""
        if self.kind != "library":
            return COMPACT, self._compact
        text = json.dumps(self.definition, ensure_ascii=False, separators=(",", ":"))
        return JSON, text.encode()

    def open(self) -> Tokenizer:
        """Open the tokenizer without a file; MissingExtra if it needs ``tokenizers``."""
        data = self.compile()[1]
        if self.kind == "byte_level_bpe":
            return ByteLevelBPE(data)
        return WordPiece(data) if self.kind == "wordpiece" else LibraryTokenizer(data)

    def to_json(self) -> str:
        """Return the text of a ``tokenizer.json`` that does the same in Hugging Face's library."""
        if self._is_builtin():
            return huggingface.to_json(gpt2())
        return json.dumps(self.definition, ensure_ascii=False)

    def settings(self, max_length: int) -> dict[str, object]:
        """Return the content of ``tokenizer_config.json`` for texts of ``max_length`` tokens."""
        if self._is_builtin():
            return huggingface.config(max_length)
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_length,
            "split_special_tokens": True,
            "clean_up_tokenization_spaces": False,
            **{f"{name}_token": self.tokens[token] for name, token in self.special.items()},
        }

    @cached_property
    def _compact(self) -> bytes:
        if self._is_builtin():
            return BUILTIN.read_bytes()
        model, special = self.definition["model"], self.special
        prefix, suffix = self._around
        around: dict[str, Any] = {"prefix": prefix, "suffix": suffix, "pad": special.get("pad")}
        if self.kind == "byte_level_bpe":
            return build.byte_level_bpe(model, self.tokens, mask=special.get("mask"), **around)
        normalizers = steps(self.definition["normalizer"], "normalizer", NORMALIZERS, "")
        return build.wordpiece(model, normalizers, size=self.vocab_size, **around)

    @property
    def _around(self) -> tuple[list[int], list[int]]:
        ids = {token: i for i, token in enumerate(self.tokens)}
        part = self.definition["post_processor"]
        before, after = huggingface.around(part, ids, "the tokenizer")
        return [ids[name] for name in before], [ids[name] for name in after]

    def _is_builtin(self) -> bool:
        return (
            self.tokens[50256:] == SPECIALS
            and (self.special.get("pad"), self.special.get("mask")) == (50257, 50258)
            and self.identity() == GPT2_IDENTITY
        )


def kind_of(definition: Mapping[str, Any]) -> Kind:
    """Return the form that can hold the tokenizer of a ``tokenizer.json`` in its one spelling."""
    model = definition["model"]
    normalizers = steps(definition["normalizer"], "normalizer", NORMALIZERS, "")
    pre_tokenizers = steps(definition["pre_tokenizer"], "pre_tokenizer", PRE_TOKENIZERS, "")
    normalizing = [step["type"] for step in normalizers]
    if not all(token["special"] for token in definition["added_tokens"]):
        return "library"
    if (
        model["type"] == "WordPiece"
        and normalizing in ([], ["BertNormalizer"], ["Lowercase", "BertNormalizer"])
        and [step["type"] for step in pre_tokenizers] == ["BertPreTokenizer"]
        and model["unk_token"] in model["vocab"]
    ):
        return "wordpiece"
    others = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    if (
        model["type"] == "BPE"
        and not normalizers
        and pre_tokenizers == [byte_level({"add_prefix_space": False})]
        and not any(model[option] for option in (*others, "byte_fallback", "ignore_merges"))
        and _fits(model["vocab"], [left + right for left, right in model["merges"]])
        and all(token in model["vocab"] for pair in model["merges"] for token in pair)
    ):
        return "byte_level_bpe"
    return "library"


def _fits(vocab: Mapping[str, int], made: list[str]) -> bool:
    """Whether the compact form can hold a byte-level BPE vocabulary; ``made`` are the merges'."""
    return (
        0 < len(made) <= (1 << 16) - 256
        and all(token in vocab for token in (*CHARACTERS, *made))
        and len({*CHARACTERS, *made}) == 256 + len(made)
        and all(character in BYTES for token in made for character in token)
        # 256 tokens after another are less than 64 KiB.
        and max(map(len, made)) < 256
        and max((len(token.encode()) for token in vocab.keys() - set(made)), default=0) < 256
    )

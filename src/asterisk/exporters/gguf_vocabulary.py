"""A tokenizer as llama.cpp reads it from a GGUF file: WordPiece, GPT-2's BPE, Unigram.

Keys and spellings are those of llama.cpp's ``convert_hf_to_gguf.py``. Only what makes a program
that reads nothing but the file split a text as Hugging Face does is written; a tokenizer of which
that is not known is refused by name. Where the two still differ is said in ``docs/gguf.md``.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from asterisk.common.errors import UsageError
from asterisk.tokenizer.huggingface import NORMALIZERS, PRE_TOKENIZERS, Part, steps
from asterisk.tokenizer.source import TokenizerSource

# llama.cpp's types of tokens.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
SPACE = "\u2581"  # what SentencePiece writes for a space, and llama.cpp before a word's first piece
_UNUSED_SCORE = -10_000.0
_SPECIAL_KEYS = {  # llama.cpp's spelling of "separator" included
    **{"unk": "unknown_token_id", "sep": "seperator_token_id", "pad": "padding_token_id"},
    **{"cls": "cls_token_id", "mask": "mask_token_id"},
}
_END_OF_TEXT = "<|endoftext|>"  # GPT-2's one special token


def add_vocabulary(writer: Any, source: TokenizerSource, rows: int) -> None:
    """Write the tokenizer's keys for a token table of so many ``rows`` to a ``GGUFWriter``.

    Raises UsageError for a tokenizer that llama.cpp does not have.
    """
    types = _types(source)
    # A special token is never in a text; others beyond the table would end llama.cpp's process.
    if any(kind != CONTROL for kind in types[rows:]):
        raise UsageError(
            f"gguf: the tokenizer has {len(types):,} tokens, the token table {rows:,} rows"
        )
    kind = source.definition["model"]["type"]
    if kind == "WordPiece":
        tokens = _add_wordpiece(writer, source)
    elif kind == "BPE":
        tokens = _add_bpe(writer, source)
    elif kind == "Unigram":
        tokens = _add_unigram(writer, source, rows)
    else:
        raise _no_tokenizer(f"of type {kind!r}")
    # Rows that no token has: names that no text contains, as llama.cpp's converter gives them.
    spare = range(len(tokens), rows)
    writer.add_token_list([*tokens[:rows], *(f"[PAD{token}]" for token in spare)])
    writer.add_token_types([*types[:rows], *(UNUSED for _ in spare)])
    _add_special(writer, source, rows)


def _no_tokenizer(what: str) -> UsageError:
    return UsageError(
        f"gguf: llama.cpp has no tokenizer {what}; it has BERT's WordPiece, GPT-2's and RoBERTa's "
        "byte-level BPE, and XLM-R's Unigram"
    )


def _types(source: TokenizerSource) -> list[int]:
    types = [NORMAL] * len(source.tokens)
    for added in source.definition["added_tokens"]:
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    for token in source.special.values():
        types[token] = CONTROL
    if source.definition["model"]["type"] == "Unigram":
        types[source.definition["model"]["unk_id"]] = UNKNOWN
    return types


def _add_special(writer: Any, source: TokenizerSource, rows: int) -> None:
    """Write which tokens are special, and which of them stand around a text."""
    special = dict(source.special)
    if _END_OF_TEXT in source.tokens:
        end = source.tokens.index(_END_OF_TEXT)
        special = {"bos": end, "eos": end, **special}
    for name, key in _SPECIAL_KEYS.items():
        if special.get(name, rows) < rows:
            writer.add_uint32(f"tokenizer.ggml.{key}", special[name])
    tokenizer = source.open()
    before, after = list(tokenizer.prefix), list(tokenizer.suffix)
    if len(before) > 1 or len(after) > 1:
        raise _no_tokenizer("that puts several special tokens before or after a text")
    first = before[0] if before else special.get("bos", special.get("cls"))
    last = after[0] if after else special.get("eos", special.get("sep"))
    if first is not None:
        writer.add_bos_token_id(first)
    if last is not None:
        writer.add_eos_token_id(last)
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(bool(after))
    if source.definition["model"]["type"] == "WordPiece":
        # There the first token always comes, and the last is left out by a key of its own.
        if not before:
            raise _no_tokenizer("of WordPiece without a special token before a text")
        writer.add_add_sep_token(bool(after))


def _add_wordpiece(writer: Any, source: TokenizerSource) -> list[str]:
    normalizer = steps(source.definition["normalizer"], "normalizer", NORMALIZERS, "gguf")
    splitter = steps(source.definition["pre_tokenizer"], "pre_tokenizer", PRE_TOKENIZERS, "gguf")
    lower = [step["type"] for step in normalizer[:-1]]
    bert = normalizer[-1] if normalizer else {"type": "none"}
    if lower not in ([], ["Lowercase"]) or not (
        bert["type"] == "BertNormalizer" and bert["clean_text"] and bert["handle_chinese_chars"]
    ):
        raise _no_tokenizer("of WordPiece without BERT's cleaning of texts and spacing of Chinese")
    if [step["type"] for step in splitter] != ["BertPreTokenizer"]:
        raise _no_tokenizer("of WordPiece without BERT's pre-tokenizer")
    if source.definition["model"]["continuing_subword_prefix"] != "##":
        raise _no_tokenizer("of WordPiece whose continuations do not begin with '##'")
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", bool(lower) or bert["lowercase"])
    writer.add_bool("tokenizer.ggml.normalizer.strip_accents", bert["strip_accents"])
    special = set(source.special.values())
    special |= {added["id"] for added in source.definition["added_tokens"]}
    tokens = [
        token if index in special else _wordpiece(token)
        for index, token in enumerate(source.tokens)
    ]
    if len(set(tokens)) < len(tokens):
        raise _no_tokenizer("of WordPiece in which two tokens are spelt alike")
    return tokens


def _wordpiece(token: str) -> str:
    """Spell a token as llama.cpp does, which marks a word's first piece and not the others."""
    return token[2:] if token.startswith("##") and len(token) > 2 else SPACE + token


def _add_bpe(writer: Any, source: TokenizerSource) -> list[str]:
    model = source.definition["model"]
    splitter = steps(source.definition["pre_tokenizer"], "pre_tokenizer", PRE_TOKENIZERS, "gguf")
    if source.definition["normalizer"] is not None:
        raise _no_tokenizer("of BPE with a normalizer")
    if [step["type"] for step in splitter] != ["ByteLevel"]:
        raise _no_tokenizer("of BPE with a pre-tokenizer other than ByteLevel")
    if splitter[0]["add_prefix_space"] or not splitter[0]["use_regex"]:
        raise _no_tokenizer("of byte-level BPE with add_prefix_space, or without GPT-2's pattern")
    if model.get("ignore_merges") or model.get("byte_fallback"):
        raise _no_tokenizer("of BPE with ignore_merges or byte_fallback")
    writer.add_tokenizer_model("gpt2")
    # Without it digits and spaces would be split in other places.
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    return list(source.tokens)


def _add_unigram(writer: Any, source: TokenizerSource, rows: int) -> list[str]:
    model = source.definition["model"]
    if model.get("unk_id") is None or model.get("byte_fallback"):
        raise _no_tokenizer("of Unigram without an unknown token, or with byte_fallback")
    charsmap = _charsmap(source.definition["normalizer"])
    splitter = steps(source.definition["pre_tokenizer"], "pre_tokenizer", PRE_TOKENIZERS, "gguf")
    metaspace = splitter[-1] if splitter else {}
    if (
        [step["type"] for step in splitter] not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"])
        or metaspace["replacement"] != SPACE
        or metaspace["prepend_scheme"] == "never"
    ):
        raise _no_tokenizer("of Unigram with a pre-tokenizer other than SentencePiece's spaces")
    scores = [score for _, score in model["vocab"]]
    # Tokens added behind the model's own have no score.
    scores = [*scores, *[_UNUSED_SCORE] * (rows - len(scores))][:rows]
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores(scores)
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    if charsmap:
        writer.add_precompiled_charsmap(charsmap)
    return list(source.tokens)


def _charsmap(normalizer: Part | None) -> bytes:
    """Return SentencePiece's table of characters; UsageError for any other normaliser."""
    charsmap = b""
    for step in steps(normalizer, "normalizer", NORMALIZERS, "gguf"):
        if step["type"] == "Precompiled" and not charsmap:
            try:
                charsmap = base64.b64decode(step["precompiled_charsmap"], validate=True)
            except binascii.Error:
                raise UsageError("gguf: the normalizer's precompiled_charsmap is damaged") from None
        # Runs of spaces, and spaces around a text, are what llama.cpp removes itself.
        elif not (step["type"] == "Replace" and step["content"] == " ") and step["type"] != "Strip":
            raise _no_tokenizer(f"of Unigram with a normalizer of type {step['type']!r}")
    return charsmap

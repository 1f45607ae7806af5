"""Hugging Face's ``tokenizer.json``: its parts, each in one spelling, and our own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from asterisk.common.errors import ArtifactError
from asterisk.tokenizer.bpe import ByteLevelBPE

Part = Mapping[str, Any]
NORMALIZERS = (
    *("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt"),
    *("Precompiled", "Prepend", "Replace", "Sequence", "Strip", "StripAccents"),
)
PRE_TOKENIZERS = (
    *("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "FixedLength", "Metaspace"),
    *("Punctuation", "Sequence", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"),
)
MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
POST_PROCESSORS = (
    *("BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"),
)
MOST_TOKENS = 1 << 21
_STEPS_OF_SEQUENCE = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
}

_PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_fresh = count(0x100)
# GPT-2's visible character of each byte, by byte: printable Latin-1 stands for itself, every other
# byte for the next code point from U+0100. Source: ``bytes_to_unicode`` of OpenAI's GPT-2.
CHARACTERS = "".join(chr(b if b in _PRINTABLE else next(_fresh)) for b in range(256))
BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}
SPECIALS = ("<|endoftext|>", "[PAD]", "[MASK]")  # the last tokens of the built-in vocabulary


def check(sound: object, where: str, message: str) -> None:
    """Raise ArtifactError with ``message`` about the file ``where`` unless it is ``sound``."""
    if not sound:
        raise ArtifactError(f"{where}: {message}")


def steps(part: Part | None, kind: str, supported: Sequence[str], where: str) -> list[Part]:
    """Return the steps of a normaliser, pre-tokeniser or post-processor, sequences taken apart.

    ``kind`` is its name in the file. ArtifactError, which names the step, unless ``supported``.
    """
    if part is None:
        return []
    typed = isinstance(part, Mapping) and isinstance(part.get("type"), str)
    check(typed, where, f"its {kind} is not an object with a type")
    name, listed = part["type"], ", ".join(supported)
    check(name in supported, where, f"{kind} {name!r} is not supported; supported: {listed}")
    if name != "Sequence":
        return [part]
    inner: Any = part.get(_STEPS_OF_SEQUENCE[kind])
    check(isinstance(inner, list), where, f"its {kind} is a Sequence of nothing")
    return [step for one in inner for step in steps(one, kind, supported, where)]


def sequence(parts: Sequence[Part], kind: str) -> Part | None:
    """Return one normaliser or pre-tokeniser that does ``parts`` one after the other."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return {"type": "Sequence", _STEPS_OF_SEQUENCE[kind]: list(parts)}


def bert_normalizer(part: Part) -> dict[str, Any]:
    """Return a BertNormalizer with every option, accents decided."""
    lowercase, strip = bool(part.get("lowercase", True)), part.get("strip_accents")
    return {
        "type": "BertNormalizer",
        "clean_text": bool(part.get("clean_text", True)),
        "handle_chinese_chars": bool(part.get("handle_chinese_chars", True)),
        "strip_accents": lowercase if strip is None else bool(strip),
        "lowercase": lowercase,
    }


def byte_level(part: Part) -> dict[str, Any]:
    """Return a ByteLevel pre-tokeniser with every option that changes ids."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": bool(part.get("add_prefix_space", True)),
        "trim_offsets": False,
        "use_regex": bool(part.get("use_regex", True)),
    }


def around(
    post_processor: Part | None, ids: Mapping[str, int], where: str
) -> tuple[list[str], list[str]]:
    """Return the special tokens that a post-processor puts before and after a text.

    ArtifactError if it does anything else, or its ids are not the vocabulary's ``ids``.
    """
    before: list[str] = []
    after: list[str] = []
    for step in steps(post_processor, "post_processor", POST_PROCESSORS, where):
        kind = step["type"]
        if kind == "ByteLevel":
            continue  # of offsets alone
        if kind == "TemplateProcessing":
            left, right, named = _read_template(step, where)
        else:
            try:
                (sep, sep_id), (cls, cls_id) = step["sep"], step["cls"]
            except (KeyError, TypeError, ValueError) as error:
                raise ArtifactError(f"{where}: {kind} without its two tokens") from error
            left, right, named = [cls], [sep], {cls: [cls_id], sep: [sep_id]}
        for name in (*left, *right):
            wrong = f"the special token {name!r} of its post-processor is not the vocabulary's"
            check(named.get(name) == [ids.get(name)], where, wrong)
        before, after = left + before, after + right
    return before, after


def _read_template(step: Part, where: str) -> tuple[list[str], list[str], dict[str, list[int]]]:
    sides: list[list[str]] = [[]]
    try:
        for piece in step["single"]:
            [(kind, value)] = piece.items()
            if kind == "Sequence" and value["id"] == "A":
                sides.append([])
            elif kind == "SpecialToken" and len(sides) < 3:
                sides[-1].append(value["id"])
            else:
                raise ValueError(kind)
        named = {str(name): list(token["ids"]) for name, token in step["special_tokens"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{where}: its post-processor's template is not understood") from error
    wrong = "its post-processor's template does not hold one text"
    check(len(sides) == 2, where, wrong)
    return sides[0], sides[1], named


def template(before: Sequence[str], after: Sequence[str], ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the post-processor that puts these special tokens around a text."""
    left, right = (
        [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]
        for names in (before, after)
    )
    texts = [{"Sequence": {"id": letter, "type_id": 0}} for letter in "AB"]
    return {
        "type": "TemplateProcessing",
        "single": [*left, texts[0], *right],
        "pair": texts,
        "special_tokens": {
            name: {"id": name, "ids": [ids[name]], "tokens": [name]}
            for name in sorted({*before, *after})
        },
    }


def model(part: Part, where: str) -> dict[str, Any]:
    """Return a model with every option that its type has, merges as pairs."""
    kind, vocab = part["type"], part["vocab"]
    if kind == "WordPiece":
        longest = part.get("max_input_chars_per_word", 100)
        sound = type(longest) is int and 0 <= longest < 1 << 31
        check(sound, where, f"max_input_chars_per_word {longest!r}")
        return {
            "type": kind,
            "unk_token": part.get("unk_token", "[UNK]"),
            "continuing_subword_prefix": part.get("continuing_subword_prefix", "##"),
            "max_input_chars_per_word": longest,
            "vocab": vocab,
        }
    if kind != "BPE":
        return dict(part)
    merges = part.get("merges")
    pairs = [m.split(" ") if isinstance(m, str) else m for m in merges or ()]
    sound = isinstance(merges, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair)
        for pair in pairs
    )
    check(sound, where, "its merges are not pairs of tokens")
    return {
        "type": kind,
        "dropout": part.get("dropout") or None,
        "unk_token": part.get("unk_token"),
        "continuing_subword_prefix": part.get("continuing_subword_prefix") or None,
        "end_of_word_suffix": part.get("end_of_word_suffix") or None,
        **{flag: bool(part.get(flag)) for flag in ("fuse_unk", "byte_fallback", "ignore_merges")},
        "vocab": vocab,
        "merges": pairs,
    }


def vocabulary(model: Part, where: str) -> dict[str, int]:
    """Return the ids of a model's tokens; ArtifactError unless each token has an id of its own."""
    vocab, unigram = model["vocab"], model["type"] == "Unigram"
    wrong = f"its vocabulary is not that of a {model['type']} model"
    check(isinstance(vocab, list if unigram else dict), where, wrong)
    if unigram:
        sound = all(isinstance(e, list) and len(e) == 2 and isinstance(e[0], str) for e in vocab)
        check(sound, where, "its vocabulary is not of tokens and scores")
        vocab = {token: i for i, (token, _) in enumerate(vocab)}
    ids = dict(vocab)
    sound = bool(ids) and all(type(i) is int and 0 <= i < MOST_TOKENS for i in ids.values())
    check(sound, where, f"its ids are not integers in 0..{MOST_TOKENS - 1}")
    single = len(set(ids.values())) == len(ids)
    check(single, where, "two tokens of its vocabulary have one id")
    return ids


def check_unknown(model: Part, where: str) -> None:
    """Raise ArtifactError if a word that is not in the vocabulary would have no id."""
    vocab = model["vocab"]
    if model["type"] == "Unigram":
        unknown = model.get("unk_id")
        exists = type(unknown) is int and 0 <= unknown < len(vocab)
    else:
        unknown = model.get("unk_token")
        exists = unknown in vocab or (model["type"] == "BPE" and unknown is None)
    check(exists, where, f"the unknown token {unknown!r} is not in the vocabulary")


def tokens_by_id(ids: Mapping[str, int]) -> list[str]:
    """Return the token of each id, with made-up names where the ids have gaps."""
    size = max(ids.values()) + 1
    if size > 2 * len(ids) + 1024:
        raise ArtifactError(f"{len(ids)} tokens have ids up to {size - 1}")
    tokens = [f"[gap{i}]" for i in range(size)]
    for token, i in ids.items():
        tokens[i] = token
    for i in set(range(size)) - set(ids.values()):
        while tokens[i] in ids:
            tokens[i] += "]"
    return tokens


def spell(data: bytes) -> str:
    """Return ``data`` in GPT-2's visible characters, one a byte."""
    return "".join(map(CHARACTERS.__getitem__, data))


def to_json(tokenizer: ByteLevelBPE) -> str:
    """Return the text of ``tokenizer.json``: a byte-level BPE with three special tokens.

    It cannot say that special tokens in a text are plain text; `config` does.
    """
    first_special = tokenizer.vocab_size - len(SPECIALS)
    spelt = [spell(tokenizer.token_bytes(token)) for token in range(first_special)]
    vocab = {name: token for token, name in enumerate([*spelt, *SPECIALS])}
    merges = [[spelt[left], spelt[right]] for left, right in tokenizer.merges()]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    part = byte_level({"add_prefix_space": False})
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": name, **flags, "special": True}
            for i, name in enumerate(SPECIALS, first_special)
        ],
        "normalizer": None,
        "pre_tokenizer": part,
        "post_processor": part,
        "decoder": part,
        "model": {
            **model({"type": "BPE", "vocab": vocab, "merges": merges}, ""),
            **{"continuing_subword_prefix": "", "end_of_word_suffix": ""},
        },
    }
    return json.dumps(content, ensure_ascii=False)


def config(max_length: int = 512) -> dict[str, object]:
    """Return the content of ``tokenizer_config.json``; ``max_length`` is in tokens."""
    _, pad, mask = SPECIALS
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "split_special_tokens": True,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
        "truncation_side": "right",
        "pad_token": pad,
        "mask_token": mask,
    }

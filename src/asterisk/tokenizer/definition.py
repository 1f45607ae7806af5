"""The parts of a ``tokenizer.json``: which are known, and each in one spelling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from asterisk.common.errors import ArtifactError

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
Part = Mapping[str, Any]


def steps(part: Part | None, kind: str, known: Sequence[str], where: str) -> list[Part]:
    """Return the steps of a normaliser, pre-tokeniser or post-processor, sequences taken apart.

    ``kind`` is its name in the file. Raises ArtifactError, which names the step, for one that is
    not ``known``.
    """
    if part is None:
        return []
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise ArtifactError(f"{where}: its {kind} is not an object with a type")
    name = part["type"]
    if name not in known:
        listed = ", ".join(known)
        raise ArtifactError(f"{where}: {kind} {name!r} is not supported; supported are {listed}")
    if name != "Sequence":
        return [part]
    inner = part.get(
        {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}.get(kind, "processors")
    )
    if not isinstance(inner, list):
        raise ArtifactError(f"{where}: its {kind} is a Sequence of nothing")
    return [step for one in inner for step in steps(one, kind, known, where)]


def sequence(parts: Sequence[Part], kind: str) -> Part | None:
    """Return one normaliser or pre-tokeniser that does ``parts`` one after the other."""
    if len(parts) < 2:
        return parts[0] if parts else None
    name = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}[kind]
    return {"type": "Sequence", name: list(parts)}


def bert_normalizer(part: Part) -> dict[str, Any]:
    """Return a BertNormalizer with every option, accents decided."""
    lowercase = bool(part.get("lowercase", True))
    strip = part.get("strip_accents")
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
    """Return the names of the special tokens that a post-processor puts before and after a text.

    ``ids`` are the ids of the tokens. Raises ArtifactError for a post-processor that does anything
    else, or whose tokens are not those of the vocabulary.
    """
    before: list[str] = []
    after: list[str] = []
    for step in steps(post_processor, "post_processor", POST_PROCESSORS, where):
        if step["type"] == "ByteLevel":
            continue  # of offsets alone
        if step["type"] == "TemplateProcessing":
            left, right, named = _template(step, where)
        else:
            try:
                (sep, sep_id), (cls, cls_id) = step["sep"], step["cls"]
            except (KeyError, TypeError, ValueError) as error:
                raise ArtifactError(f"{where}: {step['type']} without its two tokens") from error
            left, right, named = [cls], [sep], {cls: [cls_id], sep: [sep_id]}
        for name in (*left, *right):
            if named.get(name) != [ids.get(name)]:
                raise ArtifactError(
                    f"{where}: the special token {name!r} of its post-processor is not the "
                    "vocabulary's"
                )
        before, after = left + before, after + right
    return before, after


def _template(step: Part, where: str) -> tuple[list[str], list[str], dict[str, list[int]]]:
    sides: tuple[list[str], list[str]] = [], []
    texts = 0
    try:
        for piece in step["single"]:
            [(kind, value)] = piece.items()
            if kind == "Sequence" and value["id"] == "A":
                texts += 1
            elif kind == "SpecialToken" and texts < 2:
                sides[texts].append(value["id"])
            else:
                raise ValueError(kind)
        named = {str(name): list(token["ids"]) for name, token in step["special_tokens"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{where}: its post-processor's template is not understood") from error
    if texts != 1:
        raise ArtifactError(f"{where}: its post-processor's template does not hold one text")
    return (*sides, named)


def template(before: Iterable[str], after: Iterable[str], ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the post-processor that puts these special tokens around a text."""

    def special(names: Iterable[str]) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]

    before, after = list(before), list(after)
    texts = [{"Sequence": {"id": letter, "type_id": 0}} for letter in "AB"]
    return {
        "type": "TemplateProcessing",
        "single": [*special(before), texts[0], *special(after)],
        "pair": texts,
        "special_tokens": {
            name: {"id": name, "ids": [ids[name]], "tokens": [name]}
            for name in sorted({*before, *after})
        },
    }

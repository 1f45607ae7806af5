"""The tokenizer of a model folder, read as transformers 5 reads it.

``tokenizer_config.json`` names a class. For a class of a model family transformers takes the
vocabulary from ``tokenizer.json`` and builds everything else anew, by the class and the
configuration; for ``PreTrainedTokenizerFast`` and ``TokenizersBackend`` the file is taken as it
is. Without a class the type of the model decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from asterisk.common.errors import ArtifactError
from asterisk.common.files import has_file, read_bytes, read_object
from asterisk.tokenizer import huggingface
from asterisk.tokenizer.bpe import gpt2
from asterisk.tokenizer.huggingface import (
    MODELS,
    NORMALIZERS,
    PRE_TOKENIZERS,
    Part,
    around,
    bert_normalizer,
    byte_level,
    sequence,
    steps,
    template,
)
from asterisk.tokenizer.library import MOST_BYTES, in_one_spelling
from asterisk.tokenizer.source import TokenizerSource, kind_of

_FAMILIES = {
    **dict.fromkeys(("BertTokenizer", "DistilBertTokenizer"), "bert"),
    "RobertaTokenizer": "roberta",
    "XLMRobertaTokenizer": "xlm-roberta",
    **dict.fromkeys(("PreTrainedTokenizer", "TokenizersBackend"), "as it is"),
}
_BY_MODEL = {
    **{"bert": "bert", "distilbert": "bert", "roberta": "roberta", "xlm-roberta": "xlm-roberta"},
    "asterisk": "as it is",  # the original project's encoder, whose folders no library else opens
}
_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ROBERTA = {
    **{"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>"},
    **{"unk": "<unk>", "pad": "<pad>", "mask": "<mask>"},
}
# What special tokens are called where the configuration does not say.
_NAMES = {"bert": _BERT, "roberta": _ROBERTA, "xlm-roberta": _ROBERTA, "as it is": {}}
_SPECIAL = ("unk", "cls", "sep", "pad", "mask", "bos", "eos")
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True}


def read_tokenizer(folder: Path, model_type: str, *, lowercase: bool = False) -> TokenizerSource:
    """Read the tokenizer in ``folder``, of a model whose ``config.json`` says ``model_type``.

    ``lowercase`` is ``do_lower_case`` of sentence-transformers' ``sentence_bert_config.json``.
    Raises ArtifactError for what cannot be read or is not supported, MissingExtra for a kind that
    takes the ``tokenizers`` package where that is not installed.
    """
    files = _Files(folder)
    return _source(files, _family(files, model_type), lowercase)


@cache
def gpt2_source() -> TokenizerSource:
    """Return the built-in tokenizer, GPT-2's with ``[PAD]`` and ``[MASK]``, as a source."""
    files = _Files(None, json.loads(huggingface.to_json(gpt2())), huggingface.config())
    return _source(files, "as it is", lowercase=False)


class _Files:
    """The files of a folder that say something about its tokenizer."""

    def __init__(
        self,
        folder: Path | None,
        definition: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.where = str(folder or "the tokenizer")
        self.config = config or self.json("tokenizer_config.json") or {}
        self.definition = definition or self.json("tokenizer.json")
        if "added_tokens_decoder" not in self.config:
            self.config = {**self.config, **(self.json("special_tokens_map.json") or {})}
        for key in ("auto_map", "fast_tokenizer_files"):
            if self.config.get(key):
                raise self.error(f"{key} in tokenizer_config.json is not supported")
        truncation = self.part("truncation") or {}
        side = self.config.get("truncation_side") or truncation.get("direction") or "right"
        if str(side).lower() != "right":
            raise self.error(f"texts that are cut on the {side} are not supported")

    def error(self, message: str) -> ArtifactError:
        return ArtifactError(f"{self.where}: {message}")

    def missing(self, names: str) -> ArtifactError:
        return self.error(
            f"has no {names} to read a tokenizer from; transformers makes one: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )

    def text(self, name: str) -> str | None:
        if self.folder is None or not has_file(self.folder, name):
            return None
        try:
            return read_bytes(self.folder, name, MOST_BYTES).decode()
        except UnicodeDecodeError as error:
            raise ArtifactError(f"{self.where}/{name}: is not UTF-8") from error

    def json(self, name: str) -> dict[str, Any] | None:
        """Return the object in a file of strict JSON, None if there is none."""
        if self.folder is None or not has_file(self.folder, name):
            return None
        value = read_object(self.folder, name, MOST_BYTES)
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except ValueError:
            raise ArtifactError(f"{self.where}/{name}: holds a lone surrogate") from None
        return value

    def option(self, name: str, default: bool) -> bool:
        value = self.config.get(name, default)
        if not isinstance(value, bool):
            raise self.error(f"{name} in tokenizer_config.json is not true or false")
        return value

    def part(self, name: str) -> Any:
        return None if self.definition is None else self.definition.get(name)

    def steps(self, part: str, expected: Sequence[str] = ()) -> list[Part]:
        """Return the steps of a normaliser or pre-tokeniser, each of an ``expected`` type if given.

        Transformers passes over the part and builds its own; a step of another type says that the
        file and the tokenizer class are not of one model.
        """
        supported = NORMALIZERS if part == "normalizer" else PRE_TOKENIZERS
        found = steps(self.part(part), part, supported, self.where)
        for step in found:
            if expected and step["type"] not in expected:
                raise self.error(
                    f"{part} {step['type']!r} in tokenizer.json contradicts the tokenizer class, "
                    f"which expects {' or '.join(expected)}"
                )
        return found

    def model(self, wanted: str | None = None) -> dict[str, Any]:
        model = self.part("model")
        if not isinstance(model, dict) or "vocab" not in model:
            raise self.error("tokenizer.json has no model with a vocabulary")
        kind = model.get("type")
        if kind is None:  # files of old; the library too goes by what there is
            kind = "BPE" if "merges" in model else "WordPiece"
            if isinstance(model["vocab"], list):
                kind = "Unigram"
        if kind not in MODELS:
            raise self.error(
                f"tokenizer model {kind!r} is not supported; supported: {', '.join(MODELS)}"
            )
        if wanted not in (None, kind):
            raise self.error(
                f"tokenizer.json holds a {kind} model, but its tokenizer class expects {wanted}"
            )
        return {**model, "type": kind}

    def token(self, value: Any, name: str) -> str | None:
        """Return a token that is written as a string or as an object with its content."""
        content = value.get("content") if isinstance(value, dict) else value
        if content is not None and not isinstance(content, str):
            raise self.error(f"{name} is not a token")
        return content


def _family(files: _Files, model_type: str) -> str:
    name = files.config.get("tokenizer_class")
    if name is None:
        name = (files.json("config.json") or {}).get("tokenizer_class")
    if name is None and model_type in _BY_MODEL:
        return _BY_MODEL[model_type]
    if name is None:
        raise files.error(
            f"no tokenizer_class, and model type {model_type!r} is not one of "
            f"{', '.join(_BY_MODEL)}"
        )
    family = _FAMILIES.get(str(name).removesuffix("Fast"))
    if family is None:
        listed = ", ".join(n for n in _FAMILIES if n != "PreTrainedTokenizer")
        raise files.error(
            f"tokenizer class {name!r} is not supported; supported: {listed}, "
            "PreTrainedTokenizerFast"
        )
    return family


@dataclass
class _Parts:
    """A tokenizer before its added tokens; ``around`` None: as its post-processor says."""

    model: dict[str, Any]
    normalizers: Sequence[Part]
    pre_tokenizers: Sequence[Part]
    around: tuple[str, str] | None


def _bert(files: _Files) -> _Parts:
    """BertTokenizer: vocabulary of the file, normaliser of the configuration."""
    if files.definition is None:
        text = files.text("vocab.txt")
        if text is None:
            raise files.missing("tokenizer.json or vocab.txt")
        # Of two equal lines the later counts, and white space at a line's end does not.
        lines = text.removesuffix("\n").split("\n")
        vocab: Any = {line.rstrip(): i for i, line in enumerate(lines)}
    else:
        vocab = files.model("WordPiece")["vocab"]
    files.steps("normalizer", ("BertNormalizer", "Lowercase"))
    files.steps("pre_tokenizer", ("BertPreTokenizer",))
    strip = files.config.get("strip_accents")
    options = {
        "clean_text": True,
        "handle_chinese_chars": files.option("tokenize_chinese_chars", True),
        "strip_accents": None if strip is None else files.option("strip_accents", False),
        "lowercase": files.option("do_lower_case", True),
    }
    unknown = _special_names(files, "bert").get("unk")
    model = {"type": "WordPiece", "vocab": vocab, "unk_token": unknown}
    return _Parts(model, [bert_normalizer(options)], [{"type": "BertPreTokenizer"}], ("cls", "sep"))


def _roberta(files: _Files) -> _Parts:
    """RobertaTokenizer: byte-level BPE between two special tokens."""
    if files.definition is None:
        vocab, merges = files.json("vocab.json"), files.text("merges.txt")
        if vocab is None or merges is None:
            raise files.missing("tokenizer.json, or vocab.json and merges.txt,")
        lines = merges.removesuffix("\n").split("\n")
        pairs: Any = [line for line in lines if not line.startswith("#version")]
    else:
        model = files.model("BPE")
        vocab, pairs = model["vocab"], model.get("merges")
    files.steps("normalizer", ("Lowercase",))
    files.steps("pre_tokenizer", ("ByteLevel",))
    options = {"add_prefix_space": files.option("add_prefix_space", False)}
    model = {"type": "BPE", "vocab": vocab, "merges": pairs}
    return _Parts(model, [], [byte_level(options)], ("cls", "sep"))


def _xlm_roberta(files: _Files) -> _Parts:
    """XLMRobertaTokenizer: Unigram after the file's character map, between two special tokens."""
    if files.definition is None:
        raise files.missing("tokenizer.json")
    vocab = files.model("Unigram")["vocab"]
    found = files.steps("normalizer", ("Precompiled", "Lowercase", "Replace", "Strip"))
    if any(s["type"] == "Replace" and s.get("pattern") != {"Regex": " {2,}"} for s in found):
        raise files.error(
            "normalizer 'Replace' in tokenizer.json contradicts the tokenizer class, which expects "
            "it to join spaces"
        )
    files.steps("pre_tokenizer", ("WhitespaceSplit", "Metaspace"))
    metaspace = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": "always" if files.option("add_prefix_space", True) else "never",
        "split": True,
    }
    model = {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False}
    normalizers = [step for step in found if step["type"] == "Precompiled"][:1]
    return _Parts(model, normalizers, [{"type": "WhitespaceSplit"}, metaspace], ("bos", "eos"))


def _as_it_is(files: _Files) -> _Parts:
    """PreTrainedTokenizerFast: everything as tokenizer.json says."""
    if files.definition is None:
        raise files.missing("tokenizer.json")
    model = files.model()
    spelling = {"BertNormalizer": bert_normalizer, "ByteLevel": byte_level}
    normalizers, pre_tokenizers = (
        [spelling.get(step["type"], dict)(step) for step in files.steps(part)]
        for part in ("normalizer", "pre_tokenizer")
    )
    return _Parts(model, normalizers, pre_tokenizers, None)


def _special_names(files: _Files, family: str) -> dict[str, str]:
    """Return the special tokens that have a name, by name without ``_token``."""
    named: dict[str, str | None] = dict(_NAMES[family])
    padding = files.part("padding")
    if family == "as it is" and isinstance(padding, dict):
        named["pad"] = files.token(padding.get("pad_token"), "padding")
    for key, value in files.config.items():
        if key.endswith("_token") and not isinstance(value, bool):
            named[key.removesuffix("_token")] = files.token(value, key)
    return {name: token for name, token in named.items() if token is not None}


def _source(files: _Files, family: str, lowercase: bool) -> TokenizerSource:
    read = {"bert": _bert, "roberta": _roberta, "xlm-roberta": _xlm_roberta, "as it is": _as_it_is}
    parts = read[family](files)
    named = _special_names(files, family)
    model = huggingface.model(parts.model, files.where)
    ids = huggingface.vocabulary(model, files.where)
    given = _given_tokens(files, family, named)
    stated = {*ids, *(files.token(t, "an added token") for i, t in given if i is not None)}
    added = _added_tokens(files, given, ids)
    tokens = huggingface.tokens_by_id(ids)
    if parts.around is None:
        before, after = around(files.part("post_processor"), ids, files.where)
    else:
        for name in parts.around:
            if named.get(name) not in stated:  # transformers would make up an id without weights
                raise files.error(f"its {name}_token {named.get(name)!r} is not in the vocabulary")
        before, after = ([named[name]] for name in parts.around)
    normalizers = list(parts.normalizers)
    if lowercase and all(step["type"] != "Lowercase" for step in normalizers):
        normalizers.insert(0, {"type": "Lowercase"})
    special = {name: ids[named[name]] for name in _SPECIAL if named.get(name) in ids}
    unknown = model.get("unk_token")
    if "unk" not in special and unknown in ids:
        special["unk"] = ids[unknown]
    definition: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": huggingface.padding(named["pad"], special["pad"]) if "pad" in special else None,
        "added_tokens": added,
        "normalizer": sequence(normalizers, "normalizer"),
        "pre_tokenizer": sequence(parts.pre_tokenizers, "pre_tokenizer"),
        "post_processor": template(before, after, ids),
        "decoder": None,
        "model": model,
    }
    kind = kind_of(definition)
    huggingface.check_unknown(model, files.where)
    if kind == "byte_level_bpe":
        model.update(unk_token=None, fuse_unk=False)  # no byte is unknown
    if kind == "library":
        if len(ids) < len(tokens):
            raise files.error("its ids have gaps")
        definition = in_one_spelling(definition, files.where)
    return TokenizerSource(kind, definition, tuple(tokens), special)


def _given_tokens(files: _Files, family: str, named: Mapping[str, str]) -> list[tuple[Any, Any]]:
    """Return the added tokens in the order in which transformers adds them, with stated ids."""
    stated = files.part("added_tokens") or []
    decoder = files.config.get("added_tokens_decoder")
    if not isinstance(stated, list) or not isinstance(decoder, dict | None):
        raise files.error("its added tokens are not understood")
    given: list[tuple[Any, Any]] = []
    if decoder is None or family == "as it is":
        given += [(t.get("id") if isinstance(t, dict) else None, t) for t in stated]
    if decoder is None:
        for token, i in (files.json("added_tokens.json") or {}).items():
            given.append((i, {"content": token, "normalized": True, "special": False}))
    try:
        given += sorted((int(i), token) for i, token in (decoder or {}).items())
    except (TypeError, ValueError) as error:
        raise files.error("an id in added_tokens_decoder") from error
    extras = files.config.get("extra_special_tokens") or []
    extras = extras or files.config.get("additional_special_tokens") or []
    if isinstance(extras, dict):
        extras = list(extras.values())
    for token in (*named.values(), *extras):
        content = files.token(token, "a special token")
        given.append((None, {"content": content, "special": True}))
    return given


def _added_tokens(
    files: _Files, given: Sequence[tuple[Any, Any]], ids: dict[str, int]
) -> list[dict[str, Any]]:
    """Return the added tokens as transformers has them in the end; new ones join ``ids``.

    A token is special if anything says so, and then a text cannot name it.
    """
    found: dict[str, dict[str, Any]] = {}
    for i, token in given:
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str) or not content:
            raise files.error("an added token without content")
        if content not in ids:
            if max(ids.values()) != len(ids) - 1:
                raise files.error(f"{content!r} is added to a vocabulary whose ids have gaps")
            ids[content] = len(ids)
        if i is not None and ids[content] != i:
            raise files.error(
                f"the added token {content!r} has the id {i}, but transformers gives it "
                f"{ids[content]}"
            )
        before = found.get(content, {})
        special = bool(token.get("special", False) or before.get("special", False))
        flags = {name: bool(token.get(name, before.get(name, d))) for name, d in _FLAGS.items()}
        if special:
            flags = dict.fromkeys(_FLAGS, False)  # it is never looked for
        found[content] = {"id": ids[content], "content": content, **flags, "special": special}
    return sorted(found.values(), key=lambda token: int(token["id"]))

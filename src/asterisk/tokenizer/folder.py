"""The tokenizer of a model folder, read as transformers 5 reads it.

``tokenizer_config.json`` names a class. For a class of a model family transformers takes the
vocabulary from ``tokenizer.json`` and builds everything else anew, by the class and the
configuration; for ``PreTrainedTokenizerFast`` and ``TokenizersBackend`` the file is taken as it
is. Without a class the type of the model decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from asterisk.common.errors import ArtifactError
from asterisk.common.files import has_file, read_bytes, read_object
from asterisk.tokenizer import huggingface
from asterisk.tokenizer.bpe import gpt2
from asterisk.tokenizer.huggingface import Part, bert_normalizer, byte_level
from asterisk.tokenizer.library import MOST_BYTES, in_one_spelling
from asterisk.tokenizer.source import TokenizerSource, kind_of

_FAMILIES = {
    **dict.fromkeys(("BertTokenizer", "DistilBertTokenizer"), "bert"),
    "RobertaTokenizer": "roberta",
    "XLMRobertaTokenizer": "xlm-roberta",
    **dict.fromkeys(("TokenizersBackend", "PreTrainedTokenizer"), "as it is"),
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
# A tokenizer's model, normalisers and pre-tokenisers, and the names of the special tokens around a
# text, unless those are the post-processor's.
_Parts = tuple[dict[str, Any], Sequence[Part], Sequence[Part], tuple[str, ...]]


def read_tokenizer(folder: Path, model_type: str, *, lowercase: bool = False) -> TokenizerSource:
    """Read the tokenizer in ``folder``, of a model whose ``config.json`` says ``model_type``.

    ``lowercase`` is ``do_lower_case`` of ``sentence_bert_config.json``. ArtifactError for what is
    not supported, MissingExtra for a kind that needs the ``tokenizers`` package.
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
            missing = not self.config.get(key)
            self.check(missing, f"{key} in tokenizer_config.json is not supported")
        truncation = self.part("truncation") or {}
        side = self.config.get("truncation_side") or truncation.get("direction") or "right"
        right = str(side).lower() == "right"
        self.check(right, f"texts that are cut on the {side} are not supported")

    def check(self, sound: object, message: str) -> None:
        huggingface.check(sound, self.where, message)

    def found(self, value: object, names: str) -> None:
        advice = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        wrong = f"has no {names} to read a tokenizer from; transformers makes one: {advice}"
        self.check(value is not None, wrong)

    def lines(self, name: str) -> list[str] | None:
        if self.folder is None or not has_file(self.folder, name):
            return None
        try:
            text = read_bytes(self.folder, name, MOST_BYTES).decode()
        except UnicodeDecodeError as error:
            raise ArtifactError(f"{self.where}/{name}: is not UTF-8") from error
        return text.removesuffix("\n").split("\n")

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
        self.check(isinstance(value, bool), f"{name} in tokenizer_config.json is not true or false")
        return bool(value)

    def part(self, name: str) -> Any:
        return None if self.definition is None else self.definition.get(name)

    def steps(self, part: str, *expected: str) -> list[Part]:
        """Return the steps of a normaliser or pre-tokeniser, each of an ``expected`` type if given.

        Transformers passes over the part and builds its own; a step of another type says that the
        file and the tokenizer class are not of one model.
        """
        normalizer = part == "normalizer"
        supported = huggingface.NORMALIZERS if normalizer else huggingface.PRE_TOKENIZERS
        steps = huggingface.steps(self.part(part), part, supported, self.where)
        for step in steps:
            wrong = f"{part} {step['type']!r} in tokenizer.json contradicts the tokenizer class"
            fits = not expected or step["type"] in expected
            self.check(fits, f"{wrong}, which expects {' or '.join(expected)}")
        return steps

    def model(self, expected: str = "") -> dict[str, Any]:
        model = self.part("model")
        sound = isinstance(model, dict) and "vocab" in model
        self.check(sound, "tokenizer.json has no model with a vocabulary")
        kind = model.get("type")
        if kind is None:  # files of old; the library too goes by what there is
            kind = "BPE" if "merges" in model else "WordPiece"
            if isinstance(model["vocab"], list):
                kind = "Unigram"
        supported = f"supported: {', '.join(huggingface.MODELS)}"
        wrong = f"tokenizer model {kind!r} is not supported; {supported}"
        self.check(kind in huggingface.MODELS, wrong)
        wrong = f"tokenizer.json holds a {kind} model, but its tokenizer class expects {expected}"
        self.check(expected in ("", kind), wrong)
        return {**model, "type": kind}

    def token(self, value: Any, name: str) -> str | None:
        """Return a token that is written as a string or as an object with its content."""
        content = value.get("content") if isinstance(value, dict) else value
        self.check(isinstance(content, str | None), f"{name} is not a token")
        return content


def _family(files: _Files, model_type: str) -> str:
    name = files.config.get("tokenizer_class")
    if name is None:
        name = (files.json("config.json") or {}).get("tokenizer_class")
    if name is None:
        wrong = f"model type {model_type!r} is not one of {', '.join(_BY_MODEL)}"
        files.check(model_type in _BY_MODEL, f"no tokenizer_class, and {wrong}")
        return _BY_MODEL[model_type]
    plain, listed = str(name).removesuffix("Fast"), ", ".join([*_FAMILIES][:-1])
    wrong = f"tokenizer class {name!r} is not supported"
    supported = f"supported: {listed}, PreTrainedTokenizerFast"
    files.check(plain in _FAMILIES, f"{wrong}; {supported}")
    return _FAMILIES[plain]


def _bert(files: _Files) -> _Parts:
    """BertTokenizer: vocabulary of the file, normaliser of the configuration."""
    if files.definition is None:
        lines = files.lines("vocab.txt")
        files.found(lines, "tokenizer.json or vocab.txt")
        # Of two equal lines the later counts, and white space at a line's end does not.
        vocab: Any = {line.rstrip(): i for i, line in enumerate(lines or ())}
    else:
        vocab = files.model("WordPiece")["vocab"]
    files.steps("normalizer", "BertNormalizer", "Lowercase")
    files.steps("pre_tokenizer", "BertPreTokenizer")
    strip = files.config.get("strip_accents")
    options = {
        "clean_text": True,
        "handle_chinese_chars": files.option("tokenize_chinese_chars", True),
        "strip_accents": None if strip is None else files.option("strip_accents", False),
        "lowercase": files.option("do_lower_case", True),
    }
    unknown = _special_names(files, "bert").get("unk")
    model = {"type": "WordPiece", "vocab": vocab, "unk_token": unknown}
    return model, [bert_normalizer(options)], [{"type": "BertPreTokenizer"}], ("cls", "sep")


def _roberta(files: _Files) -> _Parts:
    """RobertaTokenizer: byte-level BPE between two special tokens."""
    if files.definition is None:
        vocab, lines = files.json("vocab.json"), files.lines("merges.txt")
        found = None if vocab is None else lines
        files.found(found, "tokenizer.json, or vocab.json and merges.txt,")
        merges: Any = [line for line in found or () if not line.startswith("#version")]
    else:
        model = files.model("BPE")
        vocab, merges = model["vocab"], model.get("merges")
    files.steps("normalizer", "Lowercase")
    files.steps("pre_tokenizer", "ByteLevel")
    options = {"add_prefix_space": files.option("add_prefix_space", False)}
    model = {"type": "BPE", "vocab": vocab, "merges": merges}
    return model, [], [byte_level(options)], ("cls", "sep")


def _xlm_roberta(files: _Files) -> _Parts:
    """XLMRobertaTokenizer: Unigram after the file's character map, between two special tokens."""
    files.found(files.definition, "tokenizer.json")
    vocab = files.model("Unigram")["vocab"]
    found = files.steps("normalizer", "Precompiled", "Lowercase", "Replace", "Strip")
    for step in found:
        joins = step["type"] != "Replace" or step.get("pattern") == {"Regex": " {2,}"}
        wrong = "normalizer 'Replace' in tokenizer.json contradicts the tokenizer class"
        files.check(joins, f"{wrong}, which expects it to join spaces")
    files.steps("pre_tokenizer", "WhitespaceSplit", "Metaspace")
    metaspace = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": "always" if files.option("add_prefix_space", True) else "never",
        "split": True,
    }
    model = {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False}
    normalizers = [step for step in found if step["type"] == "Precompiled"][:1]
    return model, normalizers, [{"type": "WhitespaceSplit"}, metaspace], ("bos", "eos")


def _as_it_is(files: _Files) -> _Parts:
    """PreTrainedTokenizerFast: everything as tokenizer.json says."""
    files.found(files.definition, "tokenizer.json")
    model, spelling = files.model(), {"BertNormalizer": bert_normalizer, "ByteLevel": byte_level}
    normalizers, pre_tokenizers = (
        [spelling.get(step["type"], dict)(step) for step in files.steps(part)]
        for part in ("normalizer", "pre_tokenizer")
    )
    return model, normalizers, pre_tokenizers, ()


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
    stored, normalizers, pre_tokenizers, around = read[family](files)
    named = _special_names(files, family)
    model = huggingface.model(stored, files.where)
    ids = huggingface.vocabulary(model, files.where)
    given = _given_tokens(files, family, named)
    stated = {*ids, *(files.token(t, "an added token") for i, t in given if i is not None)}
    added = _added_tokens(files, given, ids)
    tokens = huggingface.tokens_by_id(ids)
    if around:
        for name in around:  # transformers would make up an id without weights
            token = named.get(name)
            files.check(token in stated, f"its {name}_token {token!r} is not in the vocabulary")
        before, after = ([named[name]] for name in around)
    else:
        before, after = huggingface.around(files.part("post_processor"), ids, files.where)
    if lowercase and all(step["type"] != "Lowercase" for step in normalizers):
        normalizers = [{"type": "Lowercase"}, *normalizers]
    special = {name: ids[named[name]] for name in _SPECIAL if named.get(name) in ids}
    unknown = model.get("unk_token")
    if "unk" not in special and unknown in ids:
        special["unk"] = ids[unknown]
    padding: dict[str, Any] | None = None
    if "pad" in special:
        padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
        padding |= {"pad_id": special["pad"], "pad_type_id": 0, "pad_token": named["pad"]}
    definition: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": padding,
        "added_tokens": added,
        "normalizer": huggingface.sequence(normalizers, "normalizer"),
        "pre_tokenizer": huggingface.sequence(pre_tokenizers, "pre_tokenizer"),
        "post_processor": huggingface.template(before, after, ids),
        "decoder": None,
        "model": model,
    }
    kind = kind_of(definition)
    huggingface.check_unknown(model, files.where)
    if kind == "byte_level_bpe":
        model.update(unk_token=None, fuse_unk=False)  # no byte is unknown
    if kind == "library":
        files.check(len(ids) == len(tokens), "its ids have gaps")
        definition = in_one_spelling(definition, files.where)
    return TokenizerSource(kind, definition, tuple(tokens), special)


def _given_tokens(files: _Files, family: str, named: Mapping[str, str]) -> list[tuple[Any, Any]]:
    """Return the added tokens in the order in which transformers adds them, with stated ids."""
    stated = files.part("added_tokens") or []
    decoder = files.config.get("added_tokens_decoder")
    sound = isinstance(stated, list) and isinstance(decoder, dict | None)
    files.check(sound, "its added tokens are not understood")
    given: list[tuple[Any, Any]] = []
    if decoder is None or family == "as it is":
        given += [(t.get("id") if isinstance(t, dict) else None, t) for t in stated]
    if decoder is None:
        for token, i in (files.json("added_tokens.json") or {}).items():
            given.append((i, {"content": token, "normalized": True, "special": False}))
    try:
        given += sorted((int(i), token) for i, token in (decoder or {}).items())
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{files.where}: an id in added_tokens_decoder") from error
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
        content: Any = token.get("content") if isinstance(token, dict) else None
        files.check(isinstance(content, str) and content, "an added token without content")
        if content not in ids:
            gaps = max(ids.values()) != len(ids) - 1
            files.check(not gaps, f"{content!r} is added to a vocabulary whose ids have gaps")
            ids[content] = len(ids)
        own = ids[content]
        wrong = f"the added token {content!r} has the id {i}, but transformers gives it {own}"
        files.check(i in (None, own), wrong)
        before = found.get(content, {})
        special = bool(token.get("special", False) or before.get("special", False))
        flags = {name: bool(token.get(name, before.get(name, d))) for name, d in _FLAGS.items()}
        if special:
            flags = dict.fromkeys(_FLAGS, False)  # it is never looked for
        found[content] = {"id": own, "content": content, **flags, "special": special}
    return sorted(found.values(), key=lambda token: int(token["id"]))

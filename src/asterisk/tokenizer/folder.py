"""The tokenizer of a model folder, read as transformers 5 reads it.

``tokenizer_config.json`` names a class. For a class of a model family transformers takes the
vocabulary from ``tokenizer.json`` and builds everything else anew, by the class and the
configuration; for ``PreTrainedTokenizerFast`` and ``TokenizersBackend`` the file is taken as it
is. Without a class the type of the model decides.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from asterisk.common.errors import ArtifactError
from asterisk.common.files import has_file, read_bytes, read_object
from asterisk.tokenizer import huggingface
from asterisk.tokenizer.alphabet import BYTES, CHARACTERS
from asterisk.tokenizer.bpe import gpt2
from asterisk.tokenizer.definition import (
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
from asterisk.tokenizer.source import TokenizerSource

MOST_BYTES = 64 << 20
MOST_TOKENS = 1 << 21
_FAMILIES = {
    "BertTokenizer": "bert",
    "DistilBertTokenizer": "bert",
    "RobertaTokenizer": "roberta",
    "XLMRobertaTokenizer": "xlm-roberta",
    "PreTrainedTokenizer": "as it is",
    "TokenizersBackend": "as it is",
}
_BY_MODEL = {
    "bert": "bert",
    "distilbert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "xlm-roberta",
    "asterisk": "as it is",  # the original project's encoder, whose folders no library else opens
}
_NAMED = {  # special tokens, and what they are called where the configuration does not say
    "bert": {
        "unk": "[UNK]",
        "sep": "[SEP]",
        "pad": "[PAD]",
        "cls": "[CLS]",
        "mask": "[MASK]",
    },
    "roberta": {
        "bos": "<s>",
        "eos": "</s>",
        "sep": "</s>",
        "cls": "<s>",
        "unk": "<unk>",
        "pad": "<pad>",
        "mask": "<mask>",
    },
    "as it is": {},
}
_NAMED["xlm-roberta"] = _NAMED["roberta"]
_SPECIAL = ("unk", "cls", "sep", "pad", "mask", "bos", "eos")
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True}


def read_tokenizer(folder: Path, model_type: str, *, lowercase: bool = False) -> TokenizerSource:
    """Read the tokenizer in ``folder``, of a model whose ``config.json`` says ``model_type``.

    ``lowercase`` is ``do_lower_case`` of sentence-transformers' ``sentence_bert_config.json``.
    Raises ArtifactError for what cannot be read or is not supported, MissingExtra for a kind that
    takes the ``tokenizers`` package where that is not installed.
    """
    files = _Files(folder)
    family = _family(files, model_type)
    if family == "bert":
        definition = _bert(files)
    elif family == "roberta":
        definition = _roberta(files)
    elif family == "xlm-roberta":
        definition = _xlm_roberta(files)
    else:
        definition = _as_it_is(files)
    return _source(files, family, definition, lowercase)


@cache
def gpt2_source() -> TokenizerSource:
    """Return the built-in tokenizer, GPT-2's with ``[PAD]`` and ``[MASK]``, as a source."""
    files = _Files(None, json.loads(huggingface.to_json(gpt2())), huggingface.config())
    return _source(files, "as it is", _as_it_is(files), lowercase=False)


class _Files:
    """The files of a folder that say something about its tokenizer."""

    def __init__(
        self,
        folder: Path | None,
        raw: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.where = str(folder or "the tokenizer")
        self.config = config or self.json("tokenizer_config.json") or {}
        self.raw = raw or self.json("tokenizer.json")
        if "added_tokens_decoder" not in self.config:
            self.config = {**self.config, **(self.json("special_tokens_map.json") or {})}
        for key in ("auto_map", "fast_tokenizer_files"):
            if self.config.get(key):
                raise ArtifactError(
                    f"{self.where}: {key} in tokenizer_config.json is not supported"
                )
        truncation = (self.raw or {}).get("truncation") or {}
        side = self.config.get("truncation_side") or truncation.get("direction") or "right"
        if str(side).lower() != "right":
            raise ArtifactError(f"{self.where}: texts that are cut on the {side} are not supported")

    def bytes(self, name: str) -> bytes | None:
        """Return the content of a file, None if there is none."""
        if self.folder is None or not has_file(self.folder, name):
            return None
        return read_bytes(self.folder, name, MOST_BYTES)

    def text(self, name: str) -> str | None:
        """Return the text of a file in UTF-8, None if there is none."""
        data = self.bytes(name)
        try:
            return None if data is None else data.decode()
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
        """Return an option of tokenizer_config.json."""
        value = self.config.get(name, default)
        if not isinstance(value, bool):
            raise ArtifactError(
                f"{self.where}: {name} in tokenizer_config.json is not true or false"
            )
        return value

    def part(self, name: str) -> Any:
        """Return a part of tokenizer.json."""
        return None if self.raw is None else self.raw.get(name)


def _family(files: _Files, model_type: str) -> str:
    """Return how transformers builds the tokenizer."""
    name = files.config.get("tokenizer_class")
    if name is None:
        name = (files.json("config.json") or {}).get("tokenizer_class")
    if name is None:
        if model_type not in _BY_MODEL:
            raise ArtifactError(
                f"{files.where}: no tokenizer_class, and model type {model_type!r} is not one of "
                f"{', '.join(_BY_MODEL)}"
            )
        return _BY_MODEL[model_type]
    family = _FAMILIES.get(str(name).removesuffix("Fast"))
    if family is None:
        listed = ", ".join(n for n in _FAMILIES if n != "PreTrainedTokenizer")
        raise ArtifactError(
            f"{files.where}: tokenizer class {name!r} is not supported; supported are {listed} and "
            "PreTrainedTokenizerFast"
        )
    return family


@dataclass
class _Parts:
    """A tokenizer before its added tokens; ``around`` None: as its post-processor says."""

    model: dict[str, Any]
    normalizers: list[Part]
    pre_tokenizers: list[Part]
    around: tuple[str, str] | None
    post_processor: Part | None = None


def _bert(files: _Files) -> _Parts:
    """BertTokenizer: vocabulary of the file, normaliser of the configuration."""
    if files.raw is None:
        text = files.text("vocab.txt")
        if text is None:
            raise _no_files(files, "tokenizer.json or vocab.txt")
        # Of two equal lines the later counts, and white space at a line's end does not.
        lines = text.removesuffix("\n").split("\n")
        vocab: Any = {line.rstrip(): i for i, line in enumerate(lines)}
    else:
        vocab = _model(files, "WordPiece")["vocab"]
    _only(files, "normalizer", NORMALIZERS, ("BertNormalizer", "Lowercase"))
    _only(files, "pre_tokenizer", PRE_TOKENIZERS, ("BertPreTokenizer",))
    strip = files.config.get("strip_accents")
    options = {
        "clean_text": True,
        "handle_chinese_chars": files.option("tokenize_chinese_chars", True),
        "strip_accents": None if strip is None else files.option("strip_accents", False),
        "lowercase": files.option("do_lower_case", True),
    }
    model = {"type": "WordPiece", "vocab": vocab, "unk_token": _named(files, "bert")["unk"]}
    return _Parts(model, [bert_normalizer(options)], [{"type": "BertPreTokenizer"}], ("cls", "sep"))


def _roberta(files: _Files) -> _Parts:
    """RobertaTokenizer: byte-level BPE between two special tokens."""
    if files.raw is None:
        vocab, merges = files.json("vocab.json"), files.text("merges.txt")
        if vocab is None or merges is None:
            raise _no_files(files, "tokenizer.json, or vocab.json and merges.txt,")
        lines = merges.removesuffix("\n").split("\n")
        pairs: Any = [line for line in lines if not line.startswith("#version")]
    else:
        raw = _model(files, "BPE")
        vocab, pairs = raw["vocab"], raw.get("merges")
    _only(files, "normalizer", NORMALIZERS, ("Lowercase",))
    _only(files, "pre_tokenizer", PRE_TOKENIZERS, ("ByteLevel",))
    model = {"type": "BPE", "vocab": vocab, "merges": pairs}
    options = {"add_prefix_space": files.option("add_prefix_space", False)}
    return _Parts(model, [], [byte_level(options)], ("cls", "sep"))


def _xlm_roberta(files: _Files) -> _Parts:
    """XLMRobertaTokenizer: Unigram after the file's character map, between two special tokens."""
    if files.raw is None:
        raise _no_files(files, "tokenizer.json")
    vocab = _model(files, "Unigram")["vocab"]
    names = ("Precompiled", "Lowercase", "Replace", "Strip")
    found = _only(files, "normalizer", NORMALIZERS, names)
    if any(s["type"] == "Replace" and s.get("pattern") != {"Regex": " {2,}"} for s in found):
        raise ArtifactError(
            f"{files.where}: normalizer 'Replace' in tokenizer.json contradicts the tokenizer "
            "class, which expects it to join spaces"
        )
    _only(files, "pre_tokenizer", PRE_TOKENIZERS, ("WhitespaceSplit", "Metaspace"))
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
    if files.raw is None:
        raise _no_files(files, "tokenizer.json")
    model = dict(_model(files, None))
    normalizers = [
        bert_normalizer(step) if step["type"] == "BertNormalizer" else step
        for step in steps(files.part("normalizer"), "normalizer", NORMALIZERS, files.where)
    ]
    pre_tokenizers = [
        byte_level(step) if step["type"] == "ByteLevel" else step
        for step in steps(files.part("pre_tokenizer"), "pre_tokenizer", PRE_TOKENIZERS, files.where)
    ]
    return _Parts(model, normalizers, pre_tokenizers, None, files.part("post_processor"))


def _no_files(files: _Files, names: str) -> ArtifactError:
    return ArtifactError(
        f"{files.where}: has no {names} to read a tokenizer from; transformers makes one: "
        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    )


def _model(files: _Files, wanted: str | None) -> dict[str, Any]:
    """Return the model in tokenizer.json, which has to be of the ``wanted`` type."""
    model = files.part("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise ArtifactError(f"{files.where}: tokenizer.json has no model with a vocabulary")
    kind = model.get("type")
    if kind is None:  # files of old; the library too goes by what there is
        kind = "BPE" if "merges" in model else "WordPiece"
        if isinstance(model["vocab"], list):
            kind = "Unigram"
    if kind not in MODELS:
        listed = ", ".join(MODELS)
        raise ArtifactError(
            f"{files.where}: tokenizer model {kind!r} is not supported; supported are {listed}"
        )
    if wanted not in (None, kind):
        raise ArtifactError(
            f"{files.where}: tokenizer.json holds a {kind} model, which its tokenizer class, one "
            f"of {wanted}, contradicts"
        )
    return {**model, "type": kind}


def _only(files: _Files, part: str, known: Sequence[str], expected: Sequence[str]) -> list[Part]:
    """Return the steps of a part, each of which has to be of an expected type.

    Transformers passes over this part and builds its own; a step of another kind says that the
    file and the tokenizer class are not of one model.
    """
    found = steps(files.part(part), part, known, files.where)
    for step in found:
        if step["type"] not in expected:
            raise ArtifactError(
                f"{files.where}: {part} {step['type']!r} in tokenizer.json contradicts the "
                f"tokenizer class, which expects {' or '.join(expected)}"
            )
    return found


def _content(files: _Files, token: Any, name: str) -> str | None:
    """Return a token that is written as a string or as an object with its content."""
    content = token.get("content") if isinstance(token, dict) else token
    if content is not None and not isinstance(content, str):
        raise ArtifactError(f"{files.where}: {name} is not a token")
    return content


def _named(files: _Files, family: str) -> dict[str, str]:
    """Return the special tokens that have a name, by name without ``_token``."""
    named: dict[str, str | None] = dict(_NAMED[family])
    padding = files.part("padding")
    if family == "as it is" and isinstance(padding, dict):
        named["pad"] = _content(files, padding.get("pad_token"), "padding")
    for key, value in files.config.items():
        if key.endswith("_token") and not isinstance(value, bool):
            named[key.removesuffix("_token")] = _content(files, value, key)
    return {name: token for name, token in named.items() if token is not None}


def _source(files: _Files, family: str, parts: _Parts, lowercase: bool) -> TokenizerSource:
    named = _named(files, family)
    model = _with_defaults(parts.model, files)
    ids = _vocabulary(model, files)
    given = _stated(files, family, named)
    stated = {*ids, *(_content(files, t, "an added token") for i, t in given if i is not None)}
    added = _added_tokens(files, given, ids)
    tokens = _by_id(ids)
    if parts.around is None:
        before, after = around(parts.post_processor, ids, files.where)
    else:
        for name in parts.around:
            if named.get(name) not in stated:  # transformers would make up an id without weights
                raise ArtifactError(
                    f"{files.where}: its {name}_token {named.get(name)!r} is not in the vocabulary"
                )
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
        "padding": _padding(tokens, special),
        "added_tokens": added,
        "normalizer": sequence(normalizers, "normalizer"),
        "pre_tokenizer": sequence(parts.pre_tokenizers, "pre_tokenizer"),
        "post_processor": template(before, after, ids),
        "decoder": None,
        "model": model,
    }
    kind = _kind(definition, normalizers, parts.pre_tokenizers)
    _check_unknown(model, files)
    if kind == "byte_level_bpe":
        model.update(unk_token=None, fuse_unk=False)  # no byte is unknown
    if kind == "library":
        if len(ids) < len(tokens):
            raise ArtifactError(f"{files.where}: its ids have gaps")
        from asterisk.tokenizer.library import in_one_spelling

        definition = in_one_spelling(definition, files.where)
    return TokenizerSource(kind, definition, tuple(tokens), special)


def _check_unknown(model: Mapping[str, Any], files: _Files) -> None:
    """Raise ArtifactError if a word that is not in the vocabulary would have no id."""
    vocab = model["vocab"]
    if model["type"] == "Unigram":
        unknown = model.get("unk_id")
        known = type(unknown) is int and 0 <= unknown < len(vocab)
    else:
        unknown = model.get("unk_token")
        known = unknown in vocab or (model["type"] == "BPE" and unknown is None)
    if not known:
        raise ArtifactError(
            f"{files.where}: the unknown token {unknown!r} is not in the vocabulary"
        )


def _padding(tokens: Sequence[str], special: Mapping[str, int]) -> dict[str, Any] | None:
    if "pad" not in special:
        return None
    return {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": special["pad"],
        "pad_type_id": 0,
        "pad_token": tokens[special["pad"]],
    }


def _with_defaults(model: Mapping[str, Any], files: _Files) -> dict[str, Any]:
    """Return a model with every option that its type has, merges as pairs."""
    kind, vocab = model["type"], model["vocab"]
    if kind == "WordPiece":
        longest = model.get("max_input_chars_per_word", 100)
        if type(longest) is not int or not 0 <= longest < 1 << 31:
            raise ArtifactError(f"{files.where}: max_input_chars_per_word {longest!r}")
        return {
            "type": kind,
            "unk_token": model.get("unk_token", "[UNK]"),
            "continuing_subword_prefix": model.get("continuing_subword_prefix", "##"),
            "max_input_chars_per_word": longest,
            "vocab": vocab,
        }
    if kind != "BPE":
        return dict(model)
    merges = model.get("merges")
    pairs = [m.split(" ") if isinstance(m, str) else m for m in merges or ()]
    if not isinstance(merges, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair)
        for pair in pairs
    ):
        raise ArtifactError(f"{files.where}: its merges are not pairs of tokens")
    return {
        "type": kind,
        "dropout": model.get("dropout") or None,
        "unk_token": model.get("unk_token"),
        "continuing_subword_prefix": model.get("continuing_subword_prefix") or None,
        "end_of_word_suffix": model.get("end_of_word_suffix") or None,
        "fuse_unk": bool(model.get("fuse_unk", False)),
        "byte_fallback": bool(model.get("byte_fallback", False)),
        "ignore_merges": bool(model.get("ignore_merges", False)),
        "vocab": vocab,
        "merges": pairs,
    }


def _vocabulary(model: Mapping[str, Any], files: _Files) -> dict[str, int]:
    """Return the ids of the model's tokens; ArtifactError unless they are an id each."""
    vocab = model["vocab"]
    if isinstance(vocab, list) and model["type"] == "Unigram":
        if not all(isinstance(e, list) and len(e) == 2 and isinstance(e[0], str) for e in vocab):
            raise ArtifactError(f"{files.where}: its vocabulary is not of tokens and scores")
        ids = {token: i for i, (token, _) in enumerate(vocab)}
    elif isinstance(vocab, dict) and model["type"] != "Unigram":
        ids = dict(vocab)
    else:
        raise ArtifactError(f"{files.where}: its vocabulary is not that of a {model['type']} model")
    if not ids or not all(type(i) is int and 0 <= i < MOST_TOKENS for i in ids.values()):
        raise ArtifactError(f"{files.where}: its ids are not integers in 0..{MOST_TOKENS - 1}")
    if len(set(ids.values())) != len(ids):
        raise ArtifactError(f"{files.where}: two tokens of its vocabulary have one id")
    return ids


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
            raise ArtifactError(f"{files.where}: an added token without content")
        if content not in ids:
            if max(ids.values()) != len(ids) - 1:
                raise ArtifactError(
                    f"{files.where}: {content!r} is added to a vocabulary whose ids have gaps"
                )
            ids[content] = len(ids)
        if i is not None and ids[content] != i:
            raise ArtifactError(
                f"{files.where}: the added token {content!r} has the id {i}, but transformers "
                f"gives it {ids[content]}"
            )
        before = found.get(content, {})
        special = bool(token.get("special", False) or before.get("special", False))
        flags = {name: bool(token.get(name, before.get(name, d))) for name, d in _FLAGS.items()}
        if special:
            flags = dict.fromkeys(_FLAGS, False)  # it is never looked for
        found[content] = {"id": ids[content], "content": content, **flags, "special": special}
    return sorted(found.values(), key=lambda token: int(token["id"]))


def _stated(files: _Files, family: str, named: Mapping[str, str]) -> list[tuple[Any, Any]]:
    """Return the added tokens in the order in which transformers adds them, with stated ids."""
    stated = files.part("added_tokens") or []
    decoder = files.config.get("added_tokens_decoder")
    if not isinstance(stated, list) or not isinstance(decoder, dict | None):
        raise ArtifactError(f"{files.where}: its added tokens are not understood")
    given: list[tuple[Any, Any]] = []
    if decoder is not None:
        if family == "as it is":
            given += [(t.get("id") if isinstance(t, dict) else None, t) for t in stated]
        try:
            given += sorted((int(i), token) for i, token in decoder.items())
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"{files.where}: an id in added_tokens_decoder") from error
    else:
        given += [(t.get("id") if isinstance(t, dict) else None, t) for t in stated]
        for token, i in (files.json("added_tokens.json") or {}).items():
            given.append((i, {"content": token, "normalized": True, "special": False}))
    extras = files.config.get("extra_special_tokens") or []
    extras = extras or files.config.get("additional_special_tokens") or []
    if isinstance(extras, dict):
        extras = list(extras.values())
    for token in (*named.values(), *extras):
        content = _content(files, token, "a special token")
        given.append((None, {"content": content, "special": True}))
    return given


def _by_id(ids: Mapping[str, int]) -> list[str]:
    """Return the token of each id, with made-up names where the ids have gaps."""
    size = max(ids.values()) + 1
    if size > 2 * len(ids) + 1024:
        raise ArtifactError(f"{len(ids)} tokens have ids up to {size - 1}")
    tokens: list[str | None] = [None] * size
    for token, i in ids.items():
        tokens[i] = token
    filled = []
    for i, known in enumerate(tokens):
        name = known
        if name is None:
            name = f"[gap{i}]"
            while name in ids:
                name += "]"
        filled.append(name)
    return filled


def _kind(
    definition: Mapping[str, Any], normalizers: Sequence[Part], pre_tokenizers: Sequence[Part]
) -> Literal["wordpiece", "byte_level_bpe", "library"]:
    """Return the form that can hold the tokenizer."""
    model = definition["model"]
    if not all(token["special"] for token in definition["added_tokens"]):
        return "library"
    kinds = [step["type"] for step in normalizers]
    if (
        model["type"] == "WordPiece"
        and kinds in ([], ["BertNormalizer"], ["Lowercase", "BertNormalizer"])
        and [step["type"] for step in pre_tokenizers] == ["BertPreTokenizer"]
        and model["unk_token"] in model["vocab"]
    ):
        return "wordpiece"
    if (
        model["type"] == "BPE"
        and not normalizers
        and list(pre_tokenizers) == [byte_level({"add_prefix_space": False})]
        and not any(
            model[option]
            for option in (
                *("dropout", "continuing_subword_prefix", "end_of_word_suffix"),
                *("byte_fallback", "ignore_merges"),
            )
        )
        and _fits(model["vocab"], model["merges"])
    ):
        return "byte_level_bpe"
    return "library"


def _fits(vocab: Mapping[str, int], merges: Sequence[Sequence[str]]) -> bool:
    """Whether the compact form can hold a byte-level BPE vocabulary."""
    made = [left + right for left, right in merges]
    return (
        0 < len(made) <= (1 << 16) - 256
        and all(character in vocab for character in CHARACTERS)
        and all(token in vocab for token in made)
        and all(left in vocab and right in vocab for left, right in merges)
        and len({*CHARACTERS, *made}) == 256 + len(made)
        and all(character in BYTES for token in made for character in token)
        # 256 tokens after another are less than 64 KiB.
        and max(map(len, made)) < 256
        and max((len(token.encode()) for token in vocab.keys() - set(made)), default=0) < 256
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Write the built-in file, always the same bytes.

    ``python -m asterisk.tokenizer.folder checkpoints/asterisk-256 gpt2.bin``
    """
    parser = argparse.ArgumentParser(prog="python -m asterisk.tokenizer.folder")
    for name in ("folder", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args(argv)
    given.out.write_bytes(read_tokenizer(given.folder, "bert").compile()[1])


if __name__ == "__main__":
    main()

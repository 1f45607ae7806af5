"""GGUF: one file that stock llama.cpp runs, with its tokenizer inside.

A BERT is a ``bert``, readable by every program built on llama.cpp; the original project's encoder
becomes a ``gpt2`` (see `exporters.gpt2_rewrite`). Keys, tensor names and tokens' spellings are
those of llama.cpp's ``convert_hf_to_gguf.py``. ``Dense`` maps after BERT's pooling, which
llama.cpp's ``bert`` does not have, stand in a file beside it.

Only tokenizers are written that make a program which reads nothing but the file split a text as
Hugging Face does; any other is refused by name. ``docs/gguf.md`` says where the two still differ.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from asterisk.common import plugins, tensors
from asterisk.common.errors import EngineError, UsageError
from asterisk.exporters import Exporter, Recipe, Samples, Written
from asterisk.exporters.gpt2_rewrite import widen
from asterisk.model.checkpoint import Array, Checkpoint
from asterisk.model.config import LlamaShape, ModelConfig, llama_shape, tensor_shapes
from asterisk.runtimes import llama_cpp
from asterisk.runtimes.gguf import DENSE
from asterisk.tokenizer.huggingface import NORMALIZERS, PRE_TOKENIZERS, Part, steps
from asterisk.tokenizer.source import TokenizerSource

ENTRY = "model.gguf"
# Small tables that llama.cpp adds to float rows; its F16 path for token types aborts.
_ALWAYS_FLOAT = {"position_embd.weight", "token_types.weight"}

# ggml's tensor type of a recipe's matrices, and how many values share scales in it, if they do; a
# row holds whole blocks.
_MIXED = "q4_k_m"
_TYPES = {"fp32": "F32", "f16": "F16", "q8_0": "Q8_0", "q6_k": "Q6_K", _MIXED: "Q4_K"}
_BLOCKS = {"q8_0": 32, "q6_k": 256, _MIXED: 256}

# llama.cpp's types of tokens.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
SPACE = "\u2581"  # what SentencePiece writes for a space, and llama.cpp before a word's first piece
_UNUSED_SCORE = -10_000.0
# In llama.cpp's spelling.
_SPECIAL = {"unk": "unknown", "sep": "seperator", "pad": "padding", "cls": "cls", "mask": "mask"}
_END_OF_TEXT = "<|endoftext|>"  # GPT-2's one special token


class GgufExporter(Exporter):
    """Writes ``model.gguf``, and ``dense.safetensors`` where llama.cpp lacks what follows."""

    format: ClassVar[str] = "gguf"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("q8_0", "matrices and token table in Q8_0: 8 bits, a scale for each 32", 8.5),
        Recipe("f16", "matrices and token table in float16: the checkpoint's own width", 16),
        Recipe("q6_k", "matrices and token table in Q6_K: 6 bits, scales for each 16", 6.6),
        Recipe("q4_k_m", "llama.cpp's mix of Q4_K and Q6_K, the token table in Q6_K", 4.8),
        Recipe("fp32", "everything in float32: the control"),
    )

    def write(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        folder: Path,
        samples: Samples,  # noqa: ARG002 - nothing here is calibrated
    ) -> Written:
        """Write the model; UsageError if llama.cpp has no such architecture or tokenizer."""
        config = checkpoint.config
        shape = _checked_shape(config, recipe.name)
        gguf = plugins.require("gguf", "export")
        writer = gguf.GGUFWriter(None, shape.architecture)
        writer.add_name(checkpoint.name)
        file_type = "ALL_F32" if recipe.name == "fp32" else f"MOSTLY_{recipe.name.upper()}"
        writer.add_file_type(gguf.LlamaFileType[file_type])
        if recipe.name in _BLOCKS:
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_context_length(config.max_seq_length)
        writer.add_embedding_length(shape.width)
        writer.add_block_count(shape.blocks)
        writer.add_feed_forward_length(shape.inner)
        writer.add_head_count(shape.heads)
        writer.add_layer_norm_eps(shape.epsilon)
        writer.add_causal_attention(False)
        writer.add_uint32(f"{shape.architecture}.pooling_type", shape.pooling)
        _add_tokenizer(writer, checkpoint.tokenizer, config.vocab_size)
        last_block = "no tensor"
        if shape.architecture == "bert":
            writer.add_token_type_count(1)
            names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, shape.blocks)
            arrays: dict[str, Array] = {
                names.get_name(name, (".weight", ".bias")): checkpoint.tensors[name]
                for name in tensor_shapes(config)
                if not name.startswith("dense.")
            }
        else:
            arrays = widen(checkpoint, shape)
            last_block = f"blk.{shape.blocks - 1}."
        # The file has as many positions as texts may have tokens.
        arrays["position_embd.weight"] = arrays["position_embd.weight"][: config.max_seq_length]
        for name, value in arrays.items():
            kind = tensor_type(recipe.name, name, shape.blocks)
            # What widening adds works with large and small numbers side by side: never packed.
            if value.ndim == 1 or name in _ALWAYS_FLOAT or name.startswith(last_block):
                kind = "F32"
            packed = _packed(value, kind, gguf)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType[kind])
        writer.write_header_to_file(folder / ENTRY)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if shape.dense_outside:
            dense = {n: v for n, v in checkpoint.tensors.items() if n.startswith("dense.")}
            tensors.write(folder / DENSE, dense, {})
        return Written(ENTRY, {"gguf": version("gguf")})


def _checked_shape(config: ModelConfig, recipe: str) -> LlamaShape:
    """Return the model's shape in the file; UsageError if llama.cpp or the recipe has none."""
    if not config.num_layers:
        raise UsageError("gguf needs a model with at least one layer")
    if config.activation == "relu":
        raise UsageError("gguf cannot hold ReLU: llama.cpp's bert computes GELU only")
    shape = llama_shape(config)
    if shape is None:
        raise UsageError(
            "gguf needs a BERT-shaped model (an embedding norm, post-norm blocks), or a pre-norm "
            "one without embedding norm, with the mean and at most one linear map to no more than "
            "its hidden size behind it"
        )

    lengths, step = {shape.width, shape.inner}, _BLOCKS.get(recipe, 1)
    if any(length % step for length in lengths):
        fits_q8_0 = not any(length % _BLOCKS["q8_0"] for length in lengths)
        raise UsageError(
            f"gguf {recipe} needs rows of multiples of {step}, and this model has rows of "
            f"{' and '.join(map(str, sorted(lengths)))}; "
            f"use {'q8_0, ' if fits_q8_0 else ''}f16 or fp32"
        )
    return shape


def tensor_type(recipe: str, name: str, blocks: int) -> str:
    """Return ggml's type of the matrix ``name`` in a model of so many ``blocks``.

    ``q4_k_m`` is llama.cpp's mix (``llama_tensor_get_type``): six bits for the token table, and
    for values and the narrowing feed-forward matrix in the first and last eighth of the blocks and
    in every third between them.
    """
    if recipe != _MIXED:
        return _TYPES[recipe]
    matrix = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if matrix is None:
        return "Q6_K"
    index, eighth = int(matrix[1]), blocks // 8
    more = index < eighth or index >= 7 * blocks // 8 or (index - eighth) % 3 == 2
    return "Q6_K" if more and matrix[2] in ("attn_v", "ffn_down") else _TYPES[_MIXED]


def _packed(values: Array, kind: str, gguf: Any) -> npt.NDArray[Any]:
    """Return float32 ``[rows, n]`` in ggml's type ``kind``: uint8 ``[rows, bytes]``, or floats.

    Plain types are gguf's own numpy code. K-quants search for their scales by llama.cpp's function
    in the library that the runtime uses: the same bytes that ``llama-quantize`` writes.
    """
    number = gguf.GGMLQuantizationType[kind]
    if kind == "F32":
        return values
    if kind in ("F16", "Q8_0"):
        packed: npt.NDArray[Any] = gguf.quants.quantize(values, number)
        return packed
    elements, size = gguf.GGML_QUANT_SIZES[number]
    rows, length = values.shape
    values = np.ascontiguousarray(values, np.float32)
    packed = np.zeros((rows, length // elements * size), np.uint8)
    function = llama_cpp.library().dll.ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    address, integer = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [ctypes.c_int, address, address, integer, integer, integer, address]
    # No importance matrix: every weight counts the same.
    written = function(number, values.ctypes.data, packed.ctypes.data, 0, rows, length, None)
    if written != packed.nbytes:
        raise EngineError(f"llama.cpp packed {written} bytes of {kind}, not {packed.nbytes}")
    return packed


def _add_tokenizer(writer: Any, source: TokenizerSource, rows: int) -> None:
    """Write the tokenizer's keys, for a token table of so many ``rows``."""
    model = source.definition["model"]
    types = [NORMAL] * len(source.tokens)
    for added in source.definition["added_tokens"]:
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    for token in source.special.values():
        types[token] = CONTROL
    if model["type"] == "Unigram":
        types[model["unk_id"]] = UNKNOWN
    # A special token is never in a text; others beyond the table would end llama.cpp's process.
    if any(kind != CONTROL for kind in types[rows:]):
        raise UsageError(
            f"gguf: the tokenizer has {len(types):,} tokens, the token table {rows:,} rows"
        )
    writers = {"WordPiece": _add_wordpiece, "BPE": _add_bpe, "Unigram": _add_unigram}
    _require(model["type"] in writers, f"of type {model['type']!r}")
    tokens = writers[model["type"]](writer, source, rows)
    # Rows that no token has: names that no text contains, as llama.cpp's converter gives them.
    spare = range(len(tokens), rows)
    writer.add_token_list([*tokens[:rows], *(f"[PAD{token}]" for token in spare)])
    writer.add_token_types([*types[:rows], *(UNUSED for _ in spare)])
    _add_special_tokens(writer, source, rows)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise UsageError(
            f"gguf: llama.cpp has no tokenizer {otherwise}; it has BERT's WordPiece, GPT-2's and "
            "RoBERTa's byte-level BPE, and XLM-R's Unigram"
        )


def _add_special_tokens(writer: Any, source: TokenizerSource, rows: int) -> None:
    """Write which tokens are special, and which of them stand around a text."""
    special = dict(source.special)
    if _END_OF_TEXT in source.tokens:
        end = source.tokens.index(_END_OF_TEXT)
        special = {"bos": end, "eos": end, **special}
    for name, key in _SPECIAL.items():
        if special.get(name, rows) < rows:
            writer.add_uint32(f"tokenizer.ggml.{key}_token_id", special[name])
    tokenizer = source.open()
    before, after = list(tokenizer.prefix), list(tokenizer.suffix)
    several = len(before) > 1 or len(after) > 1
    _require(not several, "that puts several special tokens before or after a text")
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
        _require(bool(before), "of WordPiece without a special token before a text")
        writer.add_add_sep_token(bool(after))


def _add_wordpiece(writer: Any, source: TokenizerSource, _: int) -> list[str]:
    *lower, bert = _normalizer(source) or [{"type": "none"}]
    _require(
        [step["type"] for step in lower] in ([], ["Lowercase"])
        and bert["type"] == "BertNormalizer"
        and bert["clean_text"]
        and bert["handle_chinese_chars"],
        "of WordPiece without BERT's cleaning of texts and spacing of Chinese",
    )
    kinds = _splitter(source)[1]
    _require(kinds == ["BertPreTokenizer"], "of WordPiece without BERT's pre-tokenizer")
    prefix = source.definition["model"]["continuing_subword_prefix"]
    _require(prefix == "##", "of WordPiece whose continuations do not begin with '##'")
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", bool(lower) or bert["lowercase"])
    writer.add_bool("tokenizer.ggml.normalizer.strip_accents", bert["strip_accents"])
    special = set(source.special.values())
    special |= {added["id"] for added in source.definition["added_tokens"]}
    tokens = list(source.tokens)
    for index, token in enumerate(tokens):
        # llama.cpp marks a word's first piece and not the others.
        if index not in special:
            continued = token.startswith("##") and len(token) > 2
            tokens[index] = token[2:] if continued else SPACE + token
    unique = len(set(tokens)) == len(tokens)
    _require(unique, "of WordPiece in which two tokens are spelt alike")
    return tokens


def _normalizer(source: TokenizerSource) -> list[Part]:
    return steps(source.definition["normalizer"], "normalizer", NORMALIZERS, "gguf")


def _splitter(source: TokenizerSource) -> tuple[list[Part], list[str]]:
    """Return the steps before the model, and their types."""
    parts = steps(source.definition["pre_tokenizer"], "pre_tokenizer", PRE_TOKENIZERS, "gguf")
    return parts, [step["type"] for step in parts]


def _add_bpe(writer: Any, source: TokenizerSource, _: int) -> list[str]:
    model, (splitter, kinds) = source.definition["model"], _splitter(source)
    _require(source.definition["normalizer"] is None, "of BPE with a normalizer")
    _require(kinds == ["ByteLevel"], "of BPE with a pre-tokenizer other than ByteLevel")
    plain = splitter[0]["use_regex"] and not splitter[0]["add_prefix_space"]
    _require(plain, "of byte-level BPE with add_prefix_space, or without GPT-2's pattern")
    other = model.get("ignore_merges") or model.get("byte_fallback")
    _require(not other, "of BPE with ignore_merges or byte_fallback")
    writer.add_tokenizer_model("gpt2")
    # Without it digits and spaces would be split in other places.
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    return list(source.tokens)


def _add_unigram(writer: Any, source: TokenizerSource, rows: int) -> list[str]:
    model, (splitter, kinds) = source.definition["model"], _splitter(source)
    covers = model.get("unk_id") is not None and not model.get("byte_fallback")
    _require(covers, "of Unigram without an unknown token, or with byte_fallback")
    charsmap = _charsmap(source)
    _require(
        kinds in (["Metaspace"], ["WhitespaceSplit", "Metaspace"])
        and splitter[-1]["replacement"] == SPACE
        and splitter[-1]["prepend_scheme"] != "never",
        "of Unigram with a pre-tokenizer other than SentencePiece's spaces",
    )
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


def _charsmap(source: TokenizerSource) -> bytes:
    """Return SentencePiece's table of characters; UsageError for any other normaliser."""
    charsmap = b""
    for step in _normalizer(source):
        kind = step["type"]
        if kind == "Precompiled" and not charsmap:
            try:
                charsmap = base64.b64decode(step["precompiled_charsmap"], validate=True)
            except binascii.Error:
                raise UsageError("gguf: the normalizer's precompiled_charsmap is damaged") from None
        else:  # runs of spaces, and spaces around a text, are what llama.cpp removes itself
            of_spaces = kind == "Strip" or (kind == "Replace" and step["content"] == " ")
            _require(of_spaces, f"of Unigram with a normalizer of type {kind!r}")
    return charsmap

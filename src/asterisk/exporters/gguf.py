"""GGUF: one file that stock llama.cpp runs, with its tokenizer inside.

A BERT is a ``bert``, readable by every program built on llama.cpp; the original project's encoder
becomes a ``gpt2`` (see `asterisk.exporters.widening`). Keys and tensor names are those of
llama.cpp's ``convert_hf_to_gguf.py``; the tokenizer is declared as GPT-2's, down to ``pre``,
without which digits and spaces would be split in other places.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from asterisk import plugins
from asterisk.artifact import Thresholds
from asterisk.errors import UsageError
from asterisk.exporters import ggml
from asterisk.exporters.exporter import EXACT, QUANTISED, Recipe, Written
from asterisk.exporters.widening import widen
from asterisk.model.checkpoint import Array, Checkpoint
from asterisk.model.config import ModelConfig
from asterisk.model.gguf_shape import Shape, shape_of
from asterisk.tokenizer import gpt2
from asterisk.tokenizer.alphabet import CHARACTERS

ENTRY = "model.gguf"
END_OF_TEXT = 50_256  # GPT-2's one special token, its last

# Tensors outside the blocks, then those of one block: ours to llama.cpp's.
_OUTER = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
}
_INNER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# Small tables that llama.cpp adds to float rows; its F16 path for token types aborts.
_ALWAYS_FLOAT = {"position_embd.weight", "token_types.weight"}


_FILE_TYPES = {
    "q8_0": "MOSTLY_Q8_0",
    "f16": "MOSTLY_F16",
    "q6_k": "MOSTLY_Q6_K",
    "q4_k_m": "MOSTLY_Q4_K_M",
    "fp32": "ALL_F32",
}
# From what was measured on a trained and on a random checkpoint, with room for the next one.
_HALF = Thresholds(cosine_mean=0.9999, cosine_min=0.9999, overlap_at_10=0.98)
_SIX_BITS = Thresholds(cosine_mean=0.995, cosine_min=0.985, overlap_at_10=0.9)
_FOUR_BITS = Thresholds(cosine_mean=0.98, cosine_min=0.94, overlap_at_10=0.8)


class GgufExporter:
    """Writes ``model.gguf``."""

    format: ClassVar[str] = "gguf"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("q8_0", "matrices and token table in Q8_0: 8 bits, a scale for each 32", QUANTISED),
        Recipe("f16", "matrices and token table in float16: the checkpoint's own width", _HALF),
        Recipe("q6_k", "matrices and token table in Q6_K: 6 bits, scales for each 16", _SIX_BITS),
        Recipe("q4_k_m", "llama.cpp's mix of Q4_K and Q6_K, the token table in Q6_K", _FOUR_BITS),
        Recipe("fp32", "everything in float32: the control", EXACT),
    )

    def write(self, checkpoint: Checkpoint, recipe: Recipe, folder: Path) -> Written:
        """Write the model under ``recipe``; see `Exporter.write`.

        Raises UsageError if llama.cpp has no architecture of that shape.
        """
        shape = _check(checkpoint.config, recipe.name)
        gguf = plugins.require("gguf", "export")
        writer = gguf.GGUFWriter(None, shape.architecture)
        writer.add_name(checkpoint.name)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[recipe.name]])
        if recipe.name not in ("fp32", "f16"):
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _describe(writer, checkpoint.config, shape)
        _add_tokenizer(writer, gguf.TokenType, checkpoint.config.vocab_size)
        if shape.architecture == "bert":
            writer.add_token_type_count(1)
            tensors = _renamed(checkpoint)
        else:
            tensors = widen(checkpoint, shape)
        for name, value in tensors.items():
            if value.ndim == 1 or name in _ALWAYS_FLOAT or name.startswith(_algebra(shape)):
                writer.add_tensor(name, value)
                continue
            kind = ggml.kind_of(recipe.name, name, shape.blocks)
            packed = ggml.pack(value, kind, gguf)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType[kind])
        writer.write_header_to_file(folder / ENTRY)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return Written(ENTRY, {"gguf": _version("gguf")})


def _check(config: ModelConfig, recipe: str) -> Shape:
    if not config.num_layers:
        raise UsageError("gguf needs a model with at least one layer")
    shape = shape_of(config)
    if shape is None:
        raise UsageError(
            "gguf needs a BERT-shaped model (an embedding norm, post-norm blocks, no projection) "
            "or a pre-norm one without embedding norm, projected to no more than its hidden size"
        )
    ggml.check_rows(recipe, shape.width, shape.inner)
    if not END_OF_TEXT < config.vocab_size <= gpt2().vocab_size:
        raise UsageError("gguf needs a model over the whole built-in vocabulary")
    return shape


def _algebra(shape: Shape) -> str:
    # What widening adds works with large and small numbers side by side: never packed.
    return f"blk.{shape.blocks - 1}." if shape.architecture == "gpt2" else "none"


def _describe(writer: Any, config: ModelConfig, shape: Shape) -> None:
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.blocks)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(shape.epsilon)
    writer.add_causal_attention(False)
    writer.add_uint32(f"{shape.architecture}.pooling_type", 1)  # the mean


def _add_tokenizer(writer: Any, kinds: Any, size: int) -> None:
    tokenizer = gpt2()
    specials = {END_OF_TEXT, tokenizer.pad_id, tokenizer.mask_id}
    # Ordinary tokens in GPT-2's spelling of bytes, special ones under their names.
    spelt = [
        data.decode() if token in specials else "".join(CHARACTERS[byte] for byte in data)
        for token in range(size)
        for data in (tokenizer.token_bytes(token),)
    ]
    types = [kinds.CONTROL if token in specials else kinds.NORMAL for token in range(size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(spelt)
    writer.add_token_types(types)
    writer.add_token_merges([f"{spelt[left]} {spelt[right]}" for left, right in tokenizer.merges()])
    writer.add_bos_token_id(END_OF_TEXT)
    writer.add_eos_token_id(END_OF_TEXT)
    if tokenizer.pad_id is not None and tokenizer.pad_id < size:
        writer.add_pad_token_id(tokenizer.pad_id)
    if tokenizer.mask_id is not None and tokenizer.mask_id < size:
        writer.add_mask_token_id(tokenizer.mask_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _renamed(checkpoint: Checkpoint) -> dict[str, Array]:
    """Return the tensors under llama.cpp's names; matrices stay ``[out, in]``."""
    names = dict(_OUTER)
    for index in range(checkpoint.config.num_layers):
        for ours, theirs in _INNER.items():
            names[f"encoder.layer.{index}.{ours}"] = f"blk.{index}.{theirs}"
    tensors: dict[str, Array] = {}
    for ours, theirs in names.items():
        if theirs.endswith(".weight"):
            tensors[theirs] = checkpoint.tensors[ours]
        else:
            for part in ("weight", "bias"):
                tensors[f"{theirs}.{part}"] = checkpoint.tensors[f"{ours}.{part}"]
    return tensors


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)

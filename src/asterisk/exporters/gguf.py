"""GGUF: one file that stock llama.cpp runs, with its tokenizer inside.

A BERT is a ``bert``, readable by every program built on llama.cpp; the original project's encoder
becomes a ``gpt2`` (see `asterisk.exporters.widening`). Keys and tensor names are those of
llama.cpp's ``convert_hf_to_gguf.py``. ``Dense`` maps after BERT's pooling, which llama.cpp's
``bert`` does not have, stand in a file beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from asterisk.artifact import Thresholds
from asterisk.common import plugins, tensors
from asterisk.common.errors import UsageError
from asterisk.exporters import ggml, thresholds
from asterisk.exporters.exporter import Recipe, Written
from asterisk.exporters.gguf_vocabulary import add_vocabulary
from asterisk.exporters.widening import widen
from asterisk.model.checkpoint import Array, Checkpoint
from asterisk.model.config import LlamaShape, ModelConfig, llama_shape
from asterisk.runtimes.gguf import DENSE

ENTRY = "model.gguf"

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


class GgufExporter:
    """Writes ``model.gguf``, and ``dense.safetensors`` where llama.cpp lacks what follows."""

    format: ClassVar[str] = "gguf"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("q8_0", "matrices and token table in Q8_0: 8 bits, a scale for each 32", 8.5),
        Recipe("f16", "matrices and token table in float16: the checkpoint's own width", 16),
        Recipe("q6_k", "matrices and token table in Q6_K: 6 bits, scales for each 16", 6.6),
        Recipe("q4_k_m", "llama.cpp's mix of Q4_K and Q6_K, the token table in Q6_K", 4.8),
        Recipe("fp32", "everything in float32: the control"),
    )

    def thresholds(self, recipe: Recipe, layers: int) -> Thresholds:
        """Return the table's entry; see `Exporter.thresholds`."""
        name = f"gguf {recipe.name}"
        return thresholds.thresholds(name if name in thresholds.TABLE else recipe.name, layers)

    def write(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        folder: Path,
        samples: Sequence[Sequence[int]],  # noqa: ARG002 - nothing here is calibrated
    ) -> Written:
        """Write the model under ``recipe``; see `Exporter.write`.

        Raises UsageError if llama.cpp has no architecture of that shape, or no such tokenizer.
        """
        config = checkpoint.config
        shape = _check(config, recipe.name)
        gguf = plugins.require("gguf", "export")
        writer = gguf.GGUFWriter(None, shape.architecture)
        writer.add_name(checkpoint.name)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[recipe.name]])
        if recipe.name not in ("fp32", "f16"):
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _describe(writer, config, shape)
        add_vocabulary(writer, checkpoint.tokenizer, config.vocab_size)
        if shape.architecture == "bert":
            writer.add_token_type_count(1)
            arrays = _renamed(checkpoint)
        else:
            arrays = widen(checkpoint, shape)
        # The file has as many positions as texts may have tokens.
        arrays["position_embd.weight"] = arrays["position_embd.weight"][: config.max_seq_length]
        for name, value in arrays.items():
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
        if shape.dense_outside:
            dense = {n: v for n, v in checkpoint.tensors.items() if n.startswith("dense.")}
            tensors.write(folder / DENSE, dense, {})
        return Written(ENTRY, {"gguf": _version("gguf")})


def _check(config: ModelConfig, recipe: str) -> LlamaShape:
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
    ggml.check_rows(recipe, shape.width, shape.inner)
    return shape


def _algebra(shape: LlamaShape) -> str:
    # What widening adds works with large and small numbers side by side: never packed.
    return f"blk.{shape.blocks - 1}." if shape.architecture == "gpt2" else "none"


def _describe(writer: Any, config: ModelConfig, shape: LlamaShape) -> None:
    writer.add_context_length(config.max_seq_length)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.blocks)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(shape.epsilon)
    writer.add_causal_attention(False)
    writer.add_uint32(f"{shape.architecture}.pooling_type", shape.pooling)


def _renamed(checkpoint: Checkpoint) -> dict[str, Array]:
    """Return the tensors under llama.cpp's names; matrices stay ``[out, in]``."""
    names = dict(_OUTER)
    for index in range(checkpoint.config.num_layers):
        for ours, theirs in _INNER.items():
            names[f"encoder.layer.{index}.{ours}"] = f"blk.{index}.{theirs}"
    arrays: dict[str, Array] = {}
    for ours, theirs in names.items():
        if theirs.endswith(".weight"):
            arrays[theirs] = checkpoint.tensors[ours]
        else:
            for part in ("weight", "bias"):
                arrays[f"{theirs}.{part}"] = checkpoint.tensors[f"{ours}.{part}"]
    return arrays


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)

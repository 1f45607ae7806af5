"""GGUF: a BERT that stock llama.cpp runs, with its tokenizer inside.

One file under ``general.architecture = bert``, readable by every program built on llama.cpp. Keys
and tensor names are those of llama.cpp's ``convert_hf_to_gguf.py``; the tokenizer is declared as
GPT-2's, down to ``pre``, without which digits and spaces would be split in other places.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from asterisk import plugins
from asterisk.errors import UsageError
from asterisk.exporters.exporter import EXACT, QUANTISED, Recipe, Written
from asterisk.model.checkpoint import Array, Checkpoint
from asterisk.model.config import ModelConfig
from asterisk.tokenizer import BUILTIN, Tokenizer
from asterisk.tokenizer.alphabet import CHARACTERS

ENTRY = "model.gguf"
BLOCK = 32  # values that share one scale in Q8_0; a row holds whole blocks
END_OF_TEXT = "<|endoftext|>"

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


class GgufExporter:
    """Writes ``model.gguf``."""

    format: ClassVar[str] = "gguf"
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("q8_0", "matrices and token table in Q8_0: 8 bits, a scale for each 32", QUANTISED),
        Recipe("fp32", "everything in float32: the control", EXACT),
    )

    def write(self, checkpoint: Checkpoint, recipe: Recipe, folder: Path) -> Written:
        """Write the model under ``recipe``; see `Exporter.write`.

        Raises UsageError if llama.cpp has no architecture of that shape.
        """
        config = checkpoint.config
        quantised = recipe.name == "q8_0"
        _check(config, quantised)
        gguf = plugins.require("gguf", "export")
        kinds = gguf.GGMLQuantizationType
        files = gguf.LlamaFileType
        writer = gguf.GGUFWriter(None, "bert")
        writer.add_name(checkpoint.name)
        writer.add_file_type(files.MOSTLY_Q8_0 if quantised else files.ALL_F32)
        if quantised:
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _describe(writer, config)
        _add_tokenizer(writer, gguf.TokenType)
        for name, value in _renamed(checkpoint).items():
            if quantised and value.ndim == 2 and name not in _ALWAYS_FLOAT:
                packed = gguf.quants.quantize(value, kinds.Q8_0)
                writer.add_tensor(name, packed, raw_dtype=kinds.Q8_0)
            else:
                writer.add_tensor(name, value)
        writer.write_header_to_file(folder / ENTRY)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return Written(ENTRY, {"gguf": _version("gguf")})


def _check(config: ModelConfig, quantised: bool) -> None:
    if config.norm_first or config.projection_size or not config.embedding_norm:
        raise UsageError(
            "gguf needs a BERT-shaped model: an embedding norm, post-norm blocks and no projection"
        )
    if not config.num_layers:
        raise UsageError("gguf needs a model with at least one layer")
    if quantised and (config.hidden_size % BLOCK or config.intermediate_size % BLOCK):
        raise UsageError(f"gguf q8_0 needs sizes that are multiples of {BLOCK}; use recipe fp32")
    if config.vocab_size != Tokenizer.open(BUILTIN).vocab_size:
        raise UsageError("gguf needs a model over the whole built-in vocabulary")


def _describe(writer: Any, config: ModelConfig) -> None:
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_uint32("bert.pooling_type", 1)  # the mean


def _add_tokenizer(writer: Any, kinds: Any) -> None:
    tokenizer = Tokenizer.open(BUILTIN)
    specials = {tokenizer.pad_id - 1, tokenizer.pad_id, tokenizer.mask_id}
    # Ordinary tokens in GPT-2's spelling of bytes, special ones under their names.
    spelt = [
        data.decode() if token in specials else "".join(CHARACTERS[byte] for byte in data)
        for token in range(tokenizer.vocab_size)
        for data in (tokenizer.token_bytes(token),)
    ]
    types = [kinds.NORMAL] * tokenizer.vocab_size
    for token in specials:
        types[token] = kinds.CONTROL
    end = spelt.index(END_OF_TEXT)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(spelt)
    writer.add_token_types(types)
    writer.add_token_merges([f"{spelt[left]} {spelt[right]}" for left, right in tokenizer.merges()])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_mask_token_id(tokenizer.mask_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_token_type_count(1)


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

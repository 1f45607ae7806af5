"""What is written into the file, read back by gguf's own reader."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import gguf
import numpy as np
import pytest
from conftest import random_checkpoint

from asterisk.errors import UsageError
from asterisk.exporters.ggml import kind_of
from asterisk.exporters.gguf import ENTRY, GgufExporter
from asterisk.model.config import ModelConfig

RECIPES = {recipe.name: recipe for recipe in GgufExporter.recipes}
Q8_0, FP32 = RECIPES["q8_0"], RECIPES["fp32"]
SMALL = ModelConfig(hidden_size=32, num_heads=1, num_layers=1, intermediate_size=32)
# Rows that K-quants can hold, and blocks that a mix treats differently.
LONG_ROWS = ModelConfig(hidden_size=256, num_heads=1, num_layers=2, intermediate_size=256)
FILE_TYPES = {"q8_0": 7, "f16": 1, "q6_k": 18, "q4_k_m": 15, "fp32": 0}


@pytest.fixture(scope="module")
def small():
    return random_checkpoint(SMALL)


@pytest.fixture(scope="module")
def long_rows():
    return random_checkpoint(LONG_ROWS)


@pytest.fixture(scope="module")
def files(long_rows, tmp_path_factory):
    """Each recipe's file of one checkpoint, as gguf reads it."""
    return {
        name: _read(long_rows, recipe, tmp_path_factory.mktemp(name))
        for name, recipe in RECIPES.items()
    }


def _read(checkpoint, recipe, folder):
    GgufExporter().write(checkpoint, recipe, folder, [])
    return gguf.GGUFReader(folder / ENTRY)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_checkpoint_gives_the_same_bytes(long_rows, files, tmp_path, recipe):
    GgufExporter().write(long_rows, RECIPES[recipe], tmp_path, [])
    first = hashlib.sha256(files[recipe].data.tobytes()).hexdigest()
    assert hashlib.sha256((tmp_path / ENTRY).read_bytes()).hexdigest() == first


def test_keys(small, tmp_path):
    reader = _read(small, Q8_0, tmp_path)
    told = {name: field.contents() for name, field in reader.fields.items()}
    expected = {
        "general.architecture": "bert",
        "general.file_type": 7,
        "bert.context_length": 512,
        "bert.embedding_length": 32,
        "bert.block_count": 1,
        "bert.feed_forward_length": 32,
        "bert.attention.head_count": 1,
        "bert.attention.causal": False,
        "bert.pooling_type": 1,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 50_256,
        "tokenizer.ggml.eos_token_id": 50_256,
        "tokenizer.ggml.padding_token_id": 50_257,
        "tokenizer.ggml.mask_token_id": 50_258,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.token_type_count": 1,
    }
    assert {name: told.get(name) for name in expected} == expected
    assert told["bert.attention.layer_norm_epsilon"] == pytest.approx(1e-12)
    tokens, types = told["tokenizer.ggml.tokens"], told["tokenizer.ggml.token_type"]
    assert tokens[262] == "Ġthe"
    assert tokens[-3:] == ["<|endoftext|>", "[PAD]", "[MASK]"]
    assert types == [1] * 50_256 + [3] * 3
    assert told["tokenizer.ggml.merges"][:2] == ["Ġ t", "Ġ a"]


def test_float32_tensors_are_the_checkpoints(small, tmp_path):
    tensors = {tensor.name: tensor.data for tensor in _read(small, FP32, tmp_path).tensors}
    assert len(tensors) == len(small.tensors)
    ours = small.tensors["encoder.layer.0.attention.output.dense.weight"]
    assert np.array_equal(tensors["blk.0.attn_output.weight"], ours)
    ours = small.tensors["encoder.layer.0.output.LayerNorm.bias"]
    assert np.array_equal(tensors["blk.0.layer_output_norm.bias"], ours)
    ours = small.tensors["embeddings.token_type_embeddings.weight"]
    assert np.array_equal(tensors["token_types.weight"].reshape(1, 32), ours)


def _kinds(reader) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}


@pytest.mark.parametrize(
    ("recipe", "kind"), [("q8_0", "Q8_0"), ("f16", "F16"), ("q6_k", "Q6_K"), ("q4_k_m", "Q4_K")]
)
def test_a_recipe_packs_matrices_only(files, recipe, kind):
    kinds = _kinds(files[recipe])
    assert files[recipe].fields["general.file_type"].contents() == FILE_TYPES[recipe]
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
    matrices = {f"blk.{block}.{part}.weight" for block in (0, 1) for part in parts}
    # llama.cpp's mix: six bits for the table, and where the last eighth of the blocks reads most.
    six = {"token_embd.weight", "blk.1.attn_v.weight", "blk.1.ffn_down.weight"}
    for name in matrices | {"token_embd.weight"}:
        assert kinds.pop(name) == ("Q6_K" if recipe == "q4_k_m" and name in six else kind), name
    assert set(kinds.values()) == {"F32"}


def test_the_mix_of_a_deep_model_is_llama_cpps():
    # Mistral 7B's 32 blocks in any Q4_K_M file: the first and last four, and every third between.
    more = {*range(4), *range(6, 28, 3), *range(28, 32)}
    for part in ("attn_v", "ffn_down", "attn_q", "ffn_up"):
        six = {i for i in range(32) if kind_of("q4_k_m", f"blk.{i}.{part}.weight", 32) == "Q6_K"}
        assert six == (more if part in ("attn_v", "ffn_down") else set())


def test_float16_holds_a_checkpoint_exactly(files, long_rows):
    tensors = {tensor.name: tensor.data for tensor in files["f16"].tensors}
    ours = long_rows.tensors["embeddings.word_embeddings.weight"]
    assert tensors["token_embd.weight"].dtype == np.float16
    assert np.array_equal(tensors["token_embd.weight"].astype("f4"), ours)


@pytest.mark.parametrize(("recipe", "most"), [("q8_0", 0.007), ("q6_k", 0.021), ("q4_k_m", 0.08)])
def test_what_is_packed_is_near_what_was(files, long_rows, recipe, most):
    """By gguf's own reading of the blocks, which is numpy and shares nothing with the writer."""
    tensors = {tensor.name: tensor for tensor in files[recipe].tensors}
    for ours, theirs in {
        "encoder.layer.0.attention.self.query": "blk.0.attn_q",
        "encoder.layer.0.output.dense": "blk.0.ffn_down",
    }.items():
        tensor, true = tensors[f"{theirs}.weight"], long_rows.tensors[f"{ours}.weight"]
        error = gguf.quants.dequantize(tensor.data, tensor.tensor_type) - true
        relative = np.sqrt(np.mean(error**2) / np.mean(true**2))
        assert most / 3 < relative < most


def test_the_search_for_scales_is_worth_its_engine(files, long_rows):
    # Q4_0 is what numpy alone could offer at four bits.
    true = long_rows.tensors["encoder.layer.0.attention.self.query.weight"]
    kind = gguf.GGMLQuantizationType.Q4_0
    plain = gguf.quants.dequantize(gguf.quants.quantize(true, kind), kind)
    (tensor,) = (t for t in files["q4_k_m"].tensors if t.name == "blk.0.attn_q.weight")
    searched = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    assert np.sum((searched - true) ** 2) < 0.8 * np.sum((plain - true) ** 2)


@pytest.mark.parametrize(
    "change",
    [
        {"norm_first": True},  # and an embedding norm
        {"projection_size": 16},
        {"embedding_norm": False},
        {"num_layers": 0},
        {"norm_first": True, "embedding_norm": False, "projection_size": 64},
        {"vocab_size": 50_256},
    ],
)
def test_refuses_what_llama_cpp_has_no_shape_for(tmp_path, change):
    other = random_checkpoint(replace(SMALL, **change))
    with pytest.raises(UsageError, match="gguf needs"):
        GgufExporter().write(other, FP32, tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_refuses_rows_that_q8_0_cannot_hold(tmp_path):
    odd = random_checkpoint(replace(SMALL, hidden_size=24))
    with pytest.raises(UsageError, match="multiples of 32"):
        GgufExporter().write(odd, Q8_0, tmp_path, [])

    with pytest.raises(UsageError, match="q6_k needs rows of multiples of 256"):
        GgufExporter().write(random_checkpoint(SMALL), RECIPES["q6_k"], tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_naming_the_recipes_imports_no_writer(python):
    code = "import sys, asterisk.exporters.gguf; sys.exit('gguf' in sys.modules)"
    assert python(code).returncode == 0

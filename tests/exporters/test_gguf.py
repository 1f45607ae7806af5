"""What is written into the file, read back by gguf's own reader."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import gguf
import numpy as np
import pytest
from conftest import random_checkpoint

from asterisk.errors import UsageError
from asterisk.exporters.gguf import ENTRY, GgufExporter
from asterisk.model.config import ModelConfig

Q8_0, FP32 = GgufExporter.recipes
SMALL = ModelConfig(hidden_size=32, num_heads=1, num_layers=1, intermediate_size=32)


@pytest.fixture(scope="module")
def small():
    return random_checkpoint(SMALL)


def _read(checkpoint, recipe, folder):
    GgufExporter().write(checkpoint, recipe, folder)
    return gguf.GGUFReader(folder / ENTRY)


def test_the_same_checkpoint_gives_the_same_bytes(small, tmp_path):
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        GgufExporter().write(small, Q8_0, tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name / ENTRY).read_bytes()).hexdigest())
    assert len(digests) == 1


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


def test_q8_0_packs_matrices_only(small, tmp_path):
    kinds = {tensor.name: tensor.tensor_type for tensor in _read(small, Q8_0, tmp_path).tensors}
    packed = {name for name, kind in kinds.items() if kind == gguf.GGMLQuantizationType.Q8_0}
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
    assert packed == {"token_embd.weight", *(f"blk.0.{part}.weight" for part in parts)}


@pytest.mark.parametrize(
    "change",
    [{"norm_first": True}, {"projection_size": 16}, {"embedding_norm": False}, {"num_layers": 0}],
)
def test_refuses_what_is_no_bert(tmp_path, change):
    other = random_checkpoint(replace(SMALL, **change))
    with pytest.raises(UsageError, match="gguf needs"):
        GgufExporter().write(other, FP32, tmp_path)
    assert not list(tmp_path.iterdir())


def test_refuses_rows_that_q8_0_cannot_hold(tmp_path):
    odd = random_checkpoint(replace(SMALL, hidden_size=24))
    with pytest.raises(UsageError, match="multiples of 32"):
        GgufExporter().write(odd, Q8_0, tmp_path)


def test_naming_the_recipes_imports_no_writer(python):
    code = "import sys, asterisk.exporters.gguf; sys.exit('gguf' in sys.modules)"
    assert python(code).returncode == 0

"""What is written into the file, read back by gguf's own reader."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import folders
import gguf
import numpy as np
import pytest
from conftest import random_checkpoint

from asterisk.common.errors import UsageError
from asterisk.exporters.gguf import ENTRY, GgufExporter, tensor_type
from asterisk.model.checkpoint import load
from asterisk.model.config import Dense, ModelConfig
from asterisk.tokenizer.huggingface import CHARACTERS
from asterisk.tokenizer.source import TokenizerSource

RECIPES = {recipe.name: recipe for recipe in GgufExporter.recipes}
Q8_0, FP32 = RECIPES["q8_0"], RECIPES["fp32"]
SMALL = ModelConfig(vocab_size=257, hidden_size=32, num_heads=1, num_layers=1, intermediate_size=32)
# Rows that K-quants can hold, and blocks that a mix treats differently.
LONG_ROWS = replace(SMALL, hidden_size=256, num_layers=2, intermediate_size=256)
FILE_TYPES = {"q8_0": 7, "f16": 1, "q6_k": 18, "q4_k_m": 15, "fp32": 0}
BYTES = TokenizerSource(
    "byte_level_bpe",
    {
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "post_processor": None,
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate((*CHARACTERS, "th"))},
            "merges": [["t", "h"]],
        },
        "added_tokens": [],
    },
    tokens=(*CHARACTERS, "th"),
    special={},
)


def _random(config):
    """Random weights with a tokenizer of bytes and one merge."""
    return replace(random_checkpoint(config), tokenizer=BYTES)


@pytest.fixture(scope="module")
def small():
    return _random(SMALL)


@pytest.fixture(scope="module")
def long_rows():
    return _random(LONG_ROWS)


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


def _contents(reader):
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_checkpoint_gives_the_same_bytes(long_rows, files, tmp_path, recipe):
    GgufExporter().write(long_rows, RECIPES[recipe], tmp_path, [])
    first = hashlib.sha256(files[recipe].data.tobytes()).hexdigest()
    assert hashlib.sha256((tmp_path / ENTRY).read_bytes()).hexdigest() == first


def test_keys(tmp_path):
    keys = _contents(_read(random_checkpoint(replace(SMALL, vocab_size=50_259)), Q8_0, tmp_path))
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
    assert {name: keys.get(name) for name in expected} == expected
    assert keys["bert.attention.layer_norm_epsilon"] == pytest.approx(1e-12)
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    assert tokens[262] == "Ġthe"
    assert tokens[-3:] == ["<|endoftext|>", "[PAD]", "[MASK]"]
    assert types == [1] * 50_256 + [3] * 3
    assert keys["tokenizer.ggml.merges"][:2] == ["Ġ t", "Ġ a"]


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
        six = {
            i for i in range(32) if tensor_type("q4_k_m", f"blk.{i}.{part}.weight", 32) == "Q6_K"
        }
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


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    """A random BertModel with MiniLM's WordPiece, as `transformers` saves it."""
    return load(folders.bert(tmp_path_factory.mktemp("bert") / "model"))


def test_wordpiece_is_written_as_llama_cpps_converter_writes_it(wordpiece, tmp_path):
    keys = _contents(_read(wordpiece, Q8_0, tmp_path))
    expected = {
        "bert.pooling_type": 1,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 100,
        "tokenizer.ggml.cls_token_id": 101,
        "tokenizer.ggml.bos_token_id": 101,
        "tokenizer.ggml.seperator_token_id": 102,
        "tokenizer.ggml.eos_token_id": 102,
        "tokenizer.ggml.mask_token_id": 103,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.ggml.normalizer.lowercase": True,
        "tokenizer.ggml.normalizer.strip_accents": True,
        "tokenizer.ggml.token_type_count": 1,
    }
    assert {name: keys.get(name) for name in expected} == expected
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    # The first piece of a word is marked, and not the others.
    assert [tokens[i] for i in (101, 1996, 2015, 1)] == ["[CLS]", "▁the", "s", "▁[unused0]"]
    assert [types[i] for i in (0, 100, 101, 102, 103, 1996, 1)] == [3, 3, 3, 3, 3, 1, 1]


def test_unigram_is_written_with_its_scores(tmp_path):
    keys = _contents(_read(load(folders.multilingual(tmp_path / "model")), Q8_0, tmp_path))
    assert keys["tokenizer.ggml.model"] == "t5"
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    scores = keys["tokenizer.ggml.scores"]
    assert len(tokens) == len(types) == len(scores) == 1_536
    assert tokens[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert types[:4] == [3, 3, 3, 2]
    # Rows of the table that no token has.
    assert (tokens[1_501], types[1_501], scores[1_501]) == ("[PAD1501]", 5, -10_000)
    assert scores[10] < 0


def test_positions_are_those_of_the_longest_text(small, tmp_path):
    reader = _read(replace(small, config=replace(SMALL, max_seq_length=100)), FP32, tmp_path)
    assert _contents(reader)["bert.context_length"] == 100
    (positions,) = (t for t in reader.tensors if t.name == "position_embd.weight")
    assert positions.data.shape == (100, 32)


@pytest.mark.parametrize(
    ("pooling", "kind"), [("mean", 1), ("mean_sqrt_len_tokens", 1), ("cls", 2), ("max", 0)]
)
def test_pooling_is_in_the_file_where_llama_cpp_has_it(small, tmp_path, pooling, kind):
    pooled = replace(small, config=replace(SMALL, pooling=pooling))
    assert _contents(_read(pooled, FP32, tmp_path))["bert.pooling_type"] == kind


def test_dense_stands_beside_the_model(tmp_path):
    dense = (Dense(48, "tanh"), Dense(16, bias=False))
    checkpoint = _random(replace(SMALL, dense=dense))
    reader = _read(checkpoint, Q8_0, tmp_path)
    assert not [tensor.name for tensor in reader.tensors if "dense" in tensor.name]
    from safetensors.numpy import load_file

    beside = load_file(tmp_path / "dense.safetensors")
    assert set(beside) == {"dense.0.weight", "dense.0.bias", "dense.1.weight"}
    assert np.array_equal(beside["dense.1.weight"], checkpoint.tensors["dense.1.weight"])


@pytest.mark.parametrize(
    "change",
    [
        {"norm_first": True},  # and an embedding norm
        {"embedding_norm": False},
        {"num_layers": 0},
        {"norm_first": True, "embedding_norm": False, "dense": (Dense(64),)},
        {"norm_first": True, "embedding_norm": False, "dense": (Dense(16, "tanh"),)},
        {"norm_first": True, "embedding_norm": False, "pooling": "cls"},
    ],
)
def test_refuses_what_llama_cpp_has_no_shape_for(tmp_path, change):
    other = _random(replace(SMALL, **change))
    with pytest.raises(UsageError, match="gguf needs"):
        GgufExporter().write(other, FP32, tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_refuses_a_table_that_lacks_ordinary_tokens(tmp_path):
    other = _random(replace(SMALL, vocab_size=256))
    with pytest.raises(UsageError, match="257 tokens, the token table 256 rows"):
        GgufExporter().write(other, FP32, tmp_path, [])
    assert not list(tmp_path.iterdir())


def _with(checkpoint, **parts):
    source = checkpoint.tokenizer
    definition = {**source.definition, **parts}
    return replace(checkpoint, tokenizer=replace(source, definition=definition))


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"normalizer": None}, "WordPiece without BERT's cleaning"),
        ({"pre_tokenizer": {"type": "WhitespaceSplit"}}, "without BERT's pre-tokenizer"),
        ({"post_processor": None}, "WordPiece without a special token before a text"),
        ({"model": {"type": "WordLevel"}}, "of type 'WordLevel'"),
    ],
)
def test_refuses_a_tokenizer_that_llama_cpp_lacks(wordpiece, tmp_path, parts, named):
    with pytest.raises(UsageError, match=f"gguf: llama.cpp has no tokenizer .*{named}"):
        GgufExporter().write(_with(wordpiece, **parts), FP32, tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_refuses_bpe_that_is_split_in_other_places(small, tmp_path):
    digits = {"type": "Digits", "individual_digits": True}
    with pytest.raises(UsageError, match="BPE with a pre-tokenizer other than ByteLevel"):
        GgufExporter().write(_with(small, pre_tokenizer=digits), FP32, tmp_path, [])


def test_refuses_rows_that_a_recipe_cannot_hold(small, tmp_path):
    odd = _random(replace(SMALL, hidden_size=24))
    with pytest.raises(UsageError, match=r"q8_0 needs rows of multiples of 32.*use f16 or fp32"):
        GgufExporter().write(odd, Q8_0, tmp_path, [])
    minilm = _random(replace(SMALL, hidden_size=384, intermediate_size=1_536))
    for recipe in ("q6_k", "q4_k_m"):
        with pytest.raises(
            UsageError,
            match=f"gguf {recipe} needs rows of multiples of 256, and this model has rows of "
            "384 and 1536; use q8_0, f16 or fp32",
        ):
            GgufExporter().write(minilm, RECIPES[recipe], tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_naming_the_recipes_imports_no_writer(python):
    code = "import sys, asterisk.exporters.gguf; sys.exit('gguf' in sys.modules)"
    assert python(code).returncode == 0


def test_relu_is_refused_by_name(tmp_path):
    checkpoint = random_checkpoint(replace(SMALL, activation="relu"))
    with pytest.raises(UsageError, match="ReLU"):
        GgufExporter().write(checkpoint, GgufExporter.recipes[0], tmp_path, [])

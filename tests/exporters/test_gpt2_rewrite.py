"""The original project's shape in stock llama.cpp, against one built from torch.nn's parts."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import bare_artifact, bare_runtime, random_checkpoint
from torch import nn

from asterisk.common.errors import EngineError, UsageError
from asterisk.exporters.gguf import GgufExporter
from asterisk.exporters.gpt2_rewrite import widen
from asterisk.model.checkpoint import Checkpoint
from asterisk.model.config import Dense, ModelConfig, llama_shape
from asterisk.runtimes.gguf import GgufEngine

RECIPES = {recipe.name: recipe for recipe in GgufExporter.recipes}
SMALL = ModelConfig(
    vocab_size=50_258,
    hidden_size=64,
    num_heads=2,
    num_layers=2,
    intermediate_size=128,
    layer_norm_eps=1e-5,
    norm_first=True,
    embedding_norm=False,
    dense=(Dense(32),),
)
ORIGINAL = replace(SMALL, hidden_size=512, intermediate_size=2_048, dense=(Dense(256),))

_artifact = partial(bare_artifact, GgufExporter())
_runtime = partial(bare_runtime, GgufEngine)


def _checkpoint(config: ModelConfig, offset: float = 0.0) -> Checkpoint:
    """Random weights whose stream has a mean, which only the projection sees, of ``offset``."""
    plain = random_checkpoint(config)
    table = "embeddings.word_embeddings.weight"
    return replace(
        plain, tensors=plain.tensors | {table: plain.tensors[table] + np.float32(offset)}
    )


class Independent:
    """`nn.TransformerEncoder` over an embedding, its mean and a linear map: no code of ours."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config
        get = {name: torch.from_numpy(value) for name, value in checkpoint.tensors.items()}.get
        layer = nn.TransformerEncoderLayer(
            config.hidden_size,
            config.num_heads,
            config.intermediate_size,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=config.layer_norm_eps,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=False)
        state = {}
        for index in range(config.num_layers):
            ours, theirs = f"encoder.layer.{index}", f"layers.{index}"
            for kind in ("weight", "bias"):
                state[f"{theirs}.self_attn.in_proj_{kind}"] = torch.cat(
                    [
                        get(f"{ours}.attention.self.{part}.{kind}")
                        for part in ("query", "key", "value")
                    ]
                )
                for mine, torchs in {
                    "attention.output.dense": "self_attn.out_proj",
                    "intermediate.dense": "linear1",
                    "output.dense": "linear2",
                    "attention.output.LayerNorm": "norm1",
                    "output.LayerNorm": "norm2",
                }.items():
                    state[f"{theirs}.{torchs}.{kind}"] = get(f"{ours}.{mine}.{kind}")
        self.encoder.load_state_dict(state)
        self.encoder.eval()
        self.words = get("embeddings.word_embeddings.weight")
        self.positions = get("embeddings.position_embeddings.weight")
        self.types = get("embeddings.token_type_embeddings.weight")
        self.projection = (get("dense.0.weight"), get("dense.0.bias"))

    @torch.inference_mode()
    def __call__(self, ids: list[int]) -> np.ndarray:
        x = self.words[ids] + self.positions[: len(ids)] + self.types
        pooled = self.encoder(x[None])[0].mean(0)
        matrix, bias = self.projection
        return (pooled if matrix is None else pooled @ matrix.T + bias).numpy()


def _texts(vocabulary: int) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(0, vocabulary, n).tolist() for n in (512, 300, 64, 20, 5, 2, 1)]


def _cosine(a, b) -> float:
    a, b = a.astype("f8"), b.astype("f8")
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"dense": ()},
        {"num_layers": 1},
        {"num_heads": 1},
        {"hidden_size": 60, "num_heads": 3, "intermediate_size": 96},  # heads of 20 become 32
        {"vocab_size": 50_259},
    ],
)
def test_the_widened_model_is_the_model(tmp_path, change):
    checkpoint = _checkpoint(replace(SMALL, **change), offset=0.3)
    truth = Independent(checkpoint)
    with _runtime(_artifact(checkpoint, RECIPES["fp32"], tmp_path)) as runtime:
        for ids in _texts(checkpoint.config.vocab_size):
            ours, theirs = runtime.embed_ids(ids), truth(ids)
            assert ours.shape == theirs.shape == (checkpoint.config.embedding_size,)
            assert _cosine(ours, theirs) > 0.99999, len(ids)
            assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=2e-3)


@pytest.mark.parametrize(("recipe", "least"), [("f16", 0.9999), ("q8_0", 0.998)])
def test_the_widened_model_survives_packing(tmp_path, recipe, least):
    checkpoint = _checkpoint(SMALL, offset=0.3)
    truth = Independent(checkpoint)
    with _runtime(_artifact(checkpoint, RECIPES[recipe], tmp_path)) as runtime:
        for ids in _texts(checkpoint.config.vocab_size):
            assert _cosine(runtime.embed_ids(ids), truth(ids)) > least, len(ids)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "least"), [("fp32", 0.99999), ("q8_0", 0.9995)])
def test_the_original_size(tmp_path, recipe, least):
    checkpoint = _checkpoint(ORIGINAL)
    truth = Independent(checkpoint)
    artifact = _artifact(checkpoint, RECIPES[recipe], tmp_path)
    with _runtime(artifact) as runtime:
        for ids in _texts(checkpoint.config.vocab_size):
            assert _cosine(runtime.embed_ids(ids), truth(ids)) > least, len(ids)


def test_a_vector_depends_on_its_text_alone(tmp_path):
    checkpoint = _checkpoint(SMALL)
    texts = _texts(checkpoint.config.vocab_size)
    with _runtime(_artifact(checkpoint, RECIPES["q8_0"], tmp_path)) as runtime:
        falling = [runtime.embed_ids(ids) for ids in texts]
        rising = [runtime.embed_ids(ids) for ids in texts[::-1]][::-1]
        assert np.array_equal(falling, rising)
        # Not causal: the last token matters to what the first one says, and so to their order.
        ids = texts[-4]
        assert _cosine(runtime.embed_ids(ids), runtime.embed_ids(ids[::-1])) < 0.9999
    (engine,) = GgufEngine.open(_artifact(checkpoint, RECIPES["q8_0"], tmp_path), 1)
    before = engine.run(texts[-1])
    for ids in ([], [SMALL.vocab_size], [-1]):
        with pytest.raises(EngineError, match="cannot encode"):
            engine.run(ids)
    assert np.array_equal(engine.run(texts[-1]), before)


SERVER = """
import json, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, texts = sys.argv[1], json.loads(sys.argv[2])
params.embedding, params.warmup, params.verbosity = True, False, -1
params.n_ctx = params.n_batch = params.n_ubatch = 512
params.n_parallel = params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
answer = server.handle_embeddings({"input": texts, "embd_normalize": -1})
print("VECTORS" + json.dumps([row["embedding"] for row in answer["data"]]))
"""


def test_stock_llama_server_gives_the_embedding_and_zeros(tmp_path, python):
    """With all its defaults: its own tokenizer, a float16 cache, pooling as the file says."""
    checkpoint = _checkpoint(SMALL)
    artifact = _artifact(checkpoint, RECIPES["fp32"], tmp_path)
    texts = ["The 12,345 cats' toys weren't HERE  \n\n\tuntil 2026…", "日本語 テスト", "one"]
    done = python(SERVER, str(artifact.entry), json.dumps(texts))
    answer = next(line for line in done.stdout.splitlines() if line.startswith("VECTORS"))
    theirs = np.array(json.loads(answer.removeprefix("VECTORS")), np.float32)
    assert theirs.shape == (3, 96)
    assert not theirs[:, 32:].any()
    with _runtime(artifact) as runtime:
        for ours, row in zip(runtime.encode(texts, normalize=False), theirs[:, :32], strict=True):
            assert _cosine(ours, row) > 0.99999


def test_shapes():
    shape = llama_shape(ORIGINAL)
    assert (shape.architecture, shape.width, shape.blocks, shape.heads) == ("gpt2", 544, 3, 2)
    tensors = widen(_checkpoint(SMALL), llama_shape(SMALL))
    assert tensors["blk.2.attn_qkv.weight"].shape == (288, 96)
    assert all(np.isfinite(value).all() for value in tensors.values())
    # What a norm of the widened stream subtracts is nothing.
    table = tensors["token_embd.weight"]
    assert np.abs(table.sum(1)).max() < 1e-4 * np.abs(table).sum(1).mean()


def test_rows_that_k_quants_cannot_hold_are_refused(tmp_path):
    with pytest.raises(UsageError, match="q6_k needs rows of multiples of 256"):
        GgufExporter().write(_checkpoint(SMALL), RECIPES["q6_k"], tmp_path, [])

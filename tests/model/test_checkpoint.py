"""The checkpoint folder against outside truth: transformers and sentence-transformers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import SHIPPED, random_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.common.errors import ArtifactError, OutputError
from asterisk.model.checkpoint import load, save
from asterisk.model.config import Dense, ModelConfig
from asterisk.runtimes.torch import reference


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_transformers_gives_our_vectors(lines):
    import torch
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    model, info = BertModel.from_pretrained(SHIPPED, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    some = [*lines[:16], "[PAD] and [MASK] are text"]
    encoded = tokenizer(some, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        states = model.eval()(**encoded).last_hidden_state
    mask = encoded["attention_mask"][..., None]
    theirs = ((states * mask).sum(1) / mask.sum(1)).numpy()
    with reference(load(SHIPPED)) as ours:
        assert cosines(ours.encode(some), theirs).min() > 0.99999


def test_sentence_transformers_gives_our_vectors(lines):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(SHIPPED), device="cpu")
    assert model.max_seq_length == 512
    some = [*lines[:16], "[PAD] and [MASK] are text", "long " * 2_000]
    theirs = model.encode(some)
    assert np.allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-5)
    with reference(load(SHIPPED)) as ours:
        assert cosines(ours.encode(some), theirs).min() > 0.99999


def test_reads_back_what_it_wrote(toy, toy_folder):
    again = load(toy_folder)
    assert again.fingerprint == toy.fingerprint
    for name, values in toy.tensors.items():
        assert np.array_equal(again.tensors[name], values)


def test_transposed_arrays_are_written_in_their_own_order(toy, tmp_path):
    rows = np.random.default_rng(0).normal(size=(384, toy.config.hidden_size)).astype("f4")
    name = "encoder.layer.0.attention.self.query.weight"
    tensors = toy.tensors | {name: np.asfortranarray(toy.tensors[name])}
    save(replace(toy, tensors=tensors, teacher_projection=rows.T), tmp_path / "out")
    read = load(tmp_path / "out")
    np.testing.assert_array_equal(read.teacher_projection, rows.T)
    np.testing.assert_allclose(read.tensors[name], toy.tensors[name], atol=1e-3)


def test_another_weight_is_another_space(toy):
    tensors = dict(toy.tensors)
    name = "encoder.layer.1.output.LayerNorm.bias"
    tensors[name] = tensors[name] + np.float32(1e-3)
    assert replace(toy, tensors=tensors).fingerprint != toy.fingerprint


@pytest.mark.parametrize("damage", ["truncated", "config", "tokenizer", "missing", "shape"])
def test_damaged_folders(toy_folder, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(toy_folder, copy)
    if damage == "truncated":
        data = (copy / "model.safetensors").read_bytes()
        (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif damage == "config":
        (copy / "config.json").write_text("{")
    elif damage == "tokenizer":
        (copy / "tokenizer.json").write_text("{}")
    elif damage == "missing":
        (copy / "model.safetensors").unlink()
    else:
        values = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(values | {"hidden_size": 128}))
    with pytest.raises(ArtifactError) as caught:
        load(copy)
    assert str(caught.value)


@settings(deadline=None)
@given(
    values=st.dictionaries(
        st.sampled_from([*ModelConfig().to_dict(), "other"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    )
)
def test_any_configuration_is_sound_or_refused(values):
    try:
        config = ModelConfig.from_dict(values)
    except ArtifactError:
        return
    assert config.head_size * config.num_heads == config.hidden_size
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_the_shipped_checkpoint_is_small_and_alive(lines):
    """Both blocks matter: without either, the vectors are others."""
    import torch

    checkpoint = load(SHIPPED)
    assert (SHIPPED / "model.safetensors").stat().st_size < 35e6
    assert checkpoint.teacher_projection.shape == (256, 384)
    with reference(checkpoint) as ours:
        whole = ours.encode(lines[:64])
        encoder = ours._engines[0].encoder
        for index, block in enumerate(encoder.blocks):
            kept = block.forward
            block.forward = lambda x, bias=None: x
            assert cosines(ours.encode(lines[:64]), whole).mean() < 0.97, index
            block.forward = kept
        with torch.inference_mode():
            assert np.array_equal(ours.encode(lines[:64]), whole)


OTHERS = {
    "original": {"norm_first": True, "embedding_norm": False, "dense": (Dense(24),)},
    "pre-norm": {"norm_first": True},
    "no embedding norm": {"embedding_norm": False},
}
# A width that BertModel's twelve heads divide: it must fail on the names.
SMALL = ModelConfig(hidden_size=48, intermediate_size=64, num_layers=1, vocab_size=50_258)


@pytest.fixture(params=OTHERS)
def other(request):
    """A checkpoint that is no BertModel."""
    return random_checkpoint(replace(SMALL, **OTHERS[request.param]), "other")


def test_other_shapes_read_back_to_the_bit(other, tmp_path):
    exact = {name: value + np.float32(1e-6) for name, value in other.tensors.items()}
    other = replace(other, tensors=exact, teacher_projection=np.eye(24, 48, dtype="f4"))
    save(other, tmp_path / "other")
    again = load(tmp_path / "other")
    assert (again.config, again.name) == (other.config, "other")
    assert again.fingerprint == other.fingerprint == other.stored().fingerprint
    np.testing.assert_array_equal(again.teacher_projection, other.teacher_projection)
    assert not list(tmp_path.rglob("modules.json"))


def test_nothing_else_opens_other_shapes(other, tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, BertModel

    save(other, tmp_path / "other")
    with pytest.raises(ValueError, match="asterisk"):
        AutoModel.from_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="asterisk"):
        SentenceTransformer(str(tmp_path / "other"), device="cpu")
    # Asked for by name it takes any folder; then nothing in it may fit.
    _, info = BertModel.from_pretrained(tmp_path / "other", output_loading_info=True)
    assert len(info["unexpected_keys"]) == len(other.tensors)


@pytest.mark.parametrize("damage", ["type", "field", "unknown", "stranger", "plain names", "shape"])
def test_damaged_folders_of_other_shapes(tmp_path, damage):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "other"
    save(random_checkpoint(replace(SMALL, **OTHERS["original"])), folder)
    config, weights = folder / "config.json", folder / "model.safetensors"
    values, arrays = json.loads(config.read_text()), load_file(weights)
    change = {
        "type": {"model_type": "other"},
        "unknown": {"colour": 1},
        "shape": {"dense": [{"out_features": 12, "activation": "identity", "bias": True}]},
    }
    values |= change.get(damage, {})
    if damage == "field":
        del values["layer_norm_eps"]
    elif damage == "stranger":
        arrays["stranger"] = np.ones(1, "f4")
    elif damage == "plain names":
        arrays = {name.removeprefix("asterisk."): value for name, value in arrays.items()}
    config.write_text(json.dumps(values))
    save_file(arrays, weights)
    with pytest.raises(ArtifactError) as caught:
        load(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_an_import_never_replaces_a_checkpoint_of_the_other_layout(toy_folder, tmp_path):
    shutil.copytree(toy_folder, tmp_path / "kept")
    before = load(tmp_path / "kept").fingerprint
    with pytest.raises(OutputError, match="left alone"):
        save(random_checkpoint(replace(SMALL, **OTHERS["original"])), tmp_path / "kept")
    assert load(tmp_path / "kept").fingerprint == before
    save(random_checkpoint(replace(SMALL, **OTHERS["original"])), tmp_path / "other")
    save(random_checkpoint(replace(SMALL, **OTHERS["pre-norm"])), tmp_path / "other")
    assert load(tmp_path / "other").config.dense == ()


def test_the_bytes_are_those_that_safetensors_writes(toy, toy_folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    arrays = load_file(toy_folder / "model.safetensors")
    save_file(arrays, tmp_path / "theirs", metadata={"format": "pt"})
    ours = (toy_folder / "model.safetensors").read_bytes()
    assert ours == (tmp_path / "theirs").read_bytes()
    assert {str(value.dtype) for value in arrays.values()} == {"float16"}
    assert arrays.keys() - toy.tensors.keys() == {"pooler.dense.weight", "pooler.dense.bias"}


def test_needs_no_package_but_numpy(python, toy_folder, tmp_path):
    code = (
        "import sys\n"
        "for name in ('torch', 'safetensors', 'transformers'): sys.modules[name] = None\n"
        "from asterisk.model.checkpoint import load, save\n"
        "save(load(sys.argv[1]), sys.argv[2])\n"
    )
    done = python(code, toy_folder, tmp_path / "copy")
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("model.safetensors", "config.json", "modules.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (toy_folder / name).read_bytes()

"""The original's architecture through every exporter that knows it, against PyTorch's own parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model.original_project import build, vectors

import asterisk
from asterisk.exporters.export import choose, export, find_exporter, open_reference
from asterisk.model import original
from asterisk.model.checkpoint import load, save
from asterisk.runtimes.load import verify

EVERY = [
    (name, recipe.name) for name in ("onnx", "tflite") for recipe in find_exporter(name).recipes
]
# Four bits a value are too few for vectors of 32 random elements: the gate says so, rightly.
WIDE_TABLE = [(name, recipe) for name, recipe in EVERY if "emb4" not in recipe]


def imported(folder, model):
    """Import ``model`` into ``folder`` and read it back from there."""
    torch.save(model.state_dict(), folder / "model.pt")
    save(original.read(folder / "model.pt", "theirs"), folder / "theirs")
    return load(folder / "theirs")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The original at its own size, what was imported of it, and the reference."""
    model = build()
    checkpoint = imported(tmp_path_factory.mktemp("whole"), model)
    with open_reference(checkpoint) as truth:
        yield model, checkpoint, truth


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One without a row for [MASK], with few positions, and faint: its norms' epsilon counts."""
    model = build(1, 0.003, vocabulary=50_258, hidden=64, heads=4, layers=3, out=32, positions=80)
    path = tmp_path_factory.mktemp("small") / "model.pt"
    torch.save(model.state_dict(), path)
    checkpoint = original.read(path, "small", heads=4)
    with open_reference(checkpoint) as truth:
        yield model, checkpoint, truth


def compare(artifact, model, texts, recipe):
    """Cosine for the recipe's promise, every element where it promises exactness."""
    with asterisk.load(artifact.folder, threads=2) as runtime:
        theirs = vectors(model, [runtime.tokenize(text) for text in texts])
        ours = runtime.encode(texts)
    assert ours.shape == theirs.shape
    assert (ours * theirs).sum(1).min() >= artifact.manifest.thresholds.cosine_min
    if recipe.name == "fp32":
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert verify(artifact.folder).cosine_min >= artifact.manifest.thresholds.cosine_min


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "name"),
    [
        pytest.param(*each, marks=[] if each[1] in ("int8", "fp32") else pytest.mark.campaign)
        for each in EVERY
    ],
)
def test_the_whole_original(whole, tmp_path, lines, format, name):
    model, checkpoint, truth = whole
    artifact = export(checkpoint, format, name, tmp_path / "out", reference=truth)
    assert artifact.config == checkpoint.config
    assert artifact.manifest.fingerprint == checkpoint.fingerprint
    some = [*lines[:60], "[MASK] and [PAD]", "a long text " * 200]
    compare(artifact, model, some, choose(find_exporter(format), name))


@pytest.mark.parametrize(("format", "name"), WIDE_TABLE)
def test_without_a_row_for_masks(small, tmp_path, lines, format, name):
    model, checkpoint, truth = small
    artifact = export(checkpoint, format, name, tmp_path / "out", reference=truth)
    some = [*lines[:60], "[MASK] and [PAD]", "a long text " * 200]
    compare(artifact, model, some, choose(find_exporter(format), name))
    with asterisk.load(artifact.folder) as runtime:
        assert np.isfinite(runtime.embed_ids([50_257])).all()
        with pytest.raises(asterisk.common.errors.InputError):
            runtime.embed_ids([50_258])

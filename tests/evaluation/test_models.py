"""Models opened by what a user calls them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import asterisk
from asterisk.common.errors import ArtifactError, InputError
from asterisk.evaluation.models import open_model
from asterisk.model.checkpoint import load
from asterisk.training.teachers.teacher import find

TEXTS = ["a cat sat on the mat", "GDP fell in May", "x"]


def test_a_checkpoint_is_ours_although_sentence_transformers_could_open_it(toy_folder):
    model = open_model(str(toy_folder))
    assert model.opened_by == "asterisk torch"
    assert (model.size, model.longest, model.projection) == (256, 512, None)
    with asterisk.load(toy_folder) as runtime:
        assert model.vectors(TEXTS) == pytest.approx(runtime.encode(TEXTS), abs=1e-6)
        assert model.fingerprint == runtime.fingerprint


@pytest.mark.slow
def test_an_artifact(artifact_of):
    model = open_model(str(artifact_of("onnx", "int8")))
    assert model.opened_by == "asterisk onnx"
    assert model.vectors(TEXTS).shape == (3, 256)


@pytest.mark.slow
def test_the_packaged_teacher_reads_as_far_as_it_is_told():
    long = "word " * 400
    default, longer = open_model("all-MiniLM-L6-v2"), open_model("all-MiniLM-L6-v2", longest=512)
    assert default.fingerprint == load(find("all-MiniLM-L6-v2")).fingerprint
    assert (default.size, default.longest, longer.longest) == (384, 256, 512)
    short = " ".join(["word"] * 254)
    same = default.vectors([long, short])
    assert same[0] == pytest.approx(same[1], abs=1e-5)
    apart = longer.vectors([long, short])
    assert np.abs(apart[0] - apart[1]).max() > 1e-4
    with pytest.raises(InputError, match="at most 512 tokens, not 600"):
        open_model("all-MiniLM-L6-v2", longest=600)


@pytest.mark.slow
def test_static_embeddings_by_sentence_transformers(tmp_path, toy_folder):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(toy_folder / "tokenizer.json"))
    weights = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 8)).astype("f4")
    static = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu"
    )
    static.save(str(tmp_path / "bag"))
    model = open_model(str(tmp_path / "bag"))
    assert (model.opened_by, model.size) == ("sentence-transformers", 8)
    assert "opened by sentence-transformers" in model.note
    assert model.vectors(TEXTS) == pytest.approx(
        static.encode(TEXTS, normalize_embeddings=True), abs=1e-5
    )


def test_neither_one_nor_the_other(tmp_path, toy_folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ArtifactError, match="neither an artifact nor a checkpoint"):
        open_model(str(tmp_path))
    shutil.copytree(toy_folder, tmp_path / "artifact")
    (tmp_path / "artifact" / "artifact.json").write_text("{")
    with pytest.raises(ArtifactError):
        open_model(str(tmp_path / "artifact"))


def test_values_that_are_not_finite_are_refused():
    from .conftest import toy

    model = toy()
    model.encode = lambda texts: np.full((len(texts), 24), np.nan, "f4")
    with pytest.raises(ArtifactError, match="not finite"):
        model.vectors(["a"])


def test_a_model_with_prompts_embeds_by_role(prompted_folder, toy_folder):
    model = open_model(str(prompted_folder))
    with asterisk.load(prompted_folder) as runtime:
        for role, call in (("", "encode"), ("query", "encode_query"), ("document", "encode")):
            expected = getattr(runtime, call)(TEXTS)
            assert model.vectors(TEXTS, role) == pytest.approx(expected, abs=1e-6)
    assert list(model.by_role) == ["query"]  # the others have no prompt: embedded once
    assert not open_model(str(toy_folder)).by_role

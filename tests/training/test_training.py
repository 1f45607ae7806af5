"""The pipeline on a corpus of its own: it learns, and a cut run resumes to the same weights."""

from __future__ import annotations

import csv
from copy import deepcopy

import numpy as np
import pytest
import zstandard
from conftest import SHARED

from asterisk import texts
from asterisk.errors import ArtifactError, InputError
from asterisk.model.config import ModelConfig
from asterisk.tokenizer import BUILTIN, Tokenizer
from asterisk.tokenizer.offsets import encode_with_offsets
from asterisk.training import corpus, targets
from asterisk.training.batches import Targets, plan
from asterisk.training.distil import Distillation, cosine_to_teacher
from asterisk.training.initialise import student
from asterisk.training.recipe import TrainingRecipe
from asterisk.training.teacher import Teacher, find

CONFIG = ModelConfig(hidden_size=32, intermediate_size=64)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    some = texts.load()
    lines = "\n".join(text.text for text in some[:600])
    pairs = "\n".join(
        f"{a.text}\t{b.text}" for a, b in zip(some[600:700], some[700:800], strict=True)
    )
    (folder / "single.txt.zst").write_bytes(zstandard.compress(lines.encode()))
    (folder / "pairs.tsv.zst").write_bytes(zstandard.compress(pairs.encode()))
    return folder


def test_corpus_is_sampled_from_every_file_and_held_out_stays_out(data):
    drawn = corpus.sample(data, 300, seed=0)
    assert len(drawn) == len(set(drawn)) == 300
    assert drawn == corpus.sample(data, 300, seed=0)
    assert drawn != corpus.sample(data, 300, seed=1)
    apart = corpus.sample_held_out(data, 1_000)
    assert apart
    assert not set(apart) & set(corpus.sample(data, 10_000, seed=0))
    pairs = {text for line in (data / "pairs.tsv.zst",) for text in corpus.texts(line)}
    assert len(pairs) == 200
    assert pairs & set(drawn)


def test_no_corpus(tmp_path):
    with pytest.raises(InputError, match="holds no"):
        corpus.sample(tmp_path, 10, seed=0)


def test_no_teacher(tmp_path):
    with pytest.raises(ArtifactError, match="neither a model folder"):
        find(str(tmp_path))


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_shared_corpus_gives_a_mixture():
    drawn = corpus.sample(SHARED / "train", 2_000, seed=0)
    assert len(drawn) == 2_000


@pytest.fixture(scope="module")
def teacher():
    return Teacher(find("all-MiniLM-L6-v2"))


@pytest.fixture(scope="module")
def made(data, teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    tokenizer = Tokenizer.open(BUILTIN)
    some = corpus.sample(data, 400, seed=0)
    projection = targets.fit_projection(teacher, some, 32)
    shards = targets.build(folder, some, teacher, tokenizer, projection, limit=64)
    return some, projection, shards, tokenizer


def test_teacher_agrees_with_sentence_transformers(teacher, lines):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(find("all-MiniLM-L6-v2")), device="cpu").encode(lines[:32])
    ours = teacher.look(lines[:32]).sentences.numpy()
    assert (ours * theirs).sum(1).min() > 0.999  # ours is bfloat16


def test_projection_is_orthonormal_and_ordered(made, teacher, lines):
    _, projection, _, _ = made
    assert np.allclose(projection @ projection.T, np.eye(32), atol=1e-5)
    vectors = teacher.look(lines[:200]).sentences.numpy() @ projection.T
    power = np.square(vectors).mean(0)
    assert power[:8].sum() > power[8:16].sum() > power[24:].sum()


def test_token_targets_are_the_teachers_own_states(made, teacher):
    """A token's target, worked out again the slow way for one text."""
    some, projection, shards, tokenizer = made
    index = 5
    ids, spans = encode_with_offsets(tokenizer, some[index])
    seen = teacher.look([some[index]])
    end = shards[0].ends[index]
    start = shards[0].ends[index - 1]
    assert shards[0].ids[start:end].tolist() == ids[:64]
    for position, (first, last) in enumerate(spans[:64]):
        states = [
            seen.states[0, piece]
            for character in range(first, last)
            for piece, (a, b) in enumerate(seen.spans[0].tolist())
            if a <= character < b
        ]
        stored = shards[0].tokens[start + position] * shards[0].scales[start + position]
        if not states:
            assert not stored.any()
            continue
        expected = projection @ np.mean([state.numpy() for state in states], axis=0)
        cosine = stored @ expected / np.linalg.norm(stored) / np.linalg.norm(expected)
        assert cosine > 0.99


def test_batches_cover_every_text_once_an_epoch(made):
    collected = Targets(made[2])
    batches, seen = plan(collected, 512, seed=3), []
    while len(seen) < len(collected):
        batch = next(batches)
        assert len(batch) * collected.lengths[batch].max() <= max(512, collected.lengths.max())
        seen += batch
    assert sorted(seen) == list(range(len(collected)))
    assert next(plan(collected, 512, seed=3)) == next(plan(collected, 512, seed=3))


@pytest.mark.slow
def test_learns_and_resumes_to_the_same_weights(made, teacher, tmp_path):
    import torch

    torch.set_num_threads(1)
    _, projection, shards, tokenizer = made
    collected = Targets(shards)
    recipe = TrainingRecipe(passes=3_000, batch_tokens=512)

    start = student(CONFIG, shards, teacher, tokenizer, projection, seed=0)

    def begin(folder):
        folder.mkdir(exist_ok=True)
        return Distillation(deepcopy(start), recipe, collected, collected, folder)

    whole = begin(tmp_path / "whole")
    before = cosine_to_teacher(whole.model, collected)
    whole.finish()
    assert cosine_to_teacher(whole.model, collected) > before + 0.1

    class Cut(Exception):
        pass

    def cut(seen, figures):
        if seen > 1_200:
            raise Cut

    first = begin(tmp_path / "cut")
    with pytest.raises(Cut):
        first.finish(cut)
    first._save()
    second = begin(tmp_path / "cut")
    assert second.seen > 1_200
    second.finish()
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_working_folder_belongs_to_one_recipe_and_its_data(data, tmp_path):
    from asterisk.training.pipeline import Job, _claim

    _claim(Job(data, tmp_path), TrainingRecipe())
    _claim(Job(data, tmp_path), TrainingRecipe())
    with pytest.raises(ArtifactError, match="another recipe"):
        _claim(Job(data, tmp_path), TrainingRecipe(seed=1))
    (tmp_path / "less").mkdir()
    (tmp_path / "less" / "single.txt.zst").write_bytes(zstandard.compress(b"a line"))
    with pytest.raises(ArtifactError, match="other data"):
        _claim(Job(tmp_path / "less", tmp_path), TrainingRecipe())


def test_training_leaves_a_folder_of_other_things_alone(data, command, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    done = command("train", data, "--out", tmp_path)
    assert done.returncode == 7
    assert b"left alone" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
def test_the_command_makes_a_checkpoint(data, command, tmp_path):
    import asterisk

    options = ("--texts", 200, "--passes", 400, "--held-out", 50, "--limit", 64)
    done = command("train", data, "--out", tmp_path / "out", "--run", tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr.decode()
    with asterisk.load(tmp_path / "out") as runtime:
        assert runtime.encode("a text").shape == (256,)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "block 2 bypassed" in card
    curve = tmp_path / "run" / "curve.csv"
    assert not curve.exists() or list(csv.DictReader(curve.open()))

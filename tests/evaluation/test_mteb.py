"""The adapter, by mteb itself on a data set of its own that needs no network."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr

from asterisk.common.errors import AsteriskError, UnknownName, UsageError
from asterisk.evaluation import mteb as adapter

from .conftest import SUBJECTS, sentence, toy


@pytest.fixture
def encoder(monkeypatch):
    monkeypatch.setattr(adapter, "open_model", toy)
    return adapter.MtebEncoder("runs/toy")


def test_batches_in_unit_vectors_out(encoder):
    batches = [{"text": ["a cat", ""]}, {"text": ["cash"]}]
    vectors = encoder.encode(batches, task_metadata=None, hf_split="test", hf_subset="default")
    assert vectors.shape == (3, 24)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert vectors[[0, 2]] == pytest.approx(toy().vectors(["a cat", "cash"]))
    assert encoder.similarity(vectors, vectors).numpy() == pytest.approx(vectors @ vectors.T)
    pairs = encoder.similarity_pairwise(vectors, vectors).numpy()
    assert pairs == pytest.approx(np.ones(3))


def test_a_prompt_type_is_a_role(encoder):
    plain = encoder.model.encode
    encoder.model.by_role = {"query": lambda texts: plain([f"query {text}" for text in texts])}
    expected = toy().vectors(["query cash"])
    for kind in ("query", SimpleNamespace(value="query")):
        assert encoder.encode([{"text": ["cash"]}], prompt_type=kind) == pytest.approx(expected)
    for kind in (None, "document"):
        found = encoder.encode([{"text": ["cash"]}], prompt_type=kind)
        assert found == pytest.approx(toy().vectors(["cash"]))


def test_tfidf_is_no_encoder():
    with pytest.raises(UsageError, match="tfidf"):
        adapter.evaluate(["tfidf"], [])


@pytest.mark.slow
def test_a_task_of_our_own(encoder):
    mteb = pytest.importorskip("mteb")
    datasets = pytest.importorskip("datasets")
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import EncoderProtocol

    assert isinstance(encoder, EncoderProtocol)
    assert encoder.mteb_model_meta.name == "asterisk/toy"
    random = np.random.default_rng(0)
    kinds = list(SUBJECTS)
    rows = [
        {
            "sentence1": sentence(random, kinds[i % 3]),
            "sentence2": sentence(random, kinds[(i // 2) % 3]),
            "score": float(kinds[i % 3] == kinds[(i // 2) % 3]) * 4 + i % 2,
        }
        for i in range(60)
    ]

    class Own(AbsTaskSTS):
        metadata = TaskMetadata(
            name="Own",
            dataset={"path": "own/own", "revision": "1"},
            description="Pairs of sentences about the same or another subject.",
            type="STS",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="cosine_spearman",
        )

        def load_data(self, **kwargs):
            self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
            self.data_loaded = True

    report = adapter.evaluate(["runs/toy"], [Own()])
    model = toy()
    a, b = (model.vectors([row[f"sentence{i}"] for row in rows]) for i in (1, 2))
    truth = spearmanr([row["score"] for row in rows], (a * b).sum(1)).statistic
    assert report.rows[0].cells["runs/toy"].score == pytest.approx(100 * truth, abs=1e-3)
    assert report.versions == {"mteb": mteb.__version__}

    class Broken(Own):
        def load_data(self, **kwargs):
            raise OSError("no such data")

    with pytest.raises(AsteriskError, match="no such data"):
        adapter.evaluate(["runs/toy"], [Broken()])


@pytest.mark.slow
def test_an_unknown_task_is_one_line():
    pytest.importorskip("mteb")
    with pytest.raises(UnknownName, match="NoSuchTask"):
        adapter.tasks_named(["NoSuchTask"])

"""Every kind of task against SciPy, scikit-learn and trec_eval."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SHARED
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, ndcg_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier

from asterisk.common.vectors import similarity, to_binary, to_int8, truncate
from asterisk.evaluation import logistic_regression, sets, tasks
from asterisk.evaluation.logistic_regression import fit
from asterisk.evaluation.models import nearest, paired, shortened, tfidf, unit
from asterisk.evaluation.sets import Labelled, Pairs, Retrieval
from asterisk.evaluation.tasks import cluster, is_topical, measure, rank

from .conftest import SUBJECTS, sentence, toy

RANDOM = np.random.default_rng(5)
VECTORS = RANDOM.normal(size=(50, 20)).astype("f4")


def labelled(count: int, *, seed: int) -> tuple[list[str], list[str]]:
    random = np.random.default_rng(seed)
    labels = [list(SUBJECTS)[i % 3] for i in range(count)]
    return [f"{sentence(random, label, 4)} {i}" for i, label in enumerate(labels)], labels


# --- similarity


@pytest.mark.parametrize("graded", [True, False])
def test_pairs(graded):
    first, second = labelled(40, seed=0)[0], labelled(40, seed=1)[0]
    scores = [float(i % 5 if graded else i % 2) for i in range(40)]
    model = toy()
    (items,) = measure(Pairs("p", first, second, scores, graded), model.space()).values()
    a, b = model.vectors(first), model.vectors(second)
    found = np.diag(cosine_similarity(a, b))
    truth = spearmanr(scores, found).statistic if graded else average_precision_score(scores, found)
    assert items.score() == pytest.approx(100 * truth, abs=1e-3)


# --- classification


def test_probe_and_neighbours_are_scikit_learn_s():
    texts, labels = labelled(120, seed=0)
    asked, truth = labelled(60, seed=1)
    model = toy(noise=2.0)
    found = measure(Labelled("c", asked, truth, texts, labels), model.space())
    train, rows = model.vectors(texts), model.vectors(asked)
    linear = LogisticRegression(C=tasks.PENALTY, max_iter=200, tol=1e-3)
    near = KNeighborsClassifier(tasks.NEIGHBOURS, metric="cosine")
    for name, judge in (("probe", linear), ("kNN", near)):
        expected = judge.fit(train, labels).predict(rows) == np.array(truth)
        assert found[name].values.tolist() == expected.tolist()
        assert 40 < found[name].score() < 100


def test_head_is_that_of_asterisk_classify(monkeypatch):
    monkeypatch.setattr(logistic_regression, "FEWEST_STEPS", 40)
    texts, labels = labelled(120, seed=0)
    asked, truth = labelled(60, seed=1)
    model = toy(noise=2.0)
    each = Labelled("c", asked, truth, texts, labels)
    assert "head" not in measure(each, model.space())
    found = measure(each, model.space(), with_head=True)
    train, rows = model.vectors(texts), model.vectors(asked)
    expected = np.array(fit(train, labels, "any").predict(rows)) == np.array(truth)
    assert found["head"].values.tolist() == expected.tolist()
    assert found["head"].score() > 50
    assert "head" not in measure(each, tfidf, with_head=True)


def test_a_label_that_was_never_seen_is_wrong():
    texts, labels = labelled(60, seed=0)
    asked = Labelled("c", texts[:10], ["unseen"] * 10, texts, labels)
    found = measure(asked, toy().space())
    assert found["probe"].score() == found["kNN"].score() == 0


def test_one_label_tells_nothing():
    texts, _ = labelled(20, seed=0)
    assert measure(Labelled("c", texts, ["a"] * 20, texts, ["a"] * 20),
                                  toy().space()) == {}  # fmt: skip


# --- clustering


def test_clear_clusters_are_found_and_noise_is_not():
    texts, labels = labelled(60, seed=0)
    each = Labelled("g", texts, labels, [], [])
    assert is_topical(each)

    def clear(fit, *lists):
        return tuple(
            np.eye(3, 8, dtype="f4")[[list(SUBJECTS).index(labels[texts.index(t)]) for t in some]]
            for some in lists
        )

    assert cluster(each, clear)["V-measure"].score() == pytest.approx(100)
    noisy = cluster(each, toy(noise=100.0).space())["V-measure"]
    assert noisy.score() < 30
    assert noisy.score() == cluster(each, toy(noise=100.0).space())["V-measure"].score()


def test_short_requests_with_a_train_split_are_not_clustered():
    texts, labels = labelled(30, seed=0)
    assert not is_topical(Labelled("c", texts, labels, texts, labels))
    long = [" ".join([text] * 10) for text in texts]
    assert is_topical(Labelled("c", long, labels, texts, labels))


# --- retrieval

QUERIES, DOCUMENTS = 30, 150
ASKED, FOUND = (unit(RANDOM.normal(size=(n, 16)).astype("f4")) for n in (QUERIES, DOCUMENTS))
GAINS = [
    {int(d): float(1 + d % 3) for d in RANDOM.choice(DOCUMENTS, 1 + q % 14, replace=False)}
    for q in range(QUERIES)
]
SET = Retrieval("r", [""] * QUERIES, [""] * DOCUMENTS, GAINS)


def test_ndcg_is_scikit_learn_s():
    relevance = np.zeros((QUERIES, DOCUMENTS))
    for query, gains in enumerate(GAINS):
        relevance[query, list(gains)] = list(gains.values())
    items = rank(SET, ASKED, FOUND)["nDCG@10"]
    assert items.score() == pytest.approx(100 * ndcg_score(relevance, ASKED @ FOUND.T, k=10))


def test_all_figures_are_trec_eval_s():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels = {f"q{q}": {f"d{d}": int(g) for d, g in gains.items()} for q, gains in enumerate(GAINS)}
    run = {
        f"q{q}": {f"d{d}": float(s) for d, s in enumerate(row)}
        for q, row in enumerate(ASKED @ FOUND.T)
    }
    judge = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.10,100"})
    truth = judge.evaluate(run)
    found = rank(SET, ASKED, FOUND)
    for ours, theirs in (
        ("nDCG@10", "ndcg_cut_10"),
        ("recall@10", "recall_10"),
        ("recall@100", "recall_100"),
    ):
        expected = [truth[f"q{q}"][theirs] for q in range(QUERIES)]
        assert found[ours].values == pytest.approx(expected, abs=1e-6)


def test_documents_by_the_teacher():
    texts, _ = labelled(30, seed=0)
    each = Retrieval(
        "r", [t.rsplit(" ", 2)[0] for t in texts], texts, [{i: 1.0} for i in range(30)]
    )
    teacher = toy("teacher", size=32)
    student = toy("student", size=8)
    student.projection = np.eye(8, 32, dtype="f4")
    documents = student.documents(teacher)
    (rows,) = documents(texts, texts)
    assert rows == pytest.approx(truncate(teacher.vectors(texts), 8), abs=1e-6)
    found = measure(each, student.space(), documents)["nDCG@10"]
    truth = rank(each, student.vectors(each.queries), rows)["nDCG@10"]
    assert found.values.tolist() == truth.values.tolist()
    assert teacher.documents(teacher) is None


def test_documents_by_a_teacher_whose_space_is_the_student_s():
    texts, _ = labelled(30, seed=0)
    teacher, student = toy("teacher", size=32), toy("student", size=32)
    teacher.spaces, student.spaces = ("a" * 64,), ("b" * 64, "c" * 64)
    assert student.documents(teacher) is None
    student.spaces = ("b" * 64, "a" * 64)
    for dim in (None, 8):
        (rows,) = student.documents(teacher, dim)(texts, texts)
        expected = truncate(teacher.vectors(texts), dim or 32)
        assert rows == pytest.approx(expected, abs=1e-6)


def test_queries_and_documents_are_embedded_by_their_role():
    model = toy()
    plain = model.encode
    model.by_role = {
        "query": lambda texts: plain([f"query {text}" for text in texts]),
        "document": lambda texts: plain([f"passage {text}" for text in texts]),
    }
    texts, _ = labelled(20, seed=0)
    each = Retrieval("r", [text[:20] for text in texts], texts, [{i: 1.0} for i in range(20)])
    found = measure(each, model.space(role="query"), model.space(role="document"))
    truth = rank(
        each,
        toy().vectors([f"query {text}" for text in each.queries]),
        toy().vectors([f"passage {text}" for text in texts]),
    )
    assert found["nDCG@10"].values.tolist() == truth["nDCG@10"].values.tolist()
    assert model.vectors(texts) == pytest.approx(toy().vectors(texts))  # without a role: neither


# --- spaces


@pytest.mark.parametrize("dim", [None, 12])
def test_what_is_left_of_vectors_has_their_cosines(dim):
    kept = VECTORS if dim is None else truncate(VECTORS, dim)
    for precision, small in (
        ("float32", kept),
        ("int8", to_int8(kept)),
        ("binary", to_binary(kept)),
    ):
        rows = shortened(VECTORS, dim, precision)
        assert rows.dtype == np.float32
        truth = similarity(small, small, dim=kept.shape[1])
        assert rows @ rows.T == pytest.approx(truth, abs=1e-5)


def test_tfidf_compares_like_scikit_learn_and_reads_anything():
    texts, _ = labelled(30, seed=0)
    a, b = tfidf(texts, texts[:10], texts[10:20])
    assert paired(a, b) == pytest.approx(np.diag(cosine_similarity(a, b)))
    (found,) = nearest(a, b, 3)
    cosines = cosine_similarity(a, b)
    best = np.sort(cosines, axis=1)[:, :-4:-1]
    assert np.take_along_axis(cosines, found, 1) == pytest.approx(best)
    (rows,) = tfidf(["?", "!"], ["?"])
    assert rows.shape == (1, 2)


def test_the_earlier_of_equal_documents_is_nearer():
    same = np.ones((5, 4), "f4") / 2
    (near,) = nearest(same[:2], same, 5)
    assert near.tolist() == [[0, 1, 2, 3, 4]] * 2
    (near,) = nearest(same[:1], same, 100)
    assert near.shape == (1, 5)


@pytest.mark.skipif(not (SHARED / "eval").is_dir(), reason="../shared/data is not here")
def test_the_shared_sets_are_read():
    found = {path.name: sets.load(path, "dev") for path in sets.folders([SHARED / "eval"])}
    assert len(found["stsb"].sets[0]) == 1_500
    assert found["stsb"].sets[0].graded
    assert not found["mrpc"].sets[0].graded
    assert 300 < len(found["mrpc"].sets[0]) < 500
    assert 900 < len(found["banking77"].sets[0]) < 1_100
    assert found["ret_scitldr"].notes
    assert found["arxiv_clustering"].notes

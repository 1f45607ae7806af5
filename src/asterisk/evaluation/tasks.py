"""The tasks of an evaluation: what each measures, item by item, so that it can be resampled.

A resample of n items is how often each was drawn. A metric over counted items is computed exactly
from the counts, without sorting again: 1,000 resamples cost little more than one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.plugins import require
from asterisk.evaluation.fidelity import equal_runs, ranks
from asterisk.evaluation.models import Rows, Space, nearest, paired
from asterisk.evaluation.sets import EvaluationSet, Labelled, Pairs, Retrieval

NEIGHBOURS = 10
PENALTY = 10.0  # scikit-learn's C, on unit rows
ITERATIONS = 200
SEEDS = (0, 1, 2)  # of k-means
TOPICAL = 150  # characters: shorter labelled texts are requests or opinions, not subjects
DEPTH, RANKED = 100, 10  # of recall@100, and of nDCG@10 and recall@10
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Means:
    """A value for each item, float64 [n]; the metric is their mean."""

    values: Floats

    def score(self) -> float:
        """Return the mean."""
        return float(100 * self.values.mean())

    def resampled(self, counts: Counts) -> Floats:
        """Return the mean of each resample."""
        return np.asarray(100 * (counts @ self.values) / counts.sum(1))


@dataclass(frozen=True, slots=True)
class Ranks:
    """Two values for each item, float64 [n] each; the metric is Spearman's correlation."""

    first: Floats
    second: Floats

    def score(self) -> float:
        """Return SciPy's figure; 0 where one side is constant."""
        if np.ptp(self.first) == 0 or np.ptp(self.second) == 0:
            return 0.0
        stats = require("scipy.stats", "eval")
        return float(100 * stats.spearmanr(self.first, self.second).statistic)

    def resampled(self, counts: Counts) -> Floats:
        """Return the correlation of each resample's own ranks, ties averaged."""
        mean = (counts.sum(1, keepdims=True) + 1) / 2
        a, b = (ranks(side, counts) - mean for side in (self.first, self.second))
        both = np.einsum("bn,bn,bn->b", counts, a, b)
        spread = np.einsum("bn,bn,bn->b", counts, a, a) * np.einsum("bn,bn,bn->b", counts, b, b)
        spread[spread == 0] = np.inf
        return np.asarray(100 * both / np.sqrt(spread))


@dataclass(frozen=True, slots=True)
class Precision:
    """Whether each item is positive, bool [n], and its score; the metric is average precision."""

    positive: npt.NDArray[np.bool_]
    scores: Floats

    def score(self) -> float:
        """Return scikit-learn's figure."""
        metrics = require("sklearn.metrics", "eval")
        return float(100 * metrics.average_precision_score(self.positive, self.scores))

    def resampled(self, counts: Counts) -> Floats:
        """Return the average precision of each resample; equal scores are one threshold."""
        order, starts = equal_runs(-self.scores)
        drawn = counts[:, order]
        everything = np.add.reduceat(drawn, starts, axis=1).cumsum(1)
        right = np.add.reduceat(drawn * self.positive[order], starts, axis=1).cumsum(1)
        precision = right / np.maximum(everything, 1)
        gained = np.diff(right, axis=1, prepend=0)
        return np.asarray(100 * (gained * precision).sum(1) / np.maximum(right[:, -1], 1))


@dataclass(frozen=True, slots=True)
class Clusters:
    """Items' classes and their clusters in several runs, from 0: the mean V-measure of the runs."""

    classes: Labels
    runs: Sequence[Labels]

    def score(self) -> float:
        """Return scikit-learn's figure, the mean over the runs."""
        measure = require("sklearn.metrics", "eval").v_measure_score
        return float(100 * np.mean([measure(self.classes, run) for run in self.runs]))

    def resampled(self, counts: Counts) -> Floats:
        """Return the mean V-measure of each resample."""
        return np.asarray(np.mean([self._v_measures(run, counts) for run in self.runs], axis=0))

    def _v_measures(self, clusters: Labels, counts: Counts) -> Floats:
        width = int(clusters.max()) + 1
        cells, where = np.unique(self.classes * width + clusters, return_inverse=True)
        out = np.empty(len(counts))
        for row, drawn in enumerate(counts):
            joint = np.bincount(where, weights=drawn, minlength=len(cells)) / drawn.sum()
            a, b = (_entropy(np.bincount(side, weights=joint)) for side in divmod(cells, width))
            shared = a + b - _entropy(joint)
            out[row] = 200 * shared / (a + b) if a + b > 0 else 100.0
        return out


Items = Means | Ranks | Precision | Clusters
"""n items of one task: the metric over them times 100, and that of B resamples, float64 [B].

A resample is how often it drew each item: counts int64 [B, n].
"""


def draw(name: str, items: int, *, resamples: int, seed: int) -> Counts:
    """Return resamples with replacement as counts [resamples, items], the same for one ``name``."""
    random = np.random.default_rng([seed, *name.encode()])
    return random.multinomial(items, np.full(items, 1 / items), size=resamples)


def _entropy(shares: npt.NDArray[Any]) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log(some)).sum())


def measure(
    each: EvaluationSet, space: Space, documents: Space | None = None, *, with_head: bool = False
) -> dict[str, Items]:
    """Return what a set measures, by metric.

    Pairs: Spearman's correlation, or average precision where scores are 0 and 1. Labels: the
    accuracy of a linear probe and of ten nearest neighbours, none without a train split of two
    labels; ``with_head`` adds that of `asterisk-classify`'s head, for dense float32 rows.
    Retrieval: nDCG@10, recall@10 and @100; ``documents`` is the documents' space if it is another.
    """
    if isinstance(each, Pairs):
        first, second = space([*each.first, *each.second], each.first, each.second)
        cosines, scores = paired(first, second), np.array(each.scores)
        if each.graded:
            return {"Spearman": Ranks(scores, cosines)}
        return {"average precision": Precision(scores > 0, cosines)}
    if isinstance(each, Labelled):
        return _classify(each, space, with_head)
    corpus = each.documents
    if documents is None or documents is space:
        rows, queries = space(corpus, corpus, each.queries)
    else:
        (queries,), (rows,) = space(corpus, each.queries), documents(corpus, corpus)
    return rank(each, queries, rows)


def _classify(each: Labelled, space: Space, with_head: bool) -> dict[str, Items]:
    names, numbers = np.unique(each.train_labels, return_inverse=True)
    if len(names) < 2:
        return {}
    train, rows = space(each.train, each.train, each.texts)
    predicted: dict[str, Sequence[str]] = {
        "probe": names[_probe(train, numbers, rows)].tolist(),
        "kNN": names[_neighbours(train, numbers, rows)].tolist(),
    }
    if with_head and all(isinstance(it, np.ndarray) and it.dtype == "f4" for it in (train, rows)):
        from asterisk.evaluation.logistic_regression import fit

        predicted["head"] = fit(train, each.train_labels, "evaluation").predict(rows)
    return {
        metric: Means(np.array([a == b for a, b in zip(found, each.labels, strict=True)], float))
        for metric, found in predicted.items()
    }


def _probe(train: Rows, labels: Labels, rows: Rows) -> Labels:
    """Fit a multinomial logistic regression on unit rows and return its labels for ``rows``."""
    linear = require("sklearn.linear_model", "eval")
    model = linear.LogisticRegression(C=PENALTY, max_iter=ITERATIONS, tol=1e-3)
    with warnings.catch_warnings():
        # The bound on iterations is part of the documented probe.
        warnings.simplefilter("ignore", require("sklearn.exceptions", "eval").ConvergenceWarning)
        model.fit(train, labels)
    predicted: Labels = model.predict(rows)
    return predicted


def _neighbours(train: Rows, labels: Labels, rows: Rows) -> Labels:
    """Return for each row the label most frequent among its nearest; the smallest of equals."""
    classes = int(labels.max()) + 1
    found = []
    for block in nearest(rows, train, NEIGHBOURS):
        votes = labels[block] + classes * np.arange(len(block))[:, None]
        tally = np.bincount(votes.ravel(), minlength=classes * len(block))
        found.append(tally.reshape(len(block), classes).argmax(1))
    return np.concatenate(found)


def is_topical(each: Labelled) -> bool:
    """Tell whether a set is clustered: no train split, or texts long enough to have a subject."""
    return not each.train or float(np.median([len(t) for t in each.texts])) >= TOPICAL


def cluster(each: Labelled, space: Space) -> dict[str, Items]:
    """Return the V-measure of k-means with as many clusters as classes."""
    (rows,) = space(each.texts, each.texts)
    names, classes = np.unique(each.labels, return_inverse=True)
    kmeans = require("sklearn.cluster", "eval").KMeans
    runs = [kmeans(len(names), n_init=1, random_state=seed).fit_predict(rows) for seed in SEEDS]
    return {"V-measure": Clusters(classes, [run.astype(np.int64) for run in runs])}


def rank(each: Retrieval, queries: Rows, documents: Rows) -> dict[str, Items]:
    """Rank the documents' rows by cosine for each query's row."""
    figures: dict[str, list[float]] = {"nDCG@10": [], "recall@10": [], "recall@100": []}
    ranked = (row for block in nearest(queries, documents, DEPTH) for row in block.tolist())
    for row, relevant in zip(ranked, each.relevant, strict=True):
        gains = [relevant.get(document, 0.0) for document in row]
        best = sorted(relevant.values(), reverse=True)
        figures["nDCG@10"].append(_discounted(gains) / _discounted(best))
        hits = [document in relevant for document in row]
        figures["recall@10"].append(sum(hits[:RANKED]) / len(relevant))
        figures["recall@100"].append(sum(hits) / len(relevant))
    return {metric: Means(np.array(values)) for metric, values in figures.items()}


def _discounted(gains: Sequence[float]) -> float:
    """Return the sum of gains over log2(rank + 1), as trec_eval and scikit-learn do."""
    first = np.array(gains[:RANKED])
    return float(first @ (1 / np.log2(np.arange(2, len(first) + 2))))

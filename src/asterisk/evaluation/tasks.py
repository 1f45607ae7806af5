"""The tasks of an evaluation: what each measures, item by item, so that it can be resampled.

A resample of n items is how often each was drawn. A metric over counted items is computed exactly
from the counts, without sorting again: 1,000 resamples cost little more than one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from asterisk.common.plugins import require
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


class Items(Protocol):
    """n items of one task and the metric over them, times 100."""

    def __len__(self) -> int:
        """Return n."""

    def score(self) -> float:
        """Return the metric over every item once."""

    def resampled(self, counts: Counts) -> Floats:
        """Return the metric of B resamples, float64 [B], from how often each drew each item."""


@dataclass(frozen=True, slots=True)
class Means:
    """A value for each item, float64 [n]; the metric is their mean."""

    values: Floats

    def __len__(self) -> int:
        return len(self.values)

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

    def __len__(self) -> int:
        return len(self.first)

    def score(self) -> float:
        """Return SciPy's figure; 0 where one side is constant."""
        if np.ptp(self.first) == 0 or np.ptp(self.second) == 0:
            return 0.0
        stats = require("scipy.stats", "eval")
        return float(100 * stats.spearmanr(self.first, self.second).statistic)

    def resampled(self, counts: Counts) -> Floats:
        """Return the correlation of each resample's own ranks, ties averaged."""
        mean = (counts.sum(1, keepdims=True) + 1) / 2
        a, b = (_ranks(side, counts) - mean for side in (self.first, self.second))
        both = np.einsum("bn,bn,bn->b", counts, a, b)
        spread = np.einsum("bn,bn,bn->b", counts, a, a) * np.einsum("bn,bn,bn->b", counts, b, b)
        spread[spread == 0] = np.inf
        return np.asarray(100 * both / np.sqrt(spread))


@dataclass(frozen=True, slots=True)
class Precision:
    """Whether each item is positive, bool [n], and its score; the metric is average precision."""

    positive: npt.NDArray[np.bool_]
    scores: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def score(self) -> float:
        """Return scikit-learn's figure."""
        metrics = require("sklearn.metrics", "eval")
        return float(100 * metrics.average_precision_score(self.positive, self.scores))

    def resampled(self, counts: Counts) -> Floats:
        """Return the average precision of each resample; equal scores are one threshold."""
        order, starts = _groups(-self.scores)
        drawn = counts[:, order]
        everything = np.add.reduceat(drawn, starts, axis=1).cumsum(1)
        right = np.add.reduceat(drawn * self.positive[order], starts, axis=1).cumsum(1)
        precision = right / np.maximum(everything, 1)
        gained = np.diff(right, axis=1, prepend=0)
        return np.asarray(100 * (gained * precision).sum(1) / np.maximum(right[:, -1], 1))


@dataclass(frozen=True, slots=True)
class Clusters:
    """The class of each item and its cluster in each of several runs, all counted from 0.

    The metric is the mean V-measure of the runs; a resample keeps their clusters.
    """

    classes: Labels
    runs: Sequence[Labels]

    def __len__(self) -> int:
        return len(self.classes)

    def score(self) -> float:
        """Return scikit-learn's figure, the mean over the runs."""
        metrics = require("sklearn.metrics", "eval")
        found = [metrics.v_measure_score(self.classes, clusters) for clusters in self.runs]
        return float(100 * np.mean(found))

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


def draw(name: str, items: int, *, resamples: int, seed: int) -> Counts:
    """Return ``resamples`` of ``items`` with replacement as counts, int64 [resamples, items].

    The same for every model and every task over the items that ``name`` stands for.
    """
    random = np.random.default_rng([seed, *name.encode()])
    return random.multinomial(items, np.full(items, 1 / items), size=resamples)


def _groups(values: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return an ascending order and where each run of equal values starts in it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _ranks(values: Floats, counts: Counts) -> Floats:
    """Return each item's average rank in each resample, float64 [B, n]."""
    order, starts = _groups(values)
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = sizes.cumsum(1) - (sizes - 1) / 2
    out = np.empty(counts.shape)
    out[:, order] = np.repeat(ranks, np.diff(np.r_[starts, len(order)]), axis=1)
    return out


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
    Retrieval: nDCG@10, recall@10 and @100; ``documents`` is the space of the documents, comparable
    with that of the queries, if it is another one: with a prompt of its own, or of another model.
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
    if documents is None:
        found, asked = space(corpus, corpus, each.queries)
    else:
        (asked,), (found,) = space(corpus, each.queries), documents(corpus, corpus)
    return rank(each, asked, found)


def _classify(each: Labelled, space: Space, with_head: bool) -> dict[str, Items]:
    names, numbers = np.unique(each.train_labels, return_inverse=True)
    if len(names) < 2:
        return {}
    train, rows = space(each.train, each.train, each.texts)
    by_name = {name: number for number, name in enumerate(names.tolist())}
    truth = np.array([by_name.get(label, -1) for label in each.labels])
    found: dict[str, Items] = {
        "probe": Means((_probe(train, numbers, rows) == truth).astype(float)),
        "kNN": Means((_neighbours(train, numbers, rows) == truth).astype(float)),
    }
    if with_head and all(isinstance(it, np.ndarray) and it.dtype == "f4" for it in (train, rows)):
        from asterisk.evaluation.logistic_regression import fit

        labels = fit(train, each.train_labels, "evaluation").predict(rows)
        right = [ours == theirs for ours, theirs in zip(labels, each.labels, strict=True)]
        found["head"] = Means(np.array(right, float))
    return found


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
    for near, _ in nearest(rows, train, NEIGHBOURS):
        votes = labels[near] + classes * np.arange(len(near))[:, None]
        tally = np.bincount(votes.ravel(), minlength=classes * len(near))
        found.append(tally.reshape(len(near), classes).argmax(1))
    return np.concatenate(found)


def is_topical(each: Labelled) -> bool:
    """Tell whether a set is clustered: no train split, or texts long enough to have a subject."""
    return not each.train or float(np.median([len(t) for t in each.texts])) >= TOPICAL


def cluster(each: Labelled, space: Space) -> dict[str, Items]:
    """Return the V-measure of k-means with as many clusters as classes."""
    (rows,) = space(each.texts, each.texts)
    names, classes = np.unique(each.labels, return_inverse=True)
    library = require("sklearn.cluster", "eval")
    runs = [
        library.KMeans(len(names), n_init=1, random_state=seed).fit_predict(rows).astype(np.int64)
        for seed in SEEDS
    ]
    return {"V-measure": Clusters(classes, runs)}


def rank(each: Retrieval, asked: Rows, found: Rows) -> dict[str, Items]:
    """Rank the documents' rows by cosine for each query's row."""
    ndcg, at_10, at_100 = [], [], []
    ranked = (row for near, _ in nearest(asked, found, DEPTH) for row in near)
    for row, gains in zip(ranked, each.relevant, strict=True):
        ndcg.append(_discounted_gain(row, gains))
        hits = [document in gains for document in row.tolist()]
        at_10.append(sum(hits[:RANKED]) / len(gains))
        at_100.append(sum(hits) / len(gains))
    return {
        "nDCG@10": Means(np.array(ndcg)),
        "recall@10": Means(np.array(at_10)),
        "recall@100": Means(np.array(at_100)),
    }


def _discounted_gain(ranked: npt.NDArray[np.intp], gains: Mapping[int, float]) -> float:
    """Return nDCG@10 of one ranking: gains over log2(rank + 1), as trec_eval and scikit-learn."""
    discounts = 1 / np.log2(np.arange(2, RANKED + 2))
    got = np.array([gains.get(document, 0.0) for document in ranked[:RANKED].tolist()])
    best = np.array(sorted(gains.values(), reverse=True)[:RANKED])
    return float(got @ discounts[: len(got)] / (best @ discounts[: len(best)]))

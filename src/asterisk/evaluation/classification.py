"""Labels: whether a linear model, or the nearest neighbours, tell them from the vectors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from asterisk.common.plugins import require
from asterisk.evaluation.items import Items, Means
from asterisk.evaluation.sets import Labelled
from asterisk.evaluation.spaces import Rows, Space, nearest

NEIGHBOURS = 10
PENALTY = 10.0  # scikit-learn's C, on unit rows
ITERATIONS = 200
Labels = npt.NDArray[np.int64]
Dense = npt.NDArray[np.float32]


def measure(labelled: Labelled, space: Space, *, with_head: bool = False) -> dict[str, Items]:
    """Return the accuracy of a linear probe and of ten nearest neighbours, text by text.

    ``with_head`` adds that of `asterisk-classify`'s head, for dense float32 rows.
    """
    train, rows = space(labelled.train, labelled.train, labelled.texts)
    known, numbers = np.unique(labelled.train_labels, return_inverse=True)
    if len(known) < 2:
        return {}
    by_name = {name: number for number, name in enumerate(known.tolist())}
    truth = np.array([by_name.get(label, -1) for label in labelled.labels])
    found: dict[str, Items] = {
        "probe": Means((probe(train, numbers, rows) == truth).astype(float)),
        "kNN": Means((neighbours(train, numbers, rows) == truth).astype(float)),
    }
    if with_head and _is_dense(train) and _is_dense(rows):
        told = head(train, labelled.train_labels, rows)
        right = [ours == theirs for ours, theirs in zip(told, labelled.labels, strict=True)]
        found["head"] = Means(np.array(right, float))
    return found


def head(train: Dense, labels: Sequence[str], rows: Dense) -> list[str]:
    """Train the fully-connected head of `asterisk-classify` and return its labels for ``rows``."""
    from asterisk.evaluation.logistic_regression import fit

    return fit(train, labels, "evaluation").predict(rows)


def probe(train: Rows, labels: Labels, rows: Rows) -> Labels:
    """Fit a multinomial logistic regression on unit rows and return its labels for ``rows``."""
    linear = require("sklearn.linear_model", "eval")
    model = linear.LogisticRegression(C=PENALTY, max_iter=ITERATIONS, tol=1e-3)
    with warnings.catch_warnings():
        # The bound on iterations is part of the documented probe.
        warnings.simplefilter("ignore", require("sklearn.exceptions", "eval").ConvergenceWarning)
        model.fit(train, labels)
    predicted: Labels = model.predict(rows)
    return predicted


def neighbours(train: Rows, labels: Labels, rows: Rows) -> Labels:
    """Return for each row the label most frequent among its nearest; the smallest of equals."""
    classes = int(labels.max()) + 1
    found = []
    for near, _ in nearest(rows, train, NEIGHBOURS):
        votes = labels[near] + classes * np.arange(len(near))[:, None]
        tally = np.bincount(votes.ravel(), minlength=classes * len(near))
        found.append(tally.reshape(len(near), classes).argmax(1))
    return np.concatenate(found)


def _is_dense(rows: Rows) -> TypeGuard[Dense]:
    return isinstance(rows, np.ndarray) and rows.dtype == np.float32

"""Labels: whether a linear model, or the nearest neighbours, tell them from the vectors."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from asterisk.evaluation.items import Items, Means
from asterisk.evaluation.sets import Labelled
from asterisk.evaluation.spaces import Rows, Space, nearest
from asterisk.plugins import require

NEIGHBOURS = 10
PENALTY = 10.0  # scikit-learn's C, on unit rows
ITERATIONS = 200
Labels = npt.NDArray[np.int64]


def measure(labelled: Labelled, space: Space) -> dict[str, Items]:
    """Return the accuracy of a linear probe and of ten nearest neighbours, text by text."""
    train, rows = space(labelled.train, labelled.train, labelled.texts)
    known, numbers = np.unique(labelled.train_labels, return_inverse=True)
    if len(known) < 2:
        return {}
    by_name = {name: number for number, name in enumerate(known.tolist())}
    truth = np.array([by_name.get(label, -1) for label in labelled.labels])
    return {
        "probe": Means((probe(train, numbers, rows) == truth).astype(float)),
        "kNN": Means((neighbours(train, numbers, rows) == truth).astype(float)),
    }


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

"""Clusters: whether the vectors of one class lie together."""

from __future__ import annotations

import numpy as np

from asterisk.common.plugins import require
from asterisk.evaluation.items import Clusters, Items
from asterisk.evaluation.sets import Labelled
from asterisk.evaluation.spaces import Space

SEEDS = (0, 1, 2)
TOPICAL = 150  # characters: shorter labelled texts are requests or opinions, not subjects


def worthwhile(labelled: Labelled) -> bool:
    """Tell whether a set is clustered: no train split, or texts long enough to have a subject."""
    return not labelled.train or float(np.median([len(t) for t in labelled.texts])) >= TOPICAL


def measure(labelled: Labelled, space: Space) -> dict[str, Items]:
    """Return the V-measure of k-means with as many clusters as classes."""
    (rows,) = space(labelled.texts, labelled.texts)
    names, classes = np.unique(labelled.labels, return_inverse=True)
    cluster = require("sklearn.cluster", "eval")
    runs = [
        cluster.KMeans(len(names), n_init=1, random_state=seed).fit_predict(rows).astype(np.int64)
        for seed in SEEDS
    ]
    return {"V-measure": Clusters(classes, runs)}

"""Retrieval: whether a query finds its documents."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from asterisk.evaluation.items import Items, Means
from asterisk.evaluation.sets import Retrieval
from asterisk.evaluation.spaces import Rows, Space, nearest

DEPTH = 100
RANKED = 10


def measure(retrieval: Retrieval, space: Space, documents: Space | None = None) -> dict[str, Items]:
    """Return nDCG@10 and recall@10 and @100, query by query.

    ``documents`` is the space of the documents, comparable with that of the queries, if it is
    another one: with a prompt of its own, or of another model.
    """
    corpus = retrieval.documents
    if documents is None:
        found, asked = space(corpus, corpus, retrieval.queries)
    else:
        (asked,), (found,) = space(corpus, retrieval.queries), documents(corpus, corpus)
    return score(retrieval, asked, found)


def score(retrieval: Retrieval, asked: Rows, found: Rows) -> dict[str, Items]:
    """Rank the documents' rows by cosine for each query's row."""
    ndcg, at_10, at_100 = [], [], []
    ranked = (row for near, _ in nearest(asked, found, DEPTH) for row in near)
    for row, gains in zip(ranked, retrieval.relevant, strict=True):
        ndcg.append(discounted_gain(row, gains))
        hits = [document in gains for document in row.tolist()]
        at_10.append(sum(hits[:RANKED]) / len(gains))
        at_100.append(sum(hits) / len(gains))
    return {
        "nDCG@10": Means(np.array(ndcg)),
        "recall@10": Means(np.array(at_10)),
        "recall@100": Means(np.array(at_100)),
    }


def discounted_gain(ranked: npt.NDArray[np.intp], gains: Mapping[int, float]) -> float:
    """Return nDCG@10 of one ranking: gains over log2(rank + 1), as trec_eval and scikit-learn."""
    discounts = 1 / np.log2(np.arange(2, RANKED + 2))
    got = np.array([gains.get(document, 0.0) for document in ranked[:RANKED].tolist()])
    best = np.array(sorted(gains.values(), reverse=True)[:RANKED])
    return float(got @ discounts[: len(got)] / (best @ discounts[: len(best)]))

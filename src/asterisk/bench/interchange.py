"""Queries embedded by one artifact, searched in an index embedded by another.

An artifact's manifest lists in ``compatible_with`` the embedding spaces that its vectors may be
compared with, its own checkpoint's among them. What that promises is measured here, for every
ordered pair of rows of one space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from asterisk.bench.plan import REFERENCE, Row
from asterisk.evaluation.fidelity import Vectors, common, nearest, unit_rows

ROUNDING = 1e-9
Table = dict[str, dict[str, dict[str, float]]]


def interchange(vectors: Mapping[str, Vectors], reference: Vectors) -> Table:
    """Return the figures by the row of the queries, then by the row of the index.

    ``vectors`` float [n, d] by row and the FP32 ``reference``, all of the same texts; n > 10, no
    row all zeros. ``cosine_mean`` is that of the same text's two vectors. ``overlap_at_10`` is the
    mean share of a query's ten nearest texts that FP32 on both sides finds too; the text itself is
    not among them. Where both are the same row it is that row's overlap@10 as in its fidelity.
    """
    truth = unit_rows(reference)
    expected = nearest(truth, truth)
    units = {name: unit_rows(some) for name, some in vectors.items()}
    return {
        query: {
            index: {
                "cosine_mean": float(np.einsum("ij,ij->i", a, b).mean()),
                "overlap_at_10": common(nearest(a, b), expected),
            }
            for index, b in units.items()
        }
        for query, a in units.items()
    }


def measured(rows: Sequence[Row], files: Mapping[str, Path]) -> Table:
    """Return the table of those ``rows`` that share an embedding space, from their .npy files.

    Systems of others are left out, and so is whatever left no vectors or none that are sound.
    Empty without FP32 vectors or with fewer than two rows.
    """
    names = [row.name for row in rows if not row.peer and row.name in files]
    vectors = {name: np.load(files[name]) for name in names}
    reference = vectors.get(REFERENCE)
    if reference is None:
        return {}
    sound = {
        name: some
        for name, some in vectors.items()
        if some.shape == reference.shape and np.isfinite(some).all() and some.any(axis=1).all()
    }
    return interchange(sound, reference) if len(sound) > 1 and REFERENCE in sound else {}


def not_borne_out(rows: Sequence[Row], table: Table, fingerprint: str) -> list[str]:
    """Return a line for each pair that is promised and that ``table`` does not bear out.

    The promise is made by a row whose ``spaces`` have the checkpoint's ``fingerprint``. The bar
    follows from what the two recipes promise each: an overlap@10 of at least the lower of their
    thresholds, and a mean cosine that two vectors have which are as far from FP32 as their
    thresholds allow, on opposite sides of it.
    """
    promising = [row for row in rows if fingerprint in row.spaces]
    lines = []
    for query in promising:
        for index in promising:
            found = table.get(query.name, {}).get(index.name)
            if found is None or query is index:  # a row with itself is its fidelity
                continue
            for name, least in bar(query, index).items():
                if not found[name] >= least:
                    lines.append(
                        f"{query.name} says in compatible_with that its vectors go with those of "
                        f"{index.name}, but {name} is {found[name]:.4f}, below {least:.4f}"
                    )
    return lines


def bar(query: Row, index: Row) -> dict[str, float]:
    """Return the least figures that a pair of rows has to reach; FP32 itself promises all."""
    limits = [row.thresholds or {} for row in (query, index)]
    angles = [math.acos(min(1.0, limit.get("cosine_mean", 1.0))) for limit in limits]
    return {
        "cosine_mean": math.cos(min(math.pi, sum(angles))) - ROUNDING,
        "overlap_at_10": min(limit.get("overlap_at_10", 1.0) for limit in limits) - ROUNDING,
    }

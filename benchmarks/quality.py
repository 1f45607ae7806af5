"""How good one artifact's vectors are, in a process of its own: its engine may crash.

``python -m benchmarks.quality``: a JSON object on stdin, one JSON line back.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from asterisk.bench.worker import load, serve
from asterisk.common.errors import AsteriskError, one_line

if TYPE_CHECKING:
    from asterisk.evaluation.models import Model
    from asterisk.evaluation.tasks import Items

SIMILARITY, RETRIEVAL, PROBE = "Spearman", "nDCG@10", "probe"
NAMED = {"STS-B": SIMILARITY, "retrieval": RETRIEVAL, "classification": PROBE}


def quality(model: Model, data: Sequence[Path], split: str, *, probe: bool) -> dict[str, float]:
    """Return `SIMILARITY` over graded pairs, `RETRIEVAL` and `PROBE`, each the mean over its sets.

    A metric without a set for ``split`` is left out, and so is the last without ``probe``.
    """
    from asterisk.evaluation import sets
    from asterisk.evaluation import tasks as classification
    from asterisk.evaluation import tasks as retrieval
    from asterisk.evaluation import tasks as similarity

    found: dict[str, list[float]] = {}

    def add(metric: str, scores: Mapping[str, Items]) -> None:
        found.setdefault(metric, []).append(scores[metric].score())

    for folder in sets.folders(data):
        for each in sets.load(folder, "dev" if split == "dev" else "test").sets:
            if isinstance(each, sets.Pairs) and each.graded:
                add(SIMILARITY, similarity.measure(each, model.space()))
            elif isinstance(each, sets.Retrieval):
                queries, documents = model.space(role="query"), model.space(role="document")
                add(RETRIEVAL, retrieval.measure(each, queries, documents))
            elif probe and isinstance(each, sets.Labelled) and each.train:
                add(PROBE, classification.measure(each, model.space()))
    return {metric: fmean(scores) for metric, scores in found.items()}


def _opened(spec: Mapping[str, Any]) -> Model:
    from asterisk.evaluation.models import Model, open_model

    if "opener" not in spec:
        return open_model(spec["path"])
    encoder = load({**spec, "threads": 1})
    size = len(encoder.encode("size"))
    return Model(spec["path"], spec["opener"], size, None, encoder.encode)


def _attempt(spec: Mapping[str, Any]) -> dict[str, Any]:
    names: Sequence[str] = spec.get("metrics", ())
    try:
        model = _opened(spec)
        data = [*map(Path, spec["data"])]
        found = quality(model, data, spec["split"], probe="classification" in names)
    except AsteriskError as failure:
        return {"error": one_line(failure)}
    except Exception as failure:  # whatever an engine raises
        return {"error": f"{type(failure).__name__}: {one_line(failure)}"}
    if names:
        found = {name: found[NAMED[name]] for name in names if NAMED[name] in found}
    return {"quality": found, "dimensions": model.size}


if __name__ == "__main__":
    sys.exit(serve(_attempt))

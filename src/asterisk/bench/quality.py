"""How good one artifact's vectors are, in a process of its own: its engine may crash.

``python -m asterisk.bench.quality``: a JSON object on stdin, one JSON line back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from asterisk.bench.answer import answer
from asterisk.errors import AsteriskError, one_line

SIMILARITY, RETRIEVAL = "Spearman", "nDCG@10"


def quality(path: str, data: Sequence[Path], split: str) -> dict[str, float]:
    """Return `SIMILARITY` over graded pairs and `RETRIEVAL`, each the mean over its sets.

    A metric without a set for ``split`` is left out.
    """
    from asterisk.evaluation import retrieval, sets, similarity
    from asterisk.evaluation.models import open_model

    model = open_model(path)
    found: dict[str, list[float]] = {}
    for folder in sets.folders(data):
        for each in sets.load(folder, "dev" if split == "dev" else "test").sets:
            if isinstance(each, sets.Pairs) and each.graded:
                scores = similarity.measure(each, model.space())
                found.setdefault(SIMILARITY, []).append(scores[SIMILARITY].score())
            elif isinstance(each, sets.Retrieval):
                scores = retrieval.measure(each, model.space())
                found.setdefault(RETRIEVAL, []).append(scores[RETRIEVAL].score())
    return {metric: fmean(scores) for metric, scores in found.items()}


def _attempt(spec: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"quality": quality(spec["path"], [*map(Path, spec["data"])], spec["split"])}
    except AsteriskError as failure:
        return {"error": one_line(failure)}
    except Exception as failure:  # whatever an engine raises
        return {"error": f"{type(failure).__name__}: {one_line(failure)}"}


def main() -> int:
    """Read a spec, evaluate, answer."""
    spec = json.load(sys.stdin)
    answer(lambda: _attempt(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main())

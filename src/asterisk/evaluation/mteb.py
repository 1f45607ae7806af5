"""Any model that `asterisk-eval` opens, as an encoder of the `mteb` package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from asterisk.common.errors import AsteriskError, UnknownName, UsageError, one_line
from asterisk.common.plugins import require
from asterisk.evaluation.models import TFIDF, Model, Vectors, open_model, paired, unit
from asterisk.evaluation.report import Cell, Column, Report, RowOf

EXTRA = "mteb"


class MtebEncoder:
    """What mteb asks of a text encoder (`mteb.models.EncoderProtocol`, mteb 2).

    >>> mteb.evaluate(MtebEncoder("checkpoints/asterisk-256-wp"), tasks)  # doctest: +SKIP
    """

    def __init__(self, model_name: str, revision: str | None = None, **_: Any) -> None:
        # Of mteb's options, the device is left out: these models run on the CPU.
        self.model: Model = open_model(model_name)
        self.revision = revision

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *_: object,
        prompt_type: Any = None,
        **__: object,
    ) -> Vectors:
        """Return unit vectors of the batches' ``text``, float32 [n, d]."""
        # An empty text has no vector; data sets hold some all the same.
        texts = [text if text.strip() else "." for batch in inputs for text in batch["text"]]
        role = getattr(prompt_type, "value", prompt_type)
        encode = self.model.by_role.get(role, self.model.encode)
        return unit(np.asarray(encode(texts), np.float32))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosines of all with all, a tensor [n, m]."""
        return require("torch", EXTRA).from_numpy(_rows(embeddings1) @ _rows(embeddings2).T)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosine of each with its counterpart, a tensor [n]."""
        cosines = paired(_rows(embeddings1), _rows(embeddings2)).astype(np.float32)
        return require("torch", EXTRA).from_numpy(cosines)

    @property
    def mteb_model_meta(self) -> Any:
        """Return what mteb writes beside its results."""
        name = self.model.name.rstrip("/").split("/")[-1]
        return require("mteb.models", EXTRA).ModelMeta.create_empty(
            {
                "name": f"asterisk/{name}",
                "revision": self.revision or self.model.fingerprint or "local",
                "embed_dim": self.model.size,
                "max_tokens": self.model.longest,
                "similarity_fn_name": "cosine",
            }
        )


def tasks_named(names: Sequence[str]) -> list[Any]:
    """Return mteb's tasks of these names; UnknownName for others."""
    mteb = require("mteb", EXTRA)
    try:
        return [mteb.get_task(name) for name in names]
    except (KeyError, ValueError) as failure:
        raise UnknownName(f"mteb: {one_line(failure)[:300]}") from None


def evaluate(models: Sequence[str], tasks: Sequence[Any]) -> Report:
    """Run mteb's ``tasks`` and return their main scores times 100; without items no intervals."""
    if TFIDF in models:
        raise UsageError(f"{TFIDF} gives no vectors that mteb could take")
    mteb = require("mteb", EXTRA)
    metrics = {str(it.metadata.name): str(it.metadata.main_score) for it in tasks}
    columns: list[Column] = []
    rows: dict[str, RowOf] = {}
    for name in dict.fromkeys(models):
        encoder = MtebEncoder(name)
        columns.append(encoder.model.column(name))
        try:
            found = mteb.evaluate(encoder, tasks, cache=None, show_progress_bar=False)
        except AsteriskError:
            raise
        except Exception as failure:
            # Whatever its loaders raise for data that is not here.
            raise AsteriskError(f"mteb: {type(failure).__name__}: {one_line(failure)}") from None
        for result in found.task_results:
            task = result.task_name
            row = rows.setdefault(task, RowOf(task, metrics.get(task, "main score"), None, 0))
            row.cells[name] = Cell(100 * float(result.get_score()))
    settings = {"split": "mteb", "teacher": None, "baseline": None, "resamples": 0, "seed": 0}
    return Report(settings, {"mteb": mteb.__version__}, columns, list(rows.values()), [], [])


def _rows(vectors: Any) -> Vectors:
    return unit(np.atleast_2d(np.asarray(vectors, np.float32)))

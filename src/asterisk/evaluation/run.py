"""Models and sets in, a report out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from asterisk.common.errors import InputError, UsageError
from asterisk.evaluation import sets, tasks
from asterisk.evaluation.models import TFIDF, Model, PrecisionName, Role, Space, open_model, tfidf
from asterisk.evaluation.report import Column, Measured, Report, averages, compare
from asterisk.evaluation.sets import EvaluationSet, Labelled, Retrieval, Split

PACKAGES = ("asterisk-edge", "numpy", "scipy", "scikit-learn", "torch", "sentence-transformers")
ASYMMETRIC = ", asymmetric"  # after the name of a task or group
GROUPS = {
    "Spearman": "STS",
    "average precision": "STS",
    "probe": "classification, probe",
    "kNN": "classification, kNN",
    "head": "classification, head",
    "nDCG@10": "retrieval",
    "V-measure": "clustering",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate, on what, how; the fields are `asterisk-eval`'s options."""

    models: Sequence[str]
    data: Sequence[Path]
    sets: Sequence[str] = ()
    split: Split = "test"
    teacher: str | None = None
    teacher_length: int | None = None
    dim: Sequence[int] = ()
    precision: Sequence[PrecisionName] = ("float32",)
    baseline: str | None = None
    resamples: int = 1_000
    seed: int = 0
    threads: int = 1
    head: bool = False


@dataclass(frozen=True, slots=True)
class _Spaces:
    """A column with the spaces that its tasks are measured in."""

    column: Column
    space: Callable[[Role], Space]  # of texts with a role, which retrieval gives its texts
    teacher: Space | None = None  # of the teacher's documents, if they can be compared


def evaluate(request: Request, on_progress: Callable[[str], None] = lambda line: None) -> Report:
    """Carry out ``request``; raises what opening and reading raise, before anything is encoded."""
    names = list(dict.fromkeys([*request.models, *filter(None, [request.teacher])]))
    baseline = request.baseline or names[0]
    if baseline not in names:
        raise UsageError(f"the baseline {baseline} is none of: {', '.join(names)}")
    if request.teacher == TFIDF:
        raise UsageError(f"{TFIDF} cannot be a teacher")
    found = [sets.load(path, request.split) for path in sets.folders(request.data, request.sets)]
    notes = [note for each in found for note in each.notes]
    selected = [each for some in found for each in some.sets]
    if not selected:
        raise InputError("; ".join(notes))
    models: dict[str, Model | None] = dict.fromkeys(names)
    for name in names:
        if name != TFIDF:
            longest = request.teacher_length if name == request.teacher else None
            models[name] = open_model(name, threads=request.threads, longest=longest)
    notes += [model.note for model in models.values() if model and model.note]
    columns = list(_columns(models, request))
    labels: dict[str | None, str] = {}  # of each model's first column
    for it in columns:
        labels.setdefault(it.column.model, it.column.label)
    first, teacher = labels[baseline], labels.get(request.teacher)
    measured: list[Measured] = []
    for number, each in enumerate(selected, 1):
        on_progress(f"{each.name}, {number} of {len(selected)}")
        measured += _measure(each, columns, request)
    if not measured:
        raise InputError("nothing can be measured: every set has a single label")
    return Report(
        settings={
            "data": [str(path) for path in request.data],
            "sets": list(request.sets),
            "split": request.split,
            "teacher": teacher,
            "teacher_length": request.teacher_length,
            "baseline": first,
            "resamples": request.resamples,
            "seed": request.seed,
            "neighbours": tasks.NEIGHBOURS,
            "heads": request.head,
            "probe_c": tasks.PENALTY,
            "probe_iterations": tasks.ITERATIONS,
            "kmeans_seeds": list(tasks.SEEDS),
        },
        versions=_versions(),
        columns=[it.column for it in columns],
        rows=compare(measured, baseline=first, teacher=teacher),
        averages=compare(averages(measured), baseline=first, teacher=teacher),
        notes=notes,
    )


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _columns(models: dict[str, Model | None], request: Request) -> Iterator[_Spaces]:
    """Yield a column for each model, dimension and precision; the teacher's is never cut.

    None stands for TF-IDF, which has no vectors before it has seen a set's texts.
    """
    teacher = models[request.teacher] if request.teacher else None
    short = [Path(name).name for name in models]
    for name, model in models.items():
        # The folder's own name, or all of it where others share that.
        label = Path(name).name or name
        label = label if short.count(label) == 1 else name
        if model is None:
            column = Column(label, name, "scikit-learn", None, "float32")
            yield _Spaces(column, lambda role: tfidf)
            continue
        choices: list[tuple[int | None, PrecisionName]] = [(None, "float32")]
        if model is not teacher:
            choices = [(dim, p) for dim in request.dim or (None,) for p in request.precision]
        for dim, precision in choices:
            if dim is not None and dim > model.size:
                raise UsageError(f"--dim {dim}: {name} has {model.size} dimensions")
            marks = [f"{dim}d"] if dim else []
            marks += [precision] if precision != "float32" else []
            asymmetric = None
            if teacher is not None and model is not teacher:
                asymmetric = model.documents(teacher, dim, precision)
            column = model.column(" ".join([label, *marks]), dim, precision)
            yield _Spaces(column, partial(model.space, dim, precision), asymmetric)


def _measure(each: EvaluationSet, columns: Sequence[_Spaces], request: Request) -> list[Measured]:
    """Return what one set measures in every column."""
    rows: dict[tuple[str, str], Measured] = {}
    counts = tasks.draw(each.name, len(each), resamples=request.resamples, seed=request.seed)

    def add(column: str, found: dict[str, tasks.Items], kind: str = "") -> None:
        for metric, items in found.items():
            if (metric, kind) not in rows:
                group = GROUPS[metric] + kind if metric in GROUPS else None
                symmetric = rows[metric, ""] if kind else None
                row = Measured(each.name + kind, metric, group, len(each), symmetric)
                rows[metric, kind] = row
            rows[metric, kind].columns[column] = items.score(), items.resampled(counts)

    for it in columns:
        label = it.column.label
        if isinstance(each, Retrieval):
            queries = it.space("query")
            add(label, tasks.measure(each, queries, it.space("document")))
            if it.teacher is not None:
                add(label, tasks.measure(each, queries, it.teacher), ASYMMETRIC)
            continue
        add(label, tasks.measure(each, it.space(""), with_head=request.head))
        if isinstance(each, Labelled) and tasks.is_topical(each):
            add(label, tasks.cluster(each, it.space("")))
    return list(rows.values())

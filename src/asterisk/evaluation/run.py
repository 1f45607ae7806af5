"""Models and sets in, a report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from asterisk.common.errors import InputError, UsageError
from asterisk.evaluation import classification, clustering, retrieval, sets, similarity
from asterisk.evaluation.compare import Measured, averages, compare
from asterisk.evaluation.items import Items, draw
from asterisk.evaluation.models import TFIDF, Model, Words, open_model
from asterisk.evaluation.report import Column, Report
from asterisk.evaluation.sets import EvaluationSet, Labelled, Pairs, Split
from asterisk.evaluation.spaces import PrecisionName, Space

PACKAGES = ("asterisk-edge", "numpy", "scipy", "scikit-learn", "torch", "sentence-transformers")
ASYMMETRIC = "asymmetric"
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
    """What to evaluate, on what, how."""

    models: Sequence[str]
    data: Sequence[Path]
    sets: Sequence[str] = ()
    split: Split = "test"
    teacher: str | None = None
    teacher_length: int | None = None
    dims: Sequence[int] = ()
    precisions: Sequence[PrecisionName] = ("float32",)
    baseline: str | None = None
    resamples: int = 1_000
    seed: int = 0
    threads: int = 1
    heads: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A column with the space its tasks are measured in.

    Retrieval has queries and documents, each in a space for their role if the model has prompts;
    ``teacher`` gives the teacher's documents in the same space, if there are any.
    """

    column: Column
    space: Space
    queries: Space
    documents: Space | None = None
    teacher: Space | None = None


def evaluate(request: Request, tell: Callable[[str], None] = lambda line: None) -> Report:
    """Carry out ``request``; raises what opening and reading raise, before anything is encoded."""
    names = list(dict.fromkeys(request.models))
    everyone = list(dict.fromkeys([*names, *([request.teacher] if request.teacher else [])]))
    baseline = request.baseline or everyone[0]
    if baseline not in everyone:
        raise UsageError(f"the baseline {baseline} is none of: {', '.join(everyone)}")
    if request.teacher == TFIDF:
        raise UsageError(f"{TFIDF} cannot be a teacher")
    found = [
        sets.load(folder, request.split) for folder in sets.folders(request.data, request.sets)
    ]
    notes = [note for each in found for note in each.notes]
    todo = [each for some in found for each in some.sets]
    if not todo:
        raise InputError("; ".join(notes))
    models: dict[str, Model | Words] = {
        name: Words()
        if name == TFIDF
        else open_model(
            name,
            threads=request.threads,
            longest=request.teacher_length if name == request.teacher else None,
        )
        for name in everyone
    }
    notes += [it.note for it in models.values() if isinstance(it, Model) and it.note]
    seen = _columns(models, request)
    first = next(it.column.label for it in seen if it.column.model == baseline)
    teacher = next((it.column.label for it in seen if it.column.model == request.teacher), None)
    measured: list[Measured] = []
    for number, each in enumerate(todo, 1):
        tell(f"{each.name}, {number} of {len(todo)}")
        measured += _measure(each, seen, request)
    if not measured:
        raise InputError("nothing can be measured: every set has a single label")
    rows = compare(measured, baseline=first, teacher=teacher)
    return Report(
        settings=_settings(request, first, teacher),
        versions=_versions(),
        columns=[it.column for it in seen],
        rows=rows,
        averages=averages(measured, baseline=first, teacher=teacher),
        notes=notes,
    )


def _columns(models: dict[str, Model | Words], request: Request) -> list[Seen]:
    """Return one column for each model, dimension and precision; the teacher's is never cut."""
    teacher = models[request.teacher] if request.teacher else None
    seen = []
    for name, model in models.items():
        label = _label(name, list(models))
        if isinstance(model, Words):
            words = model.space()
            seen.append(Seen(Column(label, name, model.opened_by, None, "float32"), words, words))
            continue
        choices: list[tuple[int | None, PrecisionName]] = [(None, "float32")]
        if model is not teacher:
            choices = [
                (dim, kind) for dim in request.dims or (None,) for kind in request.precisions
            ]
        for dim, kind in choices:
            if dim is not None and dim > model.size:
                raise UsageError(f"--dim {dim}: {name} has {model.size} dimensions")
            marks = ([f"{dim}d"] if dim else []) + ([kind] if kind != "float32" else [])
            asymmetric = None
            if isinstance(teacher, Model) and model is not teacher:
                asymmetric = model.documents(teacher, dim, kind)
            column = Column(
                " ".join([label, *marks]),
                name,
                model.opened_by,
                dim or model.size,
                kind,
                model.longest,
                model.fingerprint,
            )
            seen.append(
                Seen(
                    column,
                    model.space(dim, kind),
                    model.space(dim, kind, "query"),
                    model.space(dim, kind, "document"),
                    asymmetric,
                )
            )
    return seen


def _measure(each: EvaluationSet, seen: Sequence[Seen], request: Request) -> list[Measured]:
    rows: dict[tuple[str, str], Measured] = {}

    def add(task: str, group: str, column: str, found: dict[str, Items]) -> None:
        for metric, items in found.items():
            average = GROUPS.get(metric)
            row = rows.get((task, metric))
            if row is None:
                of = None if average is None else average + group
                symmetric = each.name if group else None
                row = rows[task, metric] = Measured(task, metric, of, len(items), symmetric)
            row.add(column, items.score(), items.resampled(counts))

    counts = draw(each.name, len(each), resamples=request.resamples, seed=request.seed)
    for it in seen:
        label = it.column.label
        if isinstance(each, Pairs):
            add(each.name, "", label, similarity.measure(each, it.space))
        elif isinstance(each, Labelled):
            if each.train:
                found = classification.measure(each, it.space, with_head=request.heads)
                add(each.name, "", label, found)
            if clustering.worthwhile(each):
                add(each.name, "", label, clustering.measure(each, it.space))
        else:
            add(each.name, "", label, retrieval.measure(each, it.queries, it.documents))
            if it.teacher is not None:
                found = retrieval.measure(each, it.queries, it.teacher)
                add(f"{each.name}, {ASYMMETRIC}", f", {ASYMMETRIC}", label, found)
    return list(rows.values())


def _label(name: str, names: Sequence[str]) -> str:
    """Return the folder's own name, or all of ``name`` where others share it."""
    short = Path(name).name or name
    return short if [Path(other).name for other in names].count(short) == 1 else name


def _settings(request: Request, baseline: str, teacher: str | None) -> dict[str, object]:
    return {
        "data": [str(path) for path in request.data],
        "sets": list(request.sets),
        "split": request.split,
        "teacher": teacher,
        "teacher_length": request.teacher_length,
        "baseline": baseline,
        "resamples": request.resamples,
        "seed": request.seed,
        "neighbours": classification.NEIGHBOURS,
        "heads": request.heads,
        "probe_c": classification.PENALTY,
        "probe_iterations": classification.ITERATIONS,
        "kmeans_seeds": list(clustering.SEEDS),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

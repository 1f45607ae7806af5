"""From a corpus and a teacher to targets; ``targets.json`` says what a folder was made from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asterisk import __version__
from asterisk.common.errors import ArtifactError, InputError, OutputError, UsageError
from asterisk.common.files import replacing_file
from asterisk.common.plugins import require
from asterisk.tokenizer import gpt2
from asterisk.training.corpora.corpus import PARTS, Corpus
from asterisk.training.teachers import targets
from asterisk.training.teachers.targets import Shard, corpus_digest, read_projection, shard_folder
from asterisk.training.teachers.teacher import (
    LONGEST,
    CheckpointTeacher,
    EncoderTeacher,
    Teacher,
    TokenTeacher,
    find,
)
from asterisk.training.teachers.vectors import Budget, BudgetSpent, Endpoint, JsonLines, NpyRows

SCHEMA = 1
Array = npt.NDArray[np.float32]
Parts = Mapping[str, Corpus]
RECORDS = (".jsonl", ".ndjson")
NOT_COMPARED = ("teacher", "versions")  # a folder may move; a library may be mended
TOOLS = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers")
CHECKED = 8  # texts of a folder without a description that are asked about again
NEAR = 0.999  # their cosine at least


@dataclass(frozen=True, slots=True)
class TeacherOptions:
    """The teacher and what it is asked, as the options of `asterisk-teacher` say it."""

    teacher: str  # a packaged model, a model's folder, a .npy, a .jsonl or an http address
    tokenizer: Literal["gpt2", "teacher"] = "gpt2"  # the student's
    size: int | None = None
    limit: int = 512
    sentences_only: bool = False
    threads: int = 1
    engine: str | None = None  # this and the next of models
    teacher_length: int | None = LONGEST
    held_out_vectors: Path | None = None  # of a .npy of the training texts
    model: str | None = None  # this and the rest of addresses
    batch: int = 64
    dimensions: int | None = None
    requests_per_minute: int | None = None
    budget_texts: int | None = None
    budget_tokens: int | None = None


def open_teachers(
    options: TeacherOptions, parts: Parts, report: Callable[[str], None]
) -> dict[str, Teacher]:
    """Open the teacher of each part, often one and the same; UsageError for what does not fit."""
    name, held_out, engine = options.teacher, options.held_out_vectors, options.engine
    address, suffix = name.partition("://")[0] in ("http", "https"), Path(name).suffix
    teacher: Teacher
    if options.tokenizer == "teacher":
        if address or suffix in (".npy", *RECORDS):
            raise UsageError("--tokenizer teacher needs a --teacher that is a model")
        require("torch", "train")
        teacher = CheckpointTeacher(find(name), engine=engine, longest=options.limit)
        return dict.fromkeys(parts, teacher)
    if held_out is not None and (address or suffix != ".npy"):
        raise UsageError("--held-out-vectors goes with a --teacher that is .npy")
    if options.model is not None and not address:
        raise UsageError("--model goes with a --teacher that is an address")
    if address:
        if options.model is None:
            raise UsageError("--model is needed: the name that the service knows the model by")
        teacher = Endpoint(
            name,
            options.model,
            batch=options.batch,
            at_once=options.threads,
            dimensions=options.dimensions,
            per_minute=options.requests_per_minute,
            budget=Budget(options.budget_texts, options.budget_tokens),
            report=report,
        )
    elif suffix == ".npy":
        if held_out is None and len(parts["held-out"]):
            raise UsageError("--held-out-vectors is needed: the held-out texts' vectors as .npy")
        teacher = NpyRows(Path(name), len(parts["train"]))
        if held_out is not None:
            other = NpyRows(held_out, len(parts["held-out"]))
            if other.size != teacher.size:
                raise UsageError("the two files of vectors differ in their dimensions")
            return {"train": teacher, "held-out": other}
    elif suffix in RECORDS:
        teacher = JsonLines(Path(name))
    else:
        length, threads = options.teacher_length, options.threads
        teacher = EncoderTeacher(find(name), engine=engine, longest=length, threads=threads)
    return dict.fromkeys(parts, teacher)


def teach(
    corpus: Path,
    out: Path,
    options: TeacherOptions,
    *,
    report: Callable[[str], None] = lambda line: None,
    on_progress: Callable[[str, int, int], None] = lambda part, done, total: None,
) -> None:
    """Make the targets of both parts of ``corpus`` under ``out``, as far as they are missing.

    ArtifactError for a folder begun with something else; BudgetSpent, with every finished shard in
    its folder, when a service's budget ends.
    """
    parts = {part: Corpus.open(corpus, part) for part in PARTS}
    teachers = open_teachers(options, parts, report)
    name, own_tokens = options.teacher, options.tokenizer == "teacher"
    if own_tokens or options.engine == "torch":
        import torch

        torch.set_num_threads(options.threads)
    teacher, train = teachers["train"], parts["train"]
    size = teacher.size if own_tokens else options.size or 256
    if size > teacher.size:
        raise InputError(f"{name} has {teacher.size} dimensions: --size {teacher.size} at most")
    if not own_tokens and len(train) < size:
        raise InputError(f"{corpus} has fewer texts than the student has dimensions, {size}")
    tokens = not options.sentences_only and isinstance(teacher, TokenTeacher)
    versions = {"asterisk-edge": __version__}
    for tool in TOOLS:
        with contextlib.suppress(PackageNotFoundError):
            versions[tool] = version(tool)
    facts = {
        "schema": SCHEMA,
        "teacher": name,
        "identity": teacher.identity,  # what its vectors depend on
        "dimensions": teacher.size,
        "uncased": bool(getattr(teacher, "uncased", False)),
        "tokens": tokens,
        "limit": options.limit,
        "size": size,
        "shard": targets.SHARD,
        "texts": {part: len(texts) for part, texts in parts.items()},
        "corpus": {part: corpus_digest(corpus / part) for part in PARTS},
        "versions": versions,
        "tokenizer": options.tokenizer,
    }
    save_facts(out, facts, teachers, parts)
    rotation = None

    def build(part: str, shards: int | None = None) -> None:
        targets.build(
            out / part,
            parts[part],
            teachers[part],
            limit=options.limit,
            rotation=rotation,
            own_tokens=own_tokens,
            shards=shards,
            on_progress=lambda done, total: on_progress(part, done, total),
        )

    try:
        if not own_tokens:
            path, fitted = out / "projection.npy", min(targets.PROJECTION_TEXTS, len(train))
            shards = -(-fitted // targets.SHARD)
            if not tokens:
                build("train", shards)
            if not path.is_file():
                if tokens:
                    vectors = teacher.sentences(0, train[:fitted])
                else:  # out of shards, where each may cost money
                    opened = [Shard.open(shard_folder(out / "train", n)) for n in range(shards)]
                    vectors = np.concatenate([one.sentences for one in opened])[:fitted]
                with replacing_file(path) as staging, staging.open("wb") as file:
                    np.save(file, targets.fit_projection(vectors.astype("f4"), size))
            projection = read_projection(path)
            if projection.shape != (size, teacher.size):
                raise ArtifactError(f"{path} is {projection.shape}, not {(size, teacher.size)}")
            rotation = projection if tokens else None
        build("held-out")
        build("train")
    except BudgetSpent as spent:
        finished = sum(1 for part in PARTS for _ in (out / part).glob("shard-*"))
        total = sum(-(-len(texts) // targets.SHARD) for texts in parts.values())
        raise BudgetSpent(
            f"{spent}: {finished} of {total} shards are done; run the same command again to go on"
        ) from None


def save_facts(
    folder: Path, facts: Mapping[str, Any], teachers: Mapping[str, Teacher], corpus: Parts
) -> None:
    """Write ``targets.json``; ArtifactError if ``folder`` was begun with other facts.

    A folder of shards without a description is taken over if it would hold the same.
    """
    path = folder / targets.FILE
    text = json.dumps(facts, indent=1) + "\n"
    if path.exists():
        _compare(path, json.loads(text))
        return
    if folder.is_dir():
        foreign = sorted({file.name for file in folder.iterdir()} - {"projection.npy", *PARTS})
        if foreign:
            raise OutputError(f"cannot write {folder}: it holds something else, {foreign[0]}")
        projection = folder / "projection.npy"
        sizes = (facts["size"], facts["dimensions"])
        if projection.exists() and read_projection(projection).shape != sizes:
            raise ArtifactError(f"{projection} was made for other sizes: choose another --out")
        for part, texts in corpus.items():
            first = shard_folder(folder / part, 0)
            if first.is_dir() and not _agrees(first, facts, teachers[part], texts):
                whose = "another corpus, teacher or limit"
                raise ArtifactError(f"{first} is of {whose}: choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise OutputError(f"cannot write {folder}: {failure.strerror or failure}") from None
    with replacing_file(path) as staging:
        staging.write_text(text, "utf-8")


def _compare(path: Path, facts: dict[str, Any]) -> None:
    try:
        old = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ArtifactError(f"{path} is not JSON") from None
    if not isinstance(old, dict) or old.get("schema") != SCHEMA:
        raise ArtifactError(f"{path} describes targets of another version")
    old.setdefault("tokenizer", "gpt2")  # there was no other
    for name, now in facts.items():
        was = old.get(name)
        if name in NOT_COMPARED or was == now:
            continue
        shown = [was, now]
        if isinstance(was, dict) and isinstance(now, dict):
            keys = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]
            shown = [", ".join(f"{key} {one.get(key)}" for key in keys) for one in (was, now)]
        difference = f"{name} ({shown[0]}, not {shown[1]})"
        raise ArtifactError(
            f"{path.parent} was begun with another {difference}: choose another --out"
        )


def _agrees(folder: Path, facts: Mapping[str, Any], teacher: Teacher, texts: Corpus) -> bool:
    """Tell whether a few texts, the longest among them, would get what a shard holds."""
    try:
        shard = Shard.open(folder)
        ends, sentences = np.asarray(shard.ends), np.asarray(shard.sentences)
    except (OSError, ValueError, TypeError) as failure:
        raise ArtifactError(f"{folder} is damaged: {failure}") from None
    count = min(targets.SHARD, len(texts))
    if len(ends) != count or sentences.shape != (count, facts["dimensions"]):
        return False
    if facts["tokens"] != (shard.tokens is not None):
        return False
    lengths = np.diff(ends, prepend=0)
    for index in {*range(min(CHECKED, count)), int(lengths.argmax())}:
        text = texts[index]
        if facts["tokenizer"] == "teacher" and isinstance(teacher, TokenTeacher):
            ids = teacher.read([text])[0].ids.tolist()
        else:
            ids = gpt2().encode(text)[: facts["limit"]]
        if shard.ids[ends[index] - lengths[index] : ends[index]].tolist() != ids:
            return False
        vector, stored = teacher.sentences(index, [text])[0], sentences[index].astype("f4")
        if vector @ stored < NEAR * np.linalg.norm(stored):
            return False
    return True

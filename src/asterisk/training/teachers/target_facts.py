"""What a folder of targets was made from, in ``targets.json``: going on needs the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from asterisk import __version__
from asterisk.common.errors import ArtifactError, OutputError
from asterisk.common.files import replacing_file
from asterisk.tokenizer import gpt2
from asterisk.training.corpora.corpus import PARTS, Corpus
from asterisk.training.teachers.blackbox import TokenStates, Vectors
from asterisk.training.teachers.targets import SHARD, Shard, read_projection, shard_folder

SCHEMA = 1
FILE = "targets.json"
NOT_COMPARED = ("teacher", "versions")  # a folder may move; a library may be mended
TOOLS = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers")
LOOKED_AT = 8  # texts of a folder without a description that are asked about again
NEAR = 0.999  # their cosine at least


@dataclass(frozen=True)
class TargetFacts:
    """The fields of ``targets.json``.

    ``teacher`` is the name or place given, ``identity`` what its vectors depend on, ``dimensions``
    theirs and ``size`` the student's; ``tokens``, whether tokens have targets, too; ``tokenizer``
    is the student's, "gpt2", or "teacher" where it has the teacher's own. ``texts`` and ``corpus``,
    SHA-256 over texts and their ends, are by part.
    """

    teacher: str
    identity: Mapping[str, Any]
    dimensions: int
    uncased: bool
    tokens: bool
    limit: int
    size: int
    shard: int
    texts: Mapping[str, int]
    corpus: Mapping[str, str]
    versions: Mapping[str, str]
    tokenizer: str = "gpt2"
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the file's content."""
        told = asdict(self)
        return json.dumps({"schema": told.pop("schema"), **told}, indent=1) + "\n"


def facts(
    name: str,
    teacher: Vectors,
    corpus: Path,
    *,
    limit: int,
    size: int,
    tokens: bool,
    tokenizer: str = "gpt2",
) -> TargetFacts:
    """Describe targets of ``corpus`` by ``teacher``."""
    return TargetFacts(
        teacher=name,
        identity=teacher.identity,
        dimensions=teacher.size,
        uncased=bool(getattr(teacher, "uncased", False)),
        tokens=tokens and isinstance(teacher, TokenStates),
        limit=limit,
        size=size,
        shard=SHARD,
        texts={part: len(Corpus.open(corpus, part)) for part in PARTS},
        corpus={part: corpus_digest(corpus / part) for part in PARTS},
        versions={"asterisk-edge": __version__, **_versions()},
        tokenizer=tokenizer,
    )


def in_own_tokens(folder: Path) -> bool:
    """Tell whether targets are of students with the teacher's tokenizer; False for none."""
    path = folder / FILE
    try:
        return path.is_file() and json.loads(path.read_text("utf-8")).get("tokenizer") == "teacher"
    except (ValueError, AttributeError):
        raise ArtifactError(f"{path} does not describe targets") from None


def claim(folder: Path, ours: TargetFacts, fits: Mapping[str, Vectors], corpus: Path) -> None:
    """Make ``folder`` that of ``ours``; ArtifactError if it was begun with something else.

    A folder of shards without a description is taken over if what it holds is what ``fits``, the
    teacher by part, says of the corpus. OutputError if it holds something else.
    """
    path = folder / FILE
    if path.exists():
        _compare(path, json.loads(ours.to_json()))
        return
    if folder.is_dir() and any(folder.iterdir()):
        _check(folder, ours, fits, corpus)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise OutputError(f"cannot write {folder}: {failure.strerror or failure}") from None
    with replacing_file(path) as staging:
        staging.write_text(ours.to_json(), "utf-8")


def corpus_digest(part: Path) -> str:
    """Return the SHA-256 of a part's texts and of where they end."""
    whole = hashlib.sha256()
    for name in ("texts.bin", "ends.npy"):
        with (part / name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _compare(path: Path, ours: dict[str, Any]) -> None:
    try:
        theirs = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ArtifactError(f"{path} is not JSON") from None
    if not isinstance(theirs, dict) or theirs.get("schema") != SCHEMA:
        raise ArtifactError(f"{path} describes targets of another version")
    theirs.setdefault("tokenizer", "gpt2")  # there was no other
    for name, value in ours.items():
        if name not in NOT_COMPARED and theirs.get(name) != value:
            was, now = _difference(theirs.get(name), value)
            raise ArtifactError(
                f"{path.parent} was begun with another {name} ({was}, not {now}): "
                "choose another --out"
            )


def _difference(was: Any, now: Any) -> tuple[str, str]:
    if isinstance(was, dict) and isinstance(now, dict):
        apart = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]
        return ", ".join(f"{k} {was.get(k)}" for k in apart), ", ".join(
            f"{k} {now.get(k)}" for k in apart
        )
    return str(was), str(now)


def _check(folder: Path, ours: TargetFacts, fits: Mapping[str, Vectors], corpus: Path) -> None:
    known = {"projection.npy", *PARTS}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in known)
    if foreign:
        raise OutputError(f"cannot write {folder}: it holds something else, {foreign[0]}")
    path = folder / "projection.npy"
    if path.exists() and read_projection(path).shape != (ours.size, ours.dimensions):
        raise ArtifactError(f"{path} was made for other sizes: choose another --out")
    for part in PARTS:
        first = shard_folder(folder / part, 0)
        if first.is_dir() and not _agrees(first, ours, fits[part], Corpus.open(corpus, part)):
            raise ArtifactError(
                f"{first} is of another corpus, teacher or limit: choose another --out"
            )


def _agrees(folder: Path, ours: TargetFacts, teacher: Vectors, texts: Corpus) -> bool:
    """Tell whether a few texts, the longest among them, would get what a shard holds."""
    try:
        shard = Shard.open(folder)
        ends, sentences = np.asarray(shard.ends), np.asarray(shard.sentences)
    except (OSError, ValueError, TypeError) as failure:
        raise ArtifactError(f"{folder} is damaged: {failure}") from None
    if len(ends) != min(SHARD, len(texts)) or sentences.shape != (len(ends), ours.dimensions):
        return False
    if ours.tokens != (shard.tokens is not None):
        return False
    lengths = np.diff(ends, prepend=0)
    for index in {*range(min(LOOKED_AT, len(ends))), int(lengths.argmax())}:
        if ours.tokenizer == "teacher" and isinstance(teacher, TokenStates):
            ids = teacher.look([texts[index]])[0].ids.tolist()
        else:
            ids = gpt2().encode(texts[index])[: ours.limit]
        if shard.ids[ends[index] - lengths[index] : ends[index]].tolist() != ids:
            return False
        asked = teacher.sentences(index, [texts[index]])[0]
        held = sentences[index].astype("f4")
        if asked @ held < NEAR * np.linalg.norm(held):
            return False
    return True


def _versions() -> dict[str, str]:
    found = {}
    for name in TOOLS:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found

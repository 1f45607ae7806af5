"""What the student is asked for, made once by a teacher and read from mapped shards.

A text is asked for the teacher's sentence vector. With a teacher that shows its token states, each
token is also asked for their mean over its characters, rotated by the fixed projection and kept in
8 bits with a scale: 256 bytes a token. Shards appear in order, whole or not at all: interrupted
work goes on where it stopped, and training may follow a teacher at work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, EngineError
from asterisk.common.files import replacing_file, replacing_folder
from asterisk.model.hub import PACKAGED
from asterisk.tokenizer import ByteLevelBPE
from asterisk.tokenizer.offsets import encode_with_offsets
from asterisk.training.corpora.corpus import Corpus
from asterisk.training.teachers.teacher import Reading, Teacher, TokenTeacher

SHARD = 8_192
PROJECTION_TEXTS = 10_000
AT_ONCE = 256  # texts that a teacher is shown together
FILE = "targets.json"
OWN_TOKENS = "in the teacher's tokens: asterisk-teacher --tokenizer teacher"
FIELDS = ("ids", "ends", "sentences")
TOKEN_FIELDS = ("tokens", "scales")
Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Fields = dict[str, npt.NDArray[Any]]
Ask = Callable[[int, Sequence[str], Callable[[int], None]], Fields]
"""Asks for texts, the first of them at a position, and reports how many are finished."""


@dataclass(frozen=True, slots=True)
class TargetsInfo:
    """What ``targets.json`` says of a folder of targets, as far as training uses it.

    ``limit`` is the tokens a text was cut to; ``identity`` what the teacher's vectors depend on,
    ``corpus`` the SHA-256 of the texts, None each if the file does not say. ``own_tokens``: the
    student has the teacher's tokenizer, and token states are kept as they are.
    """

    teacher: str
    limit: int
    uncased: bool
    identity: dict[str, Any] | None = None
    corpus: str | None = None
    own_tokens: bool = False

    @classmethod
    def open(cls, folder: Path, teacher: str | None = None) -> TargetsInfo:
        """Read ``targets.json``; a ``teacher`` given goes before the name in it."""
        path, values = folder / FILE, read_facts(folder)
        name = teacher or values.get("teacher")
        if name is None:
            raise ArtifactError(f"{path} is missing; name the teacher with --teacher")
        try:
            return cls(
                str(name),
                int(values.get("limit", 512)),
                bool(values.get("uncased", name in PACKAGED)),
                values.get("identity"),
                values.get("corpus", {}).get("train"),
                values.get("tokenizer") == "teacher",
            )
        except (ValueError, TypeError, AttributeError):
            raise ArtifactError(f"{path} does not describe targets") from None

    @property
    def longest(self) -> int:
        """The length of the longest text, in the teacher's tokens."""
        return int((self.identity or {}).get("longest", self.limit))

    @property
    def spaces(self) -> tuple[str, ...]:
        """The fingerprint of the teacher's embedding space, if it is known."""
        fingerprint = (self.identity or {}).get("fingerprint")
        return () if fingerprint is None else (str(fingerprint),)


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the content of ``targets.json``, empty if there is none; ArtifactError if damaged."""
    path = folder / FILE
    try:
        values = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ArtifactError(f"{path} does not describe targets")
    return values


def corpus_digest(part: Path) -> str:
    """Return the SHA-256 of a corpus part's texts and of where they end."""
    whole = hashlib.sha256()
    for name in ("texts.bin", "ends.npy"):
        with (part / name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


@dataclass(frozen=True)
class Shard:
    """Targets of n texts with N tokens in all, for a student of d dimensions.

    ``ids`` uint16 or uint32 [N]; ``ends`` int64 [n], where each text's tokens end; ``sentences``
    float16 [n, teacher's dimensions]; ``tokens`` int8 [N, d] times ``scales`` float32 [N], a scale
    of 0 marking a token without a target; both None if the teacher shows no tokens.
    """

    ids: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    ends: Indices
    sentences: npt.NDArray[np.float16]
    tokens: npt.NDArray[np.int8] | None = None
    scales: Array | None = None

    @classmethod
    def open(cls, folder: Path) -> Shard:
        """Map a shard that `build` wrote."""
        names = [*FIELDS, *(name for name in TOKEN_FIELDS if (folder / f"{name}.npy").is_file())]
        paths = {name: folder / f"{name}.npy" for name in names}
        return cls(**{k: np.load(p, mmap_mode="r", allow_pickle=False) for k, p in paths.items()})


def shard_folder(folder: Path, number: int) -> Path:
    """Return the folder of shard ``number``."""
    return folder / f"shard-{number:05d}"


def read_projection(path: Path) -> Array:
    """Return a stored projection, float32 [size, teacher's]; ArtifactError if it is damaged."""
    try:
        projection: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise ArtifactError(f"{path} is missing or damaged") from None
    return projection


def projection_of_texts(path: Path, teacher: Teacher, texts: Corpus, size: int) -> Array:
    """Return the projection in a file, float32 [size, teacher's], fitted to texts if it is new."""
    if not path.is_file():
        some = texts[:PROJECTION_TEXTS]
        parts = [
            teacher.sentences(start, some[start : start + AT_ONCE])
            for start in range(0, len(some), AT_ONCE)
        ]
        _save_projection(path, np.concatenate(parts), size)
    return read_projection(path)


def projection_of_shards(path: Path, folder: Path, texts: int, size: int) -> Array:
    """Return the projection in a file, fitted to the first shards if it is new.

    So no teacher is asked twice for a vector that costs money.
    """
    if not path.is_file():
        count = min(PROJECTION_TEXTS, texts)
        shards = [Shard.open(shard_folder(folder, n)).sentences for n in range(-(-count // SHARD))]
        _save_projection(path, np.concatenate(shards)[:count].astype("f4"), size)
    return read_projection(path)


def _save_projection(path: Path, vectors: Array, size: int) -> None:
    with replacing_file(path) as staging, staging.open("wb") as file:
        np.save(file, fit_projection(vectors, size))


def fit_projection(vectors: Array, size: int) -> Array:
    """Return the uncentred principal axes of vectors [n, D], float32 [size, D].

    Uncentred, so that cosines survive; ordered by variance, so that vectors can be truncated.
    """
    wide = vectors.astype("f8")
    return principal_axes(wide.T @ wide, size)


def principal_axes(moments: npt.NDArray[np.float64], size: int) -> Array:
    """Return the first ``size`` axes of second moments [D, D], float32 [size, D], signs settled."""
    _, axes = np.linalg.eigh(moments)
    rows = axes[:, ::-1][:, :size].T
    largest = np.abs(rows).argmax(1)
    signs = np.sign(rows[np.arange(len(rows)), largest])
    return np.asarray(rows * signs[:, None], "f4")


def build(
    folder: Path,
    texts: Corpus,
    ask: Ask,
    *,
    shards: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Make every missing shard of ``texts`` under ``folder``, or those among the first ``shards``.

    ``ask`` is `own_tokens`, `aligned` or `sentences_alone` of a teacher. ``on_progress`` gets the
    number of texts that are finished, and of all.
    """
    numbers = range(-(-len(texts) // SHARD))[:shards]
    sizes = [min(SHARD, len(texts) - number * SHARD) for number in numbers]
    missing = [number for number in numbers if not shard_folder(folder, number).is_dir()]
    finished = sum(sizes) - sum(sizes[number] for number in missing)
    on_progress(finished, sum(sizes))
    for number in missing:
        start, before = number * SHARD, finished
        fields = ask(
            start,
            texts[start : start + SHARD],
            lambda count, before=before: on_progress(before + count, sum(sizes)),  # type: ignore[misc]
        )
        with replacing_folder(shard_folder(folder, number), lambda _: False) as staging:
            for name, values in fields.items():
                np.save(staging / f"{name}.npy", values)
        finished += sizes[number]
        on_progress(finished, sum(sizes))


def own_tokens(teacher: TokenTeacher) -> Ask:
    """Ask for the teacher's states at its own tokens, which the student's are."""

    def ask(start: int, texts: Sequence[str], report: Callable[[int], None]) -> Fields:  # noqa: ARG001
        readings = list(_read(teacher, texts, report))
        states = [_in_bytes(one.states, np.ones(len(one.ids), bool)) for one in readings]
        return _with_tokens([one.ids for one in readings], readings, states)

    return ask


def aligned(teacher: TokenTeacher, tokenizer: ByteLevelBPE, rotation: Array, limit: int) -> Ask:
    """Ask for the teacher's states over the characters of the student's first ``limit`` tokens.

    ``rotation`` float32 [d, D] maps them into the student's space.
    """

    def ask(start: int, texts: Sequence[str], report: Callable[[int], None]) -> Fields:  # noqa: ARG001
        ids, states, readings = [], [], []
        for text, reading in zip(texts, _read(teacher, texts, report), strict=True):
            encoded, spans = encode_with_offsets(tokenizer, text)
            ids.append(np.array(encoded[:limit], "i8"))
            rotated = reading.states @ rotation.T
            targets = _token_targets(np.array(spans[:limit]), reading.spans, rotated, len(text))
            states.append(_in_bytes(*targets))
            readings.append(reading)
        return _with_tokens(ids, readings, states)

    return ask


def sentences_alone(teacher: Teacher, tokenizer: ByteLevelBPE, limit: int) -> Ask:
    """Ask for the vectors of a shard at once, so that a budget ends between shards."""

    def ask(start: int, texts: Sequence[str], report: Callable[[int], None]) -> Fields:  # noqa: ARG001
        vectors = teacher.sentences(start, texts)
        if vectors.shape != (len(texts), teacher.size):
            raise EngineError(f"the teacher gave vectors {vectors.shape} for {len(texts)} texts")
        ids = [np.array(tokenizer.encode(text)[:limit], "i8") for text in texts]
        return {**_ids(ids), "sentences": vectors.astype("f2")}

    return ask


def _read(
    teacher: TokenTeacher, texts: Sequence[str], report: Callable[[int], None]
) -> Iterator[Reading]:
    for start in range(0, len(texts), AT_ONCE):
        yield from teacher.read(texts[start : start + AT_ONCE])
        report(min(start + AT_ONCE, len(texts)))


def _token_targets(
    spans: Indices, piece_spans: Indices, states: Array, length: int
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return each token's mean state over its characters, float32 [tokens, d], and who has one.

    ``spans`` int64 [tokens, 2] are the student's characters in a text of ``length`` characters,
    ``piece_spans`` the teacher's; ``states`` float32 [pieces, d] are rotated already.
    """
    pieces, at = _by_character(piece_spans)
    piece_at = np.full(length, -1)
    piece_at[at] = pieces
    tokens, characters = _by_character(spans)
    read = piece_at[characters]
    real = read >= 0
    width = len(states)
    weights = np.bincount(tokens[real] * width + read[real], minlength=len(spans) * width)
    weights = weights.reshape(len(spans), width).astype("f4")
    totals = weights.sum(1, keepdims=True)
    return weights / np.maximum(totals, 1) @ states, totals[:, 0] > 0


def _by_character(spans: Indices) -> tuple[Indices, Indices]:
    """Return, for every character of every span, the span's index and the character's."""
    lengths = spans[:, 1] - spans[:, 0]
    owners = np.repeat(np.arange(len(spans)), lengths)
    shifts = spans[:, 0] - (np.cumsum(lengths) - lengths)
    return owners, np.arange(len(owners)) + shifts[owners]


def _with_tokens(
    ids: Sequence[Indices],
    readings: Sequence[Reading],
    states: Sequence[tuple[npt.NDArray[np.int8], Array]],
) -> Fields:
    return {
        **_ids(ids),
        "sentences": np.stack([one.sentence.astype("f2") for one in readings]),
        "tokens": np.concatenate([values for values, _ in states]),
        "scales": np.concatenate([scales for _, scales in states]),
    }


def _ids(ids: Sequence[Indices]) -> Fields:
    together = np.concatenate(ids)
    dtype = "u2" if together.max(initial=0) <= 0xFFFF else "u4"
    return {"ids": together.astype(dtype), "ends": np.cumsum([len(some) for some in ids])}


def _in_bytes(states: Array, asked: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int8], Array]:
    scale = np.where(asked, np.abs(states).max(1) / 127, 0).astype("f4")
    rounded = np.rint(states / np.where(scale > 0, scale, 1)[:, None])
    return (rounded * asked[:, None]).astype("i1"), scale

"""What the student is asked for, made once by a teacher and read from mapped shards.

Of each text a sentence vector, and of each token, where the teacher shows them, the mean of the
states over its characters, rotated by a fixed projection and kept in 8 bits with a scale. Shards
appear in order, whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, EngineError
from asterisk.common.files import replacing_folder
from asterisk.model.hub import PACKAGED
from asterisk.tokenizer import gpt2
from asterisk.tokenizer.bpe import encode_with_offsets
from asterisk.training.corpora.corpus import Corpus
from asterisk.training.teachers.teacher import AT_ONCE, Teacher, TokenTeacher

SHARD = 8_192
PROJECTION_TEXTS = 10_000
FILE = "targets.json"
OWN_TOKENS = "in the teacher's tokens: asterisk-teacher --tokenizer teacher"
Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Fields = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class TargetsInfo:
    """What ``targets.json`` says of a folder of targets, as far as training uses it."""

    teacher: str
    limit: int  # tokens that a text was cut to
    uncased: bool
    identity: dict[str, Any] | None = None  # what the teacher's vectors depend on
    corpus: str | None = None  # SHA-256 of the texts
    own_tokens: bool = False  # the student has the teacher's tokenizer

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
    both = hashlib.sha256()
    for name in ("texts.bin", "ends.npy"):
        with (part / name).open("rb") as file:
            both.update(hashlib.file_digest(file, "sha256").digest())
    return both.hexdigest()


@dataclass(frozen=True)
class Shard:
    """Targets of n texts with N tokens in all, for a student of d dimensions."""

    ids: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]  # [N]
    ends: Indices  # [n], where each text's tokens end
    sentences: npt.NDArray[np.float16]  # [n, teacher's dimensions]
    tokens: npt.NDArray[np.int8] | None = None  # [N, d], times the scales
    scales: Array | None = None  # [N]; 0 for a token without a target

    @classmethod
    def open(cls, folder: Path) -> Shard:
        """Map a shard that `build` wrote."""
        names = ["ids", "ends", "sentences"]
        names += [name for name in ("tokens", "scales") if (folder / f"{name}.npy").is_file()]
        paths = {name: folder / f"{name}.npy" for name in names}
        return cls(**{k: np.load(v, mmap_mode="r", allow_pickle=False) for k, v in paths.items()})


def shard_folder(folder: Path, number: int) -> Path:
    """Return where shard ``number`` is."""
    return folder / f"shard-{number:05d}"


def read_projection(path: Path) -> Array:
    """Return a stored projection, float32 [size, teacher's]; ArtifactError if it is damaged."""
    try:
        projection: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise ArtifactError(f"{path} is missing or damaged") from None
    return projection


def fit_projection(vectors: Array, size: int) -> Array:
    """Return uncentred principal axes of vectors [n, D], float32 [size, D]: cosines survive."""
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
    teacher: Teacher,
    *,
    limit: int,
    rotation: Array | None = None,
    own_tokens: bool = False,
    shards: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Make every missing shard of ``texts`` under ``folder``, or those among the first ``shards``.

    With ``rotation`` float32 [d, D] a token is asked for the teacher's states over its characters;
    with ``own_tokens`` for the state as it is; with neither, for nothing.
    """
    numbers = range(-(-len(texts) // SHARD))[:shards]
    missing = [number for number in numbers if not shard_folder(folder, number).is_dir()]
    total = min(len(texts), len(numbers) * SHARD)
    finished = total - sum(min(SHARD, len(texts) - number * SHARD) for number in missing)

    def report(count: int) -> None:
        on_progress(finished + count, total)

    report(0)
    for number in missing:
        start = number * SHARD
        some = texts[start : start + SHARD]
        if isinstance(teacher, TokenTeacher) and (own_tokens or rotation is not None):
            fields = _token_targets(teacher, some, limit, rotation, report)
        else:
            fields = _sentence_targets(teacher, some, limit, start)
        with replacing_folder(shard_folder(folder, number), lambda _: False) as staging:
            for name, values in fields.items():
                np.save(staging / f"{name}.npy", values)
        finished += len(some)
        report(0)


def _token_targets(
    teacher: TokenTeacher,
    texts: Sequence[str],
    limit: int,
    rotation: Array | None,
    report: Callable[[int], None],
) -> Fields:
    tokenizer = gpt2()
    ids, sentences, tokens, scales = [], [], [], []
    for at in range(0, len(texts), AT_ONCE):
        some = texts[at : at + AT_ONCE]
        for text, reading in zip(some, teacher.read(some), strict=True):
            encoded, states, asked = reading.ids, reading.states, np.ones(len(reading.ids), "?")
            if rotation is not None:
                found, spans = encode_with_offsets(tokenizer, text)
                encoded, rotated = np.array(found[:limit], "i8"), states @ rotation.T
                characters = np.array(spans[:limit])
                states, asked = _over(characters, reading.spans, rotated, len(text))
            scale = np.where(asked, np.abs(states).max(1) / 127, 0).astype("f4")
            rounded = np.rint(states / np.where(scale > 0, scale, 1)[:, None])
            ids.append(encoded)
            sentences.append(reading.sentence.astype("f2"))
            tokens.append((rounded * asked[:, None]).astype("i1"))
            scales.append(scale)
        report(at + len(some))
    token_fields = {"tokens": np.concatenate(tokens), "scales": np.concatenate(scales)}
    return _text_fields(ids) | {"sentences": np.stack(sentences)} | token_fields


def _sentence_targets(teacher: Teacher, texts: Sequence[str], limit: int, start: int) -> Fields:
    # A whole shard at once, so that a budget ends between shards.
    vectors = teacher.sentences(start, texts)
    if vectors.shape != (len(texts), teacher.size):
        raise EngineError(f"the teacher gave vectors {vectors.shape} for {len(texts)} texts")
    ids = [np.array(gpt2().encode(text)[:limit], "i8") for text in texts]
    return _text_fields(ids) | {"sentences": vectors.astype("f2")}


def _text_fields(ids: list[Indices]) -> Fields:
    together = np.concatenate(ids)
    dtype = "u2" if together.max(initial=0) <= 0xFFFF else "u4"
    return {"ids": together.astype(dtype), "ends": np.cumsum([len(one) for one in ids])}


def _over(
    spans: Indices, piece_spans: Indices, states: Array, length: int
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return each token's mean state over its characters, float32 [tokens, d], and who has one.

    ``spans`` int64 [tokens, 2] are the student's, ``piece_spans`` the teacher's.
    """
    pieces, positions = _by_character(piece_spans)
    piece_at = np.full(length, -1)
    piece_at[positions] = pieces
    tokens, positions = _by_character(spans)
    read = piece_at[positions]
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

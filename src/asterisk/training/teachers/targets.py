"""What the student is asked for, made once by a teacher and read from mapped shards.

A text is asked for the teacher's sentence vector. With a teacher that shows its token states, each
token is also asked for their mean over its characters, rotated by the fixed projection and kept in
8 bits with a scale: 256 bytes a token. Shards appear in order, whole or not at all: interrupted
work goes on where it stopped, and training may follow a teacher at work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, EngineError
from asterisk.common.files import replacing_file, replacing_folder
from asterisk.tokenizer import ByteLevelBPE
from asterisk.tokenizer.bpe import encode_with_offsets
from asterisk.training.corpora.corpus import Corpus
from asterisk.training.teachers.align import token_targets
from asterisk.training.teachers.blackbox import TokenStates, Vectors
from asterisk.training.teachers.teacher import Seen

SHARD = 8_192
PROJECTION_TEXTS = 10_000
AT_ONCE = 256  # texts that a teacher is shown together
FIELDS = ("ids", "ends", "sentences")
TOKEN_FIELDS = ("tokens", "scales")
Array = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
Tell = Callable[[int], None]
Fields = dict[str, npt.NDArray[Any]]
Ask = Callable[[int, Sequence[str], Tell], Fields]
"""Asks for some texts, the first of them at a place, and tells how many are done."""


@dataclass(frozen=True)
class Shard:
    """Targets of n texts with N tokens in all, for a student of d dimensions.

    ``ids`` uint16 or uint32 [N]; ``ends`` int64 [n], where each text's tokens end; ``sentences``
    float16 [n, teacher's dimensions]; ``tokens`` int8 [N, d] times ``scales`` float32 [N], a scale
    of 0 marking a token without a target; both None where the teacher shows no tokens.
    """

    ids: npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
    ends: npt.NDArray[np.int64]
    sentences: npt.NDArray[np.float16]
    tokens: npt.NDArray[np.int8] | None = None
    scales: Array | None = None

    @classmethod
    def open(cls, folder: Path) -> Shard:
        """Map a shard that `build` wrote."""
        there = [*FIELDS, *(f for f in TOKEN_FIELDS if (folder / f"{f}.npy").is_file())]
        return cls(
            **{f: np.load(folder / f"{f}.npy", mmap_mode="r", allow_pickle=False) for f in there}
        )


def shard_folder(folder: Path, number: int) -> Path:
    """Return where shard ``number`` stands, or will."""
    return folder / f"shard-{number:05d}"


def projection(path: Path, teacher: Vectors, texts: Corpus, size: int) -> Array:
    """Return the file's projection, float32 [size, teacher's], after fitting it if need be."""
    if not path.is_file():
        _save(path, np.concatenate(list(_sentences(teacher, texts[:PROJECTION_TEXTS]))), size)
    return read_projection(path)


def projection_of_shards(path: Path, folder: Path, texts: int, size: int) -> Array:
    """Return the file's projection, after fitting it to the first shards if need be.

    Nobody is asked twice for a vector that costs money.
    """
    if not path.is_file():
        wanted = min(PROJECTION_TEXTS, texts)
        made = [Shard.open(shard_folder(folder, n)).sentences for n in range(-(-wanted // SHARD))]
        _save(path, np.concatenate(made)[:wanted].astype("f4"), size)
    return read_projection(path)


def read_projection(path: Path) -> Array:
    """Return a stored projection, float32 [size, teacher's]; ArtifactError if it is damaged."""
    try:
        found: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise ArtifactError(f"{path} is missing or damaged") from None
    return found


def _save(path: Path, vectors: Array, size: int) -> None:
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
    progress: Progress = lambda done, total: None,
) -> None:
    """Make every missing shard of ``texts`` under ``folder``, or those among the first ``shards``.

    ``ask`` is `in_own_tokens`, `aligned` or `sentences_alone` of a teacher. ``progress`` is told
    the number of texts that are done, first those that were, and of all.
    """
    starts = range(0, len(texts), SHARD)
    wanted = range(len(starts) if shards is None else min(shards, len(starts)))
    missing = [number for number in wanted if not shard_folder(folder, number).is_dir()]
    sizes = [len(texts) - start if start + SHARD > len(texts) else SHARD for start in starts]
    total = sum(sizes[number] for number in wanted)
    done = total - sum(sizes[number] for number in missing)
    progress(done, total)
    for number in missing:
        some = texts[starts[number] : starts[number] + SHARD]

        def tell(count: int, before: int = done) -> None:
            progress(before + count, total)

        fields = ask(starts[number], some, tell)
        with replacing_folder(shard_folder(folder, number), lambda _: False) as staging:
            for name, values in fields.items():
                np.save(staging / f"{name}.npy", values)
        done += sizes[number]
        progress(done, total)


def in_own_tokens(teacher: TokenStates) -> Ask:
    """Ask for the teacher's states at its own tokens, which the student's are."""

    def ask(start: int, texts: Sequence[str], tell: Tell) -> Fields:  # noqa: ARG001
        seen = list(_look(teacher, texts, tell))
        states = [_in_bytes(one.states, np.ones(len(one.ids), bool)) for one in seen]
        return _with_tokens([one.ids for one in seen], seen, states)

    return ask


def aligned(teacher: TokenStates, tokenizer: ByteLevelBPE, rotation: Array, limit: int) -> Ask:
    """Ask for the teacher's states over the characters of the student's first ``limit`` tokens.

    ``rotation`` float32 [d, D] brings them into the student's space.
    """

    def ask(start: int, texts: Sequence[str], tell: Tell) -> Fields:  # noqa: ARG001
        ids, states, read = [], [], []
        for text, seen in zip(texts, _look(teacher, texts, tell), strict=True):
            encoded, spans = encode_with_offsets(tokenizer, text)
            ids.append(np.array(encoded[:limit], "i8"))
            turned, places = seen.states @ rotation.T, np.array(spans[:limit])
            states.append(_in_bytes(*token_targets(places, seen, turned, len(text))))
            read.append(seen)
        return _with_tokens(ids, read, states)

    return ask


def sentences_alone(teacher: Vectors, tokenizer: ByteLevelBPE, limit: int) -> Ask:
    """Ask for the vectors of a shard at once, so that a budget ends between shards."""

    def ask(start: int, texts: Sequence[str], tell: Tell) -> Fields:  # noqa: ARG001
        vectors = teacher.sentences(start, texts)
        if vectors.shape != (len(texts), teacher.size):
            raise EngineError(f"the teacher gave vectors {vectors.shape} for {len(texts)} texts")
        ids = [np.array(tokenizer.encode(text)[:limit], "i8") for text in texts]
        return {**_ids(ids), "sentences": vectors.astype("f2")}

    return ask


def _look(teacher: TokenStates, texts: Sequence[str], tell: Tell) -> Iterator[Seen]:
    for start in range(0, len(texts), AT_ONCE):
        yield from teacher.look(texts[start : start + AT_ONCE])
        tell(min(start + AT_ONCE, len(texts)))


def _sentences(teacher: Vectors, texts: Sequence[str]) -> Iterator[Array]:
    for start in range(0, len(texts), AT_ONCE):
        yield teacher.sentences(start, texts[start : start + AT_ONCE])


def _with_tokens(
    ids: Sequence[npt.NDArray[np.int64]],
    seen: Sequence[Seen],
    states: Sequence[tuple[npt.NDArray[np.int8], Array]],
) -> Fields:
    return {
        **_ids(ids),
        "sentences": np.stack([one.sentence.astype("f2") for one in seen]),
        "tokens": np.concatenate([values for values, _ in states]),
        "scales": np.concatenate([scales for _, scales in states]),
    }


def _ids(ids: Sequence[npt.NDArray[np.int64]]) -> Fields:
    together = np.concatenate(ids)
    kind = "u2" if together.max(initial=0) <= 0xFFFF else "u4"
    return {"ids": together.astype(kind), "ends": np.cumsum([len(some) for some in ids])}


def _in_bytes(wanted: Array, found: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int8], Array]:
    scale = np.where(found, np.abs(wanted).max(1) / 127, 0).astype("f4")
    rounded = np.rint(wanted / np.where(scale > 0, scale, 1)[:, None])
    return (rounded * found[:, None]).astype("i1"), scale

"""Models opened by what a user calls them, and their vectors as tasks see them: unit rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, InputError, MissingExtra, one_line
from asterisk.common.plugins import require
from asterisk.common.vectors import to_binary, to_int8, truncate
from asterisk.evaluation.report import Column
from asterisk.model.config import prompt_name_of

TFIDF = "tfidf"
BLOCK = 1_000  # queries whose similarities are held at once
Vectors = npt.NDArray[np.float32]
Rows = Any
"""Unit rows: float32 [n, d], or SciPy's sparse rows of that shape."""
PrecisionName = Literal["float32", "int8", "binary"]
Role = Literal["", "query", "document"]
Encode = Callable[[list[str]], Vectors]
Space = Callable[..., tuple[Rows, ...]]
"""Lists of texts to rows that can be compared; the first one is what a space may learn from."""
_ROLES: tuple[Role, ...] = ("query", "document")


def unit(vectors: Vectors) -> Vectors:
    """Return rows of unit length, float32 [n, d]; a zero row stays zero."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    rows: Vectors = vectors / np.maximum(lengths, np.float32(1e-12))
    return rows


def shortened(vectors: Vectors, dim: int | None, precision: PrecisionName) -> Vectors:
    """Return float32 [n, d] cut and quantised, widened again to unit rows of the same cosines."""
    short = vectors if dim is None else truncate(vectors, dim)
    if precision == "int8":
        return unit(to_int8(short).astype(np.float32))
    if precision == "binary":
        bits = np.unpackbits(to_binary(short), axis=1, count=short.shape[1])
        return unit(bits.astype(np.float32) * 2 - 1)
    return unit(short)


def tfidf(fit: Sequence[str], /, *lists: Sequence[str]) -> tuple[Rows, ...]:
    """Return rows in the space of TF-IDF: scikit-learn's words, 1 + log of counts, of ``fit``."""
    text = require("sklearn.feature_extraction.text", "eval")
    vectorizer = text.TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    try:
        vectorizer.fit(fit)
    except ValueError:  # no word of two letters anywhere
        vectorizer.set_params(token_pattern=r"(?u)\S+").fit(fit)  # noqa: S106
    return tuple(vectorizer.transform(texts) for texts in lists)


def paired(first: Rows, second: Rows) -> npt.NDArray[np.float64]:
    """Return the cosine of each row with its counterpart, float64 [n]."""
    if isinstance(first, np.ndarray):
        return np.asarray(np.einsum("nd,nd->n", first, second), np.float64)
    return np.asarray(first.multiply(second).sum(1), np.float64).ravel()


def nearest(queries: Rows, documents: Rows, count: int) -> Iterator[npt.NDArray[np.intp]]:
    """Yield a block of queries' nearest documents, [q, count]; the earlier one of equals first."""
    count = min(count, documents.shape[0])
    for start in range(0, queries.shape[0], BLOCK):
        similar = queries[start : start + BLOCK] @ documents.T
        similar = similar if isinstance(similar, np.ndarray) else similar.toarray()
        found = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        order = np.lexsort((found, -np.take_along_axis(similar, found, 1)), axis=1)
        yield np.take_along_axis(found, order, 1)


@dataclass
class Model:
    """A model that encodes each text once a role."""

    name: str  # what it was opened as
    opened_by: str
    size: int  # dimensions
    longest: int | None  # tokens that it reads
    encode: Encode
    by_role: Mapping[Role, Encode] = field(default_factory=dict)  # where it differs from `encode`
    projection: Vectors | None = None  # [size, teacher's size], from its teacher's space to its own
    spaces: tuple[str, ...] = ()  # fingerprints of comparable ones, its own first if it is known
    note: str = ""  # how it was opened, if that may surprise
    cache: dict[tuple[Role, str], Vectors] = field(default_factory=dict, repr=False)

    @property
    def fingerprint(self) -> str | None:
        """The name of its embedding space, if it is known."""
        return self.spaces[0] if self.spaces else None

    def column(self, label: str, dim: int | None = None, precision: str = "float32") -> Column:
        """Return the report's column of this model, of ``dim`` dimensions or all."""
        size, longest = dim or self.size, self.longest
        return Column(label, self.name, self.opened_by, size, precision, longest, self.fingerprint)

    def vectors(self, texts: Sequence[str], role: Role = "") -> Vectors:
        """Return unit vectors, float32 [n, size]."""
        encode = self.by_role.get(role)
        if encode is None:
            encode, role = self.encode, ""
        new = [text for text in dict.fromkeys(texts) if (role, text) not in self.cache]
        if new:
            vectors = np.asarray(encode(new), np.float32)
            if not np.isfinite(vectors).all():
                raise ArtifactError(f"{self.name} gives values that are not finite")
            keys = [(role, text) for text in new]
            self.cache.update(zip(keys, unit(vectors), strict=True))
        return np.stack([self.cache[role, text] for text in texts])

    def space(
        self, dim: int | None = None, precision: PrecisionName = "float32", role: Role = ""
    ) -> Space:
        """Return this model's vectors, of texts with a role if given, as tasks see them."""
        return lambda _, *lists: tuple(
            shortened(self.vectors(texts, role), dim, precision) for texts in lists
        )

    def documents(
        self, teacher: Model, dim: int | None = None, precision: PrecisionName = "float32"
    ) -> Space | None:
        """Return the teacher's vectors of documents in this model's space, if there is a way."""
        projection = self.projection
        if projection is None:
            shared = teacher.fingerprint is not None and teacher.fingerprint in self.spaces
            return teacher.space(dim, precision, "document") if shared else None
        if projection.shape[1] != teacher.size:
            raise InputError(
                f"{self.name} was distilled from a teacher of {projection.shape[1]} dimensions, "
                f"{teacher.name} has {teacher.size}"
            )
        return lambda _, *lists: tuple(
            shortened(unit(teacher.vectors(texts, "document") @ projection.T), dim, precision)
            for texts in lists
        )


def open_model(name: str, *, threads: int = 1, longest: int | None = None) -> Model:
    """Open an artifact or a checkpoint of ours, a sentence-transformers folder, or a known name.

    A folder that is both is opened as ours. ``longest`` limits the tokens that a
    sentence-transformers model reads. ArtifactError if it is none of these or is damaged.
    """
    from asterisk.artifact import is_artifact
    from asterisk.model.hub import PACKAGED, packaged

    if name in PACKAGED:
        return _sentence_transformer(name, packaged(name, "eval"), threads, longest)
    folder = Path(name)
    if not folder.exists():
        return _sentence_transformer(name, name, threads, longest)
    transformer = (folder / "modules.json").is_file() or (folder / "config.json").is_file()
    try:
        return _ours(name, folder, threads)
    except ArtifactError as failure:
        if is_artifact(folder) or not transformer:
            raise
        model = _sentence_transformer(name, folder, threads, longest)
        model.note = f"{name} is opened by sentence-transformers: {one_line(failure)}"
        return model


def _ours(name: str, folder: Path, threads: int) -> Model:
    import asterisk
    from asterisk.model.checkpoint import is_checkpoint, load

    runtime = asterisk.load(folder, threads=threads)
    projection = load(folder).teacher_projection if is_checkpoint(folder) else None

    def encoder(prompt: str) -> Encode:
        return lambda texts: runtime.encode(texts, prompt=prompt, show_progress=True)

    default = runtime.prompt()
    names = {role: prompt_name_of(role, runtime.prompts) for role in _ROLES}
    prompts = {role: runtime.prompt(name) for role, name in names.items()}
    return Model(
        name=name,
        opened_by=f"asterisk {runtime.format}",
        size=runtime.config.embedding_size,
        longest=runtime.config.max_seq_length,
        encode=encoder(default),
        by_role={role: encoder(prompt) for role, prompt in prompts.items() if prompt != default},
        projection=projection,
        spaces=(runtime.fingerprint, *runtime.compatible_with),
    )


def _sentence_transformer(
    name: str, source: str | Path, threads: int, longest: int | None
) -> Model:
    from asterisk.model.checkpoint import load

    try:
        torch: Any = require("torch", "eval")
        library: Any = require("sentence_transformers", "eval")
    except MissingExtra:
        if not Path(source).exists():  # more likely a name that was mistyped
            raise ArtifactError(f"{name} is neither a folder nor a known model") from None
        raise
    torch.set_num_threads(threads)
    # The only bar is the command's own.
    require("transformers.utils.logging", "eval").disable_progress_bar()
    try:
        opened: Any = library.SentenceTransformer(str(source), device="cpu")
    except Exception as failure:
        # Whatever the library and those below it raise for a folder or a name they cannot open.
        raise ArtifactError(
            f"{name} is no artifact, checkpoint or sentence-transformers model: {one_line(failure)}"
        ) from None
    if longest is not None:
        config = getattr(getattr(opened[0], "auto_model", None), "config", None)
        most = getattr(config, "max_position_embeddings", None)
        if most is not None and longest > most:
            raise InputError(f"{name} reads at most {most} tokens, not {longest}")
        opened.max_seq_length = longest

    def encoder(call: Any) -> Encode:
        return lambda texts: call(texts, convert_to_numpy=True, show_progress_bar=False)

    encode = encoder(opened.encode)
    roles = _ROLES if any(opened.prompts.values()) else ()
    spaces: tuple[str, ...] = ()
    with contextlib.suppress(ArtifactError):  # a folder that opens as a checkpoint, too
        spaces = (load(source).fingerprint,)
    return Model(
        name=name,
        opened_by="sentence-transformers",
        size=int(encode(["size"]).shape[1]),
        longest=getattr(opened, "max_seq_length", None),
        encode=encode,
        by_role={role: encoder(getattr(opened, f"encode_{role}")) for role in roles},
        spaces=spaces,
    )

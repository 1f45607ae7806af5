"""Whatever gives vectors, opened by what a user calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asterisk.common.errors import ArtifactError, InputError, MissingExtra, one_line
from asterisk.common.plugins import require
from asterisk.evaluation.spaces import PrecisionName, Rows, Space, Vectors, shortened, tfidf, unit
from asterisk.model.config import prompt_name_of

TFIDF = "tfidf"
Role = Literal["", "query", "document"]
Encode = Callable[[list[str]], Vectors]
_ROLES: tuple[Role, ...] = ("query", "document")


@dataclass
class Model:
    """A model that encodes each text once a role.

    ``name`` is what it was opened as, ``opened_by`` what runs it, ``size`` the number of its
    dimensions, ``longest`` the tokens it reads; ``encode`` makes vectors of texts, and of queries
    and documents where ``by_role`` has an encoder for the role. ``projection`` float32 [size,
    teacher's size] maps its teacher's vectors into its space. ``spaces`` are fingerprints of spaces
    whose vectors may be compared with its own, its own first if it is known. ``note`` says how it
    was opened if that may surprise.
    """

    name: str
    opened_by: str
    size: int
    longest: int | None
    encode: Encode
    by_role: Mapping[Role, Encode] = field(default_factory=dict)
    projection: Vectors | None = None
    spaces: tuple[str, ...] = ()
    note: str = ""
    known: dict[tuple[Role, str], Vectors] = field(default_factory=dict, repr=False)

    @property
    def fingerprint(self) -> str | None:
        """The name of its embedding space, if it is known."""
        return self.spaces[0] if self.spaces else None

    def vectors(self, texts: Sequence[str], role: Role = "") -> Vectors:
        """Return unit vectors, float32 [n, size]; ``role`` is "query", "document" or neither."""
        encode = self.by_role.get(role)
        if encode is None:
            encode, role = self.encode, ""
        new = [text for text in dict.fromkeys(texts) if (role, text) not in self.known]
        if new:
            made = np.asarray(encode(new), np.float32)
            if not np.isfinite(made).all():
                raise ArtifactError(f"{self.name} gives values that are not finite")
            keys = [(role, text) for text in new]
            self.known.update(zip(keys, unit(made), strict=True))
        return np.stack([self.known[role, text] for text in texts])

    def space(
        self, dim: int | None = None, precision: PrecisionName = "float32", role: Role = ""
    ) -> Space:
        """Return this model's vectors, of texts with a role if given, as tasks see them."""

        def rows(_: Sequence[str], /, *lists: Sequence[str]) -> tuple[Rows, ...]:
            return tuple(shortened(self.vectors(texts, role), dim, precision) for texts in lists)

        return rows

    def documents(
        self, teacher: Model, dim: int | None = None, precision: PrecisionName = "float32"
    ) -> Space | None:
        """Return the teacher's vectors of documents in this model's space.

        None without a projection to it, unless that is the teacher's.
        """
        projection = self.projection
        if projection is None:
            shared = teacher.fingerprint is not None and teacher.fingerprint in self.spaces
            return teacher.space(dim, precision, "document") if shared else None
        if projection.shape[1] != teacher.size:
            raise InputError(
                f"{self.name} was distilled from a teacher of {projection.shape[1]} dimensions, "
                f"{teacher.name} has {teacher.size}"
            )

        def rows(_: Sequence[str], /, *lists: Sequence[str]) -> tuple[Rows, ...]:
            return tuple(
                shortened(unit(teacher.vectors(texts, "document") @ projection.T), dim, precision)
                for texts in lists
            )

        return rows


@dataclass(frozen=True, slots=True)
class Words:
    """TF-IDF, which has no vectors of its own before it has seen a set's texts."""

    name: str = TFIDF
    opened_by: str = "scikit-learn"

    def space(self) -> Space:
        """Return the space that each task fits anew."""
        return tfidf


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
    from asterisk.model.checkpoint import is_checkpoint
    from asterisk.model.checkpoint import load as load_checkpoint

    runtime = asterisk.load(folder, threads=threads)
    projection = load_checkpoint(folder).teacher_projection if is_checkpoint(folder) else None

    def encoder(prompt: str) -> Encode:
        return lambda texts: runtime.encode(texts, prompt=prompt, show_progress=True)

    usual = runtime.prompt()
    names = {role: prompt_name_of(role, runtime.prompts) for role in _ROLES}
    prompts = {role: runtime.prompt(name) for role, name in names.items()}
    return Model(
        name=name,
        opened_by=f"asterisk {runtime.format}",
        size=runtime.config.embedding_size,
        longest=runtime.config.max_seq_length,
        encode=encoder(usual),
        by_role={role: encoder(prompt) for role, prompt in prompts.items() if prompt != usual},
        projection=projection,
        spaces=(runtime.fingerprint, *runtime.compatible_with),
    )


def _sentence_transformer(
    name: str, source: str | Path, threads: int, longest: int | None
) -> Model:
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
        _lengthen(opened, longest, name)

    def encoder(call: Any) -> Encode:
        return lambda texts: call(texts, convert_to_numpy=True, show_progress_bar=False)

    encode = encoder(opened.encode)
    prompted = any(opened.prompts.values())
    return Model(
        name=name,
        opened_by="sentence-transformers",
        size=int(encode(["size"]).shape[1]),
        longest=getattr(opened, "max_seq_length", None),
        encode=encode,
        spaces=_spaces(Path(source)),
        by_role={role: encoder(getattr(opened, f"encode_{role}")) for role in _ROLES}
        if prompted
        else {},
    )


def _spaces(folder: Path) -> tuple[str, ...]:
    """Return the fingerprint of a folder, if it opens as a checkpoint, too."""
    from asterisk.model.checkpoint import load as load_checkpoint

    try:
        return (load_checkpoint(folder).fingerprint,)
    except ArtifactError:
        return ()


def _lengthen(opened: Any, longest: int, name: str) -> None:
    config = getattr(getattr(opened[0], "auto_model", None), "config", None)
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and longest > most:
        raise InputError(f"{name} reads at most {most} tokens, not {longest}")
    opened.max_seq_length = longest

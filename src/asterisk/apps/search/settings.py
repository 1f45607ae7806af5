"""The settings of an index: the model, precision, passages and prompt that it was made with."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from asterisk.apps.search.passages import LONGEST, OVERLAP
from asterisk.artifact import InSpace, is_artifact, open_artifact, spaces
from asterisk.common.errors import ArtifactError, InputError, UsageError
from asterisk.model.config import check_prompt_name

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime

LARGEST_DIMENSION = 1 << 14
LARGEST_VALUE = 1 << 16  # characters
PRECISIONS = ("int8", "float32")
MOST_SPACES = 200


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """The settings stored in an index's ``meta`` table.

    ``artifact`` is the folder that it was made with, ``fingerprint`` its embedding space and
    ``compatible_with`` others whose vectors may be compared with these. ``longest`` and ``overlap``
    are tokens of passages; ``words`` is whether there is an FTS5 table. ``prompt_name`` is the
    prompt that documents are embedded with, None for the model's own one for documents.
    """

    artifact: str
    fingerprint: str
    compatible_with: tuple[str, ...]
    model: str
    format: str
    recipe: str
    dimension: int
    precision: str
    longest: int = LONGEST
    overlap: int = OVERLAP
    words: bool = True
    prompt_name: str | None = None

    @classmethod
    def from_artifact(
        cls, artifact: Path, precision: str, runtime: Runtime | None, prompt_name: str | None
    ) -> Self:
        """Return the settings for an artifact, or for a checkpoint folder and its ``runtime``."""
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be int8 or float32, not {precision!r}")
        # As UTF-8 whatever the locale: another process may have another one.
        path = os.fsencode(artifact.absolute()).decode("utf-8", "surrogateescape")
        model: InSpace
        if is_artifact(artifact):
            model = manifest = open_artifact(artifact).manifest
            about = manifest.name, manifest.format, manifest.recipe, manifest.model.embedding_size
            prompts = manifest.prompts
        elif runtime is None:
            raise ArtifactError(f"{artifact} is not an artifact")
        else:
            model, prompts = runtime, runtime.prompts
            about = Path(path).name, runtime.format, "fp32", runtime.config.embedding_size
        check_prompt_name(prompt_name, prompts)
        others = spaces(model)[1:]
        return cls(path, model.fingerprint, others, *about, precision, prompt_name=prompt_name)

    def with_spaces(self, others: Iterable[str]) -> Self:
        """Return the same settings, compatible with these spaces as well."""
        _, *every = spaces(replace(self, compatible_with=(*self.compatible_with, *others)))
        if len(every) > MOST_SPACES:
            raise UsageError(f"{len(every)} spaces; an index has {MOST_SPACES} at most")
        return replace(self, compatible_with=tuple(every))

    @classmethod
    def read(cls, connection: sqlite3.Connection, path: Path) -> Self:
        """Read the ``meta`` table; InputError unless it says everything in its proper type."""
        try:
            rows = connection.execute(
                "SELECT key, value FROM meta WHERE length(value) <= ?", (LARGEST_VALUE,)
            ).fetchmany(100)
            values = {key: json.loads(value) for key, value in rows}
            values["compatible_with"] = tuple(values["compatible_with"])
            if set(values) != {field.name for field in fields(cls)}:
                raise ValueError
            settings = cls(**values)
            if not settings._is_valid():
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError(f"{path} is damaged: its settings cannot be read") from None
        return settings

    def write(self, connection: sqlite3.Connection) -> None:
        """Write the ``meta`` table, inside the current transaction."""
        connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [(key, json.dumps(value)) for key, value in asdict(self).items()],
        )

    def _is_valid(self) -> bool:
        names = self.artifact, self.fingerprint, self.model, self.format, self.recipe
        return (
            all(isinstance(name, str) for name in (*names, *self.compatible_with))
            and "\0" not in self.artifact
            and type(self.dimension) is int
            and 1 <= self.dimension <= LARGEST_DIMENSION
            and self.precision in PRECISIONS
            and type(self.longest) is int
            and type(self.overlap) is int
            and 0 <= self.overlap < self.longest <= 1 << 20
            and type(self.words) is bool
            and isinstance(self.prompt_name, str | None)
        )

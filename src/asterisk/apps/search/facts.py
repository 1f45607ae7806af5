"""What an index was made with, as it stands in its ``meta`` table."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from asterisk.apps.search.passages import LONGEST, OVERLAP
from asterisk.artifact import is_artifact, open_artifact, share_space, spaces
from asterisk.common.errors import ArtifactError, InputError, UsageError
from asterisk.model.prompt_names import check_prompt_name

if TYPE_CHECKING:
    from asterisk.runtimes.runtime import Runtime

LARGEST_DIMENSION = 1 << 14
LARGEST_VALUE = 1 << 16  # characters
PRECISIONS = ("int8", "float32")
MOST_SPACES = 200


@dataclass(frozen=True, slots=True)
class Facts:
    """The settings of an index.

    ``artifact`` is the folder that it was made with, ``fingerprint`` its embedding space and
    ``compatible_with`` others whose vectors may be compared with these. ``longest`` and ``overlap``
    are tokens of passages, ``words`` tells whether there is an FTS5 table. ``prompt_name`` is the
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
    def of(
        cls,
        artifact: Path,
        precision: str,
        runtime: Runtime | None,
        prompt_name: str | None = None,
    ) -> Self:
        """Read them from a folder; a checkpoint's need its ``runtime``."""
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be int8 or float32, not {precision!r}")
        # As UTF-8 whatever the locale: another process may have another one.
        place = os.fsencode(artifact.absolute()).decode("utf-8", "surrogateescape")
        if is_artifact(artifact):
            manifest = open_artifact(artifact).manifest
            check_prompt_name(prompt_name, manifest.prompts)
            return cls(
                place,
                manifest.fingerprint,
                spaces(manifest)[1:],
                manifest.name,
                manifest.format,
                manifest.recipe,
                manifest.model.embedding_size,
                precision,
                prompt_name=prompt_name,
            )
        if runtime is None:
            raise ArtifactError(f"{artifact} is not an artifact")
        check_prompt_name(prompt_name, runtime.prompts)
        return cls(
            place,
            runtime.fingerprint,
            spaces(runtime)[1:],
            Path(place).name,
            runtime.format,
            "fp32",
            runtime.config.embedding_size,
            precision,
            prompt_name=prompt_name,
        )

    def check(self, path: Path, others: Iterable[str], dimension: int) -> None:
        """Raise InputError unless a model of these spaces and this size goes with the index."""
        if not share_space(spaces(self), others):
            raise InputError(
                f"{path} holds vectors of another model ({self.model}): use "
                f"--artifact {self.artifact}, or index again into a new file"
            )
        if dimension != self.dimension:
            raise InputError(
                f"{path} holds vectors of {self.dimension} dimensions, the model gives {dimension}"
            )

    def declaring(self, others: Iterable[str]) -> Self:
        """Return the same settings, going with these spaces as well."""
        more = replace(self, compatible_with=(*self.compatible_with, *others))
        _, *known = spaces(more)
        if len(known) > MOST_SPACES:
            raise UsageError(f"{len(known)} spaces; an index has {MOST_SPACES} at most")
        return replace(self, compatible_with=tuple(known))

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
            facts = cls(**values)
            if not facts._sound():
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError(f"{path} is damaged: its settings cannot be read") from None
        return facts

    def write(self, connection: sqlite3.Connection) -> None:
        """Put them into the ``meta`` table, inside the transaction under way."""
        connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [(key, json.dumps(value)) for key, value in asdict(self).items()],
        )

    def _sound(self) -> bool:
        names = self.artifact, self.fingerprint, self.model, self.format, self.recipe
        spaces = self.compatible_with
        return (
            all(isinstance(name, str) for name in (*names, *spaces))
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

"""A runtime together with the embedding spaces that its vectors may be compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from asterisk.artifact import is_artifact, open_artifact
from asterisk.classify.head import Head
from asterisk.errors import ArtifactError
from asterisk.runtimes.load import load, open_runtime
from asterisk.runtimes.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Opened:
    """``spaces`` are fingerprints, the runtime's own first."""

    runtime: Runtime
    spaces: tuple[str, ...]

    def check(self, head: Head) -> None:
        """Raise ArtifactError unless ``head`` is for vectors of this model."""
        head.check(self.spaces)
        if head.dim > self.runtime.config.embedding_size:
            raise ArtifactError(
                f"the head takes {head.dim} dimensions, "
                f"the model gives {self.runtime.config.embedding_size}"
            )


@contextmanager
def opened(model: Path, threads: int) -> Iterator[Opened]:
    """Open an artifact or a checkpoint folder and close it in the end."""
    if is_artifact(model):
        artifact = open_artifact(model)
        with open_runtime(artifact, threads=threads) as runtime:
            others = artifact.manifest.compatible_with
            yield Opened(runtime, (runtime.fingerprint, *others))
        return
    with load(model, threads=threads) as runtime:
        yield Opened(runtime, (runtime.fingerprint,))

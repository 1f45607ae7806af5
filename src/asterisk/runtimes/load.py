"""From a folder to a runtime."""

from __future__ import annotations

import os
from pathlib import Path

from asterisk import plugins
from asterisk.artifact import Artifact, is_artifact, opened
from asterisk.errors import ArtifactError, UsageError
from asterisk.runtimes import pages
from asterisk.runtimes.engine import ArtifactEngine
from asterisk.runtimes.runtime import Runtime
from asterisk.tokenizer import Tokenizer

GROUP = "asterisk.runtimes"
MOST_THREADS = 256


def load(path: str | os.PathLike[str], *, threads: int = 1) -> Runtime:
    """Open an artifact or a checkpoint folder; see `asterisk.load`."""
    if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads must be 1 to {MOST_THREADS}, not {threads}")
    folder = Path(path)
    if is_artifact(folder):
        return opened(folder, lambda artifact: open_runtime(artifact, threads=threads))
    if (folder / "model.safetensors").exists():
        # The declared exception: PyTorch opens the checkpoint itself.
        reference: Runtime = plugins.find(GROUP, "torch")(folder, threads)
        return reference
    raise ArtifactError(f"{folder} is neither an artifact nor a checkpoint")


def open_runtime(artifact: Artifact, *, threads: int = 1) -> Runtime:
    """Open an artifact that has been checked."""
    engine = plugins.find(GROUP, artifact.manifest.format)
    if not (isinstance(engine, type) and issubclass(engine, ArtifactEngine)):
        raise ArtifactError(f"{artifact.manifest.format} is no format of artifacts")
    runtime = Runtime(
        engine.open(artifact, threads),
        Tokenizer.open(artifact.tokenizer),
        artifact.config,
        artifact.manifest.fingerprint,
    )
    runtime.embed_ids([0])  # what only a start and a first call need is over now
    pages.forget_files()
    pages.map_alone(
        artifact.folder
    )  # last: it makes thousands of mappings, which take time to list
    pages.trim_heap()
    return runtime

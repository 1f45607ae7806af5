"""From a folder to a runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from asterisk.artifact import Artifact, is_artifact, opened
from asterisk.common import plugins
from asterisk.common.errors import ArtifactError, UsageError
from asterisk.common.folders import has_file
from asterisk.common.validation import integer
from asterisk.runtimes import pages
from asterisk.runtimes.engine import ArtifactEngine
from asterisk.runtimes.runtime import Runtime
from asterisk.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from asterisk.runtimes.budget.plan import Budget

GROUP = "asterisk.runtimes"
CHECKPOINT_FILES = ("config.json", "modules.json")  # one of which every checkpoint has
MOST_THREADS = 256


def load(
    path: str | os.PathLike[str], *, threads: int = 1, max_memory: int | None = None
) -> Runtime:
    """Open an artifact or a checkpoint folder; see `asterisk.load`."""
    threads = integer("threads", threads, 1, MOST_THREADS)
    folder = Path(path)
    if is_artifact(folder):
        return opened(
            folder,
            lambda artifact: open_runtime(artifact, threads=threads, max_memory=max_memory),
        )
    if any(has_file(folder, name) for name in CHECKPOINT_FILES):
        if max_memory is not None:
            raise UsageError(
                f"{folder} is a checkpoint, opened with PyTorch, which keeps to no memory limit; "
                "export it first"
            )
        # The declared exception: PyTorch opens the checkpoint itself.
        reference: Runtime = plugins.find(GROUP, "torch")(folder, threads)
        return reference
    raise ArtifactError(f"{folder} is neither an artifact nor a checkpoint")


def open_runtime(artifact: Artifact, *, threads: int = 1, max_memory: int | None = None) -> Runtime:
    """Open an artifact that has been checked."""
    if max_memory is None:
        return open_as(artifact, threads, None)
    from asterisk.runtimes.budget.plan import Planner

    planner = Planner.of(artifact, threads, max_memory)
    while True:  # a plan that did not hold is followed by a smaller one, or refused
        budget = planner.plan()
        runtime = open_as(artifact, budget.threads, budget)
        if planner.holds(budget, artifact.folder):
            return runtime
        runtime.close()
        del runtime
        pages.trim_heap()


def open_as(artifact: Artifact, threads: int, budget: Budget | None) -> Runtime:
    """Open an artifact that has been checked with so many sessions, as ``budget`` says if given."""
    engine = plugins.find(GROUP, artifact.manifest.format)
    if not (isinstance(engine, type) and issubclass(engine, ArtifactEngine)):
        raise ArtifactError(f"{artifact.manifest.format} is no format of artifacts")
    if budget is None:
        engines = engine.open(artifact, threads)
    else:
        engines = engine.open_for(artifact, threads, budget.longest)
    runtime = Runtime(
        engines,
        open_tokenizer(artifact.tokenizer),
        artifact.config,
        artifact.manifest.fingerprint,
        budget,
        prompts=artifact.manifest.prompts,
        default_prompt_name=artifact.manifest.default_prompt_name,
        compatible_with=artifact.manifest.compatible_with,
        similarity=artifact.manifest.similarity,
    )
    del engines  # so that closing the runtime is enough
    runtime.embed_ids([0])  # what only a start and a first call need is over now
    pages.forget_files()
    if budget is not None:
        runtime.fill()  # with the files' pages out of the way
    pages.map_alone(
        artifact.folder
    )  # last: it makes thousands of mappings, which take time to list
    pages.trim_heap()
    return runtime

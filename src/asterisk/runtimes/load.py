"""From a folder to a runtime, and whether the runtime gives the vectors of the export."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asterisk.artifact import GOLDEN_TEXTS, GOLDEN_VECTORS, Artifact, is_artifact, with_artifact
from asterisk.common import plugins, process_memory
from asterisk.common.errors import ArtifactError, FidelityError, UsageError, integer
from asterisk.common.files import has_file
from asterisk.runtimes.engine import ArtifactEngine
from asterisk.runtimes.runtime import Runtime, Vectors
from asterisk.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from asterisk.runtimes.memory_budget import Budget

GROUP = "asterisk.runtimes"
CHECKPOINT_FILES = ("config.json", "modules.json")  # one of which every checkpoint has
MOST_THREADS = 256
MOST_GOLDEN_TEXTS = 10_000
UNIT = 1e-3  # how far a golden vector's length may be from one


def load(
    path: str | os.PathLike[str], *, threads: int = 1, max_memory: int | None = None
) -> Runtime:
    """Open an artifact, or a checkpoint folder with PyTorch, ready to encode.

    ``threads`` texts are encoded at once when many are given. The whole process stays under
    ``max_memory`` bytes: fewer threads and shorter texts are chosen where needed, and
    ``Runtime.budget`` says which. ArtifactError for anything that cannot be trusted, MissingExtra
    where the engine is not installed, BudgetError where nothing would fit.
    """
    threads = integer("threads", threads, 1, MOST_THREADS)
    folder = Path(path)
    if is_artifact(folder):
        opener = partial(open_runtime, threads=threads, max_memory=max_memory)
        runtime = with_artifact(folder, opener)
    elif any(has_file(folder, name) for name in CHECKPOINT_FILES):
        if max_memory is not None:
            reason = "opened with PyTorch, which keeps to no memory limit; export it first"
            raise UsageError(f"{folder} is a checkpoint, {reason}")
        # The declared exception: PyTorch opens the checkpoint itself.
        runtime = plugins.find(GROUP, "torch")(folder, threads)
    else:
        raise ArtifactError(f"{folder} is neither an artifact nor a checkpoint")
    runtime.path, runtime.max_memory = folder.absolute(), max_memory
    return runtime


def reopen(path: str, threads: int, max_memory: int | None) -> Runtime:
    """Open the model of a pickled runtime again."""
    if not Path(path).exists():
        raise ArtifactError(f"a pickled runtime opens its model again, and {path} is gone")
    return load(path, threads=threads, max_memory=max_memory)


def open_runtime(artifact: Artifact, *, threads: int = 1, max_memory: int | None = None) -> Runtime:
    """Open an artifact that has been checked."""
    if max_memory is None:
        return open_as(artifact, threads, None)
    from asterisk.runtimes.memory_budget import Planner

    planner = Planner.of(artifact, threads, max_memory)
    while True:  # a plan that did not hold is followed by a smaller one, or refused
        budget = planner.plan()
        runtime = open_as(artifact, budget.threads, budget)
        if planner.holds(budget, artifact.folder):
            return runtime
        runtime.close()
        del runtime
        process_memory.trim_heap()


def open_as(artifact: Artifact, threads: int, budget: Budget | None) -> Runtime:
    """Open an artifact that has been checked with so many sessions, as ``budget`` says if given."""
    manifest = artifact.manifest
    engine = plugins.find(GROUP, manifest.format)
    if not (isinstance(engine, type) and issubclass(engine, ArtifactEngine)):
        raise ArtifactError(f"{manifest.format} is no format of artifacts")
    longest = budget.longest if budget else artifact.config.max_seq_length
    runtime = Runtime(
        engine.open_for(artifact, threads, longest),  # no name for them: closing is enough then
        open_tokenizer(artifact.tokenizer),
        artifact.config,
        manifest.fingerprint,
        budget,
        source=manifest,
        recipe=manifest.recipe,
    )
    runtime.embed_ids([0])  # what only a start and a first call need is over now
    process_memory.forget_files()
    if budget is not None:
        runtime.fill()  # with the files' pages out of the way
    # Last: it makes thousands of mappings, which take time to list.
    process_memory.map_alone(artifact.folder)
    process_memory.trim_heap()
    return runtime


@dataclass(frozen=True, slots=True)
class Verdict:
    """Cosines of an artifact's golden texts, embedded on this machine, with their FP32 vectors."""

    artifact: Artifact
    texts: int
    cosine_mean: float
    cosine_min: float


def verify(folder: Path) -> Verdict:
    """Check an artifact's hashes, embed its golden texts and compare; FidelityError if far off."""
    return with_artifact(folder, _verify)


def _verify(artifact: Artifact) -> Verdict:
    texts, expected = _golden(artifact)
    with open_runtime(artifact) as runtime:
        found = runtime.encode(texts, prompt="", normalize=True)
    cosines = np.einsum("ij,ij->i", found.astype("f8"), expected.astype("f8"))
    lowest, least = float(cosines.min()), artifact.manifest.thresholds.cosine_min
    if not lowest >= least:  # also when it is not a number
        raise FidelityError(f"{artifact.folder}: cosine to FP32 is {lowest:.5f}, below {least}")
    return Verdict(artifact, len(texts), float(cosines.mean()), lowest)


def _golden(artifact: Artifact) -> tuple[list[str], Vectors]:
    path = artifact.folder / GOLDEN_VECTORS
    try:
        texts: Any = json.loads((artifact.folder / GOLDEN_TEXTS).read_bytes())
        # Mapped, so that a header that lies about its size cannot ask for memory.
        vectors: Any = np.lib.format.open_memmap(path, mode="r")
        fits = vectors.shape == (len(texts), artifact.config.embedding_size)
    except Exception:  # whatever json and numpy raise for what is neither
        raise ArtifactError(f"{artifact.folder}: golden texts or vectors cannot be read") from None
    strings = isinstance(texts, list) and all(isinstance(text, str) and text for text in texts)
    if not (fits and strings and 1 <= len(texts) <= MOST_GOLDEN_TEXTS and vectors.dtype == "f4"):
        raise ArtifactError(f"{artifact.folder}: golden texts and vectors do not belong together")
    expected = np.array(vectors)
    # A longer vector would have a cosine above one, and anything would be near enough to it.
    if not np.abs(np.linalg.norm(expected.astype("f8"), axis=1) - 1).max() < UNIT:
        raise ArtifactError(f"{artifact.folder}: golden vectors are not of unit length")
    return texts, expected

"""A limit on a process's memory: what a model needs, and how much of it fits; see docs/memory.md.

The estimate is an upper bound from the model's shape, of what a control group is charged: anonymous
memory, and each page of a file once. Every file of the model counts as a whole, although most of
its token table is seldom read: without room for it, texts would wait for its pages again and again.

`COSTS` bound what ``python -m benchmarks.budget ARTIFACT`` measured with the pinned engines, x86-64
and glibc. They need not be exact: a runtime that was opened is measured, and planned again if it is
over its limit.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asterisk.artifact import GOLDEN_TEXTS, GOLDEN_VECTORS, MANIFEST, Artifact
from asterisk.common import process_memory
from asterisk.common.errors import BudgetError, UsageError, integer
from asterisk.common.process_memory import MOST_MAPPINGS, resident
from asterisk.model.config import ModelConfig, llama_shape

MB = 1 << 20
UNITS = {"": 1, "K": 1 << 10, "M": MB, "G": 1 << 30}
LARGEST = 1 << 50
LENGTHS = (128, 256)  # tokens, below the model's own maximum
BATCHES = (16, 32, 64)  # texts
TEXT = 64 << 10  # bytes set aside for each, its vector and what is written of it
BASE = 30 * MB  # Python, numpy and this package, where the system does not say
WORDS = 3 * MB // 2  # the tokenizer's cache of words, once full
MARGIN = 3 * MB  # page tables, stacks, what the kernel holds for the process
MARGIN_SHARE = 25  # and one part in so many, for a heap with holes
MAPPING = 256  # bytes the kernel holds for one; see `process_memory.map_alone`
FLOAT = 4
_LINES = 32  # a line is decoded, stripped and parsed: copies of up to four bytes a character
_LEAST_SURPLUS = MB
_SWAY = MB // 2  # by which a process may take more when it is started again
_SIZE = re.compile(r"([0-9]{1,16})([KMG]?)")


def parse(text: str) -> int:
    """Return the bytes that "128M" means, as systemd's ``MemoryMax``; UsageError if nothing."""
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < size <= LARGEST:
        raise UsageError(f"{text[:40]!r} is no amount of memory; write 128M, say, or bytes")
    return size


def format_size(size: int) -> str:
    """Return ``size`` bytes in M, rounded up: `parse` reads back at least as much."""
    return f"{-(-size // MB)}M"


def add_option(it: argparse.ArgumentParser) -> None:
    """Add ``--max-memory`` to a command."""

    def size(text: str) -> int:
        try:
            return parse(text)
        except UsageError as failure:
            raise argparse.ArgumentTypeError(str(failure)) from None

    what = "stay under this: fewer threads or shorter texts are chosen, or it is refused"
    it.add_argument("--max-memory", type=size, metavar="128M", help=what)


@dataclass(frozen=True, slots=True)
class Costs:
    """What an engine takes beyond its files.

    Of a library the kernel maps more where it has it in large folios, which depends on how the file
    came to be cached: twice as much was seen.
    """

    opening: int  # bytes once a process while a model is read in, the library's included
    running: int  # and from then on
    session: int  # bytes a session, without weights
    hidden: float  # how many activations of each size a session holds at once
    inner: float
    scores: float
    copies: bool  # whether a session has a packed copy of the layers of its own


COSTS: Mapping[str, Costs] = {
    "onnx": Costs(19 * MB, 18 * MB, 2 * MB, 4, 1.25, 1, copies=True),
    "tflite": Costs(4 * MB, 4 * MB, 3 * MB // 2, 2, 1.25, 1, copies=True),
    "gguf": Costs(30 * MB, 12 * MB, 5 * MB // 2, 3, 2, 0, copies=False),
}


@dataclass(frozen=True, slots=True)
class Model:
    """What an estimate needs to know of an artifact."""

    format: str
    recipe: str
    config: ModelConfig
    files: int  # bytes of those that are mapped


def need(model: Model, sessions: int, longest: int, texts: int = 0) -> int:
    """Return the bytes beyond what the process already has, margin included.

    ``longest`` is in tokens; ``texts`` are bytes of what is to be embedded and what came out.
    """
    costs, config, is_gguf = COSTS[model.format], model.config, model.format == "gguf"
    hidden, inner, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    layers = config.num_layers * (4 * hidden * hidden + 2 * hidden * inner)
    # Of int8 a few channels may be floats; what any other recipe is unpacked to, nobody knows.
    packed = layers * 5 // 4 if model.recipe.startswith(("int8", "q")) else layers * FLOAT
    mappings = MAPPING * min(MOST_MAPPINGS, sessions * model.files // 4096)
    opened = (sessions if costs.copies else 1) * packed + sessions * costs.session + mappings
    # Attention's scores are heads x tokens x tokens, the widest layer tokens x intermediate size.
    floats = costs.hidden * hidden + costs.inner * inner + costs.scores * config.num_heads * longest
    shape = llama_shape(config) if is_gguf else None
    if shape is not None and shape.architecture == "gpt2":
        floats += 2 * vocabulary  # logits, computed and put out
    activations = sessions * int(FLOAT * longest * floats)
    at_once = [
        costs.opening + model.files + opened,
        costs.running + model.files + opened + activations + WORDS + texts,
    ]
    if is_gguf:
        # llama.cpp clears logits that an encoder never fills: one session after the other does,
        # before texts have brought the token table in.
        at_once.append(costs.running + opened + activations + FLOAT * longest * vocabulary)
    return max(at_once) + MARGIN + max(at_once) // MARGIN_SHARE


@dataclass(frozen=True, slots=True)
class Budget:
    """What was chosen to stay within ``limit`` bytes."""

    limit: int
    group: bool  # the limit is the control group's own, lower than the one that was asked for
    asked: int  # threads
    threads: int  # of which there are to be so many
    most: int  # tokens of a text that the model takes
    longest: int  # tokens of a text that fits
    batch: int  # texts at a time
    need: int  # bytes that are thought to be used

    @property
    def message(self) -> str:
        """One line if it is less than was asked for, else nothing."""
        less = []
        if self.threads < self.asked:
            plural = "" if self.threads == 1 else "s"
            less.append(f"{self.threads} thread{plural} instead of {self.asked}")
        if self.longest < self.most:
            less.append(f"texts of at most {self.longest} tokens instead of {self.most}")
        return f"{_named(self.limit, self.group)} allows {' and '.join(less)}" if less else ""

    @property
    def texts(self) -> int:
        """Bytes that the texts of one batch may take."""
        return self.batch * TEXT // 4

    @property
    def longest_line(self) -> int:
        """Bytes of a line of input."""
        return self.batch * TEXT // _LINES


class LimitTooLow(BudgetError):
    """A limit under which nothing fits; ``least`` bytes are enough for what the message names."""

    def __init__(self, what: str, least: int, rest: str, limit: int, group: bool) -> None:
        self.what, self.least, self.rest = what, least, rest
        size = format_size(least)
        super().__init__(f"{what} needs about {size} {rest}; {_named(limit, group)} is not enough")

    def with_reserved(self, reserved: int, total: int, limit: int, group: bool) -> LimitTooLow:
        """Return the same of a process of which ``reserved`` bytes are for requests."""
        rest = f"{self.rest}, and {format_size(reserved)} for requests"
        return LimitTooLow(self.what, total, rest, limit, group)


@dataclass(slots=True)
class Planner:
    """Chooses the most that fits: first whole texts, then threads, then the batch.

    Every step takes more memory than the one before and has neither fewer threads nor shorter
    texts, so more memory never means less of either. Texts come before threads because a shortened
    text has another vector, and fewer threads are only slower.
    """

    name: str
    model: Model
    asked: int
    limit: int
    group: bool
    base: int  # bytes that the process had before
    surplus: int = 0  # by how much the estimate was found to be too low

    @classmethod
    def of(cls, artifact: Artifact, threads: int, max_memory: int) -> Planner:
        """Look at the artifact, this process and its group; UsageError for an unknown format."""
        max_memory = integer("max_memory", max_memory, 1)
        manifest = artifact.manifest
        if manifest.format not in COSTS:
            needed = f"a memory limit needs an artifact of {', '.join(COSTS)}"
            raise UsageError(f"what {manifest.format} takes is not known: {needed}")
        names = set(manifest.files) - {MANIFEST, GOLDEN_TEXTS, GOLDEN_VECTORS}  # what is mapped
        files = sum((artifact.folder / name).stat().st_size for name in names)
        model = Model(manifest.format, manifest.recipe, artifact.config, files)
        lower = process_memory.limit()
        limit = max_memory if lower is None else min(lower, max_memory)
        base = resident(artifact.folder) or BASE
        return cls(artifact.folder.name, model, threads, limit, limit < max_memory, base)

    def plan(self) -> Budget:
        """Return the most that fits; BudgetError if nothing does."""
        most = self.model.config.max_seq_length
        steps = [(1, length) for length in LENGTHS if length < most]
        steps += [(threads, most) for threads in range(1, self.asked + 1)]
        fitting = [step for step in steps if self.expected(*step, BATCHES[0]) <= self.limit]
        if not fitting:
            least = self.expected(*steps[0], BATCHES[0]) + _SWAY
            already = f"{format_size(self.base)} of which this process takes already"
            rest = f"for texts of {steps[0][1]} tokens on one thread, {already}"
            raise LimitTooLow(self.name, least, rest, self.limit, self.group)
        threads, longest = fitting[-1]
        batch = max(size for size in BATCHES if self.expected(threads, longest, size) <= self.limit)
        expected = self.expected(threads, longest, batch)
        return Budget(self.limit, self.group, self.asked, threads, most, longest, batch, expected)

    def holds(self, budget: Budget, folder: Path) -> bool:
        """Tell whether what was opened by ``budget`` is under the limit; if not, learn from it.

        Every session has run its longest text. What is still to come is added.
        """
        outside = resident(folder) or 0
        found = outside + outside // MARGIN_SHARE + self.model.files + WORDS + budget.batch * TEXT
        if not outside or found <= self.limit:
            return True
        self.surplus += max(found - budget.need, _LEAST_SURPLUS)
        return False

    def expected(self, threads: int, longest: int, batch: int) -> int:
        """Return the bytes of the whole process for such a choice, margin included."""
        return self.base + self.surplus + need(self.model, threads, longest, batch * TEXT)


def _named(limit: int, group: bool) -> str:
    # Rounded down, so that what is not enough never reads as what is needed.
    size = f"{limit // MB}M" if limit >= MB else f"{limit} bytes"
    return f"the control group's limit of {size}" if group else f"a memory limit of {size}"

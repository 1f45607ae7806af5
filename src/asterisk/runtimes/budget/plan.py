"""From a limit to threads, the longest text and how many texts are read at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asterisk.artifact import GOLDEN_TEXTS, GOLDEN_VECTORS, MANIFEST, Artifact
from asterisk.common.errors import BudgetError, UsageError
from asterisk.common.validation import integer
from asterisk.runtimes.budget import group
from asterisk.runtimes.budget.estimate import BASE, COSTS, MARGIN_SHARE, MB, WORDS, Model, need
from asterisk.runtimes.budget.resident import resident
from asterisk.runtimes.budget.size import told

LENGTHS = (128, 256)  # tokens, below the model's own maximum
BATCHES = (16, 32, 64)  # texts
TEXT = 64 << 10  # bytes set aside for each, its vector and what is written of it
_LINES = 32  # a line is decoded, stripped and parsed: copies of up to four bytes a character
_LEAST_SURPLUS = MB
_SWAY = MB // 2  # by which a process may take more when it is started again


@dataclass(frozen=True, slots=True)
class Budget:
    """What was chosen to stay within ``limit`` bytes, of which ``need`` are thought to be used.

    ``threads`` of the ``asked`` ones, texts of at most ``longest`` tokens where the model takes
    ``most``, ``batch`` texts at a time. ``group`` tells that the limit is the control group's own,
    lower than the one that was asked for.
    """

    limit: int
    group: bool
    asked: int
    threads: int
    most: int
    longest: int
    batch: int
    need: int

    @property
    def told(self) -> str:
        """One line if it is less than was asked for, else nothing."""
        less = []
        if self.threads < self.asked:
            less.append(f"{_threads(self.threads)} instead of {self.asked}")
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


class TooLittle(BudgetError):
    """A limit under which nothing fits; ``least`` bytes are enough for what is named."""

    def __init__(self, what: str, least: int, rest: str, limit: int, group: bool) -> None:
        self.what, self.least, self.rest = what, least, rest
        super().__init__(
            f"{what} needs about {told(least)} {rest}; {_named(limit, group)} is not enough"
        )

    def beside(self, kept: int, total: int, limit: int, group: bool) -> TooLittle:
        """Return the same of a process that keeps ``kept`` bytes of ``total`` for other things."""
        rest = f"{self.rest}, and {told(kept)} for requests"
        return TooLittle(self.what, total, rest, limit, group)


@dataclass(slots=True)
class Planner:
    """Chooses the most that fits: first whole texts, then threads, then the batch.

    Every step on that way takes more memory than the one before and has neither fewer threads nor
    shorter texts, so more memory never means less of either. Texts come before threads because a
    shortened text has another vector, and fewer threads are only slower.

    ``base`` are the bytes the process had before; ``surplus`` is by how much the estimate was found
    to be too low.
    """

    name: str
    model: Model
    asked: int
    limit: int
    group: bool
    base: int
    surplus: int = field(default=0)

    @classmethod
    def of(cls, artifact: Artifact, threads: int, max_memory: int) -> Planner:
        """Look at the artifact, this process and its group; UsageError unless all is known."""
        max_memory = integer("max_memory", max_memory, 1)
        manifest = artifact.manifest
        if manifest.format not in COSTS:
            raise UsageError(
                f"what {manifest.format} takes is not known: a memory limit needs an artifact of "
                f"{', '.join(COSTS)}"
            )
        unmapped = {MANIFEST, GOLDEN_TEXTS, GOLDEN_VECTORS}
        names = set(manifest.files) - unmapped
        files = sum((artifact.folder / name).stat().st_size for name in names)
        model = Model(manifest.format, manifest.recipe, artifact.config, files)
        lower = group.limit()
        grouped = lower is not None and lower < max_memory
        limit = lower if grouped and lower is not None else max_memory
        base = resident(artifact.folder) or BASE
        return cls(artifact.folder.name, model, threads, limit, grouped, base)

    def plan(self) -> Budget:
        """Return the most that fits; BudgetError if nothing does."""
        fitting = [step for step in self._steps() if self.expected(*step, BATCHES[0]) <= self.limit]
        if not fitting:
            raise self._refusal()
        threads, longest = fitting[-1]
        batch = max(size for size in BATCHES if self.expected(threads, longest, size) <= self.limit)
        most = self.model.config.max_seq_length
        expected = self.expected(threads, longest, batch)
        return Budget(self.limit, self.group, self.asked, threads, most, longest, batch, expected)

    def holds(self, budget: Budget, folder: Path) -> bool:
        """Tell whether what was opened by ``budget`` is under the limit; if not, learn from it.

        Every session should have run its longest text. What is still to come is added.
        """
        outside = resident(folder)
        if outside is None:
            return True
        found = outside + outside // MARGIN_SHARE + self.model.files + WORDS + budget.batch * TEXT
        if found <= self.limit:
            return True
        self.surplus += max(found - budget.need, _LEAST_SURPLUS)
        return False

    def _steps(self) -> Iterator[tuple[int, int]]:
        most = self.model.config.max_seq_length
        for length in (*(length for length in LENGTHS if length < most), most):
            yield 1, length
        for threads in range(2, self.asked + 1):
            yield threads, most

    def expected(self, threads: int, longest: int, batch: int) -> int:
        """Return the bytes of the whole process for such a choice, margin included."""
        return self.base + self.surplus + need(self.model, threads, longest, batch * TEXT)

    def _refusal(self) -> TooLittle:
        threads, longest = next(self._steps())
        least = self.expected(threads, longest, BATCHES[0]) + _SWAY
        rest = (
            f"for texts of {longest} tokens on one thread, "
            f"{told(self.base)} of which this process takes already"
        )
        return TooLittle(self.name, least, rest, self.limit, self.group)


def _named(limit: int, group: bool) -> str:
    # Rounded down, so that what is not enough never reads as what is needed.
    size = f"{limit // MB}M" if limit >= MB else f"{limit} bytes"
    return f"the control group's limit of {size}" if group else f"a memory limit of {size}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"

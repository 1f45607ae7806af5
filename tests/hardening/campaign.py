"""Campaigns: many mutants or texts through one runtime, counted. What the tests and `fuzz` run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import asterisk
from asterisk.artifact import open_artifact
from hardening import attempt, mutants

HERE = Path(__file__).parent


@dataclass
class Outcome:
    """What became of the mutants of one artifact."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    most_memory: int = 0  # MB

    def add(self, label: str, told: dict[str, Any], least: float) -> None:
        """Count one answer of the nursery."""
        self.counts["mutants"] += 1
        self.most_memory = max(self.most_memory, told.get("rss", 0))
        if fatal := told.get("fatal"):
            self.counts["fatal"] += 1
            self.failures.append(f"{label}: {fatal}")
        elif not told["opened"] or told["cosine"] is None:
            self.counts["refused"] += 1
            if "\n" in told["refused"] or len(told["refused"]) > 2_000:
                self.failures.append(f"{label}: not one line: {told['refused']!r}")
        else:
            self._opened(label, told, least)

    def _opened(self, label: str, told: dict[str, Any], least: float) -> None:
        self.counts["opened"] += 1
        if not told["finite"]:
            self.failures.append(f"{label}: vectors that are not finite")
        right = told["cosine"] >= least
        self.counts["same vectors" if right else "other vectors"] += 1
        if not told["verified"]:
            self.counts["verify refuses"] += 1
        elif not right:
            self.counts["missed"] += 1
            self.missed.append(f"{label}: cosine {told['cosine']:.4f}, yet it verifies")


def artifacts(
    original: Path, seed: int, count: int, tell: Callable[[str, Any], None] = lambda *_: None
) -> Outcome:
    """Open ``count`` mutants of ``original`` and count what happens."""
    manifest = open_artifact(original).manifest
    outcome = Outcome()
    with tempfile.TemporaryDirectory(dir=original.parent, prefix="mutants-") as name:
        work = Path(name)
        with asterisk.load(original) as runtime:
            np.save(work / "truth.npy", runtime.encode(attempt.PROBES))
        command = [sys.executable, "-m", "hardening.attempt", manifest.format, "truth.npy"]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=work,
            env={"PYTHONPATH": str(HERE.parent), "PATH": "/usr/bin:/bin"},
        ) as nursery:
            for label, changed in mutants.mutants(original, seed, count):
                mutants.write(work / "mutant", original, changed)
                nursery.stdin.write(f"{work / 'mutant'}\n")
                nursery.stdin.flush()
                told = json.loads(nursery.stdout.readline())
                outcome.add(label, told, manifest.thresholds.cosine_min)
                tell(label, told)
                shutil.rmtree(work / "mutant")
            nursery.stdin.close()
    return outcome


def texts(
    artifact: Path, seed: int, count: int, timeout: float
) -> tuple[dict[str, int], list[tuple[list[int], np.ndarray]]]:
    """Embed ``count`` hostile texts in a process that may die of them.

    Returns its counts, and every 50th text's ids and vector. AssertionError where it did not end
    well; TimeoutExpired where it did not end.
    """
    with tempfile.TemporaryDirectory() as name:
        sample = Path(name, "sample.npz")
        done = subprocess.run(
            [sys.executable, HERE / "texts_child.py", artifact, str(seed), str(count), sample],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"
        kept = np.load(sample)
        ids, lengths, vectors = kept["ids"], kept["lengths"], kept["vectors"]
    ends = np.cumsum(lengths)
    rows = [
        (ids[end - length : end].tolist(), vector)
        for end, length, vector in zip(ends, lengths, vectors, strict=True)
    ]
    return json.loads(done.stdout.splitlines()[-1]), rows

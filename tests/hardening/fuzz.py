"""Larger campaigns than the tests': hostile texts and mutated artifacts through the runtimes.

``python tests/hardening/fuzz.py --texts 100000 --artifacts 1000 --seed 7 --format all`` exports the
shipped checkpoint for the texts and a small random one for the mutants, prints one line a campaign
and every failure, and ends with status 1 if there was one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import SHIPPED, random_checkpoint, thresholds_of

from asterisk.exporters.export import export
from asterisk.model.checkpoint import load
from asterisk.runtimes.torch import reference
from hardening import campaign
from hardening.conftest import RECIPES, SMALL


def texts(folder: Path, name: str, seed: int, count: int) -> bool:
    """Run one campaign of texts; tell whether all was well."""
    checkpoint = load(SHIPPED)
    artifact = export(checkpoint, name, RECIPES[name], folder / f"shipped-{name}").folder
    start = time.monotonic()
    try:
        told, sample = campaign.texts(artifact, seed, count, 3_600 + count / 10)
    except (AssertionError, subprocess.TimeoutExpired) as failure:
        print(f"{name}: texts: {failure}")
        return False
    seconds = time.monotonic() - start
    with reference(checkpoint) as truth:
        cosines = [
            row @ vector / np.sqrt((row @ row) * (vector @ vector))
            for ids, row in sample
            for vector in (truth.embed_ids(ids),)
        ]
    least = thresholds_of(name, RECIPES[name]).cosine_min
    print(
        f"{name}: {told['texts']} texts, {told['embedded']} embedded twice to the same bits, "
        f"{told['refused']} refused, {told['truncated']} truncated; cosine to FP32 of "
        f"{len(cosines)} of them: min {min(cosines):.5f} mean {np.mean(cosines):.5f}; "
        f"{seconds:.0f} s",
        flush=True,
    )
    return bool(min(cosines) >= least)


def artifacts(folder: Path, name: str, seed: int, count: int) -> bool:
    """Run one campaign of mutants; tell whether all was well."""
    original = export(random_checkpoint(SMALL, "small"), name, RECIPES[name], folder / name).folder
    start = time.monotonic()
    outcome = campaign.artifacts(original, seed, count)
    told = ", ".join(f"{number} {what}" for what, number in outcome.counts.most_common())
    seconds = time.monotonic() - start
    print(f"{name}: {told}; at most {outcome.most_memory} MB; {seconds:.0f} s", flush=True)
    for failure in outcome.failures:
        print(f"  {failure}")
    for missed in outcome.missed:
        print(f"  missed by verification: {missed}")
    return not outcome.failures


def main() -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=0, help="texts a format")
    parser.add_argument("--artifacts", type=int, default=0, help="mutants a format")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=["all", *sorted(RECIPES)], default="all")
    given = parser.parse_args()
    well = True
    with tempfile.TemporaryDirectory() as name:
        for format in sorted(RECIPES) if given.format == "all" else [given.format]:
            if given.artifacts:
                well &= artifacts(Path(name), format, given.seed, given.artifacts)
            if given.texts:
                well &= texts(Path(name), format, given.seed, given.texts)
    return not well


if __name__ == "__main__":
    sys.exit(main())

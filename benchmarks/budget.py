"""What an artifact takes on this machine, beside the estimate of `runtimes.memory_budget`.

``python -m benchmarks.budget ARTIFACT`` opens it in a process of its own for each number of
threads and each longest text, has every session run every token of the vocabulary in texts of all
lengths, and prints a line: the peak while it was opened (peak RSS), the peak while it ran
(anonymous memory, sampled, and each page of a file once), what was estimated, and what share of
that was used. A share above 100 % says that its constants are too low for this machine.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from asterisk.artifact import open_artifact
from asterisk.cli.common import Parser, run
from asterisk.common.errors import EngineError
from asterisk.common.process_memory import resident
from asterisk.runtimes.memory_budget import LARGEST, LENGTHS, MB, Budget, Planner

THREADS = (1, 2, 4)
EVERY = 0.002  # seconds between samples


def measure(folder: Path, threads: int, longest: int) -> dict[str, int]:
    """Return bytes: ``base``, ``opening``, ``running`` and ``estimate``. For a fresh process."""
    from asterisk.runtimes.load import open_as

    artifact = open_artifact(folder)
    planner = Planner.of(artifact, threads, LARGEST)
    budget = Budget(LARGEST, False, threads, threads, longest, longest, 0, 0)
    runtime = open_as(artifact, threads, budget)
    opening = _status("VmHWM")
    peaks = [0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            peaks[0] = max(peaks[0], _status("RssAnon"))
            time.sleep(EVERY)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        ids = list(range(artifact.config.vocab_size))
        chance.shuffle(ids)
        while ids:
            count = chance.randint(1, longest)
            runtime.embed_ids(ids[-count:])
            del ids[-count:]

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
    watcher = threading.Thread(target=watch)
    for one in (watcher, *workers):
        one.start()
    for one in workers:
        one.join()
    ended.set()
    watcher.join()
    files = (resident(artifact.folder) or 0) - _status("RssAnon")
    return {
        "base": planner.base,
        "opening": opening,
        "running": peaks[0] + files + planner.model.files,
        "estimate": planner.expected(threads, longest, 0),
    }


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not found:
        raise EngineError(f"this system does not say {name}")
    return int(found[1]) << 10


def table(arguments: argparse.Namespace) -> int:
    """Print the table, or with three arguments the measurement of one process as JSON."""
    folder = arguments.artifact
    if arguments.cell:
        import numpy as np  # noqa: F401 - part of what every process has

        print(json.dumps(measure(folder, *arguments.cell)))
        return 0
    most = open_artifact(folder).config.max_seq_length
    print("threads  longest   base  opening  running  estimate  used (M)")
    for threads in THREADS:
        for longest in sorted({*(length for length in LENGTHS if length < most), most}):
            command = [
                sys.executable,
                "-m",
                __spec__.name,
                str(folder),
                "--cell",
                str(threads),
                str(longest),
            ]
            finished = subprocess.run(command, capture_output=True, text=True, check=True)
            found = {name: size / MB for name, size in json.loads(finished.stdout).items()}
            used = max(found["opening"], found["running"]) / found["estimate"]
            print(
                f"{threads:7} {longest:8} {found['base']:6.1f} {found['opening']:8.1f} "
                f"{found['running']:8.1f} {found['estimate']:9.1f}  {used:4.0%}",
                flush=True,
            )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study."""
    it = Parser(prog="python -m benchmarks.budget", description=__doc__)
    it.add_argument("artifact", type=Path)
    it.add_argument("--cell", type=int, nargs=2, help=argparse.SUPPRESS)
    return run(it, table, argv)


if __name__ == "__main__":
    sys.exit(main())

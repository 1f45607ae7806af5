"""Memory over many texts of all lengths: ``python memory_child.py ARTIFACT COUNT`` prints JSON.

A vocabulary's cache fills and is emptied in turn, so one reading says little: compared are the
medians of ten readings over the second tenth of the texts and over the last. ``own`` is what the
process wrote (anonymous pages), in kB; ``mapped`` is its share of files. That grows for as long as
texts use rows of the table that none has used before, up to the files' size, and no further.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import asterisk
from hardening.hostile import texts


def memory() -> tuple[int, int]:
    """Return the pages that this process wrote and its share of mapped files, in kB."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    own, mapped = (int(rollup.split(f"{name}:")[1].split()[0]) for name in ("Pss_Anon", "Pss_File"))
    return own, mapped


def main(folder: str, count: int) -> None:
    chance = random.Random(5)
    words = [f"{stem}{end}" for stem in ("tree", "qx", "Ärger", "12", "漢字") for end in range(40)]
    strange = texts(6, count, longest=20_000)
    readings: list[tuple[int, int]] = []
    with asterisk.load(folder) as runtime:
        for index in range(count):
            length = int(2 ** chance.uniform(0, 9.5))  # words, beyond 512 tokens at the end
            text = " ".join(chance.choices(words, k=length)) if index % 2 else next(strange)
            runtime.encode(text or "a")
            if index % (count // 100) == 0:
                readings.append(memory())
        told = {"texts": count, "truncated": runtime.truncated}
    for kind, index in (("own", 0), ("mapped", 1)):
        told[kind] = [
            int(statistics.median(reading[index] for reading in some))
            for some in (readings[10:20], readings[-10:])
        ]
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

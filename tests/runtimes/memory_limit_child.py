"""``python memory_limit_child.py ARTIFACT TEXTS THREADS LIMIT OUT`` embeds lines and prints JSON.

LIMIT 0 is none; ``quartered`` as a sixth argument quarters every estimate. ``peak`` is the
largest RSS so far and ``own`` the largest anonymous part of it, in bytes; ``libraries`` are the
pages of other files than the model's, whose sizes together are ``files``.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from pathlib import Path

import numpy as np

import asterisk
from asterisk.common.process_memory import resident
from asterisk.runtimes import memory_budget


def status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10


def main(folder: str, texts: str, *options: str) -> None:
    threads, limit, out, *quartered = options
    peaks = [0]

    def watch() -> None:
        while True:
            peaks.append(status("RssAnon"))
            time.sleep(0.002)

    if quartered:
        need, memory_budget.need = memory_budget.need, lambda *about: need(*about) // 4
        memory_budget.Planner.holds = lambda *about: True
    threading.Thread(target=watch, daemon=True).start()
    with asterisk.load(folder, threads=int(threads), max_memory=int(limit) or None) as runtime:
        vectors = runtime.encode(Path(texts).read_text("utf-8").splitlines())
        budget = runtime.budget
        measured = {
            "threads": budget.threads if budget else int(threads),
            "longest": runtime.longest,
            "truncated": runtime.truncated,
            "peak": status("VmHWM"),
            "own": max(peaks),
            "libraries": (resident(Path(folder)) or 0) - status("RssAnon"),
            "files": sum(
                path.stat().st_size
                for path in Path(folder).iterdir()
                if not path.name.startswith(("golden", "artifact"))
            ),
        }
    np.save(out, vectors)
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])

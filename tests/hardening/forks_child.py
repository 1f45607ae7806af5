"""What becomes of an open runtime in a process that forks.

``python forks_child.py ARTIFACT`` prints one JSON line. Every child is given a time: one that
waits for a thread that it does not have never ends by itself.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import signal
import sys
import threading
import warnings

import numpy as np

import asterisk
from asterisk.common.errors import EngineError

TEXTS = [f"text number {number} " * (1 + number % 7) for number in range(40)]
LIMIT = 60  # seconds
opened: list[asterisk.Runtime] = []  # a pool can only call what a module has
RIGHT, REFUSED, WRONG, HUNG = "right", "refused", "wrong", "hung"


def forked(work) -> str:
    """Fork, do ``work`` there, and return what the child says of it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = RIGHT if work() else WRONG
        except EngineError as failure:
            said = REFUSED if "load it again in the child" in str(failure) else repr(failure)
        except BaseException as failure:
            said = repr(failure)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    if not select.select([reader], [], [], LIMIT)[0]:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read() or HUNG


def main(folder: str) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # that threads and forks do not go together
    told: dict[str, object] = {}
    runtime = asterisk.load(folder, threads=2)
    expected = runtime.encode(TEXTS)

    def same() -> bool:
        return np.array_equal(runtime.encode(TEXTS), expected)

    told["idle"] = [forked(same) for _ in range(3)]
    told["grandchild"] = forked(lambda: forked(same) == RIGHT)
    told["child of a child that closes"] = forked(lambda: runtime.close() is None)
    assert same()

    # As torch's DataLoader works: a pool of forked workers, each with the parent's runtime.
    opened.append(runtime)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        rows = pool.map_async(encode, TEXTS).get(timeout=120)
    told["pool"] = RIGHT if np.array_equal(np.stack(rows), expected) else WRONG

    # Other threads are at it while the process forks, and hold engines and locks.
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            runtime.encode(TEXTS)
            runtime.encode("word " * 700)  # counted under a lock

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    told["busy"] = [forked(same) for _ in range(20)]
    told["loaded again"] = forked(
        lambda: np.array_equal(asterisk.load(folder, threads=2).encode(TEXTS), expected)
    )
    stop.set()
    for thread in threads:
        thread.join()
    assert same()  # the parent has lost nothing
    told["after"] = forked(same)
    print(json.dumps(told))


def encode(text: str) -> np.ndarray:
    return opened[0].encode(text)


if __name__ == "__main__":
    main(sys.argv[1])

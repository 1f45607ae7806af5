"""The other end of an ssh connection: runs one worker, and ends it when nobody waits any more.

``python -m asterisk.bench.targets.keeper`` reads one JSON line, ``{"module", "spec", "timeout"}``,
and answers with the worker's object or ``{"error": line}``. Its input stays open meanwhile; when
that ends, the connection is gone, and so are this process and all it started.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from threading import Thread
from typing import Any

from asterisk.bench import spawn
from asterisk.bench.answer import answer


def main() -> int:
    """Read what to run, run it, answer."""
    if os.getpid() != os.getpgid(0):
        os.setpgid(0, 0)
    asked = json.loads(sys.stdin.buffer.readline())
    Thread(target=_watch, daemon=True).start()
    answer(lambda: _ask(asked))
    return 0


def _ask(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        return spawn.ask(asked["module"], asked["spec"], asked["timeout"])
    except spawn.CellError as failure:
        return {"error": str(failure)}


def _watch() -> None:
    while os.read(0, 1 << 12):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())

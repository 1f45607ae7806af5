"""Starting a process that answers with one JSON line, and surviving one that does not.

``python -m asterisk.bench.process`` is the other end of an ssh connection: it runs the module that
one JSON line names. When its input ends, the connection is gone, and so are this process and all it
started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import asterisk
from asterisk.bench.worker import answer

MAX_ANSWER = 64 << 20  # bytes


class CellError(Exception):
    """A process that gave no answer; the message is one line."""


def ask(
    module: str,
    spec: Mapping[str, Any],
    timeout: float | None,
    *,
    quiet: bool = True,
    python: Sequence[str] = (sys.executable,),
) -> dict[str, Any]:
    """Run ``python -m module`` with ``spec`` on its stdin and return the object it prints.

    CellError if the process crashes, takes more than ``timeout`` seconds, prints anything but one
    JSON object, or answers with an ``error``. Unless ``quiet``, its stderr is the caller's.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*python, "-P", "-m", module],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe if quiet else None,
        env=environment(python[0]),
    ) as process:
        try:
            # Not polling, which would slow the child down where cores are few.
            out, noise = process.communicate(json.dumps(spec).encode(), timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise CellError(f"gave no answer in {timeout:g} s and was stopped") from None
        except BaseException:
            process.kill()
            raise
    return _answer(process.returncode, out, noise or b"")


def environment(python: str) -> dict[str, str] | None:
    """Return what another interpreter needs to find this package; None for this interpreter.

    Nothing from a site-packages folder: everything else in it would come along.
    """
    home = Path(asterisk.__file__).parents[1]
    if python == sys.executable or home.name in ("site-packages", "dist-packages"):
        return None
    paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _answer(status: int, out: bytes, noise: bytes) -> dict[str, Any]:
    if status:
        cause = f"ended with status {status}"
        if status < 0:
            names = {it.value: it.name for it in signal.Signals}
            cause = f"crashed ({names.get(-status, f'signal {-status}')})"
        last = noise.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise CellError(f"{cause}: {last[0].strip()[:200]}" if last else cause)
    try:
        values = json.loads(out) if len(out) <= MAX_ANSWER else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise CellError(f"answered with {out[:40]!r} instead of a JSON object")
    if "error" in values:
        raise CellError(str(values["error"]))
    return values


def _supervise() -> int:
    if os.getpid() != os.getpgid(0):
        os.setpgid(0, 0)
    request = json.loads(sys.stdin.buffer.readline())

    def end_with_connection() -> None:
        while os.read(0, 1 << 12):
            pass
        os.killpg(0, signal.SIGKILL)

    Thread(target=end_with_connection, daemon=True).start()

    def run() -> dict[str, Any]:
        try:
            return ask(request["module"], request["spec"], request["timeout"])
        except CellError as failure:
            return {"error": str(failure)}

    return answer(run)


if __name__ == "__main__":
    sys.exit(_supervise())

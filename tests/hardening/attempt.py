"""What one mutated artifact does to a process: opened, refused, or the end of it.

The nursery is a process that has imported everything and opened nothing. For each folder named on
its standard input it forks; the child opens, verifies and embeds, and reports through a pipe. A
child that is killed by a signal, hangs or outgrows its memory takes nothing with it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import asterisk
from asterisk.common.errors import AsteriskError, FidelityError
from asterisk.runtimes.load import verify

ENGINES = {"onnx": "onnxruntime", "tflite": "ai_edge_litert.interpreter", "gguf": ""}
MEMORY = 1_500 << 20  # bytes of address space beyond what the nursery has
LIMIT = 20.0  # seconds; a quiet machine needs a tenth of one
PROBES = ["a", "The quick brown fox", "x" * 300, "漢字 and more", "12 345\n\t6", "word " * 700]


def attempt(folder: Path, truth: np.ndarray) -> dict[str, Any]:
    """Open, embed and verify; say what happened. Whatever is no error of ours is ``escaped``."""
    told: dict[str, Any] = {"opened": False, "refused": "", "verified": False, "cosine": None}
    try:
        with asterisk.load(folder) as runtime:
            told["opened"] = True
            found = runtime.encode(PROBES)
            told["finite"] = bool(np.isfinite(found).all())
            fits = found.shape == truth.shape
            told["cosine"] = float((found * truth).sum(1).min()) if fits else -1.0
    except AsteriskError as failure:
        told["refused"] = f"{type(failure).__name__}: {failure}"
    try:
        verify(folder)
        told["verified"] = True
    except FidelityError as failure:
        told["unfaithful"] = str(failure)
    except AsteriskError as failure:
        told["refused"] = told["refused"] or f"{type(failure).__name__}: {failure}"
    return told


def nursery(format: str, truth_file: str) -> None:
    """Answer each line, a folder, with a line of JSON."""
    if ENGINES[format]:
        importlib.import_module(ENGINES[format])
    else:
        importlib.import_module("asterisk.runtimes.llama_cpp").library()
    truth = np.load(truth_file)
    for line in sys.stdin:
        print(json.dumps(_forked(Path(line.rstrip("\n")), truth)), flush=True)


def _forked(folder: Path, truth: np.ndarray) -> dict[str, Any]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _as_child(folder, truth, writer)
    os.close(writer)
    told, late = _read(reader)
    if late:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    os.close(reader)
    answer = json.loads(told) if told.endswith(b"\n") else {}
    if late:
        answer["fatal"] = "hang"
    elif os.WIFSIGNALED(status):
        answer["fatal"] = signal.Signals(os.WTERMSIG(status)).name
    elif status or not answer:
        answer["fatal"] = answer.get("escaped", f"exit {status >> 8}")
    answer["rss"] = usage.ru_maxrss >> 10
    return answer


def _as_child(folder: Path, truth: np.ndarray, writer: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        told = attempt(folder, truth)
    except BaseException as failure:
        import traceback

        where = traceback.extract_tb(failure.__traceback__)[-1]
        told = {"escaped": f"{type(failure).__name__}: {failure} ({where.name}:{where.lineno})"}
    os.write(writer, json.dumps(told).encode() + b"\n")
    os._exit("escaped" in told)


def _read(reader: int) -> tuple[bytes, bool]:
    told, end = b"", time.monotonic() + LIMIT
    while (left := end - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            break
        if not (some := os.read(reader, 1 << 16)):
            return told, False
        told += some
    return told, True


if __name__ == "__main__":
    nursery(sys.argv[1], sys.argv[2])

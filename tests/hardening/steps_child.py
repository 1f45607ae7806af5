"""Exports that are stopped at every step, each in a fork of one warmed process.

``python steps_child.py FOLDER MODE REAL`` exports into FOLDER again and again, and each time the
N-th thing that it does to the file system goes wrong, N = 1, 2, ... until an export gets through:

kill    SIGKILL comes instead of it
full    it and all that would need space from then on fails with ENOSPC
half    SIGXFSZ kills the process in the middle of a write, once a file has N steps of bytes
large   the same write fails with EFBIG instead, as a full disk lets it fail

After each, the artifact in FOLDER has to be the old one or the new one, and whole; and one export
more has to get through and to leave nothing else behind. With ``first-`` before the mode there is
no old one, and then none or the new one; with ``plain-`` the system cannot exchange two names, and
the old one may stand aside for a moment. One line of JSON tells what was seen.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import random_checkpoint

from asterisk.artifact import Thresholds, open_artifact
from asterisk.common import files, texts
from asterisk.common.errors import OutputError, one_line
from asterisk.exporters import Recipe, Written
from asterisk.exporters import export as exporting
from asterisk.model.checkpoint import Checkpoint
from asterisk.model.config import ModelConfig
from asterisk.runtimes.load import verify

SMALL = ModelConfig(hidden_size=32, num_heads=1, num_layers=1, intermediate_size=64)
MODEL = 300_000  # bytes of the stub's model
SIZES = (0, 1, 100, 4_095, 4_096, 10_000, 65_536, 200_000, 299_999, 1_000_000, 1 << 24)
MOST = 400
WRITES = {"os.mkdir", "os.rename", "fsync", "exchange"}


class Stub:
    """An exporter of nothing in particular, where the engine is beside the point."""

    format = "tflite"
    recipes = (Recipe("int8", "a stub"),)

    def thresholds(self, recipe, layers):
        return Thresholds(0.9, 0.9, 0.9)

    def write(self, checkpoint, recipe, folder, samples):
        with (folder / "model.tflite").open("wb") as file:
            for _ in range(MODEL // 1_000):
                file.write(checkpoint.fingerprint.encode()[:10] * 100)
        return Written("model.tflite", {})


class Truth:
    """A reference whose vectors are all the same."""

    def __init__(self, checkpoint) -> None:
        self.size = checkpoint.config.embedding_size

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def tokenize(self, text):
        return [1, 2, 3]

    def encode(self, many, **options):
        return np.full((len(many), self.size), self.size**-0.5, np.float32)


def stub() -> None:
    exporting.find_exporter = lambda format: Stub()
    exporting.plugins = SimpleNamespace(require=lambda *_: SimpleNamespace(reference=Truth))
    exporting.open_runtime = lambda artifact: contextlib.nullcontext()
    exporting.gate = lambda *_: {"cosine_min": 1.0}


class Trap:
    """Counts what happens to the file system below a folder and springs at the N-th."""

    def __init__(self, folder: Path, mode: str, step: int) -> None:
        self.folder, self.mode, self.step, self.seen = str(folder), mode, step, 0
        sys.addaudithook(self.hear)
        self.fsync, os.fsync = os.fsync, self.synced
        self.exchange, files._exchange = files._exchange, self.exchanged

    def hear(self, event: str, given: tuple) -> None:
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"):
            path = given[0]
            if isinstance(path, int) or not os.fsdecode(path).startswith(self.folder):
                return
            writes = event in WRITES or (event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR))
            self.happen(bool(writes))

    def synced(self, descriptor: int) -> None:
        self.happen(True)
        self.fsync(descriptor)

    def exchanged(self, one: Path, other: Path) -> bool:
        self.happen(True)
        done = self.exchange(one, other)
        if self.mode == "kill":  # right behind it too
            self.happen(True)
        return done

    def happen(self, writes: bool) -> None:
        self.seen += 1
        if self.mode == "kill" and self.seen == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "full" and self.seen >= self.step and writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def child(work) -> tuple[int, str]:
    """Run ``work`` in a fork; return its status, negative for a signal, and what it said."""
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        status = 0
        try:
            work()
        except OutputError as failure:
            status = failure.status
            os.write(writer, one_line(failure).encode())
        except BaseException as failure:
            status = 99
            os.write(writer, repr(failure).encode())
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), text


def two_checkpoints() -> tuple[Checkpoint, Checkpoint]:
    old = random_checkpoint(SMALL, "small")
    bias = {"embeddings.LayerNorm.bias": np.full(SMALL.hidden_size, 0.5, np.float32)}
    return old, Checkpoint(old.name, old.config, {**old.tensors, **bias})


def found(out: Path, prints: dict[str, str], first: bool, plain: bool) -> str:
    """Tell which artifact is there, whole: old, new, or the old one put aside."""
    if out.exists():
        return prints[open_artifact(out).manifest.fingerprint]
    assert first or plain
    if first:
        return "old"
    (aside,) = out.parent.glob(".artifact.*.old")
    assert prints[open_artifact(aside).manifest.fingerprint] == "old"
    return "aside"


def main(folder: Path, mode: str, real: bool) -> None:
    first, plain = mode.startswith("first-"), mode.startswith("plain-")
    mode = mode.removeprefix("first-").removeprefix("plain-")
    if plain:
        files._exchange = lambda *_: False
    if real:
        some = texts.load()[:60]
        texts.load = lambda: some
    else:
        stub()
    old, new = two_checkpoints()
    out = folder / "artifact"
    exporting.export(old, "tflite", "int8", folder.parent / "kept")
    told = {"steps": 0, "old": 0, "new": 0, "aside": 0, "messages": set()}

    def attempt(step: int) -> None:
        if mode in ("half", "large"):
            most = SIZES[step - 1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            if mode == "half":
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        else:
            Trap(folder, mode, step)
        exporting.export(new, "tflite", "int8", out)

    for step in range(1, len(SIZES) + 1 if mode in ("half", "large") else MOST):
        shutil.rmtree(folder, ignore_errors=True)
        if first:
            folder.mkdir()
        else:
            shutil.copytree(folder.parent / "kept", out)
        status, said = child(lambda: attempt(step))  # noqa: B023 - called before the next step
        told["steps"] += 1
        expected = {"kill": -signal.SIGKILL, "half": -signal.SIGXFSZ}.get(mode, 7)
        assert status in (0, expected), (step, status, said)
        told[found(out, {old.fingerprint: "old", new.fingerprint: "new"}, first, plain)] += 1
        if real and out.exists():
            verify(out)
        if status == 7:
            told["messages"].add(said.replace(str(folder), ""))
            assert {path.name for path in folder.iterdir()} <= {"artifact"}, step
        again = child(lambda: exporting.export(new, "tflite", "int8", out))
        assert again == (0, ""), (step, again)
        assert open_artifact(out).manifest.fingerprint == new.fingerprint
        assert [path.name for path in folder.iterdir()] == ["artifact"], step
        if status == 0 and mode in ("kill", "full"):
            break
    assert status == 0, "no export got through"
    told["messages"] = sorted(told["messages"])
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "real")

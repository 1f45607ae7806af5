"""A processor that qemu emulates in user mode: the same worker, for correctness and for counts.

Never for times: qemu's cost of an instruction is none of the processor's. AArch64 workers run in
the root that `asterisk.bench.targets.root` makes, in namespaces of their own; x86-64 ones run this
machine's own Python.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asterisk.artifact import is_artifact
from asterisk.bench import machine, spawn
from asterisk.bench.plan import Row
from asterisk.bench.targets import payload, plugin, root
from asterisk.bench.targets.parse import ARM, Emulated
from asterisk.bench.targets.session import INPUTS, OUTPUT, Unavailable

WORK = "/work"
SLOWER = 10  # a worker's time is this many times a real machine's
PYTHON = "/usr/bin/python3.11"
CPUS = {"haswell": "Haswell"}
# Everything in namespaces of their own: nothing is mounted or registered on the machine itself.
ENTER = """set -e
root=$1 work=$2; shift 2
for part in proc sys dev; do mount --rbind /$part "$root/$part"; done
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$work" "$root/work"
exec chroot "$root" "$@"
"""
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount")


@contextmanager
def emulated(target: Emulated, folder: Path) -> Iterator[EmulatedSession]:
    """Give a session; Unavailable, in one line, where the machine cannot emulate."""
    session = EmulatedSession(target, folder)
    session.check()
    yield session


class EmulatedSession:
    """One emulated processor; ``folder`` is what its workers see as their own."""

    timed = False

    def __init__(self, target: Emulated, folder: Path) -> None:
        if platform.system() != "Linux":
            raise Unavailable(f"{target}: emulation needs Linux")
        self.target = target
        self.arm = target.cpu in ARM
        self.folder = folder.resolve()
        self.made = root.find()
        self.brought: dict[str, str] = {}
        self.counting = plugin.find() if self.arm else None
        self.environment = {"PATH": os.environ.get("PATH", os.defpath)}
        if self.arm:
            for tool in (*NAMESPACES[:1], "chroot", "mount"):
                if shutil.which(tool) is None:
                    raise Unavailable(f"{target}: {tool} is needed and is not here")
            self._fill()
        elif platform.machine() != "x86_64":
            raise Unavailable(f"{target}: an x86 processor is emulated on x86-64 only")

    def _fill(self) -> None:
        stream = self.folder / "package.tar"
        with stream.open("wb") as file:
            payload.package(file)
        root.call(["tar", "-x", "-C", str(self.folder), "-f", str(stream)])
        stream.unlink()
        shutil.copy2(self.made / "qemu-aarch64", self.folder)
        if self.counting:
            shutil.copytree(self.counting, self.folder / plugin.FOLDER)

    def check(self) -> None:
        """Start its Python once; Unavailable with what the system said if that fails."""
        command = [*self.python(), "-c", "import platform; print(platform.machine())"]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                env=self.environment,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            raise Unavailable(f"{self.target}: {failure}") from None
        if done.stdout.strip() != ("aarch64" if self.arm else "x86_64"):
            last = (done.stderr.strip().splitlines() or ["no answer"])[-1][:200]
            raise Unavailable(f"{self.target}: this system does not let it start: {last}")

    def python(self) -> list[str]:
        """Return the words that start the emulated Python."""
        if not self.arm:
            qemu = str(self.made / "qemu-x86_64")
            return [qemu, "-cpu", CPUS[self.target.cpu], sys.executable]
        inner = ["env", "-i", f"PYTHONPATH={WORK}/lib:/site", "HOME=/tmp", "LC_ALL=C.UTF-8"]
        inner += ["PYTHONHASHSEED=0"]  # counts are to repeat
        qemu_words = [f"{WORK}/qemu-aarch64"]
        if self.counting:
            qemu_words = plugin.command(WORK)
        script = [*NAMESPACES, "sh", "-c", ENTER, "sh", str(self.made / "root"), str(self.folder)]
        # env is the machine's own, hence outside the root: qemu hands its environment on.
        path = f"PATH={self.environment['PATH']}"
        return [*inner, path, *script, *qemu_words, "-cpu", self.target.cpu, PYTHON]

    def ask(self, module: str, spec: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Run ``module`` emulated; instructions a call are added to what it answers."""
        there = dict(spec)
        output = spec.get(OUTPUT)
        if self.arm:
            for key in INPUTS:
                if spec.get(key):
                    there[key] = self._bring(Path(spec[key]))
            there[OUTPUT] = f"{WORK}/{OUTPUT}.npy" if output else ""
        counts = self.folder / plugin.COUNTS
        counts.unlink(missing_ok=True)
        answer = spawn.ask(module, there, timeout * SLOWER, python=self.python())
        if output and self.arm:
            (self.folder / f"{OUTPUT}.npy").replace(output)
        if self.counting and "marked" in answer:
            answer["instructions"] = plugin.instructions(counts, answer["marked"])
        return answer

    def _bring(self, path: Path) -> str:
        local = str(path)
        if local not in self.brought:
            name = f"in{len(self.brought)}"
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, self.folder / name)
            self.brought[local] = f"{WORK}/{name}"
        return self.brought[local]

    def describe(self, packages: Iterable[str]) -> dict[str, Any]:
        """Say what is emulated, by which qemu, and on which machine."""
        versions = json.loads((self.made / "made.json").read_text("utf-8"))
        return machine.describe(packages if not self.arm else ()) | {
            "cpu": f"{self.target.cpu}, emulated",
            "isa": [],
            "architecture": "aarch64" if self.arm else "x86_64",
            "emulator": f"qemu {versions.get('qemu-user', 'unknown')}",
            "emulated_on": machine.describe(())["cpu"],
            "engines": root.wheels() if self.arm else [],
            "instructions": bool(self.counting),
        }

    def state(self) -> dict[str, Any]:
        """Return the state of the machine that emulates."""
        return machine.state()

    def takes(self, row: Row) -> bool:
        """Take artifacts only: no PyTorch, and no peer, is emulated."""
        return not row.peer and is_artifact(Path(row.path))

    def lacks(self, row: Row) -> None:
        """Lack nothing: the root has every engine."""

    def weigh(self, names: Iterable[str]) -> None:
        """Weigh nothing: what is installed for emulation is not what a board would have."""

"""A processor that qemu emulates in user mode: the same worker, for correctness and for counts.

Never for times: qemu's cost of an instruction is none of the processor's. AArch64 workers run in
the X
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from asterisk.artifact import is_artifact
from asterisk.bench import machine, process
from asterisk.bench.plan import Row
from asterisk.bench.targets import ARM, OUTPUT, Emulated, Session, Unavailable
from asterisk.bench.targets.ssh import write_package
from asterisk.common.files import cache_folder

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

INSTRUCTIONS = Path(__file__).with_name("instructions.c")
COUNTING = "counting"  # folder of the counting qemu, in the session's
COUNTS = "instructions.txt"  # what the plugin writes, in the session's folder
CONFIGURE = (
    *("--target-list=aarch64-linux-user", "--without-default-features", "--enable-plugins"),
    *("--disable-system", "--disable-tools", "--disable-docs", "--disable-install-blobs"),
    *("--disable-download", "--disable-debug-info", "-Doptimization=1"),
)
EDITION = 1  # to be raised when `benchmarks.emulation` makes something else of the same names
SUITE, BACKPORTS = "bookworm", "bookworm-backports"
PACKAGES = ("python3", "libstdc++6", "libgomp1")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
ABIS = ("cp311", "abi3", "none")
EXTRAS = ("onnx", "tflite", "gguf")
NUMPY = "numpy==2.4.6"
EMULATORS = ("qemu-aarch64", "qemu-x86_64")
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+==[0-9.]+); extra == [\"'](\w+)[\"']")


class EmulatedSession(Session):
    """One emulated processor; ``folder`` is what its workers see as their own."""

    timed = False

    def __init__(self, target: Emulated, folder: Path) -> None:
        if platform.system() != "Linux":
            raise Unavailable(f"{target}: emulation needs Linux")
        self.target = target
        self.arm = target.cpu in ARM
        self.folder = folder.resolve()
        self.made = find_root()
        self.copied = {}
        self.counting = find_counting() if self.arm else None
        self.environment = {"PATH": os.environ.get("PATH", os.defpath)}
        if self.arm:
            for tool in (*NAMESPACES[:1], "chroot", "mount"):
                if shutil.which(tool) is None:
                    raise Unavailable(f"{target}: {tool} is needed and is not here")
            self._copy_package()
        elif platform.machine() != "x86_64":
            raise Unavailable(f"{target}: an x86 processor is emulated on x86-64 only")

    def open(self) -> None:
        """Start its Python once; Unavailable with what the system said if that fails."""
        command = [*self.python(), "-c", "import platform; print(platform.machine())"]
        options: dict[str, Any] = {"env": self.environment, "stdin": subprocess.DEVNULL}
        try:
            answer = subprocess.run(
                command, capture_output=True, text=True, timeout=120, check=False, **options
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            raise Unavailable(f"{self.target}: {failure}") from None
        if answer.stdout.strip() != ("aarch64" if self.arm else "x86_64"):
            last = (answer.stderr.strip().splitlines() or ["no answer"])[-1][:200]
            raise Unavailable(f"{self.target}: this system does not let it start: {last}")

    def _copy_package(self) -> None:
        with (self.folder / "package.tar").open("wb") as stream:
            write_package(stream)
        with tarfile.open(stream.name) as archive:
            archive.extractall(self.folder, filter="data")
        Path(stream.name).unlink()
        shutil.copy2(self.made / "qemu-aarch64", self.folder)
        if self.counting:
            shutil.copytree(self.counting, self.folder / COUNTING)

    def python(self) -> list[str]:
        """Return the words that start the emulated Python."""
        if not self.arm:
            return [str(self.made / "qemu-x86_64"), "-cpu", CPUS[self.target.cpu], sys.executable]
        inner = ["env", "-i", f"PYTHONPATH={WORK}/lib:/site", "HOME=/tmp", "LC_ALL=C.UTF-8"]
        inner += ["PYTHONHASHSEED=0"]  # counts are to repeat
        qemu = [f"{WORK}/qemu-aarch64"]
        if self.counting:
            folder = f"{WORK}/{COUNTING}"
            qemu = [f"{folder}/loader", "--library-path", folder, f"{folder}/qemu-aarch64"]
            qemu += ["-plugin", f"{folder}/instructions.so,out={WORK}/{COUNTS}"]
        script = [*NAMESPACES, "sh", "-c", ENTER, "sh", str(self.made / "root"), str(self.folder)]
        # env is the machine's own, hence outside the root: qemu hands its environment on.
        path = f"PATH={self.environment['PATH']}"
        return [*inner, path, *script, *qemu, "-cpu", self.target.cpu, PYTHON]

    def ask(self, module: str, spec: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Run ``module`` emulated; instructions a call are added to what it answers."""
        output = spec.get(OUTPUT)
        remote = self._remote_spec(spec, WORK) if self.arm else spec
        counts = self.folder / COUNTS
        counts.unlink(missing_ok=True)
        answer = process.ask(module, remote, timeout * SLOWER, python=self.python())
        if output and self.arm:
            (self.folder / f"{OUTPUT}.npy").replace(output)
        if self.counting and "marked" in answer:
            answer["instructions"] = million_instructions(counts, answer["marked"])
        return answer

    def _copy(self, path: Path, name: str) -> str:
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, self.folder / name)
        return name

    def describe(self, packages: Iterable[str]) -> dict[str, Any]:
        """Say what is emulated, by which qemu, and on which machine."""
        qemu = json.loads((self.made / "made.json").read_text("utf-8")).get("qemu-user", "unknown")
        return machine.describe(packages if not self.arm else ()) | {
            "cpu": f"{self.target.cpu}, emulated",
            "isa": [],
            "architecture": "aarch64" if self.arm else "x86_64",
            "emulator": f"qemu {qemu}",
            "emulated_on": machine.describe(())["cpu"],
            "engines": wheels() if self.arm else [],
            "instructions": bool(self.counting),
        }

    def accepts(self, row: Row) -> bool:
        """Take artifacts only: no PyTorch, and no peer, is emulated."""
        return not row.peer and is_artifact(Path(row.path))

    def weigh(self, names: Iterable[str]) -> None:
        """Weigh nothing: what is installed for emulation is not what a board would have."""


def wheels() -> list[str]:
    """Return the pinned requirements of the engines, numpy among them."""
    lines = map(str.strip, requires("asterisk-edge") or ())
    found = {it[2]: it[1] for it in map(REQUIREMENT.fullmatch, lines) if it}
    return [NUMPY, *(found[extra] for extra in EXTRAS)]


def root_path() -> Path:
    """Return where the files are, or would be: named after all they are made of."""
    made_of = [EDITION, SUITE, BACKPORTS, PACKAGES, PLATFORMS, ABIS, wheels(), EMULATORS]
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    return cache_folder() / f"emulation-{digest[:12]}"


def find_root() -> Path:
    """Return the files' folder; Unavailable where it has not been made."""
    folder = root_path()
    if not (folder / "made.json").is_file():
        raise Unavailable(
            "no emulated machine here yet; make it with: python -m benchmarks.emulation"
        )
    return folder


def counting_path() -> Path:
    """Return where the counting qemu is, or would be: named after all it is made of."""
    made_of = json.dumps([EDITION, BACKPORTS, CONFIGURE]).encode() + INSTRUCTIONS.read_bytes()
    return cache_folder() / f"counting-{hashlib.sha256(made_of).hexdigest()[:12]}"


def find_counting() -> Path | None:
    """Return the counting qemu's folder, None where there is none."""
    folder = counting_path()
    return folder if (folder / "qemu-aarch64").is_file() else None


def million_instructions(path: Path, marked: Sequence[str]) -> dict[str, float]:
    """Return million instructions a call by bucket, the smallest of its calls.

    ``path`` has the counter at both marks of each call in ``marked``; CellError otherwise.
    """
    try:
        counters = [int(line) for line in path.read_text("ascii").split()]
    except (OSError, ValueError):
        counters = []
    if len(counters) != 2 * len(marked):
        raise process.CellError(f"{len(counters)} marks were counted instead of {2 * len(marked)}")
    calls: dict[str, list[int]] = {}
    for number, bucket in enumerate(marked):
        calls.setdefault(bucket, []).append(counters[2 * number + 1] - counters[2 * number])
    return {bucket: min(each) / 1e6 for bucket, each in calls.items()}

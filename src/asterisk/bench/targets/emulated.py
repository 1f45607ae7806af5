"""A processor that qemu emulates in user mode: the same worker, for correctness and for counts.

Never for times: qemu's cost of an instruction is none of the processor's. AArch64 workers run in
the root that `asterisk.bench.targets.root` makes, in namespaces of their own; x86-64 ones run this
machine's own Python.

Debian's qemu-user loads no plugins: ``python -m asterisk.bench.targets.emulated`` builds the same
version with the one in ``instructions.c``, which counts. It needs a C compiler, ninja, pkg-config
and GLib's headers, and some minutes.
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
import venv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asterisk.bench.targets.root as files
from asterisk.artifact import is_artifact
from asterisk.bench import machine, process
from asterisk.bench.plan import Row
from asterisk.bench.targets import ARM, OUTPUT, Emulated, Session, Unavailable
from asterisk.bench.targets.ssh import write_package
from asterisk.common.debian import KEYRING, Apt, call, mirror
from asterisk.common.errors import EngineError
from asterisk.common.terminal import report

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

SOURCE = Path(__file__).with_name("instructions.c")
COUNTING = "counting"  # folder of the counting qemu, in the session's
COUNTS = "instructions.txt"  # what the plugin writes, in the session's folder
LOADER = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)
BUILD_TOOLS = {"cc": "gcc", "ninja": "ninja-build", "pkg-config": "pkg-config", "tar": "tar"}
BUILD_PACKAGES = ("meson", "setuptools", "wheel", "pycotap")
CONFIGURE = (
    *("--target-list=aarch64-linux-user", "--without-default-features", "--enable-plugins"),
    *("--disable-system", "--disable-tools", "--disable-docs", "--disable-install-blobs"),
    *("--disable-download", "--disable-debug-info", "-Doptimization=1"),
)
EDITION = 1  # to be raised when something else is made of the same names


class EmulatedSession(Session):
    """One emulated processor; ``folder`` is what its workers see as their own."""

    timed = False

    def __init__(self, target: Emulated, folder: Path) -> None:
        if platform.system() != "Linux":
            raise Unavailable(f"{target}: emulation needs Linux")
        self.target = target
        self.arm = target.cpu in ARM
        self.folder = folder.resolve()
        self.made = files.find()
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
        call(["tar", "-x", "-C", str(self.folder), "-f", stream.name])
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
            "engines": files.wheels() if self.arm else [],
            "instructions": bool(self.counting),
        }

    def accepts(self, row: Row) -> bool:
        """Take artifacts only: no PyTorch, and no peer, is emulated."""
        return not row.peer and is_artifact(Path(row.path))

    def weigh(self, names: Iterable[str]) -> None:
        """Weigh nothing: what is installed for emulation is not what a board would have."""


def counting_path() -> Path:
    """Return where the counting qemu is, or would be: named after all it is made of."""
    made_of = json.dumps([EDITION, files.BACKPORTS, CONFIGURE]).encode() + SOURCE.read_bytes()
    return files.cache() / f"counting-{hashlib.sha256(made_of).hexdigest()[:12]}"


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


def make_counting() -> Path:
    """Build it if it does not exist; EngineError, one line, where that cannot be done."""
    if folder := find_counting():
        return folder
    for tool, package in BUILD_TOOLS.items():
        if shutil.which(tool) is None:
            raise EngineError(f"{tool} is needed to build qemu; install {package}")
    call(["pkg-config", "--exists", "--print-errors", "glib-2.0"])
    return files.make_once(counting_path(), _build)


def _build(folder: Path) -> dict[str, str]:
    report("counting: qemu's source")
    work = folder / "work"
    apt = Apt(work / "apt", "amd64", files.BACKPORTS)
    signed = f"[signed-by={KEYRING}] {mirror()} {files.BACKPORTS} main\n"
    (apt.folder / "sources.list").write_text(f"deb-src {signed}", "utf-8")
    apt.run("update")
    apt.run("source", "--download-only", "--tar-only", "qemu")  # checks what Debian signed
    (archive,) = (apt.folder / "archives").glob("qemu_*.orig.tar.*")
    source, build = work / "source", work / "source" / "build"
    build.mkdir(parents=True)
    call(["tar", "-x", "--strip-components=1", "-C", str(source), "-f", str(archive)])
    report("counting: building qemu with plugins")
    venv.create(work / "venv", with_pip=True)
    python = work / "venv" / "bin" / "python"
    call([python, "-m", "pip", "install", "--quiet", *BUILD_PACKAGES])
    paths = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": paths}
    call(["../configure", f"--python={python}", *CONFIGURE], cwd=build, env=environment)
    call(["ninja", "qemu-aarch64"], cwd=build, env=environment)
    _install(build / "qemu-aarch64", source / "include", folder)
    shutil.rmtree(work)
    return files.versions([archive])


def _install(qemu: Path, headers: Path, folder: Path) -> None:
    """Put qemu, the libraries it loads and the plugin into ``folder``, which needs nothing else."""
    libraries = [Path(path) for path in LOADER.findall(call(["ldd", str(qemu)]))]
    # glibc opens the last one itself when a thread ends.
    libraries.append(Path(call(["cc", "-print-file-name=libgcc_s.so.1"]).strip()))
    for library in libraries:
        loader = library.name.startswith("ld-")
        shutil.copy2(library.resolve(), folder / ("loader" if loader else library.name))
    includes = [f"-I{headers}", f"-I{headers}/qemu"]
    includes += call(["pkg-config", "--cflags", "glib-2.0"]).split()
    plugin = folder / "instructions.so"
    call(["cc", "-O2", "-shared", "-fPIC", *includes, "-o", str(plugin), str(SOURCE)])
    shutil.copy2(qemu, folder)


if __name__ == "__main__":
    sys.exit(files.print_path("counting", make_counting))

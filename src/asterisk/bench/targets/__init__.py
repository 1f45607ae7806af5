"""Where a worker runs: on this machine, on another one over ssh, or on an emulated processor.

People write ``local``, ``local:threads=1+2,cpus=0-3``, ``emu:cortex-a72`` or
``ssh://user@host:22?python=/home/pi/venv/bin/python&threads=4``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from asterisk.bench import machine, process
from asterisk.bench.plan import MAX_THREADS, Row
from asterisk.common.errors import EngineError, UsageError
from asterisk.common.ssh import Address, after_scheme

ARM = ("cortex-a53", "cortex-a72", "cortex-a76")
X86 = ("haswell",)
INPUTS = ("path", "texts")  # of a spec: files or folders that the worker reads
OUTPUT = "vectors"  # of a spec: the file that it writes
_PYTHON = re.compile(r"(?:/[A-Za-z0-9._+-]+)+|python3(?:\.[0-9]{1,2})?")
_NUMBER = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Local:
    """This machine; with ``cpus``, workers stay on those. Empty ``threads``: those of the run."""

    threads: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()
    kind: Literal["local"] = "local"

    def __str__(self) -> str:
        options = ",".join(_written(threads=self.threads, cpus=self.cpus))
        return f"local:{options}" if options else "local"


@dataclass(frozen=True, slots=True)
class Ssh:
    """A machine that the system's ssh reaches; ``python`` is the interpreter there."""

    host: str
    user: str = ""
    port: int = 0
    python: str = "python3"
    threads: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()
    kind: Literal["ssh"] = "ssh"

    def __str__(self) -> str:
        python = [f"python={self.python}"] if self.python != "python3" else []
        options = "&".join(python + _written(threads=self.threads, cpus=self.cpus))
        return f"{Address(self.host, self.user, self.port)}{'?' if options else ''}{options}"


@dataclass(frozen=True, slots=True)
class Emulated:
    """A processor that qemu emulates: correctness and instruction counts, never times."""

    cpu: str
    kind: Literal["emu"] = "emu"
    threads: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"emu:{self.cpu}"


Target = Local | Ssh | Emulated
LOCAL = Local()


def parse_target(text: str) -> Target:
    """Read one target; UsageError, in one line, for anything else."""
    if text == "local":
        return LOCAL
    if text.startswith("local:"):
        options = _options(text, text[6:].split(","), "threads", "cpus")
        return Local(_numbers(text, options, "threads"), _numbers(text, options, "cpus"))
    if text.startswith("ssh://"):
        rest, asked, query = text.removeprefix("ssh://").partition("?")
        parts = query.split("&") if asked else ()
        options = _options(text, parts, "python", "threads", "cpus")
        address = after_scheme(text, rest)
        python = options.get("python", "python3")
        if not _PYTHON.fullmatch(python) or "/../" in f"{python}/":
            raise UsageError(f"{python!r} in {text!r} is no path of a Python")
        numbers = _numbers(text, options, "threads"), _numbers(text, options, "cpus")
        return Ssh(address.host, address.user, address.port, python, *numbers)
    if text.startswith("emu:"):
        cpu = text[4:]
        cpu = f"cortex-{cpu}" if f"cortex-{cpu}" in ARM else cpu
        if cpu not in (*ARM, *X86):
            raise UsageError(f"no emulated processor {cpu!r}; there are: {', '.join((*ARM, *X86))}")
        return Emulated(cpu)
    raise UsageError(f"no target {text!r}: local, local:…, ssh://user@host or emu:processor")


def parse_all(texts: Iterable[str]) -> tuple[Target, ...]:
    """Read several; UsageError if one comes twice."""
    targets = [parse_target(text) for text in texts]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"target {target} is named twice")
    return tuple(targets)


def _options(text: str, parts: Iterable[str], *names: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or name not in names or name in options:
            every = ", ".join(sorted(names))
            raise UsageError(f"{part!r} in {text!r} is not understood; there are: {every}")
        options[name] = value
    return options


def _numbers(text: str, options: Mapping[str, str], name: str) -> tuple[int, ...]:
    """Read ``0``, ``0+2`` or ``0-3``, sorted and each once."""
    found: set[int] = set()
    for part in options[name].split("+") if name in options else ():
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not _NUMBER.fullmatch(first) or not _NUMBER.fullmatch(last):
            raise UsageError(f"{part!r} in {text!r} is no number, such as 0, 0+2 or 0-3")
        if not int(first) <= int(last) <= MAX_THREADS:
            raise UsageError(f"{part!r} in {text!r} is out of range")
        found.update(range(int(first), int(last) + 1))
    if name == "threads" and 0 in found:
        raise UsageError(f"no threads at all in {text!r}")
    return tuple(sorted(found))


def _written(**options: tuple[int, ...]) -> list[str]:
    return [f"{name}={'+'.join(map(str, numbers))}" for name, numbers in options.items() if numbers]


class TargetError(EngineError):
    """A target that cannot be used at all; the message is one line."""


class Unavailable(TargetError):
    """An emulation that cannot be had here; the message is one line."""


def check_cpus(target: Local | Ssh, available: list[int] | None) -> None:
    """Raise TargetError if the target names CPUs that are not ``available``."""
    if target.cpus and available is None:
        raise TargetError(f"{target}: this system cannot keep a process on chosen CPUs")
    missing = [str(cpu) for cpu in target.cpus if cpu not in (available or ())]
    if missing:
        have = ", ".join(map(str, available or ()))
        raise TargetError(f"{target}: there is no CPU {', '.join(missing)}; there are: {have}")


class Session:
    """A target that is ready to run workers: this machine, or what a subclass makes of it.

    Everything here raises `asterisk.bench.process.CellError` for what one cell cannot have.
    """

    timed = True  # whether its clock means anything
    copied: dict[str, str]  # what is there, by the path here

    def __init__(self, target: Local) -> None:
        check_cpus(target, machine.cpus())
        self.extra = {"cpus": list(target.cpus)} if target.cpus else {}

    def open(self) -> None:
        """Make it ready; TargetError if it cannot be used."""

    def close(self, keep: bool) -> None:
        """Leave nothing there, unless ``keep``."""

    def ask(self, module: str, spec: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Run ``module`` there; paths in ``spec`` are of this machine on both ways."""
        python = spec.get("python") or sys.executable
        return process.ask(module, {**spec, **self.extra}, timeout, python=(python,))

    def describe(self, packages: Iterable[str]) -> dict[str, Any]:
        """Return `asterisk.bench.machine.describe` of the target."""
        return machine.describe(packages)

    def state(self) -> dict[str, Any]:
        """Return `asterisk.bench.machine.state` of the target."""
        return machine.state()

    def weigh(self, names: Iterable[str]) -> dict[str, int] | None:
        """Return `asterisk.bench.machine.weigh` of the target."""
        return machine.weigh(names)

    def accepts(self, row: Row) -> bool:  # noqa: ARG002
        """Whether the target is meant for such a row at all."""
        return True

    def missing_package(self, row: Row) -> str | None:  # noqa: ARG002
        """Return in one line what ``row`` would need there and does not find."""
        return None  # preparing the row would have reported it

    def _remote_spec(self, spec: Mapping[str, Any], home: str) -> dict[str, Any]:
        """Return ``spec`` with the paths in ``home``, where its files are copied once each."""
        remote = dict(spec)
        for key in INPUTS:
            if path := spec.get(key):
                if path not in self.copied:
                    self.copied[path] = self._copy(Path(path), f"in{len(self.copied)}")
                remote[key] = f"{home}/{self.copied[path]}"
        if spec.get(OUTPUT):
            remote[OUTPUT] = f"{home}/{OUTPUT}.npy"
        return remote

    def _copy(self, path: Path, name: str) -> str:
        """Copy a file or folder there; return where it is under its home."""
        raise NotImplementedError


HERE = Session(LOCAL)


@contextmanager
def opened(target: Target, folder: Path, keep: bool) -> Iterator[Session]:
    """Make ``target`` ready and, in the end, leave nothing there unless ``keep``.

    ``folder`` is for files on this side. TargetError if the target cannot be used.
    """
    session: Session
    if isinstance(target, Local):
        session = Session(target)
    elif isinstance(target, Ssh):
        from asterisk.bench.targets.ssh import SshSession  # what a run here need not load

        session = SshSession(target, folder)
    else:
        from asterisk.bench.targets.emulated import EmulatedSession  # nor this

        session = EmulatedSession(target, folder)
    try:
        session.open()
        yield session
    finally:
        session.close(keep)

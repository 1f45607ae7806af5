"""Targets as a person writes them. Standard library only.

::

    local
    local:threads=1+2,cpus=0-3
    ssh://user@host:22?python=/home/pi/venv/bin/python&threads=4
    emu:cortex-a72
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from asterisk.common.errors import UsageError
from asterisk.common.ssh import Address, after_scheme

ARM = ("cortex-a53", "cortex-a72", "cortex-a76")
X86 = ("haswell",)
MOST = 256  # threads, and so CPUs
_PYTHON = re.compile(r"(?:/[A-Za-z0-9._+-]+)+|python3(?:\.[0-9]{1,2})?")
_NUMBER = re.compile(r"[0-9]{1,5}")
Options = dict[str, str]


@dataclass(frozen=True, slots=True)
class Local:
    """This machine; with ``cpus``, workers stay on those. Empty ``threads``: those of the run."""

    threads: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()
    kind: Literal["local"] = "local"

    def __str__(self) -> str:
        return "local" + _joined(":", ",", _numbers_of(self))


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
        address = Address(self.host, self.user, self.port)
        return f"{address}" + _joined("?", "&", [*python, *_numbers_of(self)])


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


def parse(text: str) -> Target:
    """Read one target; UsageError, in one line, for anything else."""
    if text == "local" or text.startswith("local:"):
        options = _options(text, text[6:], ",", {"threads", "cpus"}) if text != "local" else {}
        return Local(_threads(text, options), _cpus(text, options))
    if text.startswith("ssh://"):
        return _ssh(text)
    if text.startswith("emu:"):
        cpu = text[4:]
        cpu = f"cortex-{cpu}" if f"cortex-{cpu}" in ARM else cpu
        if cpu not in (*ARM, *X86):
            raise UsageError(f"no emulated processor {cpu!r}; there are: {', '.join((*ARM, *X86))}")
        return Emulated(cpu)
    raise UsageError(f"no target {text!r}: local, local:…, ssh://user@host or emu:processor")


def parse_all(texts: Iterable[str]) -> tuple[Target, ...]:
    """Read several; UsageError if one comes twice."""
    found = [parse(text) for text in texts]
    for target in found:
        if found.count(target) > 1:
            raise UsageError(f"target {target} is named twice")
    return tuple(found)


def _ssh(text: str) -> Ssh:
    told, asked, query = text.removeprefix("ssh://").partition("?")
    options = _options(text, query, "&", {"python", "threads", "cpus"}) if asked else {}
    address = after_scheme(text, told)
    python = options.get("python", "python3")
    if not _PYTHON.fullmatch(python) or "/../" in f"{python}/":
        raise UsageError(f"{python!r} in {text!r} is no path of a Python")
    return Ssh(
        address.host,
        address.user,
        address.port,
        python,
        _threads(text, options),
        _cpus(text, options),
    )


def _options(text: str, told: str, separator: str, known: set[str]) -> Options:
    options: Options = {}
    for part in told.split(separator):
        name, equals, value = part.partition("=")
        if not equals or name not in known or name in options:
            there = ", ".join(sorted(known))
            raise UsageError(f"{part!r} in {text!r} is not understood; there are: {there}")
        options[name] = value
    return options


def _threads(text: str, options: Options) -> tuple[int, ...]:
    counts = _numbers(text, options.get("threads"))
    if 0 in counts:
        raise UsageError(f"no threads at all in {text!r}")
    return counts


def _cpus(text: str, options: Options) -> tuple[int, ...]:
    return _numbers(text, options.get("cpus"))


def _numbers(text: str, told: str | None) -> tuple[int, ...]:
    """Read ``0``, ``0+2`` or ``0-3``, sorted and each once."""
    found: set[int] = set()
    for part in told.split("+") if told is not None else ():
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not _NUMBER.fullmatch(first) or not _NUMBER.fullmatch(last):
            raise UsageError(f"{part!r} in {text!r} is no number, such as 0, 0+2 or 0-3")
        if not int(first) <= int(last) <= MOST:
            raise UsageError(f"{part!r} in {text!r} is out of range")
        found.update(range(int(first), int(last) + 1))
    return tuple(sorted(found))


def _numbers_of(target: Local | Ssh) -> list[str]:
    both: list[tuple[str, Sequence[int]]] = [("threads", target.threads), ("cpus", target.cpus)]
    return [f"{name}={'+'.join(map(str, values))}" for name, values in both if values]


def _joined(first: str, between: str, options: Sequence[str]) -> str:
    return first + between.join(options) if options else ""

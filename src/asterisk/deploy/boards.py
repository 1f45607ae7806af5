"""The boards that bundles are made for, and the machine at the other end of a connection.

Why a recipe suits a core follows from instruction counts under emulation and from artifacts' sizes
and memory (`boards.md` and `pareto.md` in benchmarks/results); nothing was timed on a board.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from asterisk.common.errors import UsageError
from asterisk.deploy import DeployError

MACHINE = "aarch64"
FORMATS = ("tflite", "onnx", "gguf")  # in order of preference
PYTHONS = {"3.11": "Raspberry Pi OS Bookworm", "3.13": "Trixie"}
DEFAULT_PREFIX = "~/.local/share/asterisk"
CLOCK_SKEW = 300  # seconds between two clocks that are worth a word
SPARE_DISK = 16 << 20  # bytes beyond what is installed
LITTLE_MEMORY = 400 << 20  # bytes, below any board's
# At most 200 characters, neither . nor .. among the names.
_FOLDER = re.compile(r"(?=.{1,200}\Z)~?(/(?!\.\.?(/|\Z))[A-Za-z0-9._+][A-Za-z0-9._+-]*)+")
_INT8, _SMALLER = ("int8", "int8-emb4", "fp32"), ("int8-emb4", "int8", "fp32")
_GGUF = ("q8_0", "q6_k", "q4_k_m", "f16", "fp32")
_RECIPES = {"tflite": _INT8, "onnx": _INT8, "gguf": _GGUF}
_SMALL = {"tflite": _SMALLER, "onnx": _SMALLER, "gguf": _GGUF}
_NO_DOTPROD = "no dotprod: int8 in LiteRT, least memory, as many instructions as in ONNX Runtime"
_DOTPROD = "dotprod: int8 in LiteRT, fewest instructions and least memory"
_SCARCE = "512 MB: the 4-bit table leaves 6 MB more to everything else for 0.003 of cosine"
_OTHER_FORMATS = {
    "onnx": "int8: fewest instructions in ONNX Runtime",
    "gguf": "q8_0: nearest to FP32 of llama.cpp's quick recipes; no kernels for dotprod in it",
}


@dataclass(frozen=True, slots=True)
class Board:
    """A board, and which artifacts suit it best."""

    name: str
    title: str
    threads: int  # texts that are embedded at once by default
    max_memory: int | None  # bytes that are taken at most; None: no limit
    why: str  # the first recipe comes first
    recipes: Mapping[str, tuple[str, ...]]  # best first

    def because(self, format: str) -> str:
        """Return in a few words why the first recipe of ``format`` comes first."""
        if self.recipes.get(format) == _RECIPES.get(format):
            return _OTHER_FORMATS.get(format, self.why)
        return self.why

    def rank(self, format: str, recipe: str) -> tuple[int, int]:
        """Return how well a recipe of a format suits: less is better; unknown names come last."""
        recipes = self.recipes.get(format, ())
        return [*FORMATS, format].index(format), [*recipes, recipe].index(recipe)


BOARDS: Mapping[str, Board] = {
    "pi3": Board("pi3", "Raspberry Pi 3", 4, None, _NO_DOTPROD, _RECIPES),
    "pi4": Board("pi4", "Raspberry Pi 4", 4, None, _NO_DOTPROD, _RECIPES),
    "pi5": Board("pi5", "Raspberry Pi 5", 4, None, _DOTPROD, _RECIPES),
    "zero2w": Board("zero2w", "Raspberry Pi Zero 2 W", 2, 128 << 20, _SCARCE, _SMALL),
}
_MODELS = (  # the first that matches: a 3A+ is a Zero 2 W in all that counts here
    (r"Raspberry Pi Zero 2\b|Raspberry Pi 3 Model A\b", "zero2w"),
    (r"Raspberry Pi (3|Compute Module 3)\b", "pi3"),
    (r"Raspberry Pi (4|400|Compute Module 4S?)\b", "pi4"),
    (r"Raspberry Pi (5|500|Compute Module 5)\b", "pi5"),
)


def find(model: str) -> Board | None:
    """Return the board of a ``/proc/device-tree/model`` text; None if it is none of them."""
    text = model.strip("\0 \n")
    return next((BOARDS[name] for pattern, name in _MODELS if re.match(pattern, text)), None)


def check_prefix(text: str) -> str:
    """Return ``text`` if it is a plain path, absolute or below ``~/``; UsageError, one line."""
    if not _FOLDER.fullmatch(text):
        raise UsageError(
            f"{text!r} is no folder to install in: an absolute path, or one that begins with ~/, "
            "of letters, digits and . _ + -"
        )
    return text


@dataclass(frozen=True, slots=True)
class Machine:
    """What the probe says of a machine; sizes in bytes."""

    system: str
    machine: str
    implementation: str
    glibc: str
    model: str
    prefix: str
    bits: int
    page_size: int
    memory: int
    free: int
    root: bool
    sudo: bool
    systemd: bool
    writable: bool
    busy: bool
    active: bool
    limits: bool  # the kernel bounds the memory of services
    unit: str  # the prefix from which a unit of ours serves
    unit_port: int
    serves: bool  # that prefix is this one
    python: str  # such as 3.11
    dotprod: bool  # its processor has these instructions
    clock: float  # seconds since 1970

    def __str__(self) -> str:
        name = self.model or f"no Raspberry Pi ({self.machine})"
        return (
            f"{name}, {self.bits} bits, Python {self.python}, "
            f"glibc {self.glibc or 'none'}, {self.memory >> 20} MiB of memory, "
            f"{self.free >> 20} MiB free, pages of {self.page_size >> 10} KiB"
        )


_FIELDS = get_type_hints(Machine)


def read_machine(answer: Mapping[str, Any]) -> Machine:
    """Check the probe's answer; DeployError unless every field is there and can be used."""
    sound = answer.keys() == _FIELDS.keys() and all(
        type(answer[name]) is kind and (kind is not int or 0 <= answer[name] < 1 << 60)
        for name, kind in _FIELDS.items()
    )
    if not sound or not math.isfinite(answer["clock"]):
        raise DeployError("the probe's answer makes no sense")
    return Machine(**answer)


def refuse_machine(machine: Machine) -> None:
    """Refuse what no bundle exists for; DeployError, one line."""
    if machine.system != "Linux":
        raise DeployError(f"a {machine.system} system: bundles are for Linux on {MACHINE}")
    if machine.bits != 64 or machine.machine.startswith(("armv", "i386", "i686")):
        raise DeployError(
            f"a 32-bit system ({machine.machine}), for which no engine exists: install the 64-bit "
            "Raspberry Pi OS"
        )
    if machine.machine != MACHINE:
        raise DeployError(f"a {machine.machine} machine: bundles are for {MACHINE}")
    if machine.python not in PYTHONS or machine.implementation != "CPython":
        python = f"{machine.implementation} {machine.python}"
        supported = " and ".join(f"{version} ({system})" for version, system in PYTHONS.items())
        raise DeployError(f"{python} there: bundles are for {supported}")
    if not machine.glibc:
        raise DeployError("no glibc there: the engines are built for it")
    refuse_prefix(machine)


def refuse_prefix(machine: Machine) -> None:
    """Refuse a folder that a home of an unusual name would give; DeployError, one line."""
    if not machine.prefix.startswith("/") or not _FOLDER.fullmatch(machine.prefix):
        raise DeployError("its home folder has an unusual name: name another folder with --prefix")


def refuse_bundle(machine: Machine, manifest: Mapping[str, Any], missing: int) -> None:
    """Refuse a bundle that the machine cannot hold or run; ``missing`` bytes have to be sent."""
    glibc, wanted = (
        [int(part) for part in version.split(".") if part.isdigit()]
        for version in (machine.glibc, manifest["glibc"])
    )
    if glibc < wanted:
        raise DeployError(
            f"glibc {machine.glibc} there, and {manifest['glibc']} is needed: use a newer "
            "Raspberry Pi OS"
        )
    if machine.page_size > manifest["page_size"]:
        raise DeployError(
            f"memory pages of {machine.page_size >> 10} KiB there, and its libraries bear at most "
            f"{manifest['page_size'] >> 10}"
        )
    needed = 2 * missing + SPARE_DISK  # as it was sent, and as it is installed
    if machine.free < needed:
        raise DeployError(
            f"no space in {machine.prefix}: {needed / 1e6:.0f} MB are needed and "
            f"{machine.free / 1e6:.0f} MB are free"
        )


def choose_board(machine: Machine, wanted: Board | None) -> tuple[Board, list[str]]:
    """Return what the machine is treated as, and what should be said about that."""
    found = find(machine.model)
    notes = []
    small = machine.memory < 700 << 20
    alike = "zero2w" if small else "pi5" if machine.dotprod else "pi4"
    chosen = wanted or found or BOARDS[alike]
    if found is None:
        notes.append(f"no known Raspberry Pi, treated as a {chosen.title}; --board names another")
    elif found != chosen:
        notes.append(f"it is a {found.title} and is treated as a {chosen.title}")
    if machine.memory < LITTLE_MEMORY:
        notes.append(f"it has only {machine.memory >> 20} MiB of memory")
    skew = abs(machine.clock - time.time())
    if skew > CLOCK_SKEW:
        notes.append(f"its clock is {skew:.0f} s off, on which nothing depends")
    return chosen, notes

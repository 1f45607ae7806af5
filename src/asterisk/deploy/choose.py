"""From what a machine tells about itself to the board it is, or to why it is none."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_origin, get_type_hints

from asterisk.deploy import boards
from asterisk.deploy import service as service_unit
from asterisk.deploy.boards import Board
from asterisk.deploy.connection import DeployError
from asterisk.deploy.prefix import is_absolute

MACHINE = "aarch64"
PYTHONS = {"3.11": "Raspberry Pi OS Bookworm", "3.13": "Trixie"}
SKEW = 300  # seconds between two clocks that are worth a word
ROOM = 16 << 20  # bytes on a disk beyond what is installed
LITTLE = 400 << 20  # bytes of memory below any board's


@dataclass(frozen=True, slots=True)
class There:
    """A machine's own words, checked; sizes in bytes, ``clock`` in seconds since 1970.

    ``unit`` is the prefix from which a unit of ours serves, at ``unit_port``, and ``serves``
    whether that is ``prefix``; ``limits`` whether the kernel bounds the memory of services.
    """

    system: str
    machine: str
    implementation: str
    glibc: str
    model: str
    prefix: str
    bits: int
    page_size: int
    memory: int
    cores: int
    free: int
    root: bool
    sudo: bool
    systemd: bool
    writable: bool
    busy: bool
    active: bool
    limits: bool
    unit: str
    unit_port: int
    serves: bool
    python: tuple[int, ...]
    features: tuple[str, ...]
    clock: float

    @property
    def tag(self) -> str:
        """Its Python, such as 3.11."""
        return ".".join(map(str, self.python))

    def line(self) -> str:
        """Say in one line what it is."""
        name = self.model or f"no Raspberry Pi ({self.machine})"
        return (
            f"{name}, {self.bits} bits, Python {self.tag}, glibc {self.glibc or 'none'}, "
            f"{self.memory >> 20} MiB of memory, {self.free >> 20} MiB free, "
            f"pages of {self.page_size >> 10} KiB"
        )


_FIELDS = {
    name: list if get_origin(kind) is tuple else (int, float) if kind is float else kind
    for name, kind in get_type_hints(There).items()
}


def read(told: Mapping[str, Any]) -> There:
    """Check the probe's answer; DeployError unless every field is there and can be used."""
    sound = told.keys() == _FIELDS.keys() and all(
        isinstance(told[name], kind) and (kind is bool or not isinstance(told[name], bool))
        for name, kind in _FIELDS.items()
    )
    sound = (
        sound
        and all(isinstance(part, int) and 0 <= part < 1000 for part in told["python"])
        and len(told["python"]) == 2
        and all(isinstance(name, str) for name in told["features"])
        and all(0 <= told[name] < 1 << 60 for name, kind in _FIELDS.items() if kind is int)
        and math.isfinite(told["clock"])
    )
    if not sound:
        raise DeployError("the probe's answer makes no sense")
    lists = {name: tuple(told[name]) for name in ("python", "features")}
    return There(**{**told, **lists})


def refuse(there: There) -> None:
    """Refuse what no bundle exists for; DeployError, one line."""
    if there.system != "Linux":
        raise DeployError(f"a {there.system} system: bundles are for Linux on {MACHINE}")
    if there.bits != 64 or there.machine.startswith(("armv", "i386", "i686")):
        raise DeployError(
            f"a 32-bit system ({there.machine}), for which no engine exists: install the 64-bit "
            "Raspberry Pi OS"
        )
    if there.machine != MACHINE:
        raise DeployError(f"a {there.machine} machine: bundles are for {MACHINE}")
    if there.tag not in PYTHONS or there.implementation != "CPython":
        known = " and ".join(f"{tag} ({system})" for tag, system in PYTHONS.items())
        raise DeployError(f"{there.implementation} {there.tag} there: bundles are for {known}")
    if not there.glibc:
        raise DeployError("no glibc there: the engines are built for it")
    refuse_prefix(there)


def refuse_prefix(there: There) -> None:
    """Refuse a folder that a home of an unusual name would give; DeployError, one line."""
    if not is_absolute(there.prefix):
        raise DeployError("its home folder has an unusual name: name another folder with --prefix")


def refuse_sudo(there: There) -> None:
    """Refuse a user who cannot become root unasked; DeployError, one line."""
    if not there.root and not there.sudo:
        raise DeployError(
            "no sudo without a password, which --service needs: docs/deploying.md tells how to "
            "allow it, or leave --service out"
        )


def refuse_unit(there: There, *, service: bool) -> None:
    """Refuse to change the files under a unit, or a unit of other files; DeployError, one line."""
    if there.serves and not service:
        raise DeployError(
            f"{service_unit.NAME} serves from {there.prefix}: add --service, or name another "
            "--prefix"
        )


def refuse_other(there: There, *, service: bool) -> None:
    """As `refuse_unit`, for what does not bring a unit of its own; DeployError, one line."""
    refuse_unit(there, service=service)
    if service and there.unit and not there.serves:
        raise DeployError(
            f"{service_unit.NAME} serves from {there.unit}, not from {there.prefix}: name that "
            "with --prefix"
        )


def refuse_service(there: There, port: int) -> None:
    """Refuse a service that could not be had; DeployError, one line."""
    refuse_sudo(there)
    if not there.systemd:
        raise DeployError("no systemd there, which --service needs")
    if there.busy and not (there.active and there.unit_port == port):
        raise DeployError(f"port {port} is in use there: choose another one with --port")


def service_notes(there: There) -> list[str]:
    """Return what should be said about a service there."""
    notes = []
    if not there.limits:
        notes.append(
            "its kernel does not bound the memory of services (cgroup_disable=memory?), so the "
            "unit's MemoryMax has no effect; the server's own --max-memory has"
        )
    if there.unit and not there.serves:
        notes.append(f"{service_unit.NAME} served from {there.unit}, where the files stay")
    return notes


def board(there: There, asked: Board | None) -> tuple[Board, list[str]]:
    """Return what the machine is treated as, and what should be said about that."""
    found = boards.find(there.model)
    notes = []
    if asked is not None:
        if found is not None and found != asked:
            notes.append(f"it is a {found.title} and is treated as a {asked.title}")
        chosen = asked
    elif found is not None:
        chosen = found
    else:
        small = there.memory < 700 << 20
        fast = "pi5" if "asimddp" in there.features else "pi4"
        chosen = boards.board("zero2w" if small else fast)
    if found is None:
        notes.append(f"no known Raspberry Pi, treated as a {chosen.title}; --board names another")
    if there.memory < LITTLE:
        notes.append(f"it has only {there.memory >> 20} MiB of memory")
    apart = abs(there.clock - time.time())
    if apart > SKEW:
        notes.append(f"its clock is {apart:.0f} s off, on which nothing depends")
    return chosen, notes


def refuse_bundle(there: There, manifest: Mapping[str, Any], missing: int) -> None:
    """Refuse a bundle that the machine cannot hold or run; ``missing`` bytes have to be sent."""
    if _version(there.glibc) < _version(manifest["glibc"]):
        raise DeployError(
            f"glibc {there.glibc} there, and {manifest['glibc']} is needed: use a newer Raspberry "
            "Pi OS"
        )
    if there.page_size > manifest["page_size"]:
        raise DeployError(
            f"memory pages of {there.page_size >> 10} KiB there, and its libraries bear at most "
            f"{manifest['page_size'] >> 10}"
        )
    needed = 2 * missing + ROOM  # as it was sent, and as it is installed
    if there.free < needed:
        raise DeployError(
            f"no space in {there.prefix}: {needed / 1e6:.0f} MB are needed and "
            f"{there.free / 1e6:.0f} MB are free"
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())

"""The server as a systemd service: its unit, and what a device needs for it.

The unit is confined, and is ended over its memory limit rather than the board.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asterisk.common.errors import UsageError
from asterisk.deploy import DeployError
from asterisk.deploy.boards import Machine, check_prefix

NAME = "asterisk.service"
PATH = f"/etc/systemd/system/{NAME}"
DEFAULT_PREFIX = "/opt/asterisk"
# What the unit's ProtectHome and PrivateTmp keep from the server.
HIDDEN_FOLDERS = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108
LEAST_PORT, LAST_PORT = 1024, 65535  # the unit may not bind a lower one
LEAST_MEMORY = 96 << 20
# Where a bundle has no limit of its own, so that there is one even where the kernel keeps none.
DEFAULT_MEMORY = {"tflite": 256 << 20, "onnx": 256 << 20}
LARGEST_MEMORY = 384 << 20  # of llama.cpp, and of formats that are not named here


@dataclass(frozen=True, slots=True)
class Service:
    """How the server is to run."""

    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""  # a file on the device that holds a bearer token

    def __post_init__(self) -> None:
        """Refuse what could not be meant; UsageError, one line."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            raise UsageError(f"{self.host!r} is no address for the service to listen on") from None
        if not LEAST_PORT <= self.port <= LAST_PORT:
            raise UsageError(f"a service's port is {LEAST_PORT} to {LAST_PORT}, not {self.port}")
        if self.token and not check_prefix(self.token).startswith("/"):
            raise UsageError(f"{self.token!r} is no absolute path of a token file on the device")


def check_service_prefix(prefix: str) -> None:
    """Refuse a checked prefix in which the unit could never start; UsageError, one line."""
    if not prefix.startswith("/"):
        raise UsageError("with --service the prefix is an absolute path")
    for folder in HIDDEN_FOLDERS:
        if f"{prefix}/".startswith(f"{folder}/"):
            raise UsageError(
                f"a service does not see {folder}: name a prefix such as {DEFAULT_PREFIX}"
            )


def unit(service: Service, prefix: str, manifest: Mapping[str, Any]) -> str:
    """Return the unit's text for a bundle that is installed in ``prefix``, an absolute path."""
    # The server keeps below it by itself; the kernel ends it a quarter above that.
    limit = manifest["max_memory"] or DEFAULT_MEMORY.get(manifest["format"], LARGEST_MEMORY)
    command = [
        f"{prefix}/bin/asterisk-serve",
        f"{prefix}/current/artifact",
        *("--host", service.host, "--port", str(service.port)),
        *("--threads", str(manifest["threads"]), "--max-memory", str(limit)),
        *(("--token-file", "%d/token") if service.token else ()),
    ]
    template = Path(__file__).with_name("templates") / NAME
    return template.read_text("utf-8").format(
        name=manifest["name"],
        command=" ".join(command),
        prefix=prefix,
        memory=max(LEAST_MEMORY, limit + limit // 4),
        credential=f"LoadCredential=token:{service.token}\n" if service.token else "",
    )


def refuse_sudo(machine: Machine) -> None:
    """Refuse a user who cannot become root unasked; DeployError, one line."""
    if not machine.root and not machine.sudo:
        raise DeployError(
            "no sudo without a password, which --service needs: docs/deploying.md says how to "
            "allow it, or leave --service out"
        )


def refuse_unit(machine: Machine, *, service: bool, installing: bool) -> None:
    """Refuse to change the files under a unit, or a unit of other files; DeployError, one line."""
    serves = f"{NAME} serves from"
    if machine.serves and not service:
        raise DeployError(f"{serves} {machine.prefix}: add --service, or name another --prefix")
    if service and machine.unit and not machine.serves and not installing:
        other = f"{machine.unit}, not from {machine.prefix}"
        raise DeployError(f"{serves} {other}: name that with --prefix")


def refuse_service(machine: Machine, port: int) -> None:
    """Refuse a service that could not be had; DeployError, one line."""
    refuse_sudo(machine)
    if not machine.systemd:
        raise DeployError("no systemd there, which --service needs")
    if machine.busy and not (machine.active and machine.unit_port == port):
        raise DeployError(f"port {port} is in use there: choose another one with --port")


def service_notes(machine: Machine) -> list[str]:
    """Return what should be said about a service there."""
    notes = []
    if not machine.limits:
        notes.append(
            "its kernel does not bound the memory of services (cgroup_disable=memory?), so the "
            "unit's MemoryMax has no effect; the server's own --max-memory has"
        )
    if machine.unit and not machine.serves:
        notes.append(f"{NAME} served from {machine.unit}, where the files stay")
    return notes

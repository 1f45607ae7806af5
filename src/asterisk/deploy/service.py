"""The systemd unit of the server: confined, and gone over its memory rather than the board."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asterisk.common.errors import UsageError
from asterisk.deploy.prefix import check

NAME = "asterisk.service"
FOLDER = "/etc/systemd/system"
LEAST_PORT, LAST_PORT = 1024, 65535  # the unit may not bind a lower one
LEAST_MEMORY = 96 << 20
# Where a bundle has no limit of its own, so that there is one even where the kernel keeps none.
USUAL_MEMORY = {"tflite": 256 << 20, "onnx": 256 << 20}
LARGEST_MEMORY = 384 << 20  # of llama.cpp, and of formats that are not known here

_UNIT = """\
[Unit]
Description=asterisk: text embeddings on this machine ({name})
After=network.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
ExecStart={command}
Restart=on-failure
RestartSec=2
TimeoutStartSec=120
TimeoutStopSec=30

# What it may use.
MemoryMax={memory}
MemorySwapMax=0
TasksMax=64
LimitNOFILE=4096
OOMPolicy=stop

# Who it is: nobody, and nobody else afterwards.
DynamicUser=yes
{credential}NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
UMask=0077

# What it sees. Not MemoryDenyWriteExecute: engines may compile their kernels when they start.
ProtectSystem=strict
ReadOnlyPaths={prefix}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateMounts=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RemoveIPC=yes

# What it may ask of the kernel.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Service:
    """How the server is to run; ``token`` is a file on the device that holds a bearer token."""

    host: str = "127.0.0.1"
    port: int = 8080
    token: str = ""

    def __post_init__(self) -> None:
        """Refuse what could not be meant; UsageError, one line."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            raise UsageError(f"{self.host!r} is no address for the service to listen on") from None
        if not LEAST_PORT <= self.port <= LAST_PORT:
            raise UsageError(f"a service's port is {LEAST_PORT} to {LAST_PORT}, not {self.port}")
        if self.token and not check(self.token).startswith("/"):
            raise UsageError(f"{self.token!r} is no absolute path of a token file on the device")


def unit(service: Service, prefix: str, manifest: Mapping[str, Any]) -> str:
    """Return the unit's text for a bundle that is installed in ``prefix``, an absolute path."""
    command = [
        f"{prefix}/bin/asterisk-serve",
        f"{prefix}/current/artifact",
        *("--host", service.host, "--port", str(service.port)),
        *("--threads", str(manifest["threads"])),
    ]
    budget = max_memory(manifest)
    command += ["--max-memory", str(budget)]
    if service.token:
        command += ["--token-file", "%d/token"]
    return _UNIT.format(
        name=manifest["name"],
        command=" ".join(command),
        prefix=prefix,
        memory=memory_max(budget),
        credential=f"LoadCredential=token:{service.token}\n" if service.token else "",
    )


def max_memory(manifest: Mapping[str, Any]) -> int:
    """Return the bytes that the server keeps below by itself: the bundle's, or its format's."""
    return int(manifest["max_memory"] or USUAL_MEMORY.get(manifest["format"], LARGEST_MEMORY))


def memory_max(budget: int) -> int:
    """Return the bytes over which the kernel ends the server: a quarter above its own budget."""
    return max(LEAST_MEMORY, budget + budget // 4)

"""An artifact's way to a device: look, refuse early, send what is missing, install, verify.

On the device everything happens in one session that takes back what it began when the connection
ends (`asterisk.deploy.device.receive`), so that at every step the old installation stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asterisk.artifact import is_artifact, open_artifact
from asterisk.common.errors import ArtifactError
from asterisk.common.ssh import Address
from asterisk.deploy import choose, connection, picking, prefix, push, service
from asterisk.deploy.boards import Board
from asterisk.deploy.bundle import Bundle, collect
from asterisk.deploy.choose import There
from asterisk.deploy.connection import ConnectionLost, DeployError

INSTALL_SECONDS = 1800
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a device; ``timeout`` is of the sending and installing, in seconds."""

    address: Address
    prefix: str = prefix.DEFAULT
    board: Board | None = None
    service: service.Service | None = None
    timeout: float = INSTALL_SECONDS

    @property
    def sudo(self) -> bool:
        """Whether it has to be done by root."""
        return self.service is not None


@dataclass(frozen=True, slots=True)
class Done:
    """A deployment: one ``line`` to report, and where it is."""

    line: str
    prefix: str


def deploy(request: Request, folder: Path, tell: Tell, *, dry_run: bool = False) -> Done:
    """Take the artifact in ``folder`` to the device and leave it verified and in use there.

    DeployError, one line, where anything fails; the old version is then still the one in use.
    """
    _refuse_others(folder)
    artifact = open_artifact(folder)
    there = _look(request, tell)
    choose.refuse(there)
    if request.service is not None:
        choose.refuse_service(there, request.service.port)
    elif not there.writable:
        raise DeployError(f"{there.prefix} cannot be written there: name another --prefix")
    choose.refuse_unit(there, service=request.service is not None)
    board, notes = choose.board(there, request.board)
    if request.service is not None:
        notes += choose.service_notes(there)
    notes.append(picking.better(artifact, board))
    for note in filter(None, notes):
        tell(f"note: {note}")
    tell(f"bundle of {artifact.manifest.name} for {board.name}, Python {there.tag}")
    bundle = collect(artifact, board, there.tag)
    manifest = bundle.manifest
    had = _inventory(request, there)
    parts = push.missing(bundle, had)
    choose.refuse_bundle(there, manifest, parts.size)
    what = (
        f"{len(parts.names)} of {len(manifest['files'])} files, "
        f"{parts.size / 1e6:.1f} of {manifest['installed_bytes'] / 1e6:.1f} MB"
    )
    if dry_run:
        line = f"would push {what} as {manifest['id']} to {there.prefix} on {request.address}"
        return Done(f"{line}; there now: {had.current or 'nothing'}", there.prefix)
    tell(f"push {what}, install and verify")
    told = _install(request, there, bundle, parts)
    before = told["previous"] or "none"
    return Done(
        f"{manifest['name']} is on {request.address} in {there.prefix}: pushed {what}; "
        f"{told['line']}; id {manifest['id']}, before {before}",
        there.prefix,
    )


def _refuse_others(folder: Path) -> None:
    """Point on from what `asterisk-bundle` takes as well, and this does not; ArtifactError."""
    if is_artifact(folder) or not folder.is_dir():
        return
    if picking.is_checkpoint(folder):
        raise ArtifactError(f"{folder} is a checkpoint: make an artifact of it by asterisk-export")
    if any(map(is_artifact, folder.iterdir())):
        raise ArtifactError(
            f"{folder} holds artifacts: name one of them; asterisk-bundle says which suits a board"
        )


def go_back(request: Request, tell: Tell) -> str:
    """Make the version before the one in use, and return a line about it; DeployError."""
    return _other(request, tell, "rollback")


def remove(request: Request, tell: Tell) -> str:
    """Take all versions away, and with them the service; return a line; DeployError."""
    return _other(request, tell, "remove")


def _look(request: Request, tell: Tell) -> There:
    tell(f"probe {request.address}")
    asked = {
        "prefix": request.prefix,
        "unit": f"{service.FOLDER}/{service.NAME}",
        "host": request.service.host if request.service else "",
        "port": request.service.port if request.service else 0,
        "sudo": request.sudo,
    }
    there = choose.read(connection.ask(request.address, connection.script("probe"), asked))
    tell(f"there: {there.line()}")
    return there


def _inventory(request: Request, there: There) -> push.Inventory:
    # The installer reads no input of its own, and so can itself be what python3 reads.
    text = connection.script("install")
    words = [*(connection.SUDO if request.sudo and not there.root else ()), "python3", "-I", "-"]
    words += ["--prefix", there.prefix, "--inventory"]
    out = connection.send(request.address, words, text)
    return push.inventory(connection.answer(request.address, out))


def _install(request: Request, there: There, bundle: Bundle, parts: push.Parts) -> dict[str, Any]:
    unit = ""
    if request.service is not None:
        unit = service.unit(request.service, there.prefix, bundle.manifest)
    with push.stream(bundle, parts) as (stream, size, digest):
        asked = {
            **_asked(request, there, "install", unit),
            "id": bundle.manifest["id"],
            "size": size,
            "sha256": digest,
        }
        told = _session(request, there, asked, follow=stream)
    if told.get("id") != bundle.manifest["id"]:
        raise DeployError(f"{request.address}: installed something else than was sent")
    return told


def _other(request: Request, tell: Tell, action: str) -> str:
    there = _look(request, tell)
    if request.sudo:
        choose.refuse_sudo(there)
    choose.refuse_prefix(there)
    choose.refuse_other(there, service=request.service is not None)
    asked = {
        **_asked(request, there, action, ""),
        "id": "",
        "installer": connection.script("install"),
    }
    told = _session(request, there, asked)
    return f"{request.address}: {told['line']}; before {told['previous'] or 'none'}"


def _asked(request: Request, there: There, action: str, unit: str) -> dict[str, Any]:
    step: dict[str, Any] | None = None
    if request.service is not None:
        step = {
            **asdict(request.service),
            "unit": unit,
            "name": service.NAME,
            "folder": service.FOLDER,
            "script": connection.script("service"),
        }
    return {"action": action, "prefix": there.prefix, "service": step}


def _session(request: Request, there: There, asked: dict[str, Any], **how: Any) -> dict[str, Any]:
    try:
        told = connection.ask(
            request.address,
            connection.script("receive"),
            asked,
            sudo=request.sudo and not there.root,
            timeout=request.timeout,
            **how,
        )
    except ConnectionLost as failure:
        raise ConnectionLost(
            f"{failure}; the device goes back to what it had when it notices"
        ) from None
    except DeployError as failure:
        raise DeployError(f"{failure}; the old installation stays") from None
    texts = (told.get("line"), told.get("previous", ""))
    if not isinstance(told.get("ok"), bool) or not all(isinstance(text, str) for text in texts):
        raise DeployError(f"{request.address}: the answer makes no sense")
    if not told["ok"]:
        stays = "the old installation stays" if asked["action"] == "install" else "nothing changed"
        state = told.get("state")  # what it found to be true in the end
        shown = state if isinstance(state, str) and state else stays
        raise DeployError(f"{request.address}: {told['line']}; {shown}")
    return {"previous": "", **told}

"""An artifact's way to a device: look, refuse early, send what is missing, install, verify.

Scripts of this package are sent over the system's ssh and run by the device's Python; nothing of
them stays. All that changes something happens in one session that undoes what it began when the
connection ends (`asterisk.deploy.device.session`).
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any

from asterisk.artifact import is_artifact, open_artifact
from asterisk.common import ssh as client
from asterisk.common.errors import ArtifactError
from asterisk.common.ssh import Address
from asterisk.common.terminal import excerpt, plain
from asterisk.deploy import DeployError, boards, service
from asterisk.deploy.boards import Board, Machine
from asterisk.deploy.bundle import better_recipe, collect, write_parts
from asterisk.deploy.device import script
from asterisk.deploy.device.manifest import ID, SHA256

INSTALL_SECONDS = 1800
SHORT_SECONDS = 60
LONGEST_ANSWER = 8 << 20
SUDO = ("sudo", "-n", "--")
_READ = "import sys; exec(compile(sys.stdin.buffer.read({}), 'asterisk', 'exec'))"
OnProgress = Callable[[str], None]


class ConnectionLost(DeployError):
    """The connection failed, so that nobody knows what became of the last request."""


def ask(
    address: Address,
    text: str,
    request: Mapping[str, Any],
    *arguments: str,
    sudo: bool = False,
    follow: IO[bytes] | None = None,
    timeout: float = SHORT_SECONDS,
) -> dict[str, Any]:
    """Run the script ``text`` there with ``request``, and then ``follow``, as its input.

    Returns the object in the last line that it prints; DeployError without one.
    """
    source = text.encode()
    words = [*(SUDO if sudo else ()), "python3", "-I", "-c", _READ.format(len(source)), *arguments]
    data = source + json.dumps(request).encode() + b"\n"
    how: dict[str, Any] = {"data": data, "follow": follow, "timeout": timeout}
    try:
        out = client.run(address, words, limit=LONGEST_ANSWER, **how)
    except client.Disconnected as failure:
        reason = str(failure)
        user = f"{address.user}@{address.host}" if address.user else address.host
        target = f"-p {address.port} {user}" if address.port else user
        if re.search("[Hh]ost key verification failed", reason):
            reason = (
                f"host key verification failed: connect once by hand with 'ssh {target}' and "
                "compare the key; if the board was set up anew, remove its old key with "
                "ssh-keygen -R"
            )
        elif "Permission denied (" in reason:
            reason = f"{reason}; let your key in first: ssh-copy-id {target}"
        raise ConnectionLost(f"{address}: {reason}") from None
    except client.RemoteError as failure:
        reason = str(failure)
        if re.search("python3: (command )?not found|ended with status 127$", reason):
            reason = "there is no python3; install it with: sudo apt install python3"
        raise DeployError(f"{address}: {reason}") from None
    return parse_answer(address, out)


def parse_answer(address: Address, out: bytes) -> dict[str, Any]:
    """Return the JSON object in the last line of ``out``, every text in it printable."""
    try:
        answer = plain(json.loads(out.strip().splitlines()[-1]))
    except (IndexError, ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        shown = excerpt(repr(out[-40:]))
        raise DeployError(f"{address}: answered with {shown} instead of a JSON object")
    return answer


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a device."""

    address: Address
    prefix: str = boards.DEFAULT_PREFIX
    board: Board | None = None
    service: service.Service | None = None  # which root has to set up
    timeout: float = INSTALL_SECONDS  # of sending and installing, in seconds

    @property
    def sudo(self) -> bool:
        """Whether root has to do it."""
        return self.service is not None


def deploy(
    request: Request, folder: Path, on_progress: OnProgress, *, dry_run: bool = False
) -> tuple[str, str]:
    """Take the artifact in ``folder`` to the device and leave it verified and in use there.

    Returns a line to report, and the prefix. DeployError, one line, where anything fails; the old
    version is then still the one in use.
    """
    _refuse_folder(folder)
    artifact = open_artifact(folder)
    machine = _probe(request, on_progress)
    boards.refuse_machine(machine)
    if request.service is not None:
        service.refuse_service(machine, request.service.port)
    elif not machine.writable:
        raise DeployError(f"{machine.prefix} cannot be written there: name another --prefix")
    service.refuse_unit(machine, service=request.sudo, installing=True)
    board, notes = boards.choose_board(machine, request.board)
    if request.sudo:
        notes += service.service_notes(machine)
    notes.append(better_recipe(artifact, board))
    for note in filter(None, notes):
        on_progress(f"note: {note}")
    name = artifact.manifest.name
    on_progress(f"bundle of {name} for {board.name}, Python {machine.python}")
    bundle = collect(artifact, board, machine.python)
    manifest, files = bundle.manifest, bundle.manifest["files"]
    current, installed = _inventory(request, machine)
    missing = [name for name in sorted(files) if files[name]["sha256"] not in installed]
    size = sum(files[name]["size"] for name in missing)
    boards.refuse_bundle(machine, manifest, size)
    megabytes = f"{size / 1e6:.1f} of {manifest['installed_bytes'] / 1e6:.1f} MB"
    what = f"{len(missing)} of {len(files)} files, {megabytes}"
    if dry_run:
        line = f"would push {what} as {manifest['id']} to {machine.prefix} on {request.address}"
        return f"{line}; there now: {current or 'nothing'}", machine.prefix
    on_progress(f"push {what}, install and verify")
    with tempfile.TemporaryFile() as file:
        write_parts(bundle, missing, file)
        answer = _session(request, machine, "install", manifest, file)
    if answer.get("id") != manifest["id"]:
        raise DeployError(f"{request.address}: installed something else than was sent")
    line = (
        f"{manifest['name']} is on {request.address} in {machine.prefix}: pushed {what}; "
        f"{answer['line']}; id {manifest['id']}, before {answer['previous'] or 'none'}"
    )
    return line, machine.prefix


def change(request: Request, action: str, on_progress: OnProgress) -> str:
    """Carry out "rollback" or "remove", the service's too; return a line about it; DeployError."""
    machine = _probe(request, on_progress)
    if request.sudo:
        service.refuse_sudo(machine)
    boards.refuse_prefix(machine)
    service.refuse_unit(machine, service=request.sudo, installing=False)
    answer = _session(request, machine, action)
    return f"{request.address}: {answer['line']}; before {answer['previous'] or 'none'}"


def _refuse_folder(folder: Path) -> None:
    """Refuse what `asterisk-bundle` takes as well, and this does not; ArtifactError."""
    if is_artifact(folder) or not folder.is_dir():
        return
    from asterisk.model.checkpoint import is_checkpoint

    if is_checkpoint(folder):
        raise ArtifactError(f"{folder} is a checkpoint: make an artifact of it by asterisk-export")
    if any(map(is_artifact, folder.iterdir())):
        raise ArtifactError(
            f"{folder} holds artifacts: name one of them; asterisk-bundle says which suits a board"
        )


def _probe(request: Request, on_progress: OnProgress) -> Machine:
    on_progress(f"probe {request.address}")
    question = {
        "prefix": request.prefix,
        "unit": service.PATH,
        "host": request.service.host if request.service else "",
        "port": request.service.port if request.service else 0,
        "sudo": request.sudo,
    }
    machine = boards.read_machine(ask(request.address, script("probe"), question))
    on_progress(f"there: {machine}")
    return machine


def _inventory(request: Request, machine: Machine) -> tuple[str, frozenset[str]]:
    """Return the id of the version in use, or nothing, and the hashes of what is installed."""
    options = ("--prefix", machine.prefix, "--inventory")
    sudo = request.sudo and not machine.root
    answer = ask(request.address, script("install"), {}, *options, sudo=sudo)
    files = answer.get("files", {})
    ids = [answer.get(name) or "" for name in ("current", "previous")]
    sound = isinstance(files, dict) and all(map(SHA256.fullmatch, files))
    if not sound or not all(isinstance(id, str) and (not id or ID.fullmatch(id)) for id in ids):
        raise DeployError("the installer's inventory makes no sense")
    return ids[0], frozenset(files)


def _session(
    request: Request,
    machine: Machine,
    action: str,
    manifest: Mapping[str, Any] | None = None,  # of what is to be installed
    file: BufferedRandom | None = None,  # with it, at its end
) -> dict[str, Any]:
    """Have a session carry out ``action`` there; DeployError where it says that it could not."""
    question: dict[str, Any] = {"action": action, "prefix": machine.prefix, "service": None}
    if request.service is not None:
        unit = service.unit(request.service, machine.prefix, manifest) if manifest else ""
        question["service"] = {**asdict(request.service), "unit": unit, "path": service.PATH}
    if file is not None:
        question["size"] = file.tell()
        file.seek(0)
        question["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
    sudo = request.sudo and not machine.root
    how: dict[str, Any] = {"sudo": sudo, "timeout": request.timeout, "follow": file}
    try:
        answer = ask(request.address, script("session"), question, **how)
    except ConnectionLost as failure:
        line = f"{failure}; the device goes back to what it had when it notices"
        raise ConnectionLost(line) from None
    except DeployError as failure:
        raise DeployError(f"{failure}; the old installation stays") from None
    answer = {"previous": "", "state": "", **answer}
    texts = (answer.get("line"), answer["previous"])
    if not isinstance(answer.get("ok"), bool) or not all(isinstance(text, str) for text in texts):
        raise DeployError(f"{request.address}: the answer makes no sense")
    if not answer["ok"]:
        stays = "the old installation stays" if action == "install" else "nothing changed"
        state = answer["state"]  # what it found to be true in the end
        shown = state if isinstance(state, str) and state else stays
        raise DeployError(f"{request.address}: {answer['line']}; {shown}")
    return answer

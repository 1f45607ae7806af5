"""Scripts of this package, sent to another machine and run there by its Python.

Nothing is left there by that: a script travels in front of its own input. What comes back is
bounded, one JSON object, and nothing in it is shown before it is `printable`.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from typing import IO, Any

from asterisk.common import ssh as client
from asterisk.common.errors import EngineError
from asterisk.common.ssh import Address
from asterisk.common.terminal import excerpt as printable
from asterisk.common.terminal import plain

SHORT_SECONDS = 60
LONGEST_ANSWER = 8 << 20
SUDO = ("sudo", "-n", "--")
_READ = "import sys; exec(compile(sys.stdin.buffer.read({}), 'asterisk', 'exec'))"
_KEY = re.compile(r"[Hh]ost key verification failed")
_DENIED = re.compile(r"Permission denied \(")
_NO_PYTHON = re.compile(r"python3: (command )?not found|ended with status 127$")


class DeployError(EngineError):
    """A machine that cannot be deployed to, or did not do what it was asked; one line."""


class ConnectionLost(DeployError):
    """The connection failed, so that it is not known what became of the last thing asked."""


def script(name: str) -> str:
    """Return the text of one of the scripts that run on devices."""
    return (files("asterisk.deploy.device") / f"{name}.py").read_text("utf-8")


def ask(
    address: Address,
    text: str,
    asked: Mapping[str, Any],
    *,
    sudo: bool = False,
    follow: IO[bytes] | None = None,
    timeout: float = SHORT_SECONDS,
) -> dict[str, Any]:
    """Run the script ``text`` there with ``asked``, and then ``follow``, as its input.

    Returns the object in the last line that it prints. DeployError for anything else, at the latest
    after ``timeout`` seconds.
    """
    source = text.encode()
    words = [*(SUDO if sudo else ()), "python3", "-I", "-c", _READ.format(len(source))]
    data = source + json.dumps(asked).encode() + b"\n"
    out = run(address, words, data=data, follow=follow, timeout=timeout)
    return answer(address, out)


def send(address: Address, words: list[str], text: str) -> bytes:
    """Run ``words`` there with ``text`` as the whole of their input; DeployError with advice."""
    with tempfile.TemporaryFile() as source:
        source.write(text.encode())
        source.seek(0)
        return run(address, words, source=source, timeout=SHORT_SECONDS)


def run(address: Address, words: list[str], **how: Any) -> bytes:
    """Run ``words`` there as `asterisk.common.ssh.run` does; DeployError with advice."""
    try:
        return client.run(address, words, **{"limit": LONGEST_ANSWER, **how})
    except client.Disconnected as failure:
        raise ConnectionLost(f"{address}: {_advice(address, str(failure))}") from None
    except client.RemoteError as failure:
        told = str(failure)
        if _NO_PYTHON.search(told):
            told = "there is no python3; install it with: sudo apt install python3"
        raise DeployError(f"{address}: {told}") from None


def answer(address: Address, out: bytes) -> dict[str, Any]:
    """Return the JSON object in the last line of ``out``, every text in it printable."""
    lines = out.strip().splitlines()
    try:
        told = plain(json.loads(lines[-1])) if lines else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        shown = printable(repr(out[-40:]))
        raise DeployError(f"{address}: answered with {shown} instead of a JSON object")
    return told


def _advice(address: Address, told: str) -> str:
    shown = f"-p {address.port} " if address.port else ""
    shown += f"{address.user}@{address.host}" if address.user else address.host
    if _KEY.search(told):
        return (
            f"host key verification failed: connect once by hand with 'ssh {shown}' and compare "
            "the key; if the board was set up anew, remove its old key with ssh-keygen -R"
        )
    if _DENIED.search(told):
        return f"{told}; let your key in first: ssh-copy-id {shown}"
    return told

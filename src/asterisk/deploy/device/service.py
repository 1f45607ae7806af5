"""Puts the systemd unit in its place, or takes it away; on the device, standard library only.

``python3 service.py check|apply|restart|remove`` reads one JSON line ``{"unit", "name", "folder",
"host", "port", "token"}``. When it fails, the unit is the one there was before, and runs if it ran.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PATIENCE = 60  # seconds until the server has to answer
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class ServiceError(Exception):
    """Why the service cannot be had; the message is one line."""


def systemctl(*words: str, must: bool = True) -> bool:
    """Run systemctl and tell whether it was content; ServiceError with its last line if it must."""
    done = subprocess.run(
        ["systemctl", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    if must and done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it failed"]
        raise ServiceError(f"systemctl {words[0]}: {lines[0][:200]}")
    return done.returncode == 0


def check(asked: dict[str, Any]) -> None:
    """Look for what the service needs before anything is changed."""
    token = asked["token"]
    if token and not Path(token).is_file():
        raise ServiceError(f"there is no token file {token}")
    if not Path(asked["folder"]).is_dir():
        raise ServiceError(f"there is no folder {asked['folder']} for units")


def put(path: Path, text: bytes) -> None:
    """Write ``path`` whole or not at all."""
    handle, name = tempfile.mkstemp(".new", f".{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            os.fchmod(handle, 0o644)
            file.flush()
            os.fsync(handle)
        os.replace(name, path)  # noqa: PTH105
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make a renaming or a removal in ``folder`` last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def healthy(host: str, port: int) -> bool:
    """Ask the server how it is."""
    connection = http.client.HTTPConnection(ANY.get(host, host), port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def start(asked: dict[str, Any]) -> None:
    """Start the unit anew and wait until its server answers."""
    name = asked["name"]
    systemctl("daemon-reload")
    systemctl("enable", name)
    if not systemctl("restart", name, must=False):
        raise ServiceError(f"it did not start: {last_words(name)}")
    end = time.monotonic() + PATIENCE
    while not healthy(asked["host"], asked["port"]):
        if not systemctl("is-active", name, must=False):
            raise ServiceError(f"it started and ended: {last_words(name)}")
        if time.monotonic() > end:
            raise ServiceError(f"its /health did not answer in {PATIENCE} s")
        time.sleep(0.2)


def last_words(name: str) -> str:
    """Return the last line that the service left in the journal."""
    words = ["journalctl", "-u", name, "-n", "20", "-o", "cat", "--no-pager"]
    try:
        done = subprocess.run(words, capture_output=True, timeout=15, check=False)
    except (OSError, subprocess.SubprocessError):
        return f"see journalctl -u {name}"
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    told = [line for line in lines if "asterisk-serve:" in line] or lines[-1:]
    return told[-1][:200] if told else f"see journalctl -u {name}"


def apply(asked: dict[str, Any]) -> None:
    """Put the unit there and start it; on any failure, what was there before."""
    path = Path(asked["folder"]) / asked["name"]
    before = path.read_bytes() if path.is_file() else None
    ran = systemctl("is-active", asked["name"], must=False)
    try:
        put(path, asked["unit"].encode())
        start(asked)
    except BaseException:
        restore(asked, path, before)
        if ran:  # started again by whoever takes the old version back
            sys.stdout.write("it ran\n")
        raise


def restore(asked: dict[str, Any], path: Path, before: bytes | None) -> None:
    """Leave the unit as it was, stopped."""
    systemctl("stop", asked["name"], must=False)
    if before is None:
        systemctl("disable", asked["name"], must=False)
        path.unlink(missing_ok=True)
        sync(path.parent)
    else:
        put(path, before)
    systemctl("daemon-reload", must=False)


def restart(asked: dict[str, Any]) -> None:
    """Start whatever unit there is again, and wait until its server answers where it listens."""
    path = Path(asked["folder"]) / asked["name"]
    if path.is_file():
        start({**asked, **listening(path.read_text("utf-8", "replace"))})


def listening(unit: str) -> dict[str, Any]:
    """Return the ``host`` and ``port`` that a unit's command names, as far as it does."""
    lines = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    words = lines[0].split() if lines else []
    given = dict(itertools.pairwise(words))
    told: dict[str, Any] = {"host": given["--host"]} if "--host" in given else {}
    if given.get("--port", "").isdecimal():
        told["port"] = int(given["--port"])
    return told


def remove(asked: dict[str, Any]) -> None:
    """Take the unit away."""
    path = Path(asked["folder"]) / asked["name"]
    if path.is_file():
        systemctl("disable", "--now", asked["name"])
        path.unlink()
        sync(path.parent)
        systemctl("daemon-reload")


STEPS = {"check": check, "apply": apply, "restart": restart, "remove": remove}


def main(argv: list[str]) -> int:
    """Carry out one step."""
    asked = json.load(sys.stdin)
    try:
        STEPS[argv[0]](asked)
    except (ServiceError, OSError, subprocess.SubprocessError) as failure:
        sys.stderr.write(f"the service: {' '.join(str(failure).split())}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

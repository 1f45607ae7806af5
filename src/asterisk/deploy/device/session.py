"""What one connection does on a device: takes files, installs them, sets up the service.

Sent over ssh and run there. Reads one JSON line, the request, and then the tar stream that it
announces; answers with one JSON line ``{"ok", "line", ...}``. The connection's input stays open
meanwhile: when it ends, nobody waits any more, and what was begun is ended and undone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from asterisk.deploy.device.install import execute
from asterisk.deploy.device.manifest import TOP, Refusal, reason_of
from asterisk.deploy.device.versions import Installation, sync

STAGING = ".asterisk-push-"
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
BLOCK = 1 << 16
PATIENCE = 60  # seconds until the server has to answer
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def finish_regardless() -> None:
    """Ignore signals and the connection from now on: an undoing is carried through."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)  # unlike SIG_IGN, children do not inherit it


def leave(number: int, _: object) -> NoReturn:
    """End by an exception, so that what was begun is undone and folders are removed."""
    finish_regardless()
    raise SystemExit(128 + number)


def watch_connection() -> None:
    """Wait for the input's end, in a thread of its own, and have the main thread leave then."""
    with contextlib.suppress(OSError):
        while os.read(0, BLOCK):
            pass
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


class Incoming:
    """Exactly ``left`` bytes of a stream, and their sha256."""

    def __init__(self, stream: IO[bytes], left: int) -> None:
        self.stream, self.left, self.digest = stream, left, hashlib.sha256()

    def read(self, count: int) -> bytes:
        """Return the next bytes, none at the end."""
        data = self.stream.read(min(count, self.left))
        if not data and self.left:
            raise Refusal("the connection broke while files were sent")
        self.left -= len(data)
        self.digest.update(data)
        return data


def unpack(stream: IO[bytes], request: dict[str, Any], folder: Path) -> None:
    """Write the plain files of the stream below ``folder``; Refusal unless it is the one sent."""
    incoming = Incoming(stream, request["size"])
    damages = (tarfile.TarError, EOFError, FileExistsError, NotADirectoryError, ValueError)
    with (
        contextlib.suppress(*damages),  # the digest will tell
        tarfile.open(fileobj=incoming, mode="r|", bufsize=BLOCK) as tar,  # type: ignore[call-overload]
    ):
        for entry in tar:
            parts = entry.name.split("/")
            if not entry.isreg() or parts[0] != TOP or {"", ".", ".."} & set(parts):
                raise Refusal("what arrived names something that is no plain file")
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                shutil.copyfileobj(tar.extractfile(entry) or io.BytesIO(), file)
    while incoming.left:
        incoming.read(BLOCK)
    if incoming.digest.hexdigest() != request["sha256"]:
        raise Refusal("what arrived is not what was sent")


@contextlib.contextmanager
def private_folder(prefix: Path) -> Iterator[Path]:
    """Give a locked folder for what is sent, and remove those that killed sessions have left."""
    # On the prefix's file system, so that a small /tmp does not matter; inside of the prefix only
    # if that is an installation: the installer takes no other folder for its own.
    with contextlib.suppress(OSError):
        prefix.parent.mkdir(parents=True, exist_ok=True)
    inside = [prefix] if (prefix / "versions").is_dir() else []
    for parent in (*inside, prefix.parent, None):  # None: the system's, for temporary files
        try:
            folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=parent))
        except OSError:
            continue
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            remove_abandoned(folder)
            yield folder
        finally:
            finish_regardless()
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
        return
    raise Refusal("no folder for what is sent can be made")


def remove_abandoned(own: Path) -> None:
    """Remove private folders beside ``own`` that no session holds any more."""
    for folder in own.parent.glob(f"{STAGING}????????"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def systemctl(*words: str, must: bool = True) -> bool:
    """Run systemctl and return whether it succeeded; Refusal with its complaint if it must."""
    process = subprocess.run(
        ["systemctl", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    if must and process.returncode:
        lines = process.stderr.decode("utf-8", "replace").strip().splitlines() or ["it failed"]
        raise Refusal(f"systemctl {words[0]}: {lines[0][:200]}")
    return process.returncode == 0


def is_healthy(host: str, port: int) -> bool:
    """Ask the server how it is."""
    server = http.client.HTTPConnection(host, port, timeout=5)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(server):
        server.request("GET", "/health")
        return server.getresponse().status == 200
    return False


class Service:
    """The server's systemd unit, as a request describes it: ``unit`` is its text."""

    def __init__(self, path: str, unit: str, host: str, port: int, token: str) -> None:
        self.path, self.unit = Path(path), unit
        self.name, self.folder = self.path.name, self.path.parent
        self.host, self.port, self.token = host, port, token
        self.interrupted = False  # whether the server of before has to be started again

    def check(self) -> None:
        """Look for what the service needs before anything is changed."""
        if self.token and not Path(self.token).is_file():
            raise Refusal(f"there is no token file {self.token}")
        if not self.folder.is_dir():
            raise Refusal(f"there is no folder {self.folder} for units")

    def apply(self) -> None:
        """Write the unit and start it; on any failure, the unit that was there before, stopped."""
        before = self.path.read_bytes() if self.path.is_file() else None
        running = systemctl("is-active", self.name, must=False)
        try:
            self.write(self.unit.encode())
            self.start(self.host, self.port)
        except BaseException:
            finish_regardless()
            self.interrupted = running
            systemctl("stop", self.name, must=False)
            if before is None:
                systemctl("disable", self.name, must=False)
                self.path.unlink(missing_ok=True)
                sync(self.folder)
            else:
                self.write(before)
            systemctl("daemon-reload", must=False)
            raise

    def write(self, text: bytes) -> None:
        """Write the unit whole or not at all."""
        new = self.path.with_name(f".{self.name}.new")
        try:
            new.write_bytes(text)
            new.chmod(0o644)
            sync(new)
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)
        sync(self.folder)

    def start(self, host: str, port: int) -> None:
        """Start the unit anew and wait until its server answers at an address."""
        systemctl("daemon-reload")
        systemctl("enable", self.name)
        if not systemctl("restart", self.name, must=False):
            raise Refusal(f"it did not start: {self.last_words()}")
        deadline = time.monotonic() + PATIENCE
        while not is_healthy(LOOPBACK.get(host, host), port):
            if not systemctl("is-active", self.name, must=False):
                raise Refusal(f"it started and ended: {self.last_words()}")
            if time.monotonic() > deadline:
                raise Refusal(f"its /health did not answer in {PATIENCE} s")
            time.sleep(0.2)

    def last_words(self) -> str:
        """Return the last line that the server left in the journal."""
        words = ["journalctl", "-u", self.name, "-n", "20", "-o", "cat", "--no-pager"]
        try:
            journal = subprocess.run(words, capture_output=True, timeout=15, check=False)
            lines = journal.stdout.decode("utf-8", "replace").strip().splitlines()
        except (OSError, subprocess.SubprocessError):
            lines = []
        own = [line for line in lines if "asterisk-serve:" in line] or lines
        return own[-1][:200] if own else f"see journalctl -u {self.name}"

    def restart(self) -> None:
        """Start whatever unit there is again, and wait for its server at the unit's own address."""
        if self.path.is_file():
            self.interrupted = True
            lines = self.path.read_text("utf-8", "replace").splitlines()
            command = next((line for line in lines if line.startswith("ExecStart=")), "")
            options = dict(itertools.pairwise(command.split()))
            given = options.get("--port", "")
            port = int(given) if given.isdecimal() else self.port
            self.start(options.get("--host", self.host), port)

    def remove(self) -> None:
        """Take the unit away."""
        if self.path.is_file():
            systemctl("disable", "--now", self.name)
            self.path.unlink()
            sync(self.folder)
            systemctl("daemon-reload")


class Session:
    """The actions that can be requested; each returns the answer."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.installation = Installation(request["prefix"])
        self.service = Service(**request["service"]) if request["service"] else None
        self.before = self.installation.linked("current") or ""

    def install(self, source: Path) -> dict[str, Any]:
        """Install what has arrived; if that or its server fails, the old version again."""
        self.serve("check")
        stays = "the old installation stays" if self.before else "nothing is installed"
        return self.installer(stays, source=source, step="apply")

    def rollback(self) -> dict[str, Any]:
        """Go back to the version before; if its server does not run, forward again."""
        return self.installer("", "--rollback", step="restart")

    def remove(self) -> dict[str, Any]:
        """Take everything away."""
        self.serve("remove")
        gone = "the service is gone, and the files stay" if self.service else ""
        return self.installer(gone, "--remove")

    def installer(
        self, state: str, *options: str, source: Path = Path(), step: str = ""
    ) -> dict[str, Any]:
        """Run the installer and then a step of the service; Refusal, with ``state``, on failure."""

        def serve() -> None:
            self.serve(step)
            finish_regardless()

        answer = execute(["--prefix", str(self.installation.prefix), *options], source, serve)
        if answer["ok"]:
            return {**answer, "previous": self.before}
        finish_regardless()
        state = answer.get("state", state)
        if self.service is not None and self.service.interrupted:
            state = state or f"{self.before} is in use again"
            try:  # this has stopped the server of what is in use again
                self.serve("restart")
            except Refusal as reason:
                state += f"; its server does not run: {reason}"
        raise Refusal(answer["line"], state)

    def serve(self, step: str) -> None:
        """Carry out a step of the service, if there is to be one; Refusal with its own line."""
        if self.service is not None:
            try:
                getattr(self.service, step)()
            except (Refusal, OSError, subprocess.SubprocessError) as failure:
                raise Refusal(f"the service: {' '.join(str(failure).split())}") from None


def main() -> None:
    """Read the request, carry it out, answer."""
    for number in SIGNALS:
        signal.signal(number, leave)
    os.umask(0o022)  # a service's user has to read what is installed; the folder itself is private
    request = json.loads(sys.stdin.buffer.readline())
    watcher = threading.Thread(target=watch_connection, daemon=True)
    answer: dict[str, Any]
    try:
        if request["action"] == "install":
            with private_folder(Path(request["prefix"])) as folder:
                unpack(sys.stdin.buffer, request, folder)
                watcher.start()
                answer = Session(request).install(folder / TOP)
        else:
            watcher.start()
            session = Session(request)
            answer = session.rollback() if request["action"] == "rollback" else session.remove()
    except Refusal as failure:
        answer = {"ok": False, "line": str(failure), "state": failure.state}
    except OSError as failure:
        full = " (the disk is full)" if failure.errno == errno.ENOSPC else ""
        answer = {"ok": False, "line": f"{reason_of(failure)}{full}"}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Takes files over ssh, runs the installer and the service's step; standard library only.

Sent over ssh and run there. Reads one JSON line, the request, and then the tar stream it announces.
The connection's input stays open meanwhile: when it ends, nobody waits any more, and what was begun
is ended and taken back. Answers with one JSON line ``{"ok", "line", ...}``. Everything it needs for
itself is in one private folder, which it removes, and with it those that a killed one has left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import IO, Any, NoReturn

TOP = "asterisk-bundle"
STAGING = ".asterisk-push-"
GRACE = 30.0  # seconds to end in before it is made to
PIECE = 1 << 16


class Refused(Exception):
    """Why it is not done; the message is one line, and ``state`` tells what is true now."""

    def __init__(self, line: str, state: str = "") -> None:
        super().__init__(line)
        self.state = state


class Incoming:
    """Exactly ``size`` bytes of a stream, and their sha256."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.stream = stream
        self.left = size
        self.digest = hashlib.sha256()

    def read(self, count: int) -> bytes:
        """Return the next bytes, none at the end."""
        data = self.stream.read(min(count, self.left))
        if not data and self.left:
            raise Refused("the connection broke while files were sent")
        self.left -= len(data)
        self.digest.update(data)
        return data

    def finish(self) -> str:
        """Read what is left and return the digest of everything."""
        while self.left:
            self.read(PIECE)
        return self.digest.hexdigest()


class Waiter:
    """Whoever waits at the other end of the connection; when he is gone, so is what runs."""

    def __init__(self) -> None:
        self.gone = False
        self.child: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    def watch(self) -> None:
        """Wait for the input's end, in a thread of its own."""
        with contextlib.suppress(OSError):
            while os.read(0, PIECE):
                pass
        with self.lock:
            self.gone = True
            child = self.child
        if child is not None:
            end(child)

    def run(self, words: list[str], folder: Path, text: str = "") -> tuple[int, str, str]:
        """Run a program to its end and return its status and what it said; Refused if gone."""
        with self.lock:
            if self.gone:
                raise Refused("the connection broke")
            pipe = subprocess.PIPE
            self.child = subprocess.Popen(
                words, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
        try:
            out, noise = self.child.communicate(text.encode())
        except BaseException:
            end(self.child)
            raise
        return self.child.returncode, out.decode("utf-8", "replace"), last(noise)


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child and all it started: asked first, then made to."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT)  # which Python makes an exception of
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def last(noise: bytes) -> str:
    """Return the last line of a complaint."""
    lines = [line for line in noise.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""


def unpack(stream: IO[bytes], asked: dict[str, Any], folder: Path) -> None:
    """Write the plain files of the stream below ``folder``; Refused unless it is the one sent."""
    incoming = Incoming(stream, asked["size"])
    try:
        with tarfile.open(fileobj=incoming, mode="r|", bufsize=PIECE) as tar:  # type: ignore[call-overload]
            for entry in tar:
                parts = entry.name.split("/")
                if not entry.isreg() or parts[0] != TOP or {"", ".", ".."} & set(parts):
                    raise Refused("what arrived names something that is no plain file")
                target = folder.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                data = tar.extractfile(entry)
                with target.open("xb") as file:
                    if data is not None:
                        shutil.copyfileobj(data, file)
    except (tarfile.TarError, EOFError, FileExistsError, NotADirectoryError, ValueError):
        incoming.finish()
        raise Refused("what arrived is not what was sent") from None
    if incoming.finish() != asked["sha256"]:
        raise Refused("what arrived is not what was sent")


def staging(prefix: Path | None) -> tuple[Path, int]:
    """Make the private folder, locked, and remove those that killed ones have left.

    On the prefix's file system if that can be, so that a small ``/tmp`` does not matter; in the
    prefix only if that is an installation already, since the installer takes no other for its own.
    """
    for parent in places(prefix):
        with contextlib.suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=parent))
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            tidy(folder)
            return folder, lock
    raise Refused("no folder for what is sent can be made")


def places(prefix: Path | None) -> list[Path | None]:
    """Return where the private folder may be, the best first; None is the system's own place."""
    if prefix is None:
        return [None]
    if (prefix / "versions").is_dir():
        return [prefix, prefix.parent, None]
    with contextlib.suppress(OSError):
        prefix.parent.mkdir(parents=True, exist_ok=True)
    return [prefix.parent, None]


def tidy(mine: Path) -> None:
    """Remove folders beside ``mine`` that nobody holds any more."""
    for old in mine.parent.glob(STAGING + "????????"):
        with contextlib.suppress(OSError):
            lock = os.open(old, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(old, ignore_errors=True)
            finally:
                os.close(lock)


def linked(prefix: Path, name: str = "current") -> str:
    """Return the id of the version in use, or of the ``previous`` one; nothing if there is none."""
    try:
        return (prefix / name).readlink().name
    except OSError:
        return ""


def links(prefix: Path) -> tuple[str, str]:
    """Return the ids of the current and the previous version."""
    return linked(prefix), linked(prefix, "previous")


class Steps:
    """What is done in one private folder."""

    def __init__(self, asked: dict[str, Any], folder: Path, waiter: Waiter) -> None:
        self.asked = asked
        self.folder = folder
        self.waiter = waiter
        self.prefix = Path(asked["prefix"])

    def installer(self, *options: str) -> dict[str, Any]:
        """Run the installer; Refused with its own line."""
        words = [sys.executable, "-I", "install.py", "--prefix", str(self.prefix), *options]
        status, out, noise = self.waiter.run(words, self.folder / TOP)
        try:
            told = json.loads((out.strip().splitlines() or ["-"])[-1])
        except (ValueError, RecursionError):
            told = None
        if status or not isinstance(told, dict) or not told.get("ok"):
            line = told.get("line") if isinstance(told, dict) else ""
            raise Refused(line or noise or f"the installer ended with status {status}")
        return told

    def service(self, step: str) -> None:
        """Carry out a step of the service, if there is to be one; Refused with its own line."""
        if not self.asked["service"]:
            return
        path = self.folder / "service.py"
        path.write_text(self.asked["service"]["script"], "utf-8")
        words = [sys.executable, "-I", str(path), step]
        told = {**self.asked["service"], "script": ""}
        status, out, noise = self.waiter.run(words, self.folder, json.dumps(told))
        if status:
            self.ran = "it ran" in out
            raise Refused(noise or f"the service's step ended with status {status}")

    ran = False

    def install(self) -> dict[str, Any]:
        """Install what has arrived; on failure, also of the service, the old version again."""
        before = links(self.prefix)
        fresh = not os.path.lexists(self.prefix / "versions" / self.asked["id"])
        self.service("check")
        keep = ["--keep", "3"] if self.asked["service"] else []  # until the new server answers
        try:
            told = self.installer(*keep)
            self.service("apply")
        except Refused as failure:
            raise Refused(str(failure), self.take_back(before, fresh=fresh)) from None
        except BaseException:
            self.take_back(before, fresh=fresh)
            raise
        if keep:
            with contextlib.suppress(Refused, OSError):  # what is too much goes the next time
                self.alone().installer("--prune")
        return {**told, "previous": before[0]}

    def alone(self) -> Steps:
        """Return the same steps, to be carried out whether or not anybody waits."""
        return Steps(self.asked, self.folder, Waiter())

    def take_back(self, before: tuple[str, str], *, fresh: bool) -> str:
        """Undo a switch to what was sent, which goes if it is ``fresh``; return what is true then.

        An old service that ran runs again.
        """
        mine = self.asked["id"]
        told = []
        if linked(self.prefix) == mine and (fresh or links(self.prefix) != before):
            told += self.undo(before, mine if fresh else "")
        if not told:
            told.append("the old installation stays" if before[0] else "nothing is installed")
        if self.ran:
            told += self.restart()
        return "; ".join(told)

    def undo(self, before: tuple[str, str], mine: str = "") -> list[str]:
        """Make both links what they were and discard ``mine``; return a complaint, or nothing."""
        try:
            self.alone().installer("--undo", mine or "-", *(it or "-" for it in before))
        except (Refused, OSError) as failure:
            return [
                f"{linked(self.prefix) or 'nothing'} is in use, for going back failed: {failure}"
            ]
        return []

    def restart(self) -> list[str]:
        """Start the service again; return a complaint, or nothing."""
        try:
            self.alone().service("restart")
        except (Refused, OSError) as failure:
            return [f"its server does not run: {failure}"]
        return []

    def rollback(self) -> dict[str, Any]:
        """Go back to the version before; if its server does not run, forward again."""
        before = links(self.prefix)
        told = self.installer("--rollback")
        try:
            self.service("restart")
        except Refused as failure:
            bad = self.undo(before) or [f"{before[0]} is in use again"]
            raise Refused(str(failure), "; ".join(bad + self.restart())) from None
        except BaseException:
            self.undo(before)
            self.restart()
            raise
        return {**told, "previous": before[0]}

    def remove(self) -> dict[str, Any]:
        """Take everything away."""
        before = linked(self.prefix)
        self.service("remove")
        try:
            return {**self.installer("--remove"), "previous": before}
        except Refused as failure:
            gone = "the service is gone, and the files stay" if self.asked["service"] else ""
            raise Refused(str(failure), gone) from None


def carry_out(asked: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked, in a folder that is gone afterwards."""
    install = asked["action"] == "install"
    folder, lock = staging(Path(asked["prefix"]) if install else None)
    try:
        waiter = Waiter()
        if install:
            unpack(sys.stdin.buffer, asked, folder)
        else:
            (folder / TOP).mkdir()
            (folder / TOP / "install.py").write_text(asked["installer"], "utf-8")
        threading.Thread(target=waiter.watch, daemon=True).start()
        told: dict[str, Any] = getattr(Steps(asked, folder, waiter), asked["action"])()
        return told
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def leave(number: int, _: object) -> NoReturn:
    """End by an exception, so that folders are removed."""
    raise SystemExit(128 + number)


def main() -> None:
    """Read what is asked, do it, answer."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)
    os.umask(0o022)  # a service's user has to read what is installed; the folder itself is private
    asked = json.loads(sys.stdin.buffer.readline())
    try:
        told = carry_out(asked)
    except Refused as failure:
        told = {"ok": False, "line": str(failure), "state": failure.state}
    except OSError as failure:
        what = f"{failure.filename}: " if failure.filename else ""
        full = " (the disk is full)" if failure.errno == errno.ENOSPC else ""
        told = {"ok": False, "line": f"{what}{failure.strerror or failure}{full}"}
    sys.stdout.write("\n" + json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""The installed versions below one prefix, and the links that say which of them is in use.

What is installed is the old version or the new one, whole, whenever the power fails: a version is
written beside the others, synced, renamed, and made current by the rename of a link.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asterisk.deploy.device.manifest import ID, MANIFEST, Refusal, copy, is_intact, read_manifest

SPARE = 8 << 20  # bytes to be left free
TEMPORARY_LINKS = (".current.new", ".previous.new", ".bin.new")
OWN_NAMES = {"versions", "current", "previous", "bin", "report.jsonl", ".lock", *TEMPORARY_LINKS}


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Sync every file and folder under ``root``, and itself."""
    for path in sorted(root.rglob("*"), reverse=True):
        if not path.is_symlink():
            sync(path)
    sync(root)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names by Linux's renameat2(2); False where it cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), flag) == 0)


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, a file or a link, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Installation:
    """The versions in a prefix; every method that changes something is called under its lock."""

    def __init__(self, prefix: str) -> None:
        self.prefix = Path(os.path.realpath(Path(prefix).expanduser()))
        self.versions = self.prefix / "versions"
        self.report_file = self.prefix / "report.jsonl"
        self.lock_file = self.prefix / ".lock"
        if any(sign in str(self.prefix) for sign in ":\n\0") or str(self.prefix) == "/":
            raise Refusal(f"{str(self.prefix)!r} cannot be a prefix")

    def check(self) -> None:
        """Refuse a prefix that holds something else, or whose links lead elsewhere."""
        if not os.path.lexists(self.prefix):
            return
        if not self.prefix.is_dir():
            raise Refusal(f"{self.prefix} is not a folder")
        found = {path.name: path for path in self.prefix.iterdir()}
        if "versions" in found:
            if self.versions.is_symlink() or not self.versions.is_dir():
                raise Refusal(f"{self.versions} is not a folder of its own")
        elif set(found) - OWN_NAMES:
            raise Refusal(f"{self.prefix} holds something else, which is left alone")
        for name in ("current", "previous"):
            if name in found and self.linked(name) is None:
                raise Refusal(f"{found[name]} is not a link to a version")
        programs = found.get("bin")
        if programs and not (programs.is_symlink() and str(programs.readlink()) == "current/bin"):
            raise Refusal(f"{programs} is not the link to current/bin")
        for name in (".lock", "report.jsonl"):
            if name in found and not stat.S_ISREG(found[name].lstat().st_mode):
                raise Refusal(f"{found[name]} is not a plain file")

    def check_space(self, manifest: Mapping[str, Any]) -> None:
        """Refuse what would not fit, counting what can be taken from an installed version."""
        installed, files = self.installed(), manifest["files"].values()
        missing = [entry["size"] for entry in files if entry["sha256"] not in installed]
        needed = sum(size + 4096 for size in missing) + SPARE
        disk = os.statvfs(next(it for it in (self.prefix, *self.prefix.parents) if it.is_dir()))
        free = disk.f_bavail * disk.f_frsize
        if free < needed:
            raise Refusal(
                f"no space: {needed / 1e6:.0f} MB are needed in {self.prefix}, "
                f"and {free / 1e6:.0f} MB are free"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the prefix alone, made and tidied where need be; Refusal where that cannot be."""
        self.check()
        new = not self.prefix.is_dir()
        try:
            self.prefix.mkdir(parents=True, exist_ok=True)
            if new:
                self.prefix.chmod(0o755)  # whatever the umask
            descriptor = self._lock()
        except BlockingIOError:
            raise Refusal(f"another installer is at work in {self.prefix}") from None
        except OSError as failure:
            raise Refusal(f"{self.prefix} cannot be written: {failure.strerror}") from None
        try:
            self.check()
            self.tidy()
            yield
        finally:
            os.close(descriptor)

    def _lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            descriptor = os.open(self.lock_file, flags, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), self.lock_file.stat()):
                    return descriptor
            except FileNotFoundError:  # removed by who held it
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def linked(self, name: str) -> str | None:
        """Return the id that ``current`` or ``previous`` leads to; None if it is no such link."""
        try:
            folder, _, id = str((self.prefix / name).readlink()).partition("/")
        except OSError:
            return None
        return id if folder == "versions" and ID.fullmatch(id) else None

    def previous(self) -> str | None:
        """Return the id that --rollback would go back to, or None."""
        current, found = self.linked("current"), self.linked("previous")
        if found is not None and found != current and found in self.ids():
            return found
        # Interrupted between the two links: any other version that is there is an earlier one.
        return next((id for id in self.recent() if id != current), None)

    def ids(self) -> list[str]:
        """Return the ids of the versions that are there."""
        return sorted(path.name for path in self.versions.glob("*") if ID.fullmatch(path.name))

    def recent(self) -> list[str]:
        """Return the ids, the latest installed first, by the order of the report's lines."""
        order: dict[str, int] = {}
        report = b""
        with contextlib.suppress(OSError):
            report = self.report_file.read_bytes()[-(1 << 20) :]
        for number, line in enumerate(report.splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                entry = json.loads(line)
                if entry["ok"] is True:
                    order[entry["id"]] = number
        return sorted(self.ids(), key=lambda id: (-order.get(id, -1), id))

    def manifest(self, id: str) -> dict[str, Any]:
        """Return the manifest of an installed version; Refusal if it is not its own."""
        found = read_manifest(self.versions / id)
        if found["id"] != id:
            raise Refusal(f"{id} is not that version")
        return found

    def is_complete(self, id: str) -> bool:
        """Whether every file of a version is there and intact."""
        try:
            files = self.manifest(id)["files"]
        except Refusal:
            return False
        return all(is_intact(self.versions / id / name, entry) for name, entry in files.items())

    def installed(self) -> dict[str, list[tuple[Path, Mapping[str, Any]]]]:
        """Return {sha256: [(path, its entry)]} of the files that the versions say they have."""
        found: dict[str, list[tuple[Path, Mapping[str, Any]]]] = {}
        for id in self.ids():
            with contextlib.suppress(Refusal):  # one that is damaged has nothing to give
                for name, entry in self.manifest(id)["files"].items():
                    copies = found.setdefault(entry["sha256"], [])
                    copies.append((self.versions / id / name, entry))
        return found

    def inventory(self) -> dict[str, Any]:
        """Return what is installed: ids, and where an intact file of each sha256 is."""
        self.check()
        files = {}
        for digest, copies in self.installed().items():
            intact = next((path for path, entry in copies if is_intact(path, entry)), None)
            if intact is not None:
                files[digest] = str(intact.relative_to(self.prefix))
        return {"current": self.linked("current"), "previous": self.previous(), "files": files}

    def tidy(self) -> None:
        """Remove what an interrupted installer has left."""
        for name in TEMPORARY_LINKS:
            (self.prefix / name).unlink(missing_ok=True)
        for path in self.versions.glob(".*"):
            remove_tree(path)

    def stage(self, manifest: Mapping[str, Any], source: Path) -> Path:
        """Write a version beside the others, from ``source`` and from what is installed."""
        self.versions.mkdir(parents=True, exist_ok=True)
        self.versions.chmod(0o755)
        root = Path(tempfile.mkdtemp(prefix=f".{manifest['id']}-", dir=self.versions))
        installed = self.installed()
        for name, entry in sorted(manifest["files"].items()):
            sent, target = source / name, root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copies = installed.get(entry["sha256"], ())
            old = next((path for path, _ in copies if is_intact(path, entry)), None)
            if old is not None:
                try:
                    os.link(old, target, follow_symlinks=False)
                except OSError:  # a file system without hard links
                    copy(old, target, entry, str(old))
            elif os.path.realpath(sent) != str(sent) or not sent.is_file():
                raise Refusal(f"{name} is neither beside install.py nor installed, intact")
            else:
                copy(sent, target, entry, name)
        with (root / MANIFEST).open("xb") as file:
            file.write(json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
        (root / MANIFEST).chmod(0o644)
        for folder, _, _ in os.walk(root):
            Path(folder).chmod(0o755)  # whatever the umask
        sync_tree(root)
        return root

    def put(self, staged: Path, id: str) -> None:
        """Rename a staged version to its own name; a damaged one of the same id gives way."""
        target = self.versions / id
        if not os.path.lexists(target):
            staged.rename(target)
        elif not exchange(staged, target):
            target.rename(self.versions / f".damaged-{id}")
            staged.rename(target)
        sync(self.versions)

    def link(self, name: str, target: str | None) -> None:
        """Make a link, or replace it in one step; None removes it."""
        path = self.prefix / name
        if target is None:
            path.unlink(missing_ok=True)
        else:
            new = self.prefix / f".{name}.new"
            new.unlink(missing_ok=True)
            new.symlink_to(target)
            new.rename(path)
        sync(self.prefix)

    def switch(self, id: str) -> None:
        """Make a version current, and what was current the previous one."""
        current = self.linked("current")
        if current is not None and current != id:
            self.link("previous", f"versions/{current}")
        if not (self.prefix / "bin").is_symlink():
            self.link("bin", "current/bin")
        if current != id:
            self.link("current", f"versions/{id}")

    def restore(self, current: str | None, previous: str | None) -> None:
        """Make the links what they were before a switch."""
        self.link("current", current and f"versions/{current}")
        self.link("previous", previous and f"versions/{previous}")
        if current is None:
            self.link("bin", None)

    def prune(self, keep: int) -> None:
        """Remove versions until ``keep`` are left: the current, the previous, the latest."""
        by_rank = [self.linked("current"), self.previous(), *self.recent()]
        remaining = [id for id in dict.fromkeys(by_rank) if id][:keep]
        if self.linked("previous") not in (None, *remaining):
            self.link("previous", None)
        for id in self.ids():
            if id not in remaining:
                self.discard(id)

    def discard(self, id: str) -> None:
        """Remove a version: first out of sight, so that no half of one is ever taken for whole."""
        hidden = self.versions / f".old-{id}"
        remove_tree(hidden)
        (self.versions / id).rename(hidden)
        sync(self.versions)
        remove_tree(hidden)

    def clear(self) -> None:
        """Remove everything that was installed, and the prefix if nothing else is in it."""
        self.tidy()
        for name in ("current", "previous", "bin"):
            (self.prefix / name).unlink(missing_ok=True)
        for id in self.ids():
            self.discard(id)
        with contextlib.suppress(OSError):
            self.versions.rmdir()
        self.report_file.unlink(missing_ok=True)
        self.lock_file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of somebody else's is in it
            self.prefix.rmdir()

    def report(self, line: str) -> None:
        """Append to the report, if anything is installed here; it is never worth a failure."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        with contextlib.suppress(OSError):
            if self.versions.is_symlink() or not self.versions.is_dir():
                return
            descriptor = os.open(self.report_file, flags, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, (b"\n" if torn else b"") + line.encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

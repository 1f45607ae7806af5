"""Install an unpacked bundle on this device: ``python3 install.py [--prefix DIR]``.

Standard library only; needs no pip, no venv and no network. What is installed is the old version or
the new one, whole, whenever the power fails: a version is written beside the others, synced,
verified with the artifact's golden vectors, renamed, and made current by the rename of a link.

::

    PREFIX/versions/<id>/   bundle.json, site, lib, artifact, bin
    PREFIX/current          -> versions/<id>
    PREFIX/previous         -> versions/<id>, for --rollback
    PREFIX/bin              -> current/bin
    PREFIX/report.jsonl     a line an attempt

It runs on Pythons that are too old as well, to say so.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, NoReturn

    Entry = Mapping[str, Any]

SCHEMA = 1
MANIFEST = "bundle.json"
FOLDERS = ("site", "lib", "artifact", "bin")
VERIFY = "bin/asterisk-verify"
LARGEST_MANIFEST = 16 << 20
LARGEST_FILE = 4 << 30
LARGEST = 8 << 30
MOST_FILES = 50_000
SECONDS = 900  # for a verification: a slow card, or an emulated machine
SPARE = 8 << 20  # bytes to be left free
TEXTS = ("name", "version", "board", "machine", "format", "recipe")
KEYS = {
    *("schema", "id", *TEXTS, "python", "glibc", "page_size", "libraries", "packages"),
    *("threads", "max_memory", "installed_bytes", "files"),
}
OURS = {"versions", "current", "previous", "bin", "report.jsonl", ".lock"}
OURS |= {".current.new", ".previous.new", ".bin.new"}
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,99}")
_PART = re.compile(r"[A-Za-z0-9._+@=,-]{1,150}")
_ID = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBERS = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")


class Refusal(Exception):
    """Why nothing is installed, in one line."""


# --- bundle.json -------------------------------------------------------------------------------


def parsed(data: bytes) -> dict[str, Any]:
    """Return the contents of a bundle.json; Refusal for anything that is not plainly safe."""
    if len(data) > LARGEST_MANIFEST:
        raise Refusal(MANIFEST + " is too large")
    try:
        values = json.loads(data, object_pairs_hook=_unambiguous, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Refusal(MANIFEST + " is not JSON") from None
    return checked(values)


def checked(values: Any) -> dict[str, Any]:
    """Return a manifest as it is; Refusal, one line, if it is of another schema or unsafe."""
    if not isinstance(values, dict) or type(values.get("schema")) is not int:
        raise Refusal(MANIFEST + " is not a bundle's manifest")
    if values["schema"] != SCHEMA:
        raise Refusal(
            "%s has schema %d, this installer reads %d: use the install.py beside it"
            % (MANIFEST, values["schema"], SCHEMA)
        )
    if set(values) != KEYS:
        raise Refusal("%s: wrong field %.50r" % (MANIFEST, min(KEYS ^ set(values))))
    for key in TEXTS:
        _matching(values, key, _PLAIN)
    for key in ("python", "glibc"):
        _matching(values, key, _NUMBERS)
    _matching(values, "id", _ID)
    for key, least, most in (
        ("page_size", 4096, 1 << 30),
        ("threads", 1, 1024),
        ("installed_bytes", 0, LARGEST),
    ):
        if type(values[key]) is not int or not least <= values[key] <= most:
            raise Refusal("%s: %s is out of range" % (MANIFEST, key))
    limit = values["max_memory"]
    if limit is not None and (type(limit) is not int or not 1 << 20 <= limit <= 1 << 40):
        raise Refusal(MANIFEST + ": max_memory is out of range")
    for key in ("libraries", "packages"):
        if not isinstance(values[key], dict) or not all(
            isinstance(text, str) and _PLAIN.fullmatch(text)
            for pair in values[key].items()
            for text in pair
        ):
            raise Refusal("%s: %s is malformed" % (MANIFEST, key))
    _check_files(values["files"])
    if sum(entry["size"] for entry in values["files"].values()) != values["installed_bytes"]:
        raise Refusal(MANIFEST + ": installed_bytes is not the sum of the files' sizes")
    if identity(values) != values["id"]:
        raise Refusal(MANIFEST + " is damaged: its id is not that of its contents")
    return values


def identity(manifest: Mapping[str, Any]) -> str:
    """Return the id of a manifest: 16 hexadecimal digits of a digest over all the rest."""
    rest = {key: value for key, value in manifest.items() if key != "id"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _matching(values: Mapping[str, Any], key: str, pattern: re.Pattern[str]) -> None:
    if not isinstance(values[key], str) or not pattern.fullmatch(values[key]):
        raise Refusal("%s: %s is not a plain name" % (MANIFEST, key))


def _check_files(files: Any) -> None:
    if not isinstance(files, dict) or not 1 <= len(files) <= MOST_FILES:
        raise Refusal(MANIFEST + ": files is malformed")
    folders: set[str] = set()
    for path, entry in files.items():
        parts = path.split("/")
        if (
            len(path) > 500
            or len(parts) < 2
            or parts[0] not in FOLDERS
            or not all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)
        ):
            raise Refusal("%s: %.100r is no plain relative path" % (MANIFEST, path))
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
        if not isinstance(entry, dict) or set(entry) != {"sha256", "size", "executable"}:
            raise Refusal("%s: %.100s is malformed" % (MANIFEST, path))
        digest, size = entry["sha256"], entry["size"]
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise Refusal("%s: no sha256 for %.100s" % (MANIFEST, path))
        if type(size) is not int or not 0 <= size <= LARGEST_FILE:
            raise Refusal("%s: no size for %.100s" % (MANIFEST, path))
        if type(entry["executable"]) is not bool:
            raise Refusal("%s: %.100s is malformed" % (MANIFEST, path))
    clash = folders & set(files)
    if clash:
        raise Refusal("%s: %.100s is a file and a folder" % (MANIFEST, min(clash)))
    if VERIFY not in files or "artifact" not in folders:
        raise Refusal(MANIFEST + ": no artifact, or nothing that verifies it")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):  # readers differ in which one they believe
        raise ValueError("a name that stands twice")
    return values


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


# --- this device -------------------------------------------------------------------------------


def check_device(manifest: Mapping[str, Any]) -> None:
    """Refuse a bundle that cannot run here."""
    machine = platform.machine()
    if struct.calcsize("P") != 8 or machine in ("armv6l", "armv7l", "armv8l", "i686"):
        raise Refusal(machine + ", 32-bit: a 64-bit system is needed")
    if machine != manifest["machine"]:
        raise Refusal("this is %s; the bundle is for %s" % (machine, manifest["machine"]))
    python = "%d.%d" % sys.version_info[:2]
    if python != manifest["python"]:
        raise Refusal(
            "this is Python %s; the bundle is for %s: make one with --python %s, or run "
            "install.py by python%s" % (python, manifest["python"], python, manifest["python"])
        )
    name, version = glibc()
    if name != "glibc" or not _NUMBERS.fullmatch(version):
        raise Refusal("the bundle needs glibc %s, and this is not glibc" % manifest["glibc"])
    if _numbers(version) < _numbers(manifest["glibc"]):
        raise Refusal("glibc %s is too old: %s is needed" % (version, manifest["glibc"]))
    page = os.sysconf("SC_PAGE_SIZE")
    if page > manifest["page_size"]:
        raise Refusal(
            "this kernel has pages of %d KiB; the bundle's libraries bear %d KiB at most"
            % (page >> 10, manifest["page_size"] >> 10)
        )
    brought = {path.rpartition("/")[2] for path in manifest["files"] if path.startswith("lib/")}
    for soname, package in sorted(manifest["libraries"].items()):
        if soname not in brought and not _loads(soname):
            raise Refusal("%s is missing: sudo apt-get install %s" % (soname, package))


def glibc() -> tuple[str, str]:
    """Return the C library's name and version as it tells them itself."""
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        told = ""
    name, _, version = told.partition(" ")
    return name, version


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


# --- files -------------------------------------------------------------------------------------


def read(path: str) -> bytes:
    """Return the bytes of a plain file of a manifest's size; Refusal otherwise."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as failure:
        raise Refusal("%s cannot be read: %s" % (path, failure.strerror)) from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refusal("%s is not a plain file" % path)
        return file.read(LARGEST_MANIFEST + 1)


def copy(source: str, target: str, entry: Entry, name: str) -> None:
    """Copy a file while its hash is taken; Refusal if it is not the one of the manifest."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as failure:
        raise Refusal("%s cannot be read: %s" % (name, failure.strerror)) from None
    digest, left = hashlib.sha256(), entry["size"]
    with os.fdopen(descriptor, "rb") as old, open(target, "xb") as new:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refusal("%s is not a plain file" % name)
        while left > 0:
            block = old.read(min(left, 1 << 20))
            if not block:
                break
            new.write(block)
            digest.update(block)
            left -= len(block)
        longer = bool(old.read(1))
    if left or longer or digest.hexdigest() != entry["sha256"]:
        raise Refusal("%s is damaged: it is not the file that was bundled (sha256)" % name)
    os.chmod(target, _mode(entry))


def intact(path: str, entry: Entry) -> bool:
    """Tell whether a plain file is the one of a manifest, its mode included."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry["size"]:
            return False
        if stat.S_IMODE(status.st_mode) != _mode(entry):
            return False
        digest = hashlib.sha256()
        try:
            while True:
                block = file.read(1 << 20)
                if not block:
                    break
                digest.update(block)
        except OSError:  # a card that has gone bad
            return False
    return bool(digest.hexdigest() == entry["sha256"])


def _mode(entry: Entry) -> int:
    return 0o755 if entry["executable"] else 0o644


def sync(path: str) -> None:
    """Have the system write a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: str) -> None:
    """Sync every file and folder under ``root``, and itself."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                sync(path)
        sync(folder)


def _exchange(one: str, other: str) -> bool:
    """Exchange two names by Linux's renameat2(2); False where it cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


# --- what is installed -------------------------------------------------------------------------


class Place:
    """A prefix; every method that changes something is called under its lock."""

    def __init__(self, prefix: str) -> None:
        self.prefix = os.path.realpath(os.path.expanduser(prefix))
        self.versions = os.path.join(self.prefix, "versions")
        self.new = False  # whether this process made the prefix
        if any(sign in self.prefix for sign in ":\n\0") or self.prefix == "/":
            raise Refusal("%r cannot be a prefix" % self.prefix)

    def path(self, *names: str) -> str:
        """Return a path in the prefix."""
        return os.path.join(self.prefix, *names)

    def check(self) -> None:
        """Refuse a prefix that holds something else, or whose links lead elsewhere."""
        if not os.path.lexists(self.prefix):
            return
        if not os.path.isdir(self.prefix):
            raise Refusal("%s is not a folder" % self.prefix)
        found = set(os.listdir(self.prefix))
        if "versions" in found:
            if os.path.islink(self.versions) or not os.path.isdir(self.versions):
                raise Refusal("%s is not a folder of its own" % self.versions)
        elif found - OURS:
            raise Refusal("%s holds something else, which is left alone" % self.prefix)
        for name in ("current", "previous"):
            if name in found and self.linked(name) is None:
                raise Refusal("%s is not a link to a version" % self.path(name))
        if "bin" in found and not (
            os.path.islink(self.path("bin")) and os.readlink(self.path("bin")) == "current/bin"
        ):
            raise Refusal("%s is not the link to current/bin" % self.path("bin"))
        for name in found & {".lock", "report.jsonl"}:
            if not stat.S_ISREG(os.lstat(self.path(name)).st_mode):
                raise Refusal("%s is not a plain file" % self.path(name))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the prefix alone; it is made if it is not there."""
        self.check()
        self.new = not os.path.isdir(self.prefix)
        try:
            os.makedirs(self.prefix, mode=0o755, exist_ok=True)
            if self.new:
                os.chmod(self.prefix, 0o755)  # whatever the umask
            descriptor = self._lock()
        except BlockingIOError:
            raise Refusal("another installer is at work in " + self.prefix) from None
        except OSError as failure:
            raise Refusal("%s cannot be written: %s" % (self.prefix, failure.strerror)) from None
        try:
            self.check()
            yield
        finally:
            os.close(descriptor)

    def _lock(self) -> int:
        while True:
            descriptor = os.open(
                self.path(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
            )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held, there = os.fstat(descriptor), os.stat(self.path(".lock"))
                if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
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
            folder, _, found = os.readlink(self.path(name)).partition("/")
        except OSError:
            return None
        return found if folder == "versions" and _ID.fullmatch(found) else None

    def previous(self) -> str | None:
        """Return the id that --rollback would go back to, or None."""
        current, found = self.linked("current"), self.linked("previous")
        if found is not None and found != current and found in self.ids():
            return found
        # Interrupted between the two links: any other version that is there is an earlier one.
        others = [it for it in self.recent() if it != current]
        return others[0] if others else None

    def ids(self) -> list[str]:
        """Return the ids of the versions that are there."""
        try:
            return sorted(name for name in os.listdir(self.versions) if _ID.fullmatch(name))
        except OSError:
            return []

    def recent(self) -> list[str]:
        """Return the ids, the latest installed first; the report tells their order."""
        order: dict[str, int] = {}
        try:
            lines = read(self.path("report.jsonl"))[-(1 << 20) :].splitlines()
        except Refusal:
            lines = []
        for number, line in enumerate(lines):
            try:
                told = json.loads(line)
                if told["ok"] is True:
                    order[told["id"]] = number
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return sorted(self.ids(), key=lambda it: (-order.get(it, -1), it))

    def manifest(self, id: str) -> dict[str, Any]:
        """Return the manifest of an installed version; Refusal if it is not its own."""
        found = parsed(read(os.path.join(self.versions, id, MANIFEST)))
        if found["id"] != id:
            raise Refusal("%s is not that version" % id)
        return found

    def whole(self, id: str) -> bool:
        """Tell whether every file of a version is there and intact."""
        root = os.path.join(self.versions, id)
        if os.path.islink(root) or not os.path.isdir(root):
            return False
        try:
            files = self.manifest(id)["files"]
        except Refusal:
            return False
        return all(
            os.path.realpath(os.path.join(root, path)) == os.path.join(root, path)
            and intact(os.path.join(root, path), entry)
            for path, entry in files.items()
        )

    def installed(self) -> dict[str, list[tuple[str, Entry]]]:
        """Return {sha256: [(path, its entry)]} of the files that the versions say they have."""
        found: dict[str, list[tuple[str, Entry]]] = {}
        for id in self.ids():
            root = os.path.join(self.versions, id)
            with contextlib.suppress(Refusal):  # one that is damaged has nothing to give
                for path, entry in self.manifest(id)["files"].items():
                    full = os.path.join(root, path)
                    if os.path.realpath(full) == full:
                        found.setdefault(entry["sha256"], []).append((full, entry))
        return found

    def tidy(self) -> None:
        """Remove what an interrupted installer has left."""
        for name in (".current.new", ".previous.new", ".bin.new"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path(name))
        if os.path.isdir(self.versions):
            for name in os.listdir(self.versions):
                if name.startswith("."):
                    _remove(os.path.join(self.versions, name))

    def stage(self, manifest: Mapping[str, Any], source: str) -> str:
        """Write a version beside the others, from ``source`` and from what is installed."""
        os.makedirs(self.versions, exist_ok=True)
        os.chmod(self.versions, 0o755)
        root = tempfile.mkdtemp(prefix=".%s-" % manifest["id"], dir=self.versions)
        os.chmod(root, 0o755)
        installed = self.installed()
        made = {root}
        for name, entry in sorted(manifest["files"].items()):
            target = os.path.join(root, name)
            folder = os.path.dirname(target)
            while folder not in made:
                os.makedirs(folder, mode=0o755, exist_ok=True)
                made.add(folder)
                folder = os.path.dirname(folder)
            if not any(_reuse(old, target, entry) for old, _ in installed.get(entry["sha256"], ())):
                beside = source and os.path.join(source, name)
                if not beside or os.path.realpath(beside) != beside or not os.path.isfile(beside):
                    raise Refusal(name + " is neither beside install.py nor installed, intact")
                copy(beside, target, entry, name)
        with open(os.path.join(root, MANIFEST), "xb") as file:
            file.write(json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
        for folder in made:
            os.chmod(folder, 0o755)
        os.chmod(os.path.join(root, MANIFEST), 0o644)
        sync_tree(root)
        return root

    def put(self, staged: str, id: str) -> None:
        """Rename a staged version to its place; a damaged one of the same id gives way."""
        target = os.path.join(self.versions, id)
        if os.path.lexists(target):
            if not _exchange(staged, target):
                os.rename(target, os.path.join(self.versions, ".damaged-" + id))
                os.rename(staged, target)
        else:
            os.rename(staged, target)
        sync(self.versions)

    def link(self, name: str, target: str | None) -> None:
        """Make a link, or replace it in one step; None removes it."""
        if target is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path(name))
        else:
            new = self.path(".%s.new" % name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            os.symlink(target, new)
            os.rename(new, self.path(name))
        sync(self.prefix)

    def switch(self, id: str) -> None:
        """Make a version current, and what was current the previous one."""
        current = self.linked("current")
        if current is not None and current != id:
            self.link("previous", "versions/" + current)
        if not os.path.islink(self.path("bin")):
            self.link("bin", "current/bin")
        if current != id:
            self.link("current", "versions/" + id)

    def restore(self, current: str | None, previous: str | None) -> None:
        """Undo a switch."""
        self.link("current", current and "versions/" + current)
        self.link("previous", previous and "versions/" + previous)
        if current is None:
            self.link("bin", None)

    def prune(self, keep: int) -> None:
        """Remove versions until ``keep`` are left: the current, the previous, the latest."""
        first = [self.linked("current"), self.previous()]
        kept = [it for it in dict.fromkeys([*first, *self.recent()]) if it][:keep]
        if self.linked("previous") not in (None, *kept):
            self.link("previous", None)
        for id in self.ids():
            if id not in kept:
                self.discard(id)

    def discard(self, id: str) -> None:
        """Remove a version: first out of sight, so that no half of one is ever taken for whole."""
        away = os.path.join(self.versions, ".old-" + id)
        _remove(away)
        os.rename(os.path.join(self.versions, id), away)
        sync(self.versions)
        _remove(away)

    def report(self, line: str) -> None:
        """Append to the report, if anything is installed here; it is never worth a failure."""
        try:
            if os.path.islink(self.versions) or not os.path.isdir(self.versions):
                return
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path("report.jsonl"), flags, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, (b"\n" if torn else b"") + line.encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            pass


def _reuse(old: str, target: str, entry: Entry) -> bool:
    if not intact(old, entry):
        return False
    try:
        os.link(old, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        copy(old, target, entry, old)
    return True


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


# --- what can be asked for ---------------------------------------------------------------------


def verify(root: str, *, compile: bool = False) -> str:
    """Have a version embed its golden texts; return what it says, Refusal if it fails.

    A library that this processor cannot run is named. ``compile`` lets Python keep the modules that
    it compiles on the way.
    """
    kept = {key: value for key, value in os.environ.items() if key not in (_FIRST, *_PYTHONS_OWN)}
    kept["PYTHONFAULTHANDLER"] = "1"
    if compile:
        kept["PYTHONDONTWRITEBYTECODE"] = ""
    try:
        done = subprocess.run(
            [os.path.join(root, *VERIFY.split("/")), os.path.join(root, "artifact")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            env=kept,
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refusal("verification took more than %d s" % SECONDS) from None
    except OSError as failure:
        raise Refusal("verification cannot be started: %s" % failure) from None
    told = (done.stdout if done.returncode == 0 else done.stderr).decode("utf-8", "replace")
    last = ([line for line in told.splitlines() if line.strip()] or [""])[-1].strip()[:500]
    if -done.returncode in _FAULTS:
        raise Refusal(
            "%s dies of %s on this processor; nothing was replaced"
            % (_faulty(root, told), _FAULTS[-done.returncode])
        )
    if done.returncode < 0:
        with contextlib.suppress(ValueError):
            last = "it was ended by " + signal.Signals(-done.returncode).name
    if done.returncode != 0:
        raise Refusal("verification failed: " + (last or "status %d" % done.returncode))
    return last.replace(os.path.join(root, "artifact") + ": ", "")


def _faulty(root: str, trace: str) -> str:
    """Return which package's code ran in the end, by the trace of Python's faulthandler."""
    manifest = parsed(read(os.path.join(root, MANIFEST)))
    known = {name.lower().replace("_", "-"): name for name in manifest["packages"]}
    others, _, current = trace.partition("Current thread")
    found = re.findall(r"/site/(\w+)[/.]", current + others)
    inner = [it.lower().replace("_", "-") for it in found]
    # asterisk itself calls llama.cpp, without a module of its engine between.
    name = next((it for it in (*inner, _ENGINES.get(manifest["format"])) if it in known), None)
    if name is None:
        return "the %(format)s engine" % manifest
    return "%s %s" % (known[name], manifest["packages"][known[name]])


_ENGINES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert", "gguf": "xllamacpp"}
_FAULTS: dict[int, str] = {
    signal.SIGILL: "an illegal instruction (SIGILL)",
    signal.SIGSEGV: "a segmentation fault (SIGSEGV)",
    signal.SIGBUS: "a bus error (SIGBUS)",
    signal.SIGABRT: "an abort (SIGABRT)",
}
_PYTHONS_OWN = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
_FIRST = "ASTERISK_PYTHONPATH"  # of the launchers


def install(place: Place, source: str, keep: int) -> tuple[str, str]:
    """Install the bundle that lies in ``source``; return its id and what there is to say."""
    manifest = parsed(read(os.path.join(source, MANIFEST)))
    check_device(manifest)
    place.check()
    check_space(place, manifest)
    id, what = manifest["id"], "%(name)s %(format)s %(recipe)s, %(version)s" % manifest
    with place.locked():
        place.tidy()
        try:
            return id, "%s: %s" % (what, _install(place, manifest, source, keep))
        except BaseException:
            with contextlib.suppress(OSError):
                place.tidy()
            with contextlib.suppress(OSError):
                if not place.ids():
                    _clear(place)
            raise


def _install(place: Place, manifest: Mapping[str, Any], source: str, keep: int) -> str:
    id = manifest["id"]
    current, previous = place.linked("current"), place.linked("previous")
    known = place.whole(id)
    if known and current != id:
        verify(os.path.join(place.versions, id))
    elif not known:
        staged = place.stage(manifest, source)
        verify(staged, compile=True)
        sync_tree(staged)  # with what was compiled
        place.put(staged, id)
    place.switch(id)
    try:
        told = verify(place.path("current"))
    except BaseException:
        place.restore(current, previous)
        if current != id and not known:
            place.discard(id)
        raise
    place.prune(keep)
    place.tidy()
    return "%s in %s; %s" % ("already" if known else "installed", place.prefix, told)


def check_space(place: Place, manifest: Mapping[str, Any]) -> None:
    """Refuse what would not fit, counting what can be taken from an installed version."""
    known = place.installed()
    files = manifest["files"].values()
    needed = sum(entry["size"] + 4096 for entry in files if entry["sha256"] not in known) + SPARE
    folder = place.prefix
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    told = os.statvfs(folder)
    free = told.f_bavail * told.f_frsize
    if free < needed:
        raise Refusal(
            "no space: %.0f MB are needed in %s, and %.0f MB are free"
            % (needed / 1e6, place.prefix, free / 1e6)
        )


def rollback(place: Place) -> tuple[str, str]:
    """Go back to the previous version; return its id and what there is to say."""
    with place.locked():
        place.tidy()
        current, before = place.linked("current"), place.linked("previous")
        id = place.previous()
        if id is None:
            raise Refusal("there is no earlier version in " + place.prefix)
        if not place.whole(id):
            raise Refusal("the earlier version, %s, is damaged: install it again" % id)
        verify(os.path.join(place.versions, id))
        place.switch(id)
        try:
            told = verify(place.path("current"))
        except BaseException:
            place.restore(current, before)
            raise
        return id, "back to %s in %s; %s" % (place.manifest(id)["recipe"], place.prefix, told)


def undo(place: Place, id: str, current: str, previous: str) -> tuple[str | None, str]:
    """Make both links what they were before ``id`` was installed, and discard it; "-" is none."""
    known = place.ids()
    if any(it not in ("-", *known) for it in (current, previous)) or id == current:
        raise Refusal("%s has no such version any more" % place.prefix)
    with place.locked():
        place.tidy()
        links = [None if it == "-" else it for it in (current, previous)]
        place.restore(*links)
        if id in place.ids() and id not in links:
            place.discard(id)
        if not place.ids():
            _clear(place)
    return links[0], "as it was in " + place.prefix


def prune(place: Place, keep: int) -> tuple[str | None, str]:
    """Remove all but ``keep`` versions."""
    with place.locked():
        place.tidy()
        place.prune(keep)
    return place.linked("current"), "pruned " + place.prefix


def remove(place: Place) -> tuple[str | None, str]:
    """Remove everything that was installed, and nothing else."""
    place.check()
    if not os.path.isdir(place.prefix):
        return None, "nothing is installed in " + place.prefix
    with place.locked():
        id = place.linked("current")
        _clear(place)
    return id, "removed from " + place.prefix


def _clear(place: Place) -> None:
    place.tidy()
    for name in ("current", "previous", "bin"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.path(name))
    for id in place.ids():
        place.discard(id)
    for name in (place.versions, place.prefix):
        if name == place.prefix:
            for inner in ("report.jsonl", ".lock"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(place.path(inner))
        with contextlib.suppress(OSError):  # not there, or something of somebody else's in it
            os.rmdir(name)


def inventory(place: Place) -> dict[str, Any]:
    """Return what is installed: ids, and where an intact file of each sha256 is."""
    place.check()
    files = {}
    for digest, known in place.installed().items():
        for path, entry in known:
            if intact(path, entry):
                files[digest] = os.path.relpath(path, place.prefix)
                break
    return {"current": place.linked("current"), "previous": place.previous(), "files": files}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; print one JSON line, and on failure the reason alone as well."""
    parser = argparse.ArgumentParser(prog="install.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--prefix", default="~/.local/share/asterisk", help="(%(default)s)")
    parser.add_argument("--keep", type=int, default=2, help="versions to keep (%(default)s)")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--inventory", action="store_true", help="tell what is installed")
    one.add_argument("--rollback", action="store_true", help="go back to the previous version")
    one.add_argument("--remove", action="store_true", help="remove everything again")
    one.add_argument("--prune", action="store_true", help="only remove what is too much")
    one.add_argument(
        "--undo",
        nargs=3,
        metavar=("ID", "CURRENT", "PREVIOUS"),
        help="make the links what they were before ID was installed, and discard it (-: none)",
    )
    it = parser.parse_args(argv)
    if it.keep < 1:
        parser.error("--keep must be at least 1")
    place: Place | None = None
    id: str | None = None
    ok = True
    try:
        place = Place(it.prefix)
        if it.inventory:
            return _print(json.dumps(inventory(place)), 0)
        if it.rollback:
            id, line = rollback(place)
        elif it.remove:
            id, line = remove(place)
        elif it.prune:
            id, line = prune(place, it.keep)
        elif it.undo:
            id, line = undo(place, *it.undo)
        else:
            source = os.path.dirname(os.path.realpath(__file__))
            id, line = install(place, source, it.keep)
    except Refusal as refusal:
        ok, line = False, str(refusal)
    except OSError as failure:
        what = "%s: " % failure.filename if failure.filename else ""
        ok, line = False, what + (failure.strerror or str(failure))
    except KeyboardInterrupt:
        ok, line = False, "interrupted"
    line = " ".join(line.split())
    told = json.dumps({"ok": ok, "id": id, "line": line})
    if place is not None and not (ok and (it.remove or it.prune)):
        place.report(told)
    status = _print(told, 0 if ok else 1)
    if not ok:
        print("install.py: " + line, file=sys.stderr)
    return status


def _print(line: str, status: int) -> int:
    """Print a line and return the status: 1 where the reader, such as head, has already left."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more as it ends
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())

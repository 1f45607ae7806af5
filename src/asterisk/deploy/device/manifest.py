"""A bundle's manifest, ``bundle.json``: what it may say, its files, and whether it can run here."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import re
import stat
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

SCHEMA = 1
TOP = "asterisk-bundle"  # the folder of everything in an archive
MANIFEST = "bundle.json"
VERIFY = "bin/asterisk-verify"
LARGEST_MANIFEST = 16 << 20  # bytes, as the others
LARGEST_FILE = 4 << 30
LARGEST_BUNDLE = 8 << 30
MOST_FILES = 50_000
MODES = {True: 0o755, False: 0o644}  # by whether a file is executable
TEXTS = ("name", "version", "board", "machine", "format", "recipe")
RANGES = {
    "page_size": (4096, 1 << 30),
    "threads": (1, 1024),
    "installed_bytes": (0, LARGEST_BUNDLE),
    "max_memory": (1 << 20, 1 << 40),
}
KEYS = {"schema", "id", "python", "glibc", "libraries", "packages", "files", *TEXTS, *RANGES}
ID = re.compile(r"[0-9a-f]{16}")
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,99}")
PLAIN_PATH = re.compile(
    r"(?=.{1,500}\Z)(site|lib|artifact|bin)(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._+@=,-]{1,150})+"
)
SHA256 = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
PATTERNS = {"id": ID, "python": VERSION, "glibc": VERSION, **dict.fromkeys(TEXTS, PLAIN_NAME)}


class Refusal(Exception):
    """Why a request is not carried out, in one line; ``state`` says what is true now."""

    def __init__(self, line: str, state: str = "") -> None:
        super().__init__(line)
        self.state = state


def reason_of(failure: OSError) -> str:
    """Return in one line what the system says."""
    what = f"{failure.filename}: " if failure.filename else ""
    return f"{what}{failure.strerror or failure}"


def parse_manifest(data: bytes) -> dict[str, Any]:
    """Return the contents of a bundle.json; Refusal for anything that is not plainly safe."""
    if len(data) > LARGEST_MANIFEST:
        raise Refusal(f"{MANIFEST} is too large")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):  # readers differ in which of two they believe
            raise ValueError("a name that stands twice")
        return dict(pairs)

    try:  # int: it refuses NaN and Infinity
        values = json.loads(data, object_pairs_hook=unique, parse_constant=int)
    except (ValueError, RecursionError):
        raise Refusal(f"{MANIFEST} is not JSON") from None
    return check_manifest(values)


def check_manifest(values: Any) -> dict[str, Any]:
    """Return a manifest unchanged; Refusal, one line, if it is of another schema or unsafe."""
    if not isinstance(values, dict) or type(values.get("schema")) is not int:
        raise Refusal(f"{MANIFEST} is not a bundle's manifest")
    if values["schema"] != SCHEMA:
        raise Refusal(
            f"{MANIFEST} has schema {values['schema']}, this installer reads {SCHEMA}: "
            "use the install.py beside it"
        )
    check_fields(values)
    check_files(values["files"])
    if sum(entry["size"] for entry in values["files"].values()) != values["installed_bytes"]:
        raise Refusal(f"{MANIFEST}: installed_bytes is not the sum of the files' sizes")
    if identity(values) != values["id"]:
        raise Refusal(f"{MANIFEST} is damaged: its id is not that of its contents")
    return values


def check_fields(values: Mapping[str, Any]) -> None:
    """Refuse a manifest with other fields, or with a value that is not of its field."""
    if set(values) != KEYS:
        raise Refusal(f"{MANIFEST}: wrong field {min(KEYS ^ set(values))!r:.50}")
    for key, pattern in PATTERNS.items():
        if not isinstance(values[key], str) or not pattern.fullmatch(values[key]):
            raise Refusal(f"{MANIFEST}: {key} is not a plain name")
    for key, (least, most) in RANGES.items():
        value = values[key]
        unlimited = key == "max_memory" and value is None
        if not unlimited and (type(value) is not int or not least <= value <= most):
            raise Refusal(f"{MANIFEST}: {key} is out of range")
    for key in ("libraries", "packages"):
        if not isinstance(values[key], dict) or not all(
            isinstance(text, str) and PLAIN_NAME.fullmatch(text)
            for pair in values[key].items()
            for text in pair
        ):
            raise Refusal(f"{MANIFEST}: {key} is malformed")


def check_files(files: Any) -> None:
    """Refuse a table of files with a path that is not plain or an entry that is malformed."""
    if not isinstance(files, dict) or not 1 <= len(files) <= MOST_FILES:
        raise Refusal(f"{MANIFEST}: files is malformed")
    folders: set[str] = set()
    for path, entry in files.items():
        if not PLAIN_PATH.fullmatch(path):
            raise Refusal(f"{MANIFEST}: {path!r:.100} is no plain relative path")
        parts = path.split("/")
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
        sound = isinstance(entry, dict) and set(entry) == {"sha256", "size", "executable"}
        if not sound or type(entry["executable"]) is not bool:
            raise Refusal(f"{MANIFEST}: {path:.100} is malformed")
        if not isinstance(entry["sha256"], str) or not SHA256.fullmatch(entry["sha256"]):
            raise Refusal(f"{MANIFEST}: no sha256 for {path:.100}")
        if type(entry["size"]) is not int or not 0 <= entry["size"] <= LARGEST_FILE:
            raise Refusal(f"{MANIFEST}: no size for {path:.100}")
    clash = folders & set(files)
    if clash:
        raise Refusal(f"{MANIFEST}: {min(clash):.100} is a file and a folder")
    if VERIFY not in files or "artifact" not in folders:
        raise Refusal(f"{MANIFEST}: no artifact, or nothing that verifies it")


def open_plain(path: Path, name: str = "") -> IO[bytes]:
    """Open a plain file, never through a link; Refusal for anything else."""
    name = name or str(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as failure:
        raise Refusal(f"{name} cannot be read: {failure.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refusal(f"{name} is not a plain file")
    return os.fdopen(descriptor, "rb")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest in ``folder``; Refusal as `parse_manifest`."""
    with open_plain(folder / MANIFEST) as file:
        return parse_manifest(file.read(LARGEST_MANIFEST + 1))


def copy(source: Path, target: Path, entry: Mapping[str, Any], name: str) -> None:
    """Copy a file while its hash is taken; Refusal if it is not the one of the manifest."""
    digest = hashlib.sha256()
    with open_plain(source, name) as old, target.open("xb") as new:
        if os.fstat(old.fileno()).st_size == entry["size"]:
            for block in iter(lambda: old.read(1 << 20), b""):
                new.write(block)
                digest.update(block)
    if digest.hexdigest() != entry["sha256"]:
        raise Refusal(f"{name} is damaged: it is not the file that was bundled (sha256)")
    target.chmod(MODES[entry["executable"]])


def is_intact(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a plain file is the one of a manifest, mode included, and no link leads to it."""
    digest = hashlib.sha256()
    try:
        with open_plain(path) as file:
            status = os.fstat(file.fileno())
            found = (os.path.realpath(path), status.st_size, stat.S_IMODE(status.st_mode))
            if found != (str(path), entry["size"], MODES[entry["executable"]]):
                return False
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except (Refusal, OSError):  # also of a card that has gone bad
        return False
    return bool(digest.hexdigest() == entry["sha256"])


def identity(manifest: Mapping[str, Any]) -> str:
    """Return the id of a manifest: 16 hexadecimal digits of a digest of everything else in it."""
    rest = {key: value for key, value in manifest.items() if key != "id"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def check_device(manifest: Mapping[str, Any]) -> None:
    """Refuse a bundle that cannot run on this device."""
    machine = platform.machine()
    if struct.calcsize("P") != 8 or machine in ("armv6l", "armv7l", "armv8l", "i686"):
        raise Refusal(f"{machine}, 32-bit: a 64-bit system is needed")
    if machine != manifest["machine"]:
        raise Refusal(f"this is {machine}; the bundle is for {manifest['machine']}")
    python, wanted = ".".join(map(str, sys.version_info[:2])), manifest["python"]
    if python != wanted:
        raise Refusal(
            f"this is Python {python}; the bundle is for {wanted}: make one with --python "
            f"{python}, or run install.py by python{wanted}"
        )
    library = ""
    with contextlib.suppress(ValueError, OSError):
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    name, _, version = library.partition(" ")
    least = manifest["glibc"]
    if name != "glibc" or not VERSION.fullmatch(version):
        raise Refusal(f"the bundle needs glibc {least}, and this is not glibc")
    if [int(part) for part in version.split(".")] < [int(part) for part in least.split(".")]:
        raise Refusal(f"glibc {version} is too old: {least} is needed")
    page, most = os.sysconf("SC_PAGE_SIZE"), manifest["page_size"]
    if page > most:
        bearable = f"the bundle's libraries bear {most >> 10} KiB at most"
        raise Refusal(f"this kernel has pages of {page >> 10} KiB; {bearable}")
    bundled = {path.rpartition("/")[2] for path in manifest["files"] if path.startswith("lib/")}
    for soname, package in sorted(manifest["libraries"].items()):
        if soname not in bundled:
            try:
                ctypes.CDLL(soname)
            except OSError:
                raise Refusal(f"{soname} is missing: sudo apt-get install {package}") from None

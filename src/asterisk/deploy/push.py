"""The one stream that takes to a device what it does not have yet."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from asterisk.deploy.bundle import Bundle, write_parts
from asterisk.deploy.connection import DeployError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{16}|")


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a device says it has: the ids of two versions, empty if there is none, and hashes."""

    current: str
    previous: str
    hashes: frozenset[str]


def inventory(told: Mapping[str, Any]) -> Inventory:
    """Check the installer's answer; DeployError for anything else."""
    files = told.get("files", {})
    ids = [told.get(name) or "" for name in ("current", "previous")]
    sound = isinstance(files, dict) and all(map(_SHA256.fullmatch, files))
    if not sound or not all(isinstance(one, str) and _ID.fullmatch(one) for one in ids):
        raise DeployError("the installer's inventory makes no sense")
    return Inventory(ids[0], ids[1], frozenset(files))


@dataclass(frozen=True, slots=True)
class Parts:
    """The names of the files that are to be sent, and their bytes."""

    names: tuple[str, ...]
    size: int


def missing(bundle: Bundle, there: Inventory) -> Parts:
    """Return what of ``bundle`` is not ``there``, by its contents."""
    files = bundle.manifest["files"]
    names = [name for name in sorted(files) if files[name]["sha256"] not in there.hashes]
    return Parts(tuple(names), sum(files[name]["size"] for name in names))


@contextmanager
def stream(bundle: Bundle, parts: Parts) -> Iterator[tuple[IO[bytes], int, str]]:
    """Give a tar of ``parts``, the installer and the manifest: stream, size in bytes, sha256."""
    with tempfile.TemporaryFile() as file:
        write_parts(bundle, parts.names, file)
        size = file.tell()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        yield file, size, digest

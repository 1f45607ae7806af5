"""What travels to a target: tar streams of the package and of folders. Standard library only."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import IO

import asterisk

NOT_FOR_DEVICES = (
    *("training", "exporters", "apps", "cli"),
    *("deploy", "sources", "integrations"),
)
DISTRIBUTION = "asterisk-edge"
METADATA = ("METADATA", "entry_points.txt")


def package(stream: IO[bytes]) -> None:
    """Write the part of this package that devices run, as pip would have unpacked it, in ``lib``.

    With the entry points, by which runtimes are found, and the versions, which reports name.
    """
    root = Path(asterisk.__file__).parent
    known = distribution(DISTRIBUTION)
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path in _files(root):
            inner = path.relative_to(root)
            if inner.parts[0] not in NOT_FOR_DEVICES:
                _add(tar, f"lib/asterisk/{inner.as_posix()}", path.read_bytes())
        folder = f"lib/asterisk_edge-{known.version}.dist-info"
        for name in METADATA:
            _add(tar, f"{folder}/{name}", (known.read_text(name) or "").encode())


def tree(stream: IO[bytes], path: Path, name: str) -> None:
    """Write the file ``path``, or the plain files of a folder, under ``name``."""
    with tarfile.open(fileobj=stream, mode="w") as tar:
        if path.is_file():
            _add_file(tar, name, path)
        for file in _files(path) if path.is_dir() else ():
            _add_file(tar, f"{name}/{file.relative_to(path).as_posix()}", file)


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
            yield path


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    entry = tarfile.TarInfo(name)
    with path.open("rb") as file:
        entry.size = path.stat().st_size
        tar.addfile(entry, file)

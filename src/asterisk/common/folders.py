"""Files of a model folder that came from outside: where they may lie, and how much of them is read.

Hugging Face's cache lays a repository out as ``snapshots/REVISION/NAME``, links into the same
repository's ``blobs/``; Kubernetes mounts a ConfigMap as links through ``..data``. So a link may
lead to a regular file within the folder or within those blobs, and nowhere else.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from asterisk.common.errors import ArtifactError

LARGEST_JSON = 16 << 20
LARGEST_FILE = 4 << 30  # of weights, in bytes


def regular_file(folder: Path, name: str, largest: int) -> Path:
    """Return the path of ``name`` in ``folder``; ArtifactError unless it is a regular file there.

    ``largest`` is in bytes.
    """
    path = folder / name
    try:
        real = Path(os.path.realpath(path, strict=True))
        status = real.stat()
    except (OSError, ValueError):
        raise ArtifactError(f"{path} is missing") from None
    if not any(real.is_relative_to(root) for root in _roots(folder)):
        raise ArtifactError(f"{path} is a link that leaves the folder")
    if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
        raise ArtifactError(f"{path} is not a plain file of at most {largest:,} bytes")
    return path


def _roots(folder: Path) -> list[Path]:
    """Return where the files of ``folder`` may really lie."""
    roots = [Path(os.path.realpath(folder))]
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay as they are named
    for parent in (absolute, *absolute.parents):
        if parent.parent.name == "snapshots":
            roots.append(Path(os.path.realpath(parent.parent.parent)) / "blobs")
            break
    return roots


def subfolder(folder: Path, name: str) -> Path:
    """Return the folder ``name`` of ``folder``; ArtifactError where it is a link that leaves it."""
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ArtifactError(f"{path} is a link that leaves the folder")
    return path


def has_file(folder: Path, name: str) -> bool:
    """Tell whether something is called ``name`` in ``folder``, be it a broken link."""
    return os.path.lexists(folder / name)


def read_bytes(folder: Path, name: str, largest: int = LARGEST_JSON) -> bytes:
    """Return the bytes of a file of at most ``largest``; ArtifactError otherwise."""
    path = regular_file(folder, name, largest)
    try:
        return path.read_bytes()
    except OSError as failure:
        raise ArtifactError(f"cannot read {path}: {failure.strerror or failure}") from None


def read_json(folder: Path, name: str, largest: int = LARGEST_JSON) -> Any:
    """Return what a JSON file says; ArtifactError if it is none, or says a name twice."""
    data = read_bytes(folder, name, largest)
    try:
        return json.loads(data, object_pairs_hook=_unambiguous, parse_constant=_no_number)
    except (ValueError, RecursionError) as failure:
        told = f": {failure}" if str(failure).startswith("the name") else ""
        raise ArtifactError(f"{folder / name} is not JSON{told}") from None


def read_object(folder: Path, name: str, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Return a JSON object, as `read_json`; an absent file is an empty one."""
    if not has_file(folder, name):
        return {}
    values = read_json(folder, name, largest)
    if not isinstance(values, dict):
        raise ArtifactError(f"{folder / name} is not a JSON object")
    return values


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:  # readers differ in which one they believe
            raise ValueError(f"the name {ascii(name)[:100]} stands twice")
        values[name] = value
    return values


def _no_number(name: str) -> None:
    raise ValueError(name)

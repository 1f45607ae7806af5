"""What this project asks for: its extras and entry points, of the clone or of the installation."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import asterisk
from asterisk.common.errors import MissingPackage

NAME = "asterisk-edge"
_LICENCES = ("LICENSE", "THIRD_PARTY_NOTICES.md")
_EXTRA = re.compile(r"\s*extra\s*==\s*[\"']([^\"']+)[\"']")


@cache
def _clone() -> Mapping[str, Any] | None:
    """Return the table ``project`` of the clone this package lies in, newer than any metadata."""
    path = Path(asterisk.__file__).resolve().parents[2] / "pyproject.toml"
    try:
        found = tomllib.loads(path.read_text("utf-8")).get("project", {})
    except (OSError, ValueError):
        return None
    return found if found.get("name") == NAME else None


def required_by(extra: str) -> tuple[str, ...]:
    """Return the requirements of an extra of this project, without this project's own extras."""
    clone = _clone()
    if clone is not None:
        lines = list(clone["optional-dependencies"].get(extra, ()))
    else:
        lines = []
        for line in distribution(NAME).requires or ():
            requirement, _, marker = line.partition(";")
            match = _EXTRA.fullmatch(marker)
            if match and match[1] == extra:
                lines.append(requirement)
    return tuple(line.strip() for line in lines if not line.startswith(NAME))


def entry_points() -> str:
    """Return the text of ``entry_points.txt``: the plug-ins, without the scripts."""
    clone = _clone()
    if clone is not None:
        groups = {name: dict(group) for name, group in clone["entry-points"].items()}
    else:
        groups = {}
        try:
            known = distribution(NAME).entry_points
        except PackageNotFoundError:
            raise MissingPackage(NAME) from None
        for point in known:
            if point.group.startswith("asterisk."):
                groups.setdefault(point.group, {})[point.name] = point.value
    lines = []
    for name, group in sorted(groups.items()):
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in sorted(group.items())), ""]
    return "\n".join(lines)


def licences() -> Iterator[tuple[str, str]]:
    """Yield the names and texts of this project's licence files."""
    root = Path(asterisk.__file__).resolve().parents[2]
    for name in _LICENCES:
        if _clone() is not None:
            yield name, (root / name).read_text("utf-8")
        else:
            text = distribution(NAME).read_text(f"licenses/{name}")
            if text:
                yield name, text

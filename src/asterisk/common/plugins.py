"""Exporters, runtimes and peers by entry point, the built-in ones too.

The distributions' ``entry_points.txt`` are read directly (PyPA entry points specification):
`importlib.metadata` would cost a device 3 MB and several times the time.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from asterisk.common.errors import AsteriskError, MissingExtra, MissingPackage, UnknownName

GROUPS = ("asterisk.exporters", "asterisk.runtimes", "asterisk.peers")


def names(group: str) -> tuple[str, ...]:
    """Return the names registered in ``group``, sorted; imports none of them."""
    return tuple(sorted(_found()[group]))


def find(group: str, name: str) -> Any:
    """Import and return what is registered as ``name``, an object or a module.

    UnknownName if nothing is, MissingPackage if a package is missing.
    """
    registered = _found()[group]
    if name not in registered:
        kind = group.removeprefix("asterisk.").removesuffix("s")
        raise UnknownName(f"no {kind} named {name!r}; there are: {', '.join(sorted(registered))}")
    module, _, attribute = registered[name].partition(":")
    if module.partition(".")[0] != "asterisk":  # a third party's, which has no extra of ours
        found = _import(module, MissingPackage)
    else:
        found = require(module, name if group == "asterisk.runtimes" else "export")
    return getattr(found, attribute) if attribute else found


@cache
def _found() -> dict[str, dict[str, str]]:
    """Return the targets by group and name."""
    found: dict[str, dict[str, str]] = {group: {} for group in GROUPS}
    for entry in sys.path:
        for path in Path(entry).glob("*.*-info/entry_points.txt"):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                section: dict[str, str] | None = None
                for line in map(str.strip, path.read_text("utf-8").splitlines()):
                    if line.startswith("["):
                        section = found.get(line.strip("[]"))
                    elif section is not None and "=" in line and not line.startswith(("#", ";")):
                        name, _, target = line.partition("=")
                        section.setdefault(name.strip(), target.split("[")[0].strip())
    return found


def require(module: str, extra: str) -> Any:
    """Import ``module``; MissingExtra names what it lacks and the extra that brings it."""
    return _import(module, partial(MissingExtra, extra=extra))


def _import(module: str, error: Callable[[str], AsteriskError]) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as failure:
        missing = (failure.name or module).split(".")[0]
        if missing == "asterisk":
            raise
        raise error(missing) from None

"""What a target tells about itself, asked like a worker; standard library only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from asterisk.bench import installed, machine
from asterisk.bench.answer import answer


def tell(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Answer ``spec``: what of ``machine``, ``state``, ``weigh`` and ``missing`` it asks for."""
    told: dict[str, Any] = {}
    if "machine" in spec:
        told["machine"] = machine.describe(spec["machine"])
        can = hasattr(os, "sched_setaffinity")
        told["cpus"] = sorted(os.sched_getaffinity(0)) if can else None
    if "state" in spec:
        told["state"] = machine.state()
    if "weigh" in spec:
        told["weigh"] = installed.weigh(spec["weigh"])
    if "missing" in spec:
        told["missing"] = [name for name in spec["missing"] if not _is_there(name)]
    return told


def _is_there(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def main() -> int:
    """Read a question, answer it."""
    spec = json.load(sys.stdin)
    answer(lambda: tell(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main())

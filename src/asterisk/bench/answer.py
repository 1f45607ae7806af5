"""How a child answers: one JSON line on the stdout it was given, which nothing else can reach."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any


def answer(make: Callable[[], Mapping[str, Any]]) -> None:
    """Print what ``make`` returns; whatever is printed meanwhile, by C too, goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        print(json.dumps(make()), file=channel)


def refusal(failure: Exception) -> dict[str, Any]:
    """Return what a worker answers instead: in one line, why it could not."""
    told = " ".join(str(failure).split())
    return {"error": f"{type(failure).__name__}: {told}" if told else repr(failure)}

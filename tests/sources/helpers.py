"""What readers find in bytes that a test gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asterisk.sources import Document, Options, Report, documents

SAMPLES = Path(__file__).parent / "samples"


def found(path: Path, **options: Any) -> tuple[list[Document], list[str]]:
    """Return the documents of a path and the lines of what was skipped, without the folder."""
    lines: list[str] = []
    folder = f"{path.parent}/"
    report = Report(lambda line: lines.append(line.replace(folder, "")))
    return list(documents([path], Options(**options), report)), lines


def written(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def contents(documents: list[Document]) -> list[tuple[str, str, str]]:
    return [(it.key, it.title, it.text) for it in documents]


def grows_linearly(read: Callable[[str], object], piece: str, size: int) -> bool:
    """Tell whether eight times as much takes far less than sixty-four times as long."""
    return eight_times_as_much(lambda length: piece * (length // len(piece)) + "x", read, size)


def eight_times_as_much(
    source: Callable[[int], str], read: Callable[[str], object], size: int
) -> bool:
    """Tell whether eight times ``size`` takes far less than sixty-four times as long.

    Both are timed anew in each try, so that a busy machine can only make it take longer.
    """

    def seconds(length: int) -> float:
        text = source(length)
        begun = time.process_time()
        read(text)
        return time.process_time() - begun

    return any(seconds(8 * size) < 24 * max(0.01, seconds(size), seconds(size)) for _ in range(5))

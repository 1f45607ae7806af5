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


def told(documents: list[Document]) -> list[tuple[str, str, str]]:
    return [(it.key, it.title, it.text) for it in documents]


def grows_linearly(read: Callable[[str], object], piece: str, size: int) -> bool:
    """Tell whether eight times as much takes far less than sixty-four times as long."""

    def seconds(length: int) -> float:
        source = piece * (length // len(piece)) + "x"
        begun = time.process_time()
        read(source)
        return time.process_time() - begun

    little = max(0.01, min(seconds(size), seconds(size)))
    return any(seconds(8 * size) < 24 * little for _ in range(3))

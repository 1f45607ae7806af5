"""The files that a checkpoint consists of."""

from __future__ import annotations

from pathlib import Path

_KINDS = (".json", ".safetensors", ".bin", ".txt", ".model")


def model_files(folder: Path) -> list[Path]:
    """Return the files of the encoder and of the modules after it, without pickles it has twice."""
    found = [*folder.glob("*"), *folder.glob("[0-9]*_*/*")]
    files = sorted(path for path in found if path.suffix in _KINDS and path.is_file())
    in_both = {path.parent for path in files if path.suffix == ".safetensors"}
    return [path for path in files if path.suffix != ".bin" or path.parent not in in_both]

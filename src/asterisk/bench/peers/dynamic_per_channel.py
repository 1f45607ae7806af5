"""`asterisk.bench.peers.dynamic` with ``quantize_dynamic(per_channel=True)``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asterisk.bench.peers import dynamic
from asterisk.bench.peers.dynamic import open

__all__ = ["ROW", "open", "prepare"]
ROW = replace(dynamic.ROW, name="dynamic-per-channel", recipe="int8 per channel")


def prepare(folder: Path, checkpoint: Path) -> None:
    """Trace and quantise the model in the folder ``checkpoint``."""
    dynamic.write(folder, checkpoint, per_channel=True)

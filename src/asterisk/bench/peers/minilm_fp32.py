"""all-MiniLM-L6-v2 under ONNX Runtime in float32, one text at a time at its exact length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asterisk.bench.peers import minilm
from asterisk.bench.peers.minilm import open

__all__ = ["ROW", "open", "prepare"]
ROW = replace(minilm.ROW, name="minilm-fp32", recipe="fp32")


def prepare(folder: Path) -> None:
    """Write the model, the tokenizer and FP32 vectors; needs what `minilm` needs."""
    minilm.write(folder, quantised=False)

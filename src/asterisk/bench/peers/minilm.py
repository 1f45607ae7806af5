"""`asterisk.bench.peers.dynamic` over all-MiniLM-L6-v2, whatever the checkpoint is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from asterisk.bench.peers import dynamic
from asterisk.bench.peers.dynamic import open

__all__ = ["ROW", "open", "prepare"]
MODEL = "all-MiniLM-L6-v2"
COMPARED = 256  # texts that its fidelity is measured over
ROW = replace(dynamic.ROW, name="minilm", title=f"{MODEL}, {dynamic.ROW.title}", model=MODEL)


def prepare(folder: Path, checkpoint: Path) -> None:  # noqa: ARG001 - it has a model of its own
    """Trace and quantise it; write its own FP32 vectors of the first texts.

    MissingExtra where the package with the weights or `transformers` is not installed.
    """
    from asterisk.bench.peers.session import REFERENCE
    from asterisk.common import texts
    from asterisk.runtimes.torch import open_checkpoint
    from asterisk.training.teachers import teacher

    source = teacher.find(MODEL)
    dynamic.prepare(folder, source)
    some = [text.text for text in texts.load()[:COMPARED]]
    np.save(folder / REFERENCE, open_checkpoint(source).encode(some))

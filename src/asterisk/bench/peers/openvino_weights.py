"""`asterisk.bench.peers.openvino` with weights in int8 and everything else as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asterisk.bench.peers import openvino
from asterisk.bench.peers.openvino import open

__all__ = ["ROW", "open", "prepare"]
ROW = replace(openvino.ROW, name="openvino-weights", recipe="int8 weights")


def prepare(folder: Path, checkpoint: Path) -> None:
    """Convert the model in the folder ``checkpoint`` and compress its weights."""
    from asterisk.common.plugins import require

    nncf, model = openvino.quantiser(), openvino.convert(folder, checkpoint)
    compressed = nncf.compress_weights(model)
    require("openvino", "peers").save_model(compressed, folder / openvino.MODEL)

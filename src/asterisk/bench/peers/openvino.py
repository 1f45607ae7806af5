"""A checkpoint under OpenVINO in int8: static, or with weights alone in int8.

Static int8 is what sentence-transformers' pages advise for CPUs: NNCF's ``quantize`` with its
preset for transformers after calibration on shipped texts. The model is OpenVINO's own conversion
of `transformers`' model.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from asterisk.bench.peers import onnx

MODEL = "model.xml"
CALIBRATION = 300  # texts


def prepare_static(folder: Path, checkpoint: Path) -> None:
    """Convert, calibrate and quantise the model in the folder ``checkpoint``."""
    from asterisk.common import texts

    nncf, model = _converted(folder, checkpoint)
    tokenize, _ = onnx.tokenizer(folder)
    every = texts.load()
    some = [text.text for text in every[:: max(len(every) // CALIBRATION, 1)][:CALIBRATION]]

    def inputs(text: str) -> list[Any]:
        ids = tokenize(text)
        return [ids, np.ones_like(ids)]

    kind, calibration = nncf.ModelType.TRANSFORMER, nncf.Dataset(some, inputs)
    _save(nncf.quantize(model, calibration, model_type=kind, subset_size=CALIBRATION), folder)


def prepare_weights(folder: Path, checkpoint: Path) -> None:
    """Convert the model in the folder ``checkpoint`` and compress its weights to int8."""
    nncf, model = _converted(folder, checkpoint)
    _save(nncf.compress_weights(model), folder)


def _converted(folder: Path, checkpoint: Path) -> tuple[Any, Any]:
    """Write the tokenizer into ``folder``; return NNCF, and the model in float32 for it."""
    from asterisk.common.plugins import require
    from asterisk.model.checkpoint import load

    os.environ.setdefault("NNCF_CI", "1")  # it sends no usage statistics from what it takes for CI
    nncf = require("nncf", "peers")
    openvino, torch = require("openvino", "peers"), require("torch", "peers")
    source = load(checkpoint)
    onnx.write_tokenizer(source, folder)
    ids = torch.full((2, 16), 101)
    example = dict(zip(onnx.INPUTS, (ids, torch.ones_like(ids)), strict=True))
    with onnx.quiet():
        module = onnx.sentence_module(source, attention="sdpa")
        return nncf, openvino.convert_model(module, example_input=example)


def _save(model: Any, folder: Path) -> None:
    import openvino

    openvino.save_model(model, folder / MODEL)


def open_model(folder: Path, threads: int) -> onnx.PeerEncoder:
    """Open what was prepared; ``threads`` are streams of one thread each."""
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY" if threads == 1 else "THROUGHPUT",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
    }
    compiled = openvino.Core().compile_model(folder / MODEL, "CPU", options)
    tokenize, pad = onnx.tokenizer(folder)
    local = threading.local()  # a request serves one thread at a time

    def run(ids: Any, mask: Any) -> Any:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return np.array(local.request.infer([ids, mask], share_inputs=True)[0])

    return onnx.PeerEncoder(tokenize, run, threads, pad=pad)

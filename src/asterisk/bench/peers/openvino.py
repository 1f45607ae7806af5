"""A checkpoint under OpenVINO in static int8, which sentence-transformers' pages advise for CPUs.

NNCF's ``quantize`` with its preset for transformers after calibration on shipped texts, which is
what ``export_static_quantized_openvino_model`` does. The model is OpenVINO's own conversion of
`transformers`' model; inference is in the precision that OpenVINO chooses for the processor. The
tokenizer is the light one.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from asterisk.bench.plan import Row

MODEL = "model.xml"
CALIBRATION = 300  # texts

ROW = Row(
    name="openvino",
    title="OpenVINO",
    recipe="static int8",
    opener="asterisk.bench.peers.openvino:open",
    path="",
    modules=("openvino", "tokenizers"),
    distributions=("openvino", "tokenizers"),
    size=0,
    peer=True,
)


def prepare(folder: Path, checkpoint: Path) -> None:
    """Convert, calibrate and quantise the model in the folder ``checkpoint``."""
    import numpy as np

    from asterisk.bench.peers.session import tokenizer
    from asterisk.common import texts
    from asterisk.common.plugins import require

    nncf, model = quantiser(), convert(folder, checkpoint)
    tokenize, _ = tokenizer(folder)
    every = texts.load()
    some = [text.text for text in every[:: max(len(every) // CALIBRATION, 1)][:CALIBRATION]]

    def inputs(text: str) -> list[Any]:
        ids = tokenize(text)
        return [ids, np.ones_like(ids)]

    quantised = nncf.quantize(
        model,
        nncf.Dataset(some, inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=CALIBRATION,
    )
    require("openvino", "peers").save_model(quantised, folder / MODEL)


def quantiser() -> Any:
    """Import NNCF, which sends no usage statistics where it believes to be in CI."""
    from asterisk.common.plugins import require

    os.environ.setdefault("NNCF_CI", "1")
    return require("nncf", "peers")


def convert(folder: Path, checkpoint: Path) -> Any:
    """Write the tokenizer into ``folder`` and return the model, float32, as OpenVINO has it."""
    from asterisk.bench.peers import traced
    from asterisk.bench.peers.quiet import quiet
    from asterisk.common.plugins import require
    from asterisk.model.checkpoint import load

    openvino, torch = require("openvino", "peers"), require("torch", "peers")
    source = load(checkpoint)
    traced.write_tokenizer(source, folder)
    ids = torch.full((2, 16), 101)
    example = dict(zip(traced.INPUTS, (ids, torch.ones_like(ids)), strict=True))
    with quiet():
        return openvino.convert_model(
            traced.sentence_module(source, attention="sdpa"), example_input=example
        )


def open(folder: Path, threads: int) -> Any:
    """Open what `prepare` wrote; ``threads`` are streams of one thread each."""
    import numpy as np
    import openvino

    from asterisk.bench.peers.session import PeerEncoder, tokenizer

    compiled = openvino.Core().compile_model(
        folder / MODEL,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY" if threads == 1 else "THROUGHPUT",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
        },
    )
    tokenize, pad = tokenizer(folder)
    local = threading.local()  # a request serves one thread at a time

    def run(ids: Any, mask: Any) -> Any:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return np.array(local.request.infer([ids, mask], share_inputs=True)[0])

    return PeerEncoder(tokenize, run, threads, pad=pad)

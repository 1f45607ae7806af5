"""A checkpoint in int8 as people make it: a traced graph and ONNX Runtime's `quantize_dynamic`.

Per tensor, its default. The tokenizer is the light one, not transformers'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asterisk.bench.plan import Row

ROW = Row(
    name="dynamic",
    title="quantize_dynamic, ONNX Runtime",
    recipe="int8",
    opener="asterisk.bench.peers.dynamic:open",
    path="",
    modules=("onnxruntime", "tokenizers"),
    distributions=("onnxruntime", "tokenizers"),
    size=0,
    peer=True,
)


def prepare(folder: Path, checkpoint: Path) -> None:
    """Trace and quantise the model in the folder ``checkpoint``."""
    write(folder, checkpoint, per_channel=False)


def write(folder: Path, checkpoint: Path, *, per_channel: bool) -> None:
    """Write the graph in int8, with a scale a tensor or a scale an output channel."""
    from asterisk.bench.peers import traced
    from asterisk.bench.peers.quiet import quiet
    from asterisk.bench.peers.session import MODEL
    from asterisk.common.plugins import require
    from asterisk.model.checkpoint import load

    quantization = require("onnxruntime.quantization", "bench")
    graph = folder / "traced.onnx"
    traced.trace(checkpoint, graph)
    with quiet():
        quantization.quantize_dynamic(
            graph,
            folder / MODEL,
            per_channel=per_channel,
            weight_type=quantization.QuantType.QInt8,
        )
    graph.unlink()
    traced.write_tokenizer(load(checkpoint), folder)


def open(folder: Path, threads: int) -> Any:
    """Open what `prepare` wrote."""
    from asterisk.bench.peers.session import MODEL, PeerEncoder, onnx_session, tokenizer

    session = onnx_session(folder / MODEL)
    tokenize, pad = tokenizer(folder)

    def run(ids: Any, mask: Any) -> Any:
        return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    return PeerEncoder(tokenize, run, threads, pad=pad)

"""all-MiniLM-L6-v2 in int8 as people make it: a traced graph and `quantize_dynamic`.

PyTorch's exporter traces `transformers`' model with a dynamic batch and length, as optimum and
sentence-transformers do, and ONNX Runtime's `quantize_dynamic` makes it int8, per tensor, its
default. The tokenizer is the light one, not transformers'.
"""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile
from typing import Any

from asterisk.bench.peers import minilm
from asterisk.bench.plan import Row

ROW = Row(
    name="minilm-dynamic",
    title="all-MiniLM-L6-v2, quantize_dynamic",
    recipe="int8",
    opener="asterisk.bench.peers.minilm_dynamic:open",
    path="",
    modules=("onnxruntime", "tokenizers"),
    distributions=("onnxruntime", "tokenizers"),
    size=0,
    peer=True,
)
INPUTS = ("input_ids", "attention_mask")


def prepare(folder: Path) -> None:
    """Trace and quantise the model; write FP32 vectors of the first texts."""
    from asterisk.bench.peers.quiet import quiet
    from asterisk.plugins import require

    quantization = require("onnxruntime.quantization", "export")
    source, graph = minilm.find(), folder / "traced.onnx"
    with quiet():
        trace(source, graph)
        quantization.quantize_dynamic(
            graph, folder / minilm.MODEL, weight_type=quantization.QuantType.QInt8
        )
    graph.unlink()
    copyfile(source / minilm.TOKENIZER, folder / minilm.TOKENIZER)
    minilm.write_reference(folder, source)


def trace(source: Path, graph: Path) -> None:
    """Write the graph of a model folder with the mean over tokens, float32, as PyTorch traces it.

    Inputs are `INPUTS`, int64 [batch, length]; the output is float32 [batch, hidden].
    """
    import onnx
    import torch
    from transformers import AutoModel

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            model: Any = AutoModel.from_pretrained(source, attn_implementation="eager")
            self.model = model.eval()

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).to(states.dtype)
            return (states * weights).sum(1) / weights.sum(1)

    ids, mask = torch.full((2, 16), 101), torch.ones((2, 16), dtype=torch.int64)
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=2, max=512)
    torch.onnx.export(
        Pooled(),
        (ids, mask),
        graph,
        input_names=list(INPUTS),
        output_names=["sentence_embedding"],
        dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
        dynamo=True,
        external_data=False,
        opset_version=20,
        verbose=False,
    )
    model = onnx.load(graph)
    del model.graph.value_info[:]  # quantize_dynamic's shape inference trips over them
    onnx.save(model, graph)


def open(folder: Path, threads: int) -> Any:
    """Open what `prepare` wrote."""
    from asterisk.bench.peers.session import PeerEncoder

    class Traced(PeerEncoder):
        def embed_ids(self, ids: Any) -> Any:
            """Return the vector of one text, float32 [d], not normalised."""
            ones = ids * 0 + 1
            return self.session.run(None, dict(zip(INPUTS, (ids, ones), strict=True)))[0][0]

    return Traced(folder / minilm.MODEL, minilm.tokenizer(folder / minilm.TOKENIZER), threads)

"""The original `asterisk-embedding-model`'s configuration, as its own scripts deploy it.

Random weights of its shape: what counts is speed and memory. `nn.TransformerEncoder`, exported at
128 tokens, to which every text is padded without a mask; per-tensor dynamic int8; the tokenizer of
`transformers`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from asterisk.bench.plan import Row

LENGTH = 128
VOCABULARY, POSITIONS, HIDDEN, LAYERS, HEADS, OUT = 50_259, 512, 512, 2, 2, 256
MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"

ROW = Row(
    name="original",
    title="original, random weights, padded to 128",
    recipe="int8 per tensor",
    opener="asterisk.bench.peers.original:open",
    path="",
    modules=("onnxruntime", "transformers"),
    distributions=("onnxruntime", "transformers"),
    size=0,
    peer=True,
    model="the original's configuration",
)


def prepare(folder: Path, checkpoint: Path) -> None:  # noqa: ARG001 - it has a model of its own
    """Write the model and the tokenizer into ``folder``; needs torch, onnx and onnxscript."""
    from asterisk.bench.peers.quiet import quiet
    from asterisk.tokenizer import gpt2, huggingface

    (folder / TOKENIZER).write_text(huggingface.to_json(gpt2()), "utf-8")
    wide = folder / "wide.onnx"
    with quiet():
        _export(wide)
        _quantise(wide, folder / MODEL)
    wide.unlink()


def open(folder: Path, threads: int) -> Any:
    """Open what `prepare` wrote as a `PeerEncoder`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers import PreTrainedTokenizerFast

    from asterisk.bench.peers.session import PeerEncoder, onnx_session

    session = onnx_session(folder / MODEL)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER), pad_token="[PAD]")  # noqa: S106

    def tokenize(text: str) -> Any:
        return tokenizer(
            text, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np"
        )["input_ids"]

    def run(ids: Any, mask: Any) -> Any:  # noqa: ARG001 - it was exported without one
        return session.run(None, {"input_ids": ids})[0]

    pad = tokenizer.pad_token_id
    return PeerEncoder(tokenize, run, threads, at_once=1, own_padding=pad)


def _export(path: Path) -> None:
    import torch
    from torch import Tensor, nn

    class Original(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token_emb = nn.Embedding(VOCABULARY, HIDDEN)
            self.pos_emb = nn.Embedding(POSITIONS, HIDDEN)
            layer = nn.TransformerEncoderLayer(
                HIDDEN, HEADS, 4 * HIDDEN, activation="gelu", batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
            self.proj = nn.Linear(HIDDEN, OUT)

        def forward(self, ids: Tensor) -> Tensor:
            positions = torch.arange(ids.shape[1]).unsqueeze(0)
            x = self.encoder(self.token_emb(ids) + self.pos_emb(positions))
            projected: Tensor = self.proj(x.mean(1))
            return projected

    torch.manual_seed(0)
    # The default exporter of this PyTorch; the older one gives a graph twice as slow.
    torch.onnx.export(
        Original().eval(),
        (torch.zeros(1, LENGTH, dtype=torch.long),),
        str(path),
        input_names=["input_ids"],
        output_names=["sentence_embedding"],
        opset_version=20,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _quantise(wide: Path, narrow: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(wide)
    # The exporter's own shapes contradict those that the quantiser infers, and stop it.
    del model.graph.value_info[:]
    onnx.save(model, wide)
    quantize_dynamic(wide, narrow, weight_type=QuantType.QInt8)

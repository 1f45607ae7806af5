"""A checkpoint as PyTorch's exporter traces it, for the peers that run such a graph.

`transformers`' own model with a dynamic batch and length, then the folder's pooling and maps. The
exporter is PyTorch's current one: its graphs run as fast as or faster than those of the older one,
which optimum and sentence-transformers use.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asterisk.bench.peers.quiet import quiet
from asterisk.bench.peers.session import SETTINGS, TOKENIZER
from asterisk.model.checkpoint import Checkpoint, load
from asterisk.model.modules import read_modules

INPUTS = ("input_ids", "attention_mask")


def sentence_module(checkpoint: Checkpoint, *, attention: str, pooled: bool = True) -> Any:
    """Return a PyTorch module from `INPUTS`, int64 [B, T], to vectors, float32 [B, d].

    Not normalised; the last hidden states, float32 [B, T, H], unless ``pooled``. ``attention`` is
    the implementation that transformers is to use.
    """
    import torch
    from torch import Tensor, nn
    from transformers import AutoModel

    from asterisk.model.encoder import pool

    config = checkpoint.config
    if checkpoint.folder is None:
        raise AssertionError("unreachable: a checkpoint that was read has a folder")
    place = read_modules(checkpoint.folder).transformer

    class Sentence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model: Any = AutoModel.from_pretrained(
                place, dtype=torch.float32, attn_implementation=attention
            )
            self.maps = nn.ModuleList()
            for number, dense in enumerate(config.dense):
                named = {
                    name: torch.from_numpy(checkpoint.tensors[f"dense.{number}.{name}"])
                    for name in (("weight", "bias") if dense.bias else ("weight",))
                }
                out, width = named["weight"].shape
                linear = nn.Linear(width, out, bias=dense.bias)
                linear.load_state_dict(named)
                self.maps.append(linear)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            found = self.model(input_ids=input_ids, attention_mask=attention_mask)
            states: Tensor = found.last_hidden_state
            if not pooled:
                return states
            vectors = pool(states, attention_mask.bool(), config.pooling)
            for linear, dense in zip(self.maps, config.dense, strict=True):
                vectors = linear(vectors)
                if dense.activation == "tanh":
                    vectors = vectors.tanh()
            return vectors

    return Sentence().eval()


def trace(checkpoint: Path, graph: Path, *, pooled: bool = True) -> None:
    """Write the float32 graph of the model in a folder; inputs and output as `sentence_module`."""
    import onnx
    import torch

    ids = torch.full((2, 16), 101)
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=2, max=512)
    with quiet():
        torch.onnx.export(
            sentence_module(load(checkpoint), attention="eager", pooled=pooled),
            (ids, torch.ones_like(ids)),
            str(graph),
            input_names=list(INPUTS),
            output_names=["sentence_embedding" if pooled else "last_hidden_state"],
            dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
            dynamo=True,
            external_data=False,
            opset_version=20,
            verbose=False,
        )
    model = onnx.load(graph)
    del model.graph.value_info[:]  # quantize_dynamic's shape inference trips over them
    onnx.save(model, graph)


def write_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    """Write what `asterisk.bench.peers.session.tokenizer` reads."""
    (folder / TOKENIZER).write_text(checkpoint.tokenizer.to_json(), "utf-8")
    settings = {
        "max_seq_length": checkpoint.config.max_seq_length,
        "prompt": default_prompt(checkpoint),
        "pad": checkpoint.tokenizer.special.get("pad", 0),
    }
    (folder / SETTINGS).write_text(json.dumps(settings), "utf-8")


def default_prompt(checkpoint: Checkpoint) -> str:
    """Return what stands before every text unless another prompt is asked for."""
    name = checkpoint.default_prompt_name
    return checkpoint.prompts[name] if name else ""

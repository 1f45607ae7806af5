"""all-MiniLM-L6-v2 under fastembed, from a local folder and in float32.

fastembed brings no weights and would fetch its own from the network. It is given the same weights
as PyTorch's exporter traces them; pooling and unit length are its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

from asterisk.bench.peers import minilm
from asterisk.bench.plan import Row

NAME, SIZE = "all-MiniLM-L6-v2-local", 384
AT_ONCE = 32  # its default, 256, is slower where lengths are mixed and takes 3 GB
SETTINGS = "tokenizer_config.json"
FILES = ("config.json", "special_tokens_map.json", minilm.TOKENIZER)

ROW = Row(
    name="fastembed",
    title="all-MiniLM-L6-v2, fastembed",
    recipe="fp32",
    opener="asterisk.bench.peers.fastembed:open",
    path="",
    modules=("fastembed",),
    distributions=("fastembed",),
    size=0,
    peer=True,
)


def prepare(folder: Path) -> None:
    """Write the folder that fastembed reads, and FP32 vectors of the first texts."""
    from asterisk.bench.peers.quiet import quiet
    from asterisk.plugins import require

    require("fastembed", "peers")
    source = minilm.find()
    with quiet():
        trace(source, folder / minilm.MODEL)
    for name in FILES:
        copyfile(source / name, folder / name)
    # It reads as many word pieces as this file says; the model's makers say fewer elsewhere.
    settings = json.loads((source / SETTINGS).read_text("utf-8"))
    settings["model_max_length"] = minilm.LONGEST
    (folder / SETTINGS).write_text(json.dumps(settings), "utf-8")
    minilm.write_reference(folder, source)


def trace(source: Path, path: Path) -> None:
    """Write the last hidden states of padded texts as PyTorch's exporter traces them, float32."""
    import torch
    from torch import Tensor, nn
    from transformers import BertModel

    class States(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert: Any = BertModel.from_pretrained(
                source, dtype=torch.float32, attn_implementation="eager"
            )

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            states: Tensor = self.bert(input_ids, attention_mask).last_hidden_state
            return states

    ids = torch.ones((2, 9), dtype=torch.int64)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(
        States().eval(),
        (ids, torch.ones_like(ids)),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["token_embeddings"],
        dynamic_shapes=(sizes, sizes),
        dynamo=True,
        opset_version=20,
        external_data=False,
        verbose=False,
    )


def open(folder: Path, threads: int) -> Any:
    """Open what `prepare` wrote."""
    return Encoder(folder, threads)


class Encoder:
    """Text to vectors by ``TextEmbedding.embed``, padded; ``threads`` are of its session."""

    def __init__(self, folder: Path, threads: int) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        import numpy as np
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        if NAME not in (known["model"] for known in TextEmbedding.list_supported_models()):
            TextEmbedding.add_custom_model(
                model=NAME,
                pooling=PoolingType.MEAN,
                normalization=True,
                sources=ModelSource(url="file:local"),
                dim=SIZE,
                model_file=minilm.MODEL,
            )
        self.stack = np.stack
        self.model = TextEmbedding(
            NAME,
            specific_model_path=str(folder),
            local_files_only=True,
            threads=threads,
            providers=["CPUExecutionProvider"],
        )

    def encode(self, texts: str | Sequence[str]) -> Any:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        if isinstance(texts, str):
            return next(iter(self.model.embed([texts])))
        return self.stack(list(self.model.embed(list(texts), batch_size=AT_ONCE)))

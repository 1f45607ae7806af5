"""all-MiniLM-L6-v2 as its makers publish it: sentence-transformers on PyTorch, in float32.

Its own batches of 32, padded to the longest; ``threads`` are PyTorch's within an operator, which
is how this library uses several cores.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

from asterisk.bench.peers import minilm
from asterisk.bench.plan import Row

FILES = (
    *("config.json", "config_sentence_transformers.json", "model.safetensors", "modules.json"),
    *("sentence_bert_config.json", "special_tokens_map.json", "tokenizer.json"),
    *("tokenizer_config.json", "vocab.txt", "1_Pooling/config.json"),
)

ROW = Row(
    name="minilm-st",
    title="all-MiniLM-L6-v2, sentence-transformers",
    recipe="fp32",
    opener="asterisk.bench.peers.minilm_st:open",
    path="",
    modules=("torch", "sentence_transformers"),
    distributions=("sentence-transformers",),
    size=0,
    peer=True,
)


def prepare(folder: Path) -> None:
    """Copy the model's folder and write FP32 vectors of the first texts."""
    from asterisk.plugins import require

    require("sentence_transformers", "peers")
    source = minilm.find()
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        copyfile(source / name, folder / name)
    minilm.write_reference(folder, source)


def open(folder: Path, threads: int) -> Any:
    """Open what `prepare` wrote."""
    return Encoder(folder, threads)


class Encoder:
    """Text to vectors by ``SentenceTransformer.encode``."""

    def __init__(self, folder: Path, threads: int) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.torch = torch
        self.model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    def tokenize(self, text: str) -> Any:
        """Return the features of one text."""
        return self.model.preprocess([text])

    def embed_ids(self, features: Any) -> Any:
        """Return the vector of one text, float32 [d], L2-normalised."""
        with self.torch.inference_mode():
            # The modules add to the mapping they are given.
            return self.model(dict(features))["sentence_embedding"][0].numpy()

    def encode(self, texts: str | Sequence[str]) -> Any:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        one = isinstance(texts, str)
        given = texts if one else list(texts)
        return self.model.encode(given, show_progress_bar=False, normalize_embeddings=True)

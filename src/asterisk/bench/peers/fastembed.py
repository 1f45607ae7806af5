"""A checkpoint under fastembed, from a local folder and in float32.

fastembed brings no weights and would fetch its own from the network. It is given the same weights
as PyTorch's exporter traces them; pooling and unit length are its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asterisk.bench.plan import Row

NAME = "checkpoint"
AT_ONCE = 32  # its default, 256, is slower where lengths are mixed and takes 3 GB
SHAPE = "fastembed.json"  # the pooling and the number of dimensions, for `open`

ROW = Row(
    name="fastembed",
    title="fastembed",
    recipe="fp32",
    opener="asterisk.bench.peers.fastembed:open",
    path="",
    modules=("fastembed",),
    distributions=("fastembed",),
    size=0,
    peer=True,
)


def prepare(folder: Path, checkpoint: Path) -> None:
    """Write the folder that fastembed reads; UsageError for a model that it cannot hold."""
    from asterisk.bench.peers import traced
    from asterisk.bench.peers.session import MODEL, TOKENIZER
    from asterisk.common.errors import UsageError
    from asterisk.common.plugins import require
    from asterisk.model.checkpoint import load

    require("fastembed", "peers")
    source = load(checkpoint)
    config, tokenizer = source.config, source.tokenizer
    if config.dense or config.pooling not in ("mean", "cls"):
        raise UsageError("fastembed pools by the mean or by the first token, and has no Dense")
    traced.trace(checkpoint, folder / MODEL, pooled=False)
    (folder / TOKENIZER).write_text(tokenizer.to_json(), "utf-8")
    pad = tokenizer.special.get("pad", 0)
    named = {f"{name}_token": tokenizer.tokens[token] for name, token in tokenizer.special.items()}
    files = {
        "config.json": {"pad_token_id": pad},
        "special_tokens_map.json": named,
        "tokenizer_config.json": {
            "pad_token": tokenizer.tokens[pad],
            **tokenizer.settings(config.max_seq_length),
        },
        SHAPE: {
            "pooling": config.pooling,
            "dim": config.embedding_size,
            "prompt": traced.default_prompt(source),
        },
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values), "utf-8")


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

        from asterisk.bench.peers.session import MODEL

        shape = json.loads((folder / SHAPE).read_text("utf-8"))
        if NAME not in (known["model"] for known in TextEmbedding.list_supported_models()):
            TextEmbedding.add_custom_model(
                model=NAME,
                pooling=PoolingType(shape["pooling"].upper()),
                normalization=True,
                sources=ModelSource(url="file:local"),
                dim=shape["dim"],
                model_file=MODEL,
            )
        self.np, self.prompt, self.pooling = np, shape["prompt"], shape["pooling"]
        self.library = TextEmbedding(
            NAME,
            specific_model_path=str(folder),
            local_files_only=True,
            threads=threads,
            providers=["CPUExecutionProvider"],
        )
        self.model: Any = self.library.model

    def tokenize(self, text: str) -> Any:
        """Return what the model's own tokenizer makes of one text."""
        return self.model.tokenize([self.prompt + text])[0]

    def embed_ids(self, encoded: Any) -> Any:
        """Return the vector of one text, float32 [d], by the model's own session."""
        given = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask}
        states = self.model.model.run(
            None, {name: self.np.array([some], self.np.int64) for name, some in given.items()}
        )[0][0]
        return states[0] if self.pooling == "cls" else states.mean(0)

    def encode(self, texts: str | Sequence[str]) -> Any:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        if isinstance(texts, str):
            return next(iter(self.library.embed([self.prompt + texts])))
        given = [self.prompt + text for text in texts]
        return self.np.stack(list(self.library.embed(given, batch_size=AT_ONCE)))

    def padding(self, texts: Sequence[str]) -> float:
        """Return the share of padding among the tokens that ``texts`` are computed with."""
        masks = [
            [one.attention_mask for one in self.model.tokenize(list(texts[at : at + AT_ONCE]))]
            for at in range(0, len(texts), AT_ONCE)
        ]
        rows = [mask for batch in masks for mask in batch]
        return 1 - sum(map(sum, rows)) / sum(map(len, rows))

"""A checkpoint under sentence-transformers on PyTorch, in float32.

Its own batches of 32 after a sort by length, padded to the longest; ``threads`` are PyTorch's
within an operator, which is how this library uses several cores.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

from asterisk.bench.plan import Row

ROW = Row(
    name="sentence-transformers",
    title="sentence-transformers, PyTorch",
    recipe="fp32",
    opener="asterisk.bench.peers.sentence_transformers:open",
    path="",
    modules=("torch", "sentence_transformers"),
    distributions=("sentence-transformers",),
    size=0,
    peer=True,
)


def prepare(folder: Path, checkpoint: Path) -> None:
    """Copy the folder ``checkpoint``."""
    from asterisk.common.plugins import require

    require("sentence_transformers", "peers")
    copy(folder, checkpoint)


def copy(folder: Path, checkpoint: Path) -> None:
    """Copy the files of the model in ``checkpoint``."""
    from asterisk.bench.model_files import model_files

    for source in model_files(checkpoint):
        target = folder / source.relative_to(checkpoint)
        target.parent.mkdir(exist_ok=True)
        copyfile(source, target)


def open(folder: Path, threads: int) -> Any:
    """Open what `prepare` wrote."""
    return Encoder(folder, threads)


class Encoder:
    """Text to vectors by ``SentenceTransformer.encode``; ``options`` are the constructor's."""

    def __init__(self, folder: Path, threads: int, **options: Any) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ["HF_HUB_OFFLINE"] = "1"
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.torch = torch
        options.setdefault("model_kwargs", {"dtype": torch.float32})
        self.model: Any = SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, **options
        )
        self.prompt = self.model.prompts.get(self.model.default_prompt_name) or ""

    def tokenize(self, text: str) -> Any:
        """Return the features of one text."""
        return self.model.preprocess([self.prompt + text])

    def embed_ids(self, features: Any) -> Any:
        """Return the vector of one text, float32 [d]."""
        with self.torch.inference_mode():
            # The modules add to the mapping they are given.
            return self.model(dict(features))["sentence_embedding"][0].numpy()

    def encode(self, texts: str | Sequence[str]) -> Any:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        given = texts if isinstance(texts, str) else list(texts)
        return self.model.encode(given, show_progress_bar=False, normalize_embeddings=True)

    def padding(self, texts: Sequence[str]) -> float:
        """Return the share of padding among the tokens that ``texts`` are computed with.

        Counted in the attention masks that reach the encoder.
        """
        counts: list[tuple[int, int]] = []

        def count(_: Any, given: tuple[Any, ...]) -> None:
            mask = given[0]["attention_mask"]
            counts.append((int(mask.sum()), mask.numel()))

        hook = self.model[0].register_forward_pre_hook(count)
        try:
            self.encode(texts)
        finally:
            hook.remove()
        return 1 - sum(real for real, _ in counts) / sum(computed for _, computed in counts)

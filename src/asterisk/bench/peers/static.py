"""A model2vec static model distilled from all-MiniLM-L6-v2, under model2vec itself.

Distilled by the library's own recipe and defaults: the mean state of each word piece between [CLS]
and [SEP], 256 principal components, weighted for frequency by rank (SIF), stored as float16. Done
here, because the library's code for it does not go with the version of `transformers` that this
project is pinned to.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.bench.peers.minilm import COMPARED
from asterisk.bench.peers.minilm import MODEL as NAME
from asterisk.bench.peers.session import REFERENCE, TOKENIZER
from asterisk.bench.plan import Row

COMPONENTS = 256
SIF = 1e-4
LEFT_OUT = re.compile(r"\[unused\d+\]|\[CLS\]|\[SEP\]|\[MASK\]")
START, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
LONGEST = 512  # word pieces, its default
AT_ONCE = 256
Array = npt.NDArray[np.float32]

ROW = Row(
    name="model2vec",
    title=f"{NAME}, model2vec",
    recipe="static fp16",
    opener="asterisk.bench.peers.static:open",
    path="",
    modules=("model2vec",),
    distributions=("model2vec",),
    size=0,
    peer=True,
    model=f"a static model of {NAME}",
)


def prepare(folder: Path, checkpoint: Path) -> None:  # noqa: ARG001 - it has a model of its own
    """Distil the model, write it as model2vec does, and its own FP32 vectors of the first texts."""
    from asterisk.common.plugins import require

    model2vec = require("model2vec", "peers")
    from tokenizers import Tokenizer

    from asterisk.training.teachers import teacher

    source = teacher.find(NAME)
    told = json.loads((source / TOKENIZER).read_text("utf-8"))
    tokens = kept(told["model"]["vocab"])
    vectors = distil(source, told["model"]["vocab"], tokens)
    tokenizer = Tokenizer.from_str(json.dumps(without_rest(told, tokens)))
    model = model2vec.StaticModel(
        vectors.astype(np.float16),
        tokenizer,
        {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True},
        normalize=True,
        base_model_name=NAME,
    )
    model.save_pretrained(str(folder))
    np.save(folder / REFERENCE, _reference(tokenizer, vectors))


def kept(vocabulary: dict[str, int]) -> list[str]:
    """Return the word pieces that a text can have, in the order of their ids."""
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    return [token for token in ordered if not LEFT_OUT.fullmatch(token)]


def without_rest(told: dict[str, Any], tokens: Sequence[str]) -> dict[str, Any]:
    """Return a `tokenizer.json` with ``tokens`` only, which adds nothing to a text."""
    ids = {token: place for place, token in enumerate(tokens)}
    added = [
        {**one, "id": ids[one["content"]]} for one in told["added_tokens"] if one["content"] in ids
    ]
    model = {**told["model"], "vocab": ids}
    bare: dict[str, None] = dict.fromkeys(("post_processor", "padding", "truncation"))
    return {**told, **bare, "added_tokens": added, "model": model}


def distil(source: Path, vocabulary: dict[str, int], tokens: Sequence[str]) -> Array:
    """Return the static vector of each of ``tokens``, float32 [n, `COMPONENTS`]."""
    import torch
    from transformers import BertModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    frame = vocabulary[START], vocabulary[END]
    ids = torch.tensor([[frame[0], vocabulary[token], frame[1]] for token in tokens])
    model: Any = BertModel.from_pretrained(source, dtype=torch.float32).eval()
    with torch.inference_mode():
        parts = (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))
        states = torch.cat([model(part).last_hidden_state.mean(1) for part in parts])
    ranks = 1 / np.arange(2, len(tokens) + 2)
    weights = SIF / (SIF + ranks / ranks.sum())
    vectors: Array = (principal(states.numpy(), COMPONENTS) * weights[:, None]).astype(np.float32)
    return vectors


def principal(states: Array, components: int) -> Array:
    """Return the scores of the first principal components, [n, components]."""
    centred = states - states.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    scores: Array = centred @ directions[:, ::-1][:, :components]
    return scores


def _reference(tokenizer: Any, vectors: Array) -> Array:
    """Return the FP32 vectors of the first texts, without model2vec, [n, `COMPONENTS`]."""
    from asterisk.common import texts

    unknown = tokenizer.token_to_id(UNKNOWN)
    means = []
    for text in texts.load()[:COMPARED]:
        ids = tokenizer.encode(text.text, add_special_tokens=False).ids[:LONGEST]
        mean = vectors[[token for token in ids if token != unknown]].mean(0)
        means.append(mean / np.linalg.norm(mean))
    return np.stack(means)


def open(folder: Path, threads: int) -> Any:  # noqa: ARG001 - it has no use for more
    """Open what `prepare` wrote."""
    return Encoder(folder)


class Encoder:
    """Text to vectors by ``StaticModel.encode``, which uses one thread below 10,000 texts."""

    def __init__(self, folder: Path) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        from model2vec import StaticModel

        self.model = StaticModel.from_pretrained(str(folder))

    def encode(self, texts: str | Sequence[str]) -> Any:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        given = texts if isinstance(texts, str) else list(texts)
        return self.model.encode(given).astype(np.float32)

"""The bar to beat: the best static token table, as a sentence-transformers folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError
from asterisk.common.files import replacing_folder
from asterisk.common.plugins import require
from asterisk.tokenizer import gpt2, huggingface

if TYPE_CHECKING:
    from torch import Tensor

    from asterisk.training.batches import Targets

SIF = 3e-4
CURVE_TEXTS = 1_000
FACTS = "bag.json"
_TYPE = "sentence_transformers.models.StaticEmbedding"
_MODULES = [{"idx": 0, "name": "0", "path": "", "type": _TYPE}]
Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BagRecipe:
    """A run of at most ``epochs``; it ends after ``patience`` epochs without a better cosine."""

    epochs: int = 4
    batch: int = 256
    learning_rate: float = 1e-2
    patience: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Bag:
    """A token table and its mean held-out cosine to the teacher."""

    rows: Array  # [vocabulary, d]; a text's vector is the mean of its tokens' rows
    cosine: float
    line: float  # the cosine of the first held-out texts alone, as in a student's curve
    epochs: int
    texts: int


class _Texts:
    """Every text's tokens end to end, and the teacher's vectors in 16 bits."""

    def __init__(self, targets: Targets) -> None:
        shards = range(targets.shards)
        self.ids = np.concatenate([targets.ids(number) for number in shards])
        self.ends = np.cumsum(targets.all_lengths())
        self.sentences = np.concatenate([targets.sentences(n).astype("f2") for n in shards])

    def batches(self, order: npt.NDArray[np.int64], size: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield each batch's token ids, where its texts begin in them, and its vectors."""
        import torch

        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            begins = np.where(chosen > 0, self.ends[chosen - 1], 0)
            lengths = self.ends[chosen] - begins
            offsets = np.cumsum(lengths) - lengths
            positions = np.arange(lengths.sum()) + np.repeat(begins - offsets, lengths)
            found = (self.ids[positions], offsets, self.sentences[chosen].astype("f4"))
            yield tuple(map(torch.from_numpy, found))


def sif(rows: Array, counts: npt.NDArray[np.int64]) -> Array:
    """Return token means centred and weighted by a / (a + p) (Arora et al., ICLR 2017)."""
    shares = counts / max(counts.sum(), 1)
    centre = (shares @ rows).astype("f4")
    weighted: Array = ((rows - centre) * (SIF / (SIF + shares))[:, None]).astype("f4")
    return weighted


def fit(
    start: Array,
    train: Targets,
    held_out: Targets,
    recipe: BagRecipe,
    on_progress: Callable[[str, int, int, dict[str, float]], None] = lambda *_: None,
) -> Bag:
    """Train on the sentence loss; return the best epoch. ``start``: float32 [vocabulary, d]."""
    import torch
    from torch.nn import functional

    texts, unseen = _Texts(train), _Texts(held_out)
    counts = np.bincount(texts.ids, minlength=len(start))
    rows = torch.from_numpy(sif(start, counts)).requires_grad_()

    def cosine(ids: Tensor, offsets: Tensor, sentences: Tensor) -> Tensor:
        vectors = functional.embedding_bag(ids, rows, offsets, mode="mean", sparse=True)
        return functional.cosine_similarity(vectors, sentences)

    @torch.no_grad()
    def evaluate(epoch: int) -> Bag:
        order = np.arange(len(unseen.ends))
        cosines = torch.cat([cosine(*batch) for batch in unseen.batches(order, 1_024)])
        mean, line = float(cosines.mean()), float(cosines[:CURVE_TEXTS].mean())
        on_progress("bag", epoch, recipe.epochs, {"held_out_cosine": mean})
        return Bag(rows.detach().numpy().copy(), mean, line, epoch, len(train))

    optimiser = torch.optim.SparseAdam([rows], lr=recipe.learning_rate)
    best = evaluate(0)
    random = np.random.default_rng(recipe.seed)
    steps = recipe.epochs * -(-len(train) // recipe.batch)
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        for batch in texts.batches(random.permutation(len(train)), recipe.batch):
            optimiser.param_groups[0]["lr"] = recipe.learning_rate * (1 - step / steps)
            optimiser.zero_grad(set_to_none=True)
            (1 - cosine(*batch).mean()).backward()  # type: ignore[no-untyped-call]
            optimiser.step()  # type: ignore[no-untyped-call]
            step += 1
        bag = evaluate(epoch)
        if bag.cosine > best.cosine:
            best = bag
        elif epoch - best.epochs >= recipe.patience:
            break
    return best


def is_bag(folder: Path) -> bool:
    """Tell whether ``folder`` looks like a bag that `save` wrote."""
    return (folder / FACTS).is_file() and (folder / "model.safetensors").is_file()


def save(bag: Bag, folder: Path, fold: npt.NDArray[np.int64] | None) -> None:
    """Write ``bag`` in 32 bits; ``fold`` gives each token the row it shares."""
    numpy: Any = require("safetensors.numpy", "train")
    tokenizer = json.loads(huggingface.to_json(gpt2()))
    # In the vocabulary they keep their ids; here they would be found in plain text.
    tokenizer["added_tokens"] = []
    cosines = {"held_out_cosine": bag.cosine, "line": bag.line}
    facts = cosines | {"epochs": bag.epochs, "texts": bag.texts}
    rows = np.ascontiguousarray(bag.rows if fold is None else bag.rows[fold])
    with replacing_folder(folder, is_bag) as staging:
        numpy.save_file({"embedding.weight": rows}, staging / "model.safetensors")
        (staging / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
        (staging / "modules.json").write_text(json.dumps(_MODULES, indent=1) + "\n", "utf-8")
        (staging / FACTS).write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def read_cosines(folder: Path) -> dict[str, float] | None:
    """Return a bag's ``held_out_cosine`` and ``line``; None if there is none in ``folder``."""
    if not is_bag(folder):
        return None
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text("utf-8"))
        return {name: float(facts[name]) for name in ("held_out_cosine", "line")}
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{path} does not describe a bag") from None

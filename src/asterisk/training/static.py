"""A bag as a sentence-transformers folder, which anything that compares models can open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError
from asterisk.common.files import replacing_folder
from asterisk.common.plugins import require
from asterisk.tokenizer import gpt2, huggingface
from asterisk.training.caseless import unfold

if TYPE_CHECKING:
    from asterisk.training.bag import Bag

FACTS = "bag.json"
_TYPE = "sentence_transformers.models.StaticEmbedding"
_MODULES = [{"idx": 0, "name": "0", "path": "", "type": _TYPE}]


def is_bag(folder: Path) -> bool:
    """Tell whether ``folder`` looks like a bag that `save` wrote."""
    return (folder / FACTS).is_file() and (folder / "model.safetensors").is_file()


def save(bag: Bag, folder: Path, twins: npt.NDArray[np.int64] | None) -> None:
    """Write ``bag``, whole or not at all, in 32 bits; ``twins`` as `caseless.unfold` takes them."""
    numpy: Any = require("safetensors.numpy", "train")
    tokenizer = json.loads(huggingface.to_json(gpt2()))
    # In the vocabulary they keep their ids; here they would be found in plain text.
    tokenizer["added_tokens"] = []
    facts = {
        "held_out_cosine": bag.cosine,
        "line": bag.line,
        "epochs": bag.epochs,
        "texts": bag.texts,
    }
    with replacing_folder(folder, is_bag) as staging:
        table = np.ascontiguousarray(unfold(bag.rows, twins))
        numpy.save_file({"embedding.weight": table}, staging / "model.safetensors")
        (staging / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
        (staging / "modules.json").write_text(json.dumps(_MODULES, indent=1) + "\n", "utf-8")
        (staging / FACTS).write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def facts_of(folder: Path) -> dict[str, float] | None:
    """Return what was measured of the bag in ``folder``, None if there is none.

    ``held_out_cosine`` is of all held-out texts, ``line`` of those a curve looks at; ArtifactError
    for a damaged file.
    """
    if not is_bag(folder):
        return None
    path = folder / FACTS
    try:
        told = json.loads(path.read_text("utf-8"))
        return {name: float(told[name]) for name in ("held_out_cosine", "line")}
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"{path} does not describe a bag") from None

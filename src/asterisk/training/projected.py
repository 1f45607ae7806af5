"""A student wider than its vectors, as a sentence-transformers folder.

The project's own layout has no place for a projection; this one is for comparing such a student,
not for exporting it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from asterisk.files import replacing_folder
from asterisk.model.checkpoint import Array
from asterisk.model.config import ModelConfig, to_huggingface
from asterisk.plugins import require
from asterisk.tokenizer import gpt2, huggingface

_PATHS = ("0_Transformer", "1_Pooling", "2_Dense", "3_Normalize")


def is_projected(folder: Path) -> bool:
    """Tell whether ``folder`` looks like what `save` wrote."""
    return all((folder / path).is_dir() for path in _PATHS)


def save(config: ModelConfig, tensors: dict[str, Array], card: str, folder: Path) -> None:
    """Write a student with a projection, whole or not at all, weights in 32 bits."""
    numpy: Any = require("safetensors.numpy", "train")
    hidden = config.hidden_size
    weights = {name: value for name, value in tensors.items() if not name.startswith("projection")}
    weights["pooler.dense.weight"] = np.zeros((hidden, hidden), "f4")
    weights["pooler.dense.bias"] = np.zeros(hidden, "f4")
    dense = {f"linear.{name}": tensors[f"projection.{name}"] for name in ("weight", "bias")}
    described = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, path in enumerate(_PATHS)
            for kind in [path.partition("_")[2]]
        ],
        "0_Transformer/config.json": to_huggingface(config),
        "0_Transformer/tokenizer_config.json": huggingface.config(config.max_positions),
        "0_Transformer/sentence_bert_config.json": {
            "max_seq_length": config.max_positions,
            "do_lower_case": False,
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": hidden,
            "pooling_mode_mean_tokens": True,
        },
        "2_Dense/config.json": {
            "in_features": hidden,
            "out_features": config.projection_size,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
        "3_Normalize/config.json": {},
    }
    with replacing_folder(folder, is_projected) as staging:
        for path in _PATHS:
            (staging / path).mkdir()
        for name, value in described.items():
            (staging / name).write_text(json.dumps(value, indent=2) + "\n", "utf-8")
        numpy.save_file(
            weights, staging / "0_Transformer/model.safetensors", metadata={"format": "pt"}
        )
        numpy.save_file(dense, staging / "2_Dense/model.safetensors", metadata={"format": "pt"})
        tokenizer = huggingface.to_json(gpt2())
        (staging / "0_Transformer/tokenizer.json").write_text(tokenizer, "utf-8")
        (staging / "README.md").write_text(card, "utf-8")

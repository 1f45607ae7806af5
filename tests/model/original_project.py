"""The original project's model, put together from PyTorch's own parts: what imports must equal."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class OriginalModel(nn.Module):
    """Its state dict has the names of `asterisk-embedding-model`'s."""

    def __init__(self, *, vocabulary=50_259, hidden=512, layers=2, heads=2, out=256, positions=512):
        super().__init__()
        self.token_emb = nn.Embedding(vocabulary, hidden)
        self.pos_emb = nn.Embedding(positions, hidden)
        layer = nn.TransformerEncoderLayer(
            hidden, heads, 4 * hidden, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.proj = nn.Linear(hidden, out)

    def forward(self, ids):
        x = self.token_emb(ids) + self.pos_emb(torch.arange(ids.shape[1]))
        return self.proj(self.encoder(x).mean(1))


def build(seed=0, embedded=1.0, **shape) -> OriginalModel:
    """Seeded, near PyTorch's own scale, but with no ones, no zeros and no two layers alike.

    ``embedded`` scales both tables: at 0.003 a norm's epsilon is as large as the variance.
    """
    torch.manual_seed(seed)
    model = OriginalModel(**shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            elif "emb" in name:
                parameter.mul_(embedded)
            elif "layers" in name:  # nn.TransformerEncoder copies one layer
                parameter.add_(torch.randn_like(parameter) * parameter.std(), alpha=0.3)
    return model.eval()


@torch.inference_mode()
def vectors(model: OriginalModel, ids_of_texts) -> np.ndarray:
    """Each text alone at its exact length, L2-normalised: float32 [n, d]."""
    rows = [model(torch.tensor([ids]))[0] for ids in ids_of_texts]
    return nn.functional.normalize(torch.stack(rows), dim=-1).numpy()

"""PyTorch in FP32: the reference that every other runtime is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from asterisk.model.checkpoint import Checkpoint
from asterisk.model.checkpoint import load as load_checkpoint
from asterisk.model.encoder import Encoder
from asterisk.runtimes.engine import Engine, Vector
from asterisk.runtimes.runtime import Runtime


class TorchEngine(Engine):
    """An encoder in inference mode; stateless, so that all threads share one."""

    format = "torch"

    def __init__(self, checkpoint: Checkpoint) -> None:
        with torch.device("meta"):
            self.encoder = Encoder(checkpoint.config)
        tensors = {name: torch.from_numpy(value) for name, value in checkpoint.tensors.items()}
        self.encoder.load_state_dict(tensors, assign=True)
        self.encoder.eval().requires_grad_(False)

    @torch.inference_mode()
    def run(self, ids: Sequence[int]) -> Vector:
        """Return the pooled vector of one text, float32 [embedding_size], not normalised."""
        vector: Vector = self.encoder(torch.tensor([ids]))[0].numpy()
        return vector


def open_checkpoint(folder: Path, threads: int = 1) -> Runtime:
    """Open a checkpoint folder as the FP32 reference."""
    return reference(load_checkpoint(folder), threads)


def reference(checkpoint: Checkpoint, threads: int = 1) -> Runtime:
    """Return the FP32 reference of ``checkpoint``; each of ``threads`` computes on one core."""
    torch.set_num_threads(1)
    runtime = Runtime(
        [TorchEngine(checkpoint)] * threads,
        checkpoint.tokenizer.open(),
        checkpoint.config,
        checkpoint.fingerprint,
        source=checkpoint,
        recipe="fp32",
    )
    runtime.compatible_with = (checkpoint.fingerprint, *checkpoint.compatible_with)
    return runtime

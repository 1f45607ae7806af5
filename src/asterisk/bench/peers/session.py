"""A peer under ONNX Runtime: its tokenizer, one session, one text at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Vector = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
INPUT, OUTPUT = "input_ids", "sentence_embedding"


class PeerEncoder:
    """Text to vectors; ``tokenize`` gives int64 [1, tokens]. ``threads`` texts at once."""

    def __init__(self, model: Path, tokenize: Callable[[str], Ids], threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # As in our own sessions; a peer was measured to be as fast without an arena as with one.
        options.enable_cpu_mem_arena = False
        self.session: Any = ort.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self.tokenize = tokenize
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def embed_ids(self, ids: Ids) -> Vector:
        """Return the vector of one text, float32 [d], not normalised."""
        vector: Vector = self.session.run([OUTPUT], {INPUT: ids})[0][0]
        return vector

    def encode(self, texts: str | Sequence[str]) -> Vector:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        if isinstance(texts, str):
            return self._one(texts)
        return np.stack(
            list(self.pool.map(self._one, texts) if self.pool else map(self._one, texts))
        )

    def _one(self, text: str) -> Vector:
        vector = self.embed_ids(self.tokenize(text))
        unit: Vector = vector / max(float(np.sqrt(vector @ vector)), 1e-12)
        return unit

"""A peer that is handed token ids: its tokenizer, its engine, lists in padded batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MODEL, TOKENIZER, SETTINGS = "model.onnx", "tokenizer.json", "settings.json"
REFERENCE = "reference.npy"  # FP32 vectors of a peer with another model
# Of 1, 8 and 32, the fastest for ONNX Runtime's and for OpenVINO's int8 over mixed lengths.
AT_ONCE = 8
Array = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Run = Callable[[Ids, Ids], Array]


class PeerEncoder:
    """Text to vectors: one text at its exact length, a list in padded batches of like lengths.

    ``tokenize`` gives int64 [1, tokens]; ``run`` maps ids and a mask, int64 [n, tokens], to float32
    [n, d]; ``threads`` batches of ``at_once`` texts run at once. ``pad`` is the id that fills a
    batch, ``own_padding`` the one with which a tokenizer pads that does so itself.
    """

    def __init__(
        self,
        tokenize: Callable[[str], Ids],
        run: Run,
        threads: int,
        *,
        pad: int = 0,
        at_once: int = AT_ONCE,
        own_padding: int | None = None,
    ) -> None:
        self.tokenize, self.run = tokenize, run
        self.pad, self.at_once, self.own_padding = pad, at_once, own_padding
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def embed_ids(self, ids: Ids) -> Array:
        """Return the vector of one text, float32 [d], not normalised."""
        vector: Array = self.run(ids, np.ones_like(ids))[0]
        return vector

    def encode(self, texts: str | Sequence[str]) -> Array:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        if isinstance(texts, str):
            vector: Array = unit(self.embed_ids(self.tokenize(texts))[None])[0]
            return vector
        rows, batches = self._batches(texts)
        vectors = np.concatenate(self._map(lambda batch: self._embed(rows, batch), batches))
        found = np.empty_like(vectors)
        found[np.concatenate(batches)] = unit(vectors)
        return found

    def padding(self, texts: Sequence[str]) -> float:
        """Return the share of padding among the tokens that ``texts`` are computed with."""
        rows, batches = self._batches(texts)
        computed = sum(len(batch) * max(len(rows[i]) for i in batch) for batch in batches)
        padded = sum(int((row == self.own_padding).sum()) for row in rows)
        return 1 - (sum(map(len, rows)) - padded) / computed

    def _batches(self, texts: Sequence[str]) -> tuple[list[Ids], list[npt.NDArray[np.intp]]]:
        """Return each text's ids, [tokens], and the texts' places in batches of like lengths."""
        rows = [ids[0] for ids in self._map(self.tokenize, texts)]
        order = np.argsort([len(row) for row in rows], kind="stable")
        return rows, [order[at : at + self.at_once] for at in range(0, len(order), self.at_once)]

    def _embed(self, rows: Sequence[Ids], batch: npt.NDArray[np.intp]) -> Array:
        ids = np.full((len(batch), max(len(rows[i]) for i in batch)), self.pad, np.int64)
        mask = np.zeros_like(ids)
        for place, i in enumerate(batch):
            ids[place, : len(rows[i])] = rows[i]
            mask[place, : len(rows[i])] = 1
        return self.run(ids, mask)

    def _map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(self.pool.map(function, items) if self.pool else map(function, items))


def unit(vectors: Array) -> Array:
    """Return float32 [n, d] with rows of length one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Array = vectors / np.maximum(lengths, 1e-12)
    return scaled


def onnx_session(model: Path) -> Any:
    """Open a graph under ONNX Runtime, one thread a call; several threads may call it at once."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # As in our own sessions; a peer was measured to be as fast without an arena as with one.
    options.enable_cpu_mem_arena = False
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def tokenizer(folder: Path) -> tuple[Callable[[str], Ids], int]:
    """Return a function from a text to its ids, int64 [1, tokens], and the id of padding.

    Under the light `tokenizers` library, from what `asterisk.bench.peers.traced` left.
    """
    from tokenizers import Tokenizer

    settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    library = Tokenizer.from_file(str(folder / TOKENIZER))
    library.no_padding()
    library.enable_truncation(settings["max_seq_length"])
    prompt: str = settings["prompt"]
    return (lambda text: np.array([library.encode(prompt + text).ids], np.int64)), settings["pad"]

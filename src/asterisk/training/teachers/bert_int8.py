"""A BERT-like teacher under ONNX Runtime in int8: on a CPU three times as fast as bfloat16.

Laid out by the graph writer of our own exporter. A teacher's vectors keep a cosine of .99 with its
FP32 ones, far nearer than any two-layer student comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.plugins import require
from asterisk.exporters.onnx import ENTRY, WEIGHTS, EncoderGraph, states_model
from asterisk.model.config import ModelConfig

Array = npt.NDArray[np.float32]
TENSORS = "model.safetensors"
_FIRST = "embeddings.word_embeddings.weight"


def is_readable(folder: Path, config: dict[str, Any]) -> bool:
    """Tell whether a model folder is BERT itself, with the weights in one safe file."""
    return (
        config.get("model_type") == "bert"
        and config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and (folder / TENSORS).is_file()
    )


class Int8Bert:
    """Reads each text's word pieces at their exact length; ``threads`` texts at once."""

    def __init__(self, folder: Path, config: dict[str, Any], threads: int) -> None:
        runtime: Any = require("onnxruntime", "train")
        load = require("safetensors.numpy", "train").load_file
        wrong = require("safetensors", "train").SafetensorError
        try:
            tensors = load(folder / TENSORS)
        except wrong as failure:
            raise ValueError(f"{TENSORS}: {failure}") from None
        bare = {name.removeprefix("bert."): values for name, values in tensors.items()}
        floats = {k: v.astype("f4") for k, v in bare.items() if v.dtype.kind == "f"}
        vocabulary, self.size = floats[_FIRST].shape
        shape = ModelConfig(
            vocab_size=vocabulary,
            hidden_size=self.size,
            num_layers=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            intermediate_size=config["intermediate_size"],
            max_positions=config["max_position_embeddings"],
            layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        with TemporaryDirectory() as scratch:
            with (Path(scratch) / WEIGHTS).open("wb") as weights:
                graph = EncoderGraph(shape, weights, WEIGHTS, quantised=True)
                model = states_model(graph, folder.name, floats)
            (Path(scratch) / ENTRY).write_bytes(model)
            self._session = runtime.InferenceSession(
                str(Path(scratch) / ENTRY), options, providers=["CPUExecutionProvider"]
            )
        self._pool = ThreadPoolExecutor(threads)

    def states(self, texts: Sequence[npt.NDArray[np.int64]]) -> list[Array]:
        """Return the last hidden states of texts' word pieces [T], float32 [T, size] each."""
        return list(self._pool.map(self._states, texts))

    def _states(self, ids: npt.NDArray[np.int64]) -> Array:
        found: Array = self._session.run(None, {"input_ids": ids[None]})[0]
        return found

"""What runs a teacher: BERT in int8 by ONNX Runtime, or any Hugging Face encoder by PyTorch.

On a CPU int8 is three times as fast as bfloat16. Its vectors keep a cosine of .99 with the FP32
ones, far nearer than any two-layer student comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, one_line
from asterisk.common.plugins import require
from asterisk.model.config import ModelConfig

TENSORS = "model.safetensors"
PIECES = {"cpu": 4_096, "cuda": 65_536}  # word pieces at once, padding included
Array = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class Int8Bert:
    """Reads each text at its exact length; ``threads`` texts at once.

    The graph is written by our own exporter.
    """

    @staticmethod
    def can_read(folder: Path, config: dict[str, Any]) -> bool:
        """Tell whether a model folder is BERT itself, with the weights in one safe file."""
        return (
            config.get("model_type") == "bert"
            and config.get("hidden_act", "gelu") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
            and (folder / TENSORS).is_file()
        )

    def __init__(self, folder: Path, config: dict[str, Any], threads: int) -> None:
        from asterisk.exporters.onnx import ENTRY, WEIGHTS, EncoderGraph, states_model

        runtime: Any = require("onnxruntime", "train")
        load = require("safetensors.numpy", "train").load_file
        try:
            tensors = load(folder / TENSORS)
        except require("safetensors", "train").SafetensorError as failure:
            raise ValueError(f"{TENSORS}: {failure}") from None
        bare = {name.removeprefix("bert."): values for name, values in tensors.items()}
        floats = {k: v.astype("f4") for k, v in bare.items() if v.dtype.kind == "f"}
        vocabulary, self.size = floats["embeddings.word_embeddings.weight"].shape
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
            entry = Path(scratch) / ENTRY
            with (Path(scratch) / WEIGHTS).open("wb") as weights:
                graph = EncoderGraph(shape, weights, WEIGHTS, quantised=True)
                entry.write_bytes(states_model(graph, folder.name, floats))
            self._session = runtime.InferenceSession(
                str(entry), options, providers=["CPUExecutionProvider"]
            )
        self._pool = ThreadPoolExecutor(threads)

    def states(self, texts: Sequence[Ids]) -> list[Array]:
        """Return the last hidden states of texts' word pieces [T], float32 [T, size] each."""
        return list(
            self._pool.map(lambda ids: self._session.run(None, {"input_ids": ids[None]})[0], texts)
        )


class TorchEncoder:
    """Reads texts of like length together: in bfloat16 if ``half`` or on a GPU.

    ArtifactError if `transformers` cannot open the folder. Code in the folder is never run.
    """

    def __init__(self, folder: Path, *, half: bool = False) -> None:
        self._torch: Any = require("torch", "train")
        models: Any = require("transformers", "train").AutoModel
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        dtype = self._torch.bfloat16 if half or self._device == "cuda" else self._torch.float32
        require("transformers.utils.logging", "train").disable_progress_bar()
        try:
            model = models.from_pretrained(
                folder, dtype=dtype, local_files_only=True, trust_remote_code=False
            )
        except Exception as failure:
            # Whatever the library and those below it raise for a folder they cannot open.
            raise ArtifactError(f"cannot open the teacher {folder}: {one_line(failure)}") from None
        if getattr(model.config, "is_encoder_decoder", False):
            raise ArtifactError(f"the teacher {folder} is no encoder alone")
        self._model = model.to(self._device).eval()
        self.size: int = model.config.hidden_size

    def states(self, texts: Sequence[Ids]) -> list[Array]:
        """Return the last hidden states of texts' word pieces [T], float32 [T, size] each."""
        torch, found = self._torch, {}
        for indices, ids, mask in padded(texts, self._device, self._model.config.pad_token_id or 0):
            with torch.inference_mode():
                output = self._model(
                    input_ids=torch.from_numpy(ids).to(self._device),
                    attention_mask=torch.from_numpy(mask.astype("i8")).to(self._device),
                )
                states: Array = output.last_hidden_state.float().cpu().numpy()
            for row, index in enumerate(indices):
                found[index] = states[row, : len(texts[index])]
        return [found[index] for index in range(len(texts))]


def padded(
    texts: Sequence[Ids], device: str, padding: int = 0
) -> Iterator[tuple[list[int], Ids, npt.NDArray[np.bool_]]]:
    """Yield batches of texts of like length: their indices, and ids and mask, both [n, T]."""
    batches: list[list[int]] = [[]]
    for index in sorted(range(len(texts)), key=lambda index: len(texts[index])):
        if batches[-1] and (len(batches[-1]) + 1) * len(texts[index]) > PIECES[device]:
            batches.append([])
        batches[-1].append(index)
    for indices in filter(None, batches):
        shape = (len(indices), len(texts[indices[-1]]))
        ids, mask = np.full(shape, padding, "i8"), np.zeros(shape, bool)
        for row, index in enumerate(indices):
            ids[row, : len(texts[index])] = texts[index]
            mask[row, : len(texts[index])] = True
        yield indices, ids, mask

"""all-MiniLM-L6-v2 under ONNX Runtime in int8, made as fast as we know how.

Int8 by output channel at each text's exact length, with the light `tokenizers` library. Laid out
by the graph writer of our own exporter, which was measured as fast as or faster than
``quantize_dynamic(per_channel=True)`` over the same graph at the same fidelity.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import numpy.typing as npt

from asterisk.bench.plan import Row
from asterisk.model.config import ModelConfig

SHAPE = ModelConfig(
    vocab_size=30_522, hidden_size=384, num_layers=6, num_heads=12, intermediate_size=1_536
)
LONGEST = 256  # word pieces, as its sentence-transformers configuration says
MODEL, WEIGHTS, TOKENIZER = "model.onnx", "weights.bin", "tokenizer.json"
COMPARED = 256  # texts that its fidelity is measured over
REFERENCE = "reference.npy"
Array = npt.NDArray[np.float32]

ROW = Row(
    name="minilm",
    title="all-MiniLM-L6-v2, ONNX Runtime",
    recipe="int8",
    opener="asterisk.bench.peers.minilm:open",
    path="",
    modules=("onnxruntime", "tokenizers"),
    distributions=("onnxruntime", "tokenizers"),
    size=0,
    peer=True,
)


def prepare(folder: Path) -> None:
    """Write the model, the tokenizer and FP32 vectors of the first texts into ``folder``.

    MissingExtra where the package with the weights or `transformers` is not installed.
    """
    write(folder, quantised=True)


def write(folder: Path, *, quantised: bool) -> None:
    """Write what `open` reads, in int8 or in float32, and the FP32 vectors."""
    source = find()
    write_graph(folder, source, quantised=quantised)
    copyfile(source / TOKENIZER, folder / TOKENIZER)
    write_reference(folder, source)


def write_graph(folder: Path, source: Path, *, quantised: bool) -> None:
    """Write the model and its weights, in int8 or in float32."""
    from safetensors.numpy import load_file

    from asterisk.exporters.onnx import sentence_model
    from asterisk.exporters.onnx_graph import EncoderGraph

    tensors = load_file(source / "model.safetensors")
    floats = {k: v.astype("f4") for k, v in tensors.items() if v.dtype.kind == "f"}
    with (folder / WEIGHTS).open("wb") as weights:
        graph = EncoderGraph(SHAPE, weights, WEIGHTS, quantised=quantised)
        (folder / MODEL).write_bytes(sentence_model(graph, "all-MiniLM-L6-v2", floats))


def find() -> Path:
    """Return the folder with the original weights; MissingExtra where its package is missing."""
    from asterisk.teachers import teacher

    return teacher.find("all-MiniLM-L6-v2")


def write_reference(folder: Path, source: Path) -> None:
    """Write the FP32 vectors of the first texts into ``folder``."""
    from asterisk.bench.peers.quiet import quiet

    with quiet():
        np.save(folder / REFERENCE, _reference(source))


def open(folder: Path, threads: int) -> Any:
    """Open what `prepare` wrote as a `PeerEncoder`."""
    from asterisk.bench.peers.session import PeerEncoder

    return PeerEncoder(folder / MODEL, tokenizer(folder / TOKENIZER), threads)


def tokenizer(path: Path) -> Callable[[str], Any]:
    """Return a function from a text to its ids, int64 [1, tokens]."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return lambda text: np.array([tokenizer.encode(text).ids], np.int64)


def _reference(source: Path) -> Array:
    """Return its own FP32 vectors of the first `COMPARED` texts, by PyTorch, [n, 384]."""
    import torch
    from transformers import BertModel
    from transformers.utils.logging import disable_progress_bar

    from asterisk import texts

    disable_progress_bar()
    torch.set_num_threads(1)  # threads that wait for each other gain nothing on two busy cores
    model: Any = BertModel.from_pretrained(source, dtype=torch.float32).eval()
    tokenize = tokenizer(source / TOKENIZER)
    vectors = []
    with torch.inference_mode():
        for text in texts.load()[:COMPARED]:
            states = model(torch.from_numpy(tokenize(text.text))).last_hidden_state
            vectors.append(states.mean(1)[0].numpy())
    return np.stack(vectors)

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

LAYERS, HEADS, EPSILON = 6, 12, 1e-12
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
    from safetensors.numpy import load_file

    from asterisk.bench.peers.quiet import quiet
    from asterisk.training.teacher import find

    source = find("all-MiniLM-L6-v2")
    tensors = load_file(source / "model.safetensors")
    model, weights = _lay_out(
        {k: v.astype("f4") for k, v in tensors.items() if v.dtype.kind == "f"}
    )
    (folder / MODEL).write_bytes(model)
    (folder / WEIGHTS).write_bytes(weights)
    copyfile(source / TOKENIZER, folder / TOKENIZER)
    with quiet():
        np.save(folder / REFERENCE, _reference(source))


def open(folder: Path, threads: int) -> Any:
    """Open what `prepare` wrote as a `PeerEncoder`."""
    from asterisk.bench.peers.session import PeerEncoder

    return PeerEncoder(folder / MODEL, _tokenizer(folder / TOKENIZER), threads)


def _tokenizer(path: Path) -> Callable[[str], Any]:
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
    tokenize = _tokenizer(source / TOKENIZER)
    vectors = []
    with torch.inference_mode():
        for text in texts.load()[:COMPARED]:
            states = model(torch.from_numpy(tokenize(text.text))).last_hidden_state
            vectors.append(states.mean(1)[0].numpy())
    return np.stack(vectors)


def _lay_out(tensors: dict[str, Array]) -> tuple[bytes, bytes]:
    """Return BERT's forward pass for one text, masked mean included, as model and weights."""
    from asterisk.exporters.onnx_graph import Graph

    graph = Graph(quantised=True)
    hidden = tensors["embeddings.word_embeddings.weight"].shape[1]
    size = hidden // HEADS
    for index in range(LAYERS):  # the softmax's 1/sqrt(d) is folded into the query
        for part in ("weight", "bias"):
            query = f"encoder.layer.{index}.attention.self.query.{part}"
            tensors[query] = tensors[query] * np.float32(size**-0.5)

    def norm(x: str, name: str) -> str:
        scale, shift = (graph.tensor(tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
        return graph.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=EPSILON)

    def linear(x: str, *names: str) -> str:
        weight = np.concatenate([tensors[f"{name}.weight"] for name in names])
        bias = np.concatenate([tensors[f"{name}.bias"] for name in names])
        return graph.node("Add", graph.product(x, weight), graph.tensor(bias))

    def attention(x: str, block: str) -> str:
        parts = [f"{block}.attention.self.{part}" for part in ("query", "key", "value")]
        mixed = graph.node("Reshape", linear(x, *parts), graph.integers(0, -1, 3 * HEADS, size))
        heads = graph.node("Transpose", mixed, perm=[0, 2, 1, 3])
        q, k, v = graph.nodes("Split", 3, heads, axis=1, num_outputs=3)
        scores = graph.node("MatMul", q, graph.node("Transpose", k, perm=[0, 1, 3, 2]))
        read = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), v)
        read = graph.node("Transpose", read, perm=[0, 2, 1, 3])
        merged = graph.node("Reshape", read, graph.integers(0, -1, hidden))
        return linear(merged, f"{block}.attention.output.dense")

    places = tensors["embeddings.position_embeddings.weight"]
    places = places + tensors["embeddings.token_type_embeddings.weight"][0]
    length = graph.node("Shape", "input_ids", start=1, end=2)
    here = graph.node("Slice", graph.tensor(places), graph.integers(0), length, graph.integers(0))
    x = graph.node("Add", graph.rows(tensors["embeddings.word_embeddings.weight"]), here)
    x = norm(x, "embeddings.LayerNorm")
    for index in range(LAYERS):
        block = f"encoder.layer.{index}"
        x = graph.node("Add", x, attention(x, block))
        x = norm(x, f"{block}.attention.output.LayerNorm")
        inner = graph.node("Gelu", linear(x, f"{block}.intermediate.dense"))
        x = graph.node("Add", x, linear(inner, f"{block}.output.dense"))
        x = norm(x, f"{block}.output.LayerNorm")
    x = graph.node("ReduceMean", x, graph.integers(1), keepdims=0)
    graph.name_output(x, "sentence_embedding")
    return graph.finish(
        "all-MiniLM-L6-v2 int8",
        inputs={"input_ids": (np.int64, [1, "tokens"])},
        outputs={"sentence_embedding": (np.float32, [1, hidden])},
        location=WEIGHTS,
    )

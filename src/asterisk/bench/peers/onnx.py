"""Peers that run a graph under ONNX Runtime, and what all peers have that are given token ids.

``dynamic`` is a checkpoint in int8 as people make it: a graph that PyTorch's exporter traces of
`transformers`' own model, then ONNX Runtime's `quantize_dynamic`. ``minilm`` is the same over
all-MiniLM-L6-v2. ``original`` is the original `asterisk-embedding-model`'s configuration, as its
own scripts deploy it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asterisk.bench.peers import MINILM, REFERENCE

if TYPE_CHECKING:
    from asterisk.model.checkpoint import Checkpoint

MODEL, TOKENIZER, SETTINGS = "model.onnx", "tokenizer.json", "settings.json"
INPUTS = ("input_ids", "attention_mask")
# Of 1, 8 and 32, the fastest for ONNX Runtime's and for OpenVINO's int8 over mixed lengths.
BATCH = 8
COMPARED = 256  # texts that the fidelity of a peer with another model is measured over
LENGTH = 128  # tokens of every text of the original
VOCABULARY, POSITIONS, HIDDEN, LAYERS, HEADS, OUT = 50_259, 512, 512, 2, 2, 256
EXPORT: Any = {"dynamo": True, "external_data": False, "opset_version": 20, "verbose": False}
Array = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Run = Callable[[Ids, Ids], Array]


class PeerEncoder:
    """Text to vectors: one text at its exact length, a list in padded batches of like lengths.

    ``tokenize`` gives int64 [1, tokens]; ``run`` maps ids and a mask, int64 [n, tokens], to float32
    [n, d]; ``threads`` batches of ``batch_size`` texts run at once.
    """

    def __init__(
        self,
        tokenize: Callable[[str], Ids],
        run: Run,
        threads: int,
        *,
        pad: int = 0,  # the id that fills a batch
        batch_size: int = BATCH,
        own_padding: int | None = None,  # the id with which a tokenizer pads that does so itself
    ) -> None:
        self.tokenize, self.run = tokenize, run
        self.pad, self.batch_size, self.own_padding = pad, batch_size, own_padding
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def embed_ids(self, ids: Ids) -> Any:
        """Return the vector of one text, float32 [d], not normalised."""
        return self.run(ids, np.ones_like(ids))[0]

    def encode(self, texts: str | Sequence[str]) -> Any:
        """Embed one text, float32 [d], or n of them, float32 [n, d], L2-normalised."""
        if isinstance(texts, str):
            return _unit(self.embed_ids(self.tokenize(texts))[None])[0]
        rows, batches = self._batches(texts)
        vectors = np.concatenate(self._map(lambda batch: self._embed(rows, batch), batches))
        found = np.empty_like(vectors)
        found[np.concatenate(batches)] = _unit(vectors)
        return found

    def padding(self, texts: Sequence[str]) -> float:
        """Return the share of padding among the tokens that ``texts`` are computed with."""
        rows, batches = self._batches(texts)
        computed = sum(len(batch) * max(len(rows[i]) for i in batch) for batch in batches)
        padded = sum(int((row == self.own_padding).sum()) for row in rows)
        return 1 - (sum(map(len, rows)) - padded) / computed

    def _batches(self, texts: Sequence[str]) -> tuple[list[Ids], list[npt.NDArray[np.intp]]]:
        """Return each text's ids, [tokens], and the texts' indices in batches of like lengths."""
        rows = [ids[0] for ids in self._map(self.tokenize, texts)]
        order = np.argsort([len(row) for row in rows], kind="stable")
        return rows, np.split(order, range(self.batch_size, len(order), self.batch_size))

    def _embed(self, rows: Sequence[Ids], batch: npt.NDArray[np.intp]) -> Array:
        ids = np.full((len(batch), max(len(rows[i]) for i in batch)), self.pad, np.int64)
        mask = np.zeros_like(ids)
        for line, i in enumerate(batch):
            ids[line, : len(rows[i])] = rows[i]
            mask[line, : len(rows[i])] = 1
        return self.run(ids, mask)

    def _map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(self.pool.map(function, items) if self.pool else map(function, items))


def _unit(vectors: Array) -> Any:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


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
    """Return a function from a text to its ids, int64 [1, tokens], and the id of padding."""
    from tokenizers import Tokenizer

    settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    library = Tokenizer.from_file(str(folder / TOKENIZER))
    library.no_padding()
    library.enable_truncation(settings["max_seq_length"])
    prompt: str = settings["prompt"]
    return (lambda text: np.array([library.encode(prompt + text).ids], np.int64)), settings["pad"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings, log lines below errors, and what Python code prints to stdout."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def sentence_module(checkpoint: Checkpoint, *, attention: str, pooled: bool = True) -> Any:
    """Return a PyTorch module from `INPUTS`, int64 [B, T], to vectors, float32 [B, d].

    Not normalised; the last hidden states, float32 [B, T, H], unless ``pooled``. ``attention`` is
    the implementation that transformers is to use.
    """
    import torch
    from torch import Tensor, nn
    from transformers import AutoModel

    from asterisk.model.encoder import of_checkpoint, pool
    from asterisk.model.modules import read_modules

    if checkpoint.folder is None:
        raise AssertionError("unreachable: a checkpoint that was read has a folder")
    folder = read_modules(checkpoint.folder).transformer
    ours = of_checkpoint(checkpoint)
    del ours.embeddings, ours.encoder  # of it only the maps after the pooling are used

    class Sentence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model: Any = AutoModel.from_pretrained(
                folder, dtype=torch.float32, attn_implementation=attention
            )
            self.maps = ours

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            found = self.model(input_ids=input_ids, attention_mask=attention_mask)
            states: Tensor = found.last_hidden_state
            if not pooled:
                return states
            return self.maps.project(pool(states, attention_mask.bool(), checkpoint.config.pooling))

    return Sentence().eval()


def trace(checkpoint: Path, graph: Path, *, pooled: bool = True) -> None:
    """Write the float32 graph of the model in a folder; inputs and output as `sentence_module`."""
    import torch

    from asterisk.model.checkpoint import load

    ids = torch.full((2, 16), 101)
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=2, max=512)
    with quiet():
        torch.onnx.export(
            sentence_module(load(checkpoint), attention="eager", pooled=pooled),
            (ids, torch.ones_like(ids)),
            str(graph),
            input_names=list(INPUTS),
            output_names=["sentence_embedding" if pooled else "last_hidden_state"],
            dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
            **EXPORT,
        )
    _drop_shapes(graph)


def _drop_shapes(graph: Path) -> None:
    """Remove the exporter's own shapes, which stop quantize_dynamic: it infers others."""
    import onnx

    model = onnx.load(graph)
    del model.graph.value_info[:]
    onnx.save(model, graph)


def write_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    """Write what `tokenizer` reads."""
    (folder / TOKENIZER).write_text(checkpoint.tokenizer.to_json(), "utf-8")
    settings = {
        "max_seq_length": checkpoint.config.max_seq_length,
        "prompt": default_prompt(checkpoint),
        "pad": checkpoint.tokenizer.special.get("pad", 0),
    }
    (folder / SETTINGS).write_text(json.dumps(settings), "utf-8")


def default_prompt(checkpoint: Checkpoint) -> str:
    """Return the prompt that is put before a text by default."""
    name = checkpoint.default_prompt_name
    return checkpoint.prompts[name] if name else ""


def quantize(folder: Path, checkpoint: Path, *, per_channel: bool = False) -> None:
    """Trace the model in the folder ``checkpoint`` and quantise it to int8."""
    from asterisk.common.plugins import require
    from asterisk.model.checkpoint import load

    ort, graph = require("onnxruntime.quantization", "bench"), folder / "traced.onnx"
    trace(checkpoint, graph)
    int8 = ort.QuantType.QInt8
    with quiet():
        ort.quantize_dynamic(graph, folder / MODEL, per_channel=per_channel, weight_type=int8)
    graph.unlink()
    write_tokenizer(load(checkpoint), folder)


def quantize_per_channel(folder: Path, checkpoint: Path) -> None:
    """Do as `quantize`, with a scale for each channel."""
    quantize(folder, checkpoint, per_channel=True)


def quantize_minilm(folder: Path, checkpoint: Path) -> None:  # noqa: ARG001 - has its own model
    """Quantise all-MiniLM-L6-v2; write its own FP32 vectors of the first texts."""
    from asterisk.common import texts
    from asterisk.runtimes.torch import open_checkpoint
    from asterisk.training.teachers import teacher

    source = teacher.find(MINILM)
    quantize(folder, source)
    some = [text.text for text in texts.load()[:COMPARED]]
    np.save(folder / REFERENCE, open_checkpoint(source).encode(some))


def open_quantized(folder: Path, threads: int) -> PeerEncoder:
    """Open what `quantize` wrote."""
    session = onnx_session(folder / MODEL)
    tokenize, pad = tokenizer(folder)

    def run(ids: Ids, mask: Ids) -> Any:
        return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    return PeerEncoder(tokenize, run, threads, pad=pad)


def prepare_original(folder: Path, checkpoint: Path) -> None:  # noqa: ARG001 - has its own model
    """Write the model and the tokenizer into ``folder``; needs torch, onnx and onnxscript.

    Random weights of its shape: what counts is speed and memory. `nn.TransformerEncoder`, exported
    at 128 tokens, to which every text is padded without a mask; per-tensor dynamic int8; the
    tokenizer of `transformers`.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from asterisk.tokenizer import gpt2, huggingface

    (folder / TOKENIZER).write_text(huggingface.to_json(gpt2()), "utf-8")
    wide = folder / "wide.onnx"
    with quiet():
        _export_original(wide)
        _drop_shapes(wide)
        quantize_dynamic(wide, folder / MODEL, weight_type=QuantType.QInt8)
    wide.unlink()


def _export_original(path: Path) -> None:
    import torch
    from torch import Tensor, nn

    class Original(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token_emb = nn.Embedding(VOCABULARY, HIDDEN)
            self.pos_emb = nn.Embedding(POSITIONS, HIDDEN)
            layer = nn.TransformerEncoderLayer(
                HIDDEN, HEADS, 4 * HIDDEN, activation="gelu", batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
            self.proj = nn.Linear(HIDDEN, OUT)

        def forward(self, ids: Tensor) -> Tensor:
            positions = torch.arange(ids.shape[1]).unsqueeze(0)
            x = self.encoder(self.token_emb(ids) + self.pos_emb(positions))
            projected: Tensor = self.proj(x.mean(1))
            return projected

    torch.manual_seed(0)
    # The default exporter of this PyTorch; the older one gives a graph twice as slow.
    torch.onnx.export(
        Original().eval(),
        (torch.zeros(1, LENGTH, dtype=torch.long),),
        str(path),
        input_names=["input_ids"],
        output_names=["sentence_embedding"],
        **EXPORT,
    )


def open_original(folder: Path, threads: int) -> PeerEncoder:
    """Open what `prepare_original` wrote."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers import PreTrainedTokenizerFast

    session = onnx_session(folder / MODEL)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER), pad_token="[PAD]")  # noqa: S106

    def tokenize(text: str) -> Any:
        return tokenizer(
            text, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np"
        )["input_ids"]

    def run(ids: Any, mask: Any) -> Any:  # noqa: ARG001 - it was exported without one
        return session.run(None, {"input_ids": ids})[0]

    pad = tokenizer.pad_token_id
    return PeerEncoder(tokenize, run, threads, batch_size=1, own_padding=pad)

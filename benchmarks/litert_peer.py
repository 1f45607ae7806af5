"""What Google's own converter makes of a checkpoint, beside our LiteRT artifact of it.

    python benchmarks/litert_peer.py CHECKPOINT ARTIFACT [--length 20 --length 128]

litert-torch converts `transformers`' model with its pooling at a fixed length, to which every text
is padded under a mask, and ai-edge-quantizer makes it int8 by its recipe ``dynamic_wi8_afp32``.
Both engines get the same token ids, on one thread, in turns; a text for a fixed length of n has n
tokens, so that nothing is padded while it is timed. Fidelity is over the shipped texts of at most
the largest length, padded to it, against FP32 PyTorch. It needs an environment of its own:

    pip install litert-torch==0.10.0 torch==2.13.0 transformers==4.57.6 asterisk-edge
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import litert_torch
import numpy as np
import numpy.typing as npt
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

import asterisk
from asterisk.bench.peers.onnx import sentence_module
from asterisk.common import texts
from asterisk.evaluation.fidelity import compare
from asterisk.model.checkpoint import Checkpoint, load
from asterisk.runtimes.torch import reference

ROUNDS, SECONDS = 40, 0.05  # a measurement of each engine in each round
Vector = npt.NDArray[np.float32]


class Theirs:
    """The converted model at one length, int8, one thread."""

    def __init__(self, checkpoint: Checkpoint, length: int, folder: Path) -> None:
        wide, narrow = folder / f"{length}.tflite", folder / f"{length}-int8.tflite"
        ids = torch.ones((1, length), dtype=torch.int64)
        module = sentence_module(checkpoint, attention="eager")
        litert_torch.convert(module, (ids, torch.ones_like(ids))).export(str(wide))
        quantising = quantizer.Quantizer(str(wide), recipe.dynamic_wi8_afp32())
        quantising.quantize().export_model(str(narrow))
        self.size, self.length = narrow.stat().st_size, length
        self.run = Interpreter(str(narrow), num_threads=1).get_signature_runner()
        details = self.run.get_input_details()  # args_0 is the ids, args_1 the mask
        self.inputs = [(name, details[name]["dtype"]) for name in sorted(details)]

    def embed(self, ids: Any) -> Vector:
        """Return the vector of one text, padded to the length."""
        rest = [0] * (self.length - len(ids))
        rows = [[*ids, *rest], [1] * len(ids) + rest]
        named = zip(self.inputs, rows, strict=True)
        given = {name: np.array([row], dtype) for (name, dtype), row in named}
        (found,) = self.run(**given).values()
        vector: Vector = found[0]
        return vector


def medians(runs: dict[str, Any], ids: Any) -> dict[str, float]:
    """Return each engine's median milliseconds for one text, all of them measured in turns."""
    took: dict[str, list[float]] = {name: [] for name in runs}
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
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("artifact", type=Path, help="ours, of the same checkpoint: tflite, int8")
    parser.add_argument("--length", action="append", type=int, help="default: 20 and 128")
    options = parser.parse_args()
    lengths = sorted(options.length or [20, 128])
    torch.set_num_threads(1)
    checkpoint, ours = load(options.checkpoint), asterisk.load(options.artifact)
    truth = reference(checkpoint)
    ids = [truth.tokenize(text.text) for text in texts.load()]
    long = next(some for some in ids if len(some) >= lengths[-1])
    some = [one for one in ids if len(one) <= lengths[-1]]
    with tempfile.TemporaryDirectory() as temporary:
        theirs = {n: Theirs(checkpoint, n, Path(temporary)) for n in lengths}
        times = {
            n: medians(
                {"ours": ours.embed_ids, "theirs": theirs[n].embed}, [*long[: n - 1], long[-1]]
            )
            for n in lengths
        }
        size = theirs[lengths[-1]].size
        rows = {
            "ours": (ours.embed_ids, (options.artifact / "model.tflite").stat().st_size),
            "theirs": (theirs[lengths[-1]].embed, size),
        }
        fp32 = np.stack([truth.embed_ids(one) for one in some])
        print(f"{checkpoint.name}, one thread, engines alone, {len(some)} texts; {os.getloadavg()}")
        heads = [f"{n} tokens, ms" for n in lengths]
        print("| | cosine mean | minimum | overlap@10 | MB | " + " | ".join(heads) + " |")
        print("|---|" + "--:|" * (4 + len(lengths)))
        for name, (embed, weight) in rows.items():
            it = compare(np.stack([embed(one) for one in some]), fp32)
            figures = [f"{it.cosine_mean:.5f}", f"{it.cosine_min:.4f}", f"{it.overlap_at_10:.3f}"]
            figures += [f"{weight / 1e6:.1f}", *(f"{times[n][name]:.2f}" for n in lengths)]
            title = "asterisk, int8" if name == "ours" else "litert-torch, dynamic_wi8_afp32"
            print(f"| {title} | " + " | ".join(figures) + " |")


if __name__ == "__main__":
    main()

"""Where an encoding's microseconds and a process's megabytes go.

``python -m benchmarks.anatomy``, after `asterisk-export`, prints both as tables.

An engine does not say what its fused operators cost. So the int8 graph is written again without
one part after another and timed beside the whole, in turns: what a part costs is what is missing
without it. The graphs without parts give no meaningful vectors and leave the folder they are in.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

import asterisk
from asterisk.bench.prepare import choose
from asterisk.common.files import ARTIFACTS, shipped_checkpoint
from asterisk.exporters import onnx, tflite
from asterisk.exporters import onnx as onnx_graph
from asterisk.exporters import tflite as tflite_graph
from asterisk.exporters.export import open_reference
from asterisk.exporters.flatbuffer import ANY
from asterisk.exporters.forward import Array
from asterisk.exporters.forward import BlockCalibration as Cures
from asterisk.exporters.rounding import calibrate, largest_scores
from asterisk.model.checkpoint import Checkpoint
from asterisk.model.checkpoint import load as load_checkpoint
from asterisk.runtimes.onnx import INPUT, OUTPUT, WEIGHTS, session_options
from asterisk.runtimes.runtime import Runtime

ROUNDS, CALLS = 40, 25
WHOLE = frozenset[str]()
PARTS = ("attention", "GELU", "LayerNorm")
PRODUCTS = frozenset(PARTS)
KINDS = {
    "the engine's code": r"onnxruntime|ai_edge_litert|xllamacpp",
    "numpy's code": r"/numpy|openblas|gfortran|quadmath",
    "Python, the C library": r"\.so|python|/lib|locale|gconv",
}
MODEL, WRITTEN = "the model's file", "heap and stacks: written"
Call = Callable[[], object]
Samples = Sequence[Sequence[int]]
Calibration = tuple[Sequence[Cures], Sequence[float]]
NOTHING: Calibration = (), ()


class _TfliteGraph(tflite_graph.EncoderGraph):
    without = WHOLE

    def norm(self, x: int, weight: Array, bias: Array) -> int:
        return x if "LayerNorm" in self.without else super().norm(x, weight, bias)

    def activation(self, x: int, kind: str) -> int:
        return x if "GELU" in self.without else super().activation(x, kind)

    def softmax(self, x: int) -> int:
        return x if "softmax" in self.without else super().softmax(x)

    def heads(self, x: int) -> tuple[int, int, int]:
        if "attention" not in self.without:
            return super().heads(x)
        query, key, value = (self.new((ANY, self.config.hidden_size)) for _ in range(3))
        axis = self.integers("by column", 1)
        self.operator(tflite_graph.SPLIT, [axis, x], [query, key, value], numSplits=3)
        return query, key, value

    def attend(self, query: int, key: int, value: int, largest: float = math.inf) -> int:
        if "softmax" in self.without:
            largest = math.inf
        return value if "attention" in self.without else super().attend(query, key, value, largest)


class _OnnxGraph(onnx_graph.EncoderGraph):
    without = WHOLE

    def norm(self, x: str, weight: Array, bias: Array) -> str:
        return x if "LayerNorm" in self.without else super().norm(x, weight, bias)

    def activation(self, x: str, kind: str) -> str:
        return x if "GELU" in self.without else super().activation(x, kind)

    def softmax(self, x: str) -> str:
        return x if "softmax" in self.without else super().softmax(x)

    def heads(self, x: str) -> tuple[str, str, str]:
        if "attention" not in self.without:
            return super().heads(x)
        query, key, value = self.nodes("Split", 3, x, axis=-1, num_outputs=3)
        return query, key, value

    def attend(self, query: str, key: str, value: str, largest: float = math.inf) -> str:
        return value if "attention" in self.without else super().attend(query, key, value, largest)


def tflite_call(
    checkpoint: Checkpoint, found: Calibration, without: frozenset[str], folder: Path
) -> Any:
    """Return a function of the number of tokens that returns one call of LiteRT to time."""
    from ai_edge_litert.interpreter import Interpreter

    path = folder / "model.tflite"
    graph = _TfliteGraph(checkpoint.config, int8=True)
    graph.without = without
    path.write_bytes(tflite.sentence_model(graph, "part", checkpoint.tensors, *found))
    interpreter: Any = Interpreter(str(path), num_threads=1)
    index = interpreter.get_input_details()[0]["index"]

    def at(tokens: int) -> Call:
        interpreter.resize_tensor_input(index, [1, tokens])
        interpreter.allocate_tensors()
        interpreter.set_tensor(index, np.arange(tokens, dtype=np.int32)[None])
        invoke: Call = interpreter.invoke
        return invoke

    return at


def onnx_call(
    checkpoint: Checkpoint, found: Calibration, without: frozenset[str], folder: Path
) -> Any:
    """Return a function of the number of tokens that returns one call of ONNX Runtime to time."""
    import onnxruntime as ort

    with (folder / WEIGHTS).open("wb") as weights:
        graph = _OnnxGraph(checkpoint.config, weights, WEIGHTS, quantised=True)
        graph.without = without
        model = onnx.sentence_model(graph, "part", checkpoint.tensors, found[0])
    (folder / "model.onnx").write_bytes(model)
    session = ort.InferenceSession(str(folder / "model.onnx"), session_options(ort))

    def at(tokens: int) -> Call:
        given = {INPUT: np.arange(tokens, dtype=np.int64)[None]}
        return lambda: session.run([OUTPUT], given)

    return at


CALLS_OF = {"tflite": tflite_call, "onnx": onnx_call}


def in_turns(calls: Mapping[str, Sequence[Call]]) -> dict[str, float]:
    """Return each name's median time in µs, its calls in turns with all others'."""
    taken: dict[str, list[int]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 2):
        for name, each in calls.items():
            for index in range(CALLS):
                call = each[index % len(each)]
                before = perf_counter_ns()
                call()
                if turn > 1:  # the first two warm up
                    taken[name].append(perf_counter_ns() - before)
    return {name: median(samples) / 1_000 for name, samples in taken.items()}


def times(
    format: str, checkpoint: Checkpoint, samples: Samples, runtime: Runtime, folder: Path
) -> str:
    """Return a Markdown table of one format's microseconds by part and number of tokens."""
    variants = {
        "whole": (checkpoint, WHOLE),
        "products": (checkpoint, PRODUCTS),
        "shell": (_without_blocks(checkpoint), PRODUCTS),
        **{part: (checkpoint, frozenset([part])) for part in (*PARTS, "softmax")},
    }
    per_token = format == "tflite"  # where scores are asked for as well
    cures = calibrate(checkpoint, samples, per_token=per_token)
    found = cures, largest_scores(checkpoint, samples) if per_token else ()
    engines = {}
    for name, (given, without) in variants.items():
        (folder / name).mkdir()
        calibration = found if given is checkpoint else NOTHING
        engines[name] = CALLS_OF[format](given, calibration, without, folder / name)
    buckets = choose(runtime.tokenizer).buckets
    columns = {}
    for tokens, chosen in buckets.items():
        ids = [runtime.tokenize(text) for text in chosen]
        calls: dict[str, Sequence[Call]] = {name: [at(tokens)] for name, at in engines.items()}
        calls["encode"] = [_bound(runtime.encode, text) for text in chosen]
        calls["tokenize"] = [_bound(runtime.tokenize, text) for text in chosen]
        calls["embed_ids"] = [_bound(runtime.embed_ids, each) for each in ids]
        columns[tokens] = _shares(in_turns(calls))
    rows = [
        f"| {part} | " + " | ".join(f"{column[part]:.1f}" for column in columns.values()) + " |"
        for part in next(iter(columns.values()))
    ]
    heads = " | ".join(f"{tokens} tokens, µs" for tokens in columns)
    return "\n".join([f"| {format} int8 | {heads} |", "|---|" + "--:|" * len(columns), *rows])


def _shares(took: Mapping[str, float]) -> dict[str, float]:
    whole = took["whole"]
    parts = {part: whole - took[part] for part in PARTS}
    products = took["products"] - took["shell"]
    return {
        "the tokenizer": took["tokenize"],
        "Python: checks, arrays, unit length": took["encode"] - took["tokenize"] - whole,
        "the engine: a call, looking up, mean": took["shell"],
        "products in int8": products,
        "attention between them": parts["attention"],
        "of which softmax": whole - took["softmax"],
        "GELU": parts["GELU"],
        "LayerNorm": parts["LayerNorm"],
        "what is left": whole - took["shell"] - products - sum(parts.values()),
        "**text to vector**": took["encode"],
    }


def _without_blocks(checkpoint: Checkpoint) -> Checkpoint:
    tensors = {k: v for k, v in checkpoint.tensors.items() if not k.startswith("encoder.")}
    config = replace(checkpoint.config, num_layers=0)
    return replace(checkpoint, config=config, tensors=tensors)


def _bound(function: Callable[[Any], object], given: Any) -> Call:
    return lambda: function(given)


def memory(artifact: Path, texts: Sequence[str]) -> dict[str, float]:
    """Return the PSS of a process of its own by what it is for, MB, after 200 texts. Linux only."""
    finished = subprocess.run(
        [sys.executable, "-c", _CHILD, str(artifact)],
        input=json.dumps((list(texts) * 200)[:200]),
        capture_output=True,
        check=True,
        text=True,
    )
    return by_kind(finished.stdout, str(artifact))


_CHILD = """
import json, sys
import asterisk
texts = json.load(sys.stdin)
runtime = asterisk.load(sys.argv[1])
for text in texts:
    runtime.encode(text)
print(open("/proc/self/smaps").read())
"""


def by_kind(smaps: str, artifact: str) -> dict[str, float]:
    """Sum ``Pss`` of a ``/proc/PID/smaps`` by what each mapping is for, in MB."""
    found = dict.fromkeys((MODEL, *KINDS, "other files", WRITTEN), 0)
    inside = f"{Path(artifact).resolve()}/"
    kind = ""
    for line in smaps.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            parts = line.split(maxsplit=5)
            path = parts[5] if len(parts) == 6 else ""
            named = (name for name, pattern in KINDS.items() if re.search(pattern, path))
            if path.startswith(inside):
                kind = MODEL
            else:
                kind = next(named, "other files") if path.startswith("/") else WRITTEN
        elif line.startswith("Pss:"):
            found[kind] += int(line.split()[1]) * 1_024
    return {name: size / 1e6 for name, size in found.items()}


def main() -> int:
    """Print both tables for the shipped checkpoint, or the one given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anatomy", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=shipped_checkpoint())
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS)
    chosen = parser.parse_args()
    checkpoint = load_checkpoint(chosen.checkpoint)
    with open_reference(checkpoint) as reference:
        samples = reference.samples
    texts = choose(checkpoint.tokenizer.open()).buckets[20]
    occupied = {}
    for format in CALLS_OF:
        artifact = chosen.artifacts / f"{checkpoint.name}-{format}-int8"
        occupied[format] = memory(artifact, texts)
        with asterisk.load(artifact) as runtime, tempfile.TemporaryDirectory() as folder:
            print(times(format, checkpoint, samples, runtime, Path(folder)), end="\n\n", flush=True)
    names = list(next(iter(occupied.values())))
    print("| PSS, MB | " + " | ".join(occupied) + " |\n|---|" + "--:|" * len(occupied))
    for name in names:
        print(f"| {name} | " + " | ".join(f"{each[name]:.1f}" for each in occupied.values()) + " |")
    print("| **sum** | " + " | ".join(f"{sum(m.values()):.1f}" for m in occupied.values()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

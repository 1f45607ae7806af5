"""Systems of others that stand in the same table, measured in the same run.

Each has ``ROW``, what is known of it; ``prepare(folder, checkpoint)``, which writes its files once;
and ``open(folder, threads)``, which a worker calls. Packages add theirs as modules under `GROUP`.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

from asterisk.bench.plan import Row
from asterisk.common import plugins

GROUP = "asterisk.peers"
MINILM = "all-MiniLM-L6-v2"
REFERENCE = "reference.npy"  # FP32 vectors of a peer with another model
DYNAMIC = "quantize_dynamic, ONNX Runtime"
LIGHT = ("onnxruntime", "tokenizers")
HEAVY = ("onnxruntime", "transformers")
SENTENCE = ("torch", "sentence_transformers")
OPENVINO = ("openvino", "tokenizers")


class Builtin(NamedTuple):
    """A peer that comes along: its module here, and names in it."""

    module: str
    prepare: str
    open: str
    title: str
    recipe: str
    modules: tuple[str, ...]
    distributions: tuple[str, ...]
    model: str = ""


# Named here and not as entry points, so that a copy of this package that was never installed, as
# a target has it, knows them.
BUILTIN = {
    "original": Builtin("onnx", "prepare_original", "open_original",
                        "original, random weights, padded to 128", "int8 per tensor", HEAVY, HEAVY,
                        "the original's configuration"),
    "minilm": Builtin("onnx", "quantize_minilm", "open_quantized", f"{MINILM}, {DYNAMIC}", "int8",
                      LIGHT, LIGHT, MINILM),
    "dynamic": Builtin("onnx", "quantize", "open_quantized", DYNAMIC, "int8", LIGHT, LIGHT),
    "dynamic-per-channel": Builtin("onnx", "quantize_per_channel", "open_quantized", DYNAMIC,
                                   "int8 per channel", LIGHT, LIGHT),
    "sentence-transformers": Builtin("libraries", "copy_checkpoint", "SentenceTransformersEncoder",
                                     "sentence-transformers, PyTorch", "fp32", SENTENCE,
                                     ("sentence-transformers",)),
    "sentence-transformers-onnx": Builtin("libraries", "prepare_onnx", "open_onnx",
                                          "sentence-transformers, ONNX Runtime", "int8",
                                          (*SENTENCE, "optimum.onnxruntime"),
                                          ("sentence-transformers", "optimum-onnx", "onnxruntime")),
    "fastembed": Builtin("libraries", "prepare_fastembed", "FastembedEncoder", "fastembed", "fp32",
                         ("fastembed",), ("fastembed",)),
    "openvino": Builtin("openvino", "prepare_static", "open_model", "OpenVINO", "static int8",
                        OPENVINO, OPENVINO),
    "openvino-weights": Builtin("openvino", "prepare_weights", "open_model", "OpenVINO",
                                "int8 weights", OPENVINO, OPENVINO),
    "model2vec": Builtin("libraries", "prepare_model2vec", "Model2vecEncoder",
                         f"{MINILM}, model2vec", "static fp16", ("model2vec",), ("model2vec",),
                         f"a static model of {MINILM}"),
}  # fmt: skip
# Those that are measured unless others are asked for; they need no more than the extra `bench`.
DEFAULT = ("original", "minilm")


def names() -> tuple[str, ...]:
    """Return every peer's name, the built-in ones first; imports none of them."""
    return (*BUILTIN, *(name for name in plugins.names(GROUP) if name not in BUILTIN))


def find(name: str) -> Any:
    """Import and return a peer's three: in a namespace, or in the module of a third party.

    UnknownName if there is none; MissingPackage if one of a third party lacks a package.
    """
    if name not in BUILTIN:
        return plugins.find(GROUP, name)
    it = BUILTIN[name]
    path = f"{__name__}.{it.module}"
    module, opener = importlib.import_module(path), f"{path}:{it.open}"
    row = Row(name, it.title, it.recipe, opener, "", it.modules, it.distributions, 0, peer=True)
    row = replace(row, model=it.model)
    prepare, open_ = getattr(module, it.prepare), getattr(module, it.open)
    return SimpleNamespace(ROW=row, prepare=prepare, open=open_)

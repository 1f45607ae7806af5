"""Systems of others that stand in the same table, measured in the same run.

Each has ``ROW``, what is known of it beforehand; ``prepare(folder, checkpoint)``, which writes its
files once, for the checkpoint in that folder; and ``open(folder, threads)``, which a worker calls.
A built-in one is a `Peer` in the ``PEERS`` of its module; a package adds its own as a module under
the entry-point group `GROUP`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asterisk.bench.plan import Row
from asterisk.common import plugins

GROUP = "asterisk.peers"
# Named here and not as entry points, so that a copy of this package that was never installed, as
# a target has it, knows them.
BUILTIN = {
    "original": "onnx",
    "minilm": "onnx",
    "dynamic": "onnx",
    "dynamic-per-channel": "onnx",
    "sentence-transformers": "libraries",
    "sentence-transformers-onnx": "libraries",
    "fastembed": "libraries",
    "openvino": "openvino",
    "openvino-weights": "openvino",
    "model2vec": "libraries",
}
# Those that are measured unless others are asked for; they need no more than the extra `bench`.
DEFAULT = ("original", "minilm")
MINILM = "all-MiniLM-L6-v2"
REFERENCE = "reference.npy"  # FP32 vectors of a peer with another model


@dataclass(frozen=True)
class Peer:
    """A built-in peer."""

    ROW: Row
    prepare: Callable[[Path, Path], None]
    open: Callable[[Path, int], Any]


def row(  # noqa: PLR0917
    name: str,
    title: str,
    recipe: str,
    opener: str,
    modules: tuple[str, ...],
    distributions: tuple[str, ...],
    model: str = "",
) -> Row:
    """Return a built-in peer's row; ``opener`` is a function's name in its module."""
    opener = f"{__name__}.{BUILTIN[name]}:{opener}"
    return Row(name, title, recipe, opener, "", modules, distributions, 0, peer=True, model=model)


def names() -> tuple[str, ...]:
    """Return every peer's name, the built-in ones first; imports none of them."""
    return (*BUILTIN, *(name for name in plugins.names(GROUP) if name not in BUILTIN))


def find(name: str) -> Any:
    """Import and return a peer: a `Peer`, or the module of a third party.

    UnknownName if there is none; MissingPackage if one of a third party lacks a package.
    """
    if name in BUILTIN:
        return importlib.import_module(f"{__name__}.{BUILTIN[name]}").PEERS[name]
    return plugins.find(GROUP, name)

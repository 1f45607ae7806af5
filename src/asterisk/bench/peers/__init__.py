"""Systems of others that stand in the same table, measured in the same run.

A module a peer. Each has ``ROW``, what is known of it beforehand; ``prepare(folder, checkpoint)``,
which writes its files once, for the checkpoint in that folder; and ``open(folder, threads)``, which
a worker calls. Packages add their own under the entry-point group `GROUP`; what comes along is
named in the same way.
"""

from __future__ import annotations

import importlib
from typing import Any

from asterisk.common import plugins

GROUP = "asterisk.peers"
# Named here and not as entry points, so that a copy of this package that was never installed, as
# a target has it, knows them.
BUILTIN = {
    "original": "asterisk.bench.peers.original",
    "minilm": "asterisk.bench.peers.minilm",
    "dynamic": "asterisk.bench.peers.dynamic",
    "dynamic-per-channel": "asterisk.bench.peers.dynamic_per_channel",
    "sentence-transformers": "asterisk.bench.peers.sentence_transformers",
    "sentence-transformers-onnx": "asterisk.bench.peers.sentence_transformers_onnx",
    "fastembed": "asterisk.bench.peers.fastembed",
    "openvino": "asterisk.bench.peers.openvino",
    "openvino-weights": "asterisk.bench.peers.openvino_weights",
    "model2vec": "asterisk.bench.peers.static",
}
# Those that are measured unless others are asked for; they need no more than the extra `bench`.
USUAL = ("original", "minilm")


def names() -> tuple[str, ...]:
    """Return every peer's name, the built-in ones first; imports none of them."""
    return (*BUILTIN, *(name for name in plugins.names(GROUP) if name not in BUILTIN))


def find(name: str) -> Any:
    """Import and return the module of a peer.

    UnknownName if there is none; MissingPackage if one of a third party lacks a package.
    """
    if name in BUILTIN:
        return importlib.import_module(BUILTIN[name])
    return plugins.find(GROUP, name)

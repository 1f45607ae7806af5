"""`asterisk`: lists the commands and runs any of them: `asterisk export` is `asterisk-export`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from asterisk.cli.common import Parser, run

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Train a model": {
        "data": "clean raw text and split it into a training corpus",
        "teacher": "embed a corpus with a teacher model",
        "train": "distil a student from a teacher's vectors",
        "eval": "measure models on similarity, retrieval, classification and clustering",
        "import": "turn an original asterisk-embedding-model file into a checkpoint",
    },
    "Put it on a small machine": {
        "export": "export a checkpoint to ONNX, TFLite and GGUF, checked against FP32",
        "verify": "check an artifact on the machine where it is to run",
        "bench": "measure every runtime in one table",
        "bundle": "pack an artifact and its runtime for a board without a network",
        "deploy": "install an artifact on a Raspberry Pi over ssh",
    },
    "Use its vectors": {
        "embed": "turn lines of text into vectors",
        "search": "index files and search them by meaning and words",
        "dedup": "find near-duplicate texts",
        "classify": "train and apply a classifier",
        "serve": "answer OpenAI's embeddings API over HTTP",
        "demo": "index, search and sort the texts that ship",
    },
}
# Modules whose name is not the command's: `eval` is a builtin, and `import` a keyword.
MODULES = {"eval": "evaluate", "import": "importing"}


def parser() -> Parser:
    """Describe the command line."""
    names = [name for group in GROUPS.values() for name in group]
    width = max(map(len, names))
    lines = []
    for title, group in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:{width}}  {text}" for name, text in group.items()), ""]
    it = Parser(
        prog="asterisk",
        usage="asterisk COMMAND [ARGUMENTS]",
        description="Sentence encoders for small machines.",
        epilog="\n".join([*lines, "asterisk COMMAND --help says more."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument("command", choices=names, help=argparse.SUPPRESS)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; without one, list them all."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if not any(name in group for group in GROUPS.values()):
        return run(parser(), lambda _: None, [name, *rest])
    module = importlib.import_module(f"asterisk.cli.{MODULES.get(name, name)}")
    status: int = module.main(rest)
    return status

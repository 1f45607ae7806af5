"""Documents by the teacher on a server, queries by the student on a device.

On the server (needs the `train` extra and sentence-transformers)::

    python examples/asymmetric_search.py index notes.txt --checkpoint checkpoints/asterisk-256-wp \
        --out notes.npy

On the device, with `notes.txt`, `notes.npy` and `notes.npy.json` copied there (numpy, one engine)::

    python examples/asymmetric_search.py search notes.npy notes.txt "a question" \
        --artifact artifacts/asterisk-256-wp-tflite-int8
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

import asterisk
from asterisk.common.errors import ArtifactError, AsteriskError, InputError
from asterisk.common.files import replacing_file
from asterisk.common.vectors import similarity, to_binary, to_int8

TEACHER = "all-MiniLM-L6-v2"
KEEP = {"float32": lambda vectors: vectors, "int8": to_int8, "binary": to_binary}


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    it = argparse.ArgumentParser(description="Asymmetric search over the lines of a text file.")
    sub = it.add_subparsers(required=True)
    index = sub.add_parser("index", help="embed every line with the teacher")
    index.add_argument("texts", type=Path)
    index.add_argument("--checkpoint", type=Path, required=True, help="it holds the projection")
    index.add_argument("--teacher", default=TEACHER, help="default: %(default)s")
    index.add_argument("--precision", choices=tuple(KEEP), default="int8")
    index.add_argument("--dim", type=int, help="keep the first DIM dimensions")
    index.add_argument("--out", type=Path, required=True)
    index.set_defaults(command=build)
    search = sub.add_parser("search", help="find the lines nearest to a question")
    search.add_argument("index", type=Path)
    search.add_argument("texts", type=Path)
    search.add_argument("query")
    search.add_argument("--artifact", type=Path, required=True)
    search.add_argument("--top", type=int, default=5)
    search.set_defaults(command=find)
    arguments = it.parse_args(argv)
    try:
        arguments.command(arguments)
    except (AsteriskError, OSError, ValueError) as failure:
        print(f"{it.prog}: {failure}", file=sys.stderr)
        return 1
    return 0


def build(arguments: argparse.Namespace) -> None:
    """Write the documents' vectors, and beside them what they are."""
    from sentence_transformers import SentenceTransformer

    from asterisk.evaluation.alignment import Alignment
    from asterisk.training.teachers.teacher import find as find_teacher

    alignment = Alignment.open(arguments.checkpoint)
    teacher = SentenceTransformer(str(find_teacher(arguments.teacher)), device="cpu")
    theirs = teacher.encode(lines(arguments.texts), convert_to_numpy=True)
    ours = alignment.project(theirs.astype(np.float32), dim=arguments.dim)
    facts = {"fingerprint": alignment.fingerprint, "dim": ours.shape[1]}
    with replacing_file(arguments.out) as staging, staging.open("wb") as file:
        np.save(file, KEEP[arguments.precision](ours))
    with replacing_file(beside(arguments.out)) as staging:
        staging.write_text(json.dumps(facts) + "\n", "utf-8")
    print(f"wrote {arguments.out}: {len(ours):,} vectors, {arguments.precision}")


def find(arguments: argparse.Namespace) -> None:
    """Print the nearest lines with their cosines; no PyTorch anywhere."""
    documents = np.load(arguments.index, allow_pickle=False)
    facts = json.loads(beside(arguments.index).read_text("utf-8"))
    texts = lines(arguments.texts)
    if len(texts) != len(documents):
        raise InputError(f"{arguments.texts} has {len(texts)} lines, the index {len(documents)}")
    with asterisk.load(arguments.artifact) as student:
        if student.fingerprint != facts["fingerprint"]:
            raise ArtifactError("the index was made for another checkpoint than this artifact")
        query = student.encode([arguments.query], dim=facts["dim"])
    cosines = similarity(query, documents)[0]
    for place in np.argsort(-cosines, kind="stable")[: arguments.top]:
        print(f"{cosines[place]:.3f}  {texts[place]}")


def lines(path: Path) -> list[str]:
    """Return the lines that hold a text."""
    return [line for line in path.read_text("utf-8").split("\n") if line.strip()]


def beside(path: Path) -> Path:
    """Return where an index says what it is, as `asterisk-embed` does."""
    return path.with_name(path.name + ".json")


if __name__ == "__main__":
    sys.exit(main())

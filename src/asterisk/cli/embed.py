"""`asterisk-embed`: texts in, vectors out."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asterisk.cli.common import Parser, format_of, positive, prompt_argument, record_arguments, run
from asterisk.common.errors import UsageError
from asterisk.common.terminal import Bar, lines_of, report
from asterisk.common.text_files import LONGEST_LINE, Record, filter_empty, read_records
from asterisk.common.vectors import PRECISIONS, quantize
from asterisk.model.config import prompt_name_of
from asterisk.runtimes.memory_budget import add_option
from asterisk.runtimes.runtime import encode_records

if TYPE_CHECKING:
    from asterisk.runtimes.memory_budget import Budget
    from asterisk.runtimes.runtime import Runtime

BLOCK = 64  # texts, unless a memory limit allows fewer
ENCODING = ("prompt_name", "on_long", "dim", "precision")  # options of `Runtime.encode`
FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".npy": "npy"}


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    what = "Embed texts, one a line, from files or standard input."
    it = Parser(prog="asterisk-embed", description=what)
    it.add_argument("artifact", type=Path, help="artifact or checkpoint folder")
    it.add_argument("files", nargs="*", type=Path, help="text files; - or none: standard input")
    record_arguments(it)
    it.add_argument("--out", type=Path, help="file to write (default: standard output)")
    formats = sorted({*FORMATS.values()})
    it.add_argument("--format", choices=formats, help="default: by --out's name, else jsonl")
    it.add_argument("--dim", type=positive, help="keep the first DIM dimensions")
    it.add_argument("--precision", choices=PRECISIONS, default="float32", help="default: float32")
    how = it.add_mutually_exclusive_group()
    prompt_argument(how, "before each text (default: its own default)")
    how.add_argument("--role", choices=("query", "document"), help="or the prompt for this role")
    it.add_argument("--no-normalize", action="store_true", help="keep the vectors' lengths")
    it.add_argument("--threads", type=positive, default=1, help="texts embedded at once")
    add_option(it)
    it.add_argument("--on-long", choices=("truncate", "error"), default="truncate")
    it.add_argument("--on-empty", choices=("error", "skip", "null"), default="error")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run(parser(), _embed, argv)


def _embed(arguments: argparse.Namespace) -> None:
    import asterisk
    from asterisk.common.text_files import open_vectors

    format = arguments.format or format_of(arguments.out, FORMATS)
    if format == "npy" and arguments.on_empty == "null" and arguments.precision != PRECISIONS[0]:
        reason = f"an .npy of {arguments.precision} has nothing for a text without a vector"
        advice = "skip such texts, or write JSON lines or CSV"
        raise UsageError(f"--on-empty null: {reason}; {advice}")
    limits = {"threads": arguments.threads, "max_memory": arguments.max_memory}
    with asterisk.load(arguments.artifact, **limits) as runtime:
        budget = runtime.budget
        if budget and budget.message:
            report(f"asterisk-embed: {budget.message}")
        longest = budget.longest_line if budget else LONGEST_LINE
        reading = {"json_lines": arguments.json, "field": arguments.field, "longest": longest}
        records = read_records(arguments.files, **reading)
        if arguments.role:
            arguments.prompt_name = prompt_name_of(arguments.role, runtime.prompts)
        runtime.prompt(arguments.prompt_name)
        size = runtime.config.embedding_size
        if arguments.dim and arguments.dim > size:
            raise UsageError(f"--dim must be 1 to {size}")
        empty = 0
        dim = arguments.dim or size
        options = {name: getattr(arguments, name) for name in ENCODING}
        options["normalize"] = False if arguments.no_normalize else None
        none = quantize(np.empty((0, dim), np.float32), arguments.precision)
        with (
            _sidecar(arguments, runtime, format) as facts,
            open_vectors(arguments.out, format, none) as sink,
            Bar(lambda: lines_of(arguments.files), "texts") as bar,
        ):
            for block in _blocks(filter_empty(records, arguments.on_empty), budget):
                full = [record for record in block if record.text.strip()]
                vectors = iter(encode_records(runtime, full, **options))
                for record in block:
                    sink.write(record, next(vectors) if record.text.strip() else None)
                empty += len(block) - len(full)
                bar.advance(len(block))
            facts |= {"rows": sink.rows, "dim": dim, "empty_as_nan": empty}
        if runtime.truncated:
            many = "1 text" if runtime.truncated == 1 else f"{runtime.truncated} texts"
            report(f"asterisk-embed: {many} truncated to {runtime.longest} tokens")


def _blocks(records: Iterator[Record], budget: Budget | None) -> Iterator[list[Record]]:
    most_texts, most_bytes = (budget.batch, budget.texts) if budget else (BLOCK, sys.maxsize)
    while record := next(records, None):
        block, size = [record], sys.getsizeof(record.text)
        while len(block) < most_texts and size < most_bytes and (record := next(records, None)):
            block.append(record)
            size += sys.getsizeof(record.text)
        yield block


@contextlib.contextmanager
def _sidecar(
    arguments: argparse.Namespace, runtime: Runtime, format: str
) -> Iterator[dict[str, object]]:
    """Yield a dictionary that is written beside an `.npy` file, right after it."""
    facts: dict[str, object] = {}
    if format != "npy" or arguments.out is None:
        yield facts
        return
    from asterisk.common.files import replacing_file

    with replacing_file(arguments.out.with_name(arguments.out.name + ".json")) as staging:
        yield facts
        facts |= {
            "artifact": arguments.artifact.name,
            "format": runtime.format,
            "fingerprint": runtime.fingerprint,
            "prompt": runtime.prompt(arguments.prompt_name),
            "precision": arguments.precision,
            "normalized": runtime.config.normalize and not arguments.no_normalize,
            "truncated": runtime.truncated,
        }
        staging.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())

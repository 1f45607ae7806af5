"""What there is to measure: exports what is missing, builds the peers, chooses the texts.

A process of its own, ``python -m asterisk.bench.prepare``, because exporting maps every engine:
pages that the parent shared with a worker would count half in the worker's PSS. Each peer writes
its files in one more process, under the interpreter that it is measured with.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asterisk.artifact import is_artifact, open_artifact
from asterisk.bench import peers, process
from asterisk.bench.plan import BUCKETS, LONG, REFERENCE, Row
from asterisk.bench.process import ask
from asterisk.bench.worker import serve
from asterisk.common import errors, plugins, texts
from asterisk.common.errors import AsteriskError, one_line
from asterisk.common.files import SHIPPED, replacing_folder, shipped_checkpoint
from asterisk.common.terminal import report

if TYPE_CHECKING:
    from asterisk.model.checkpoint import Checkpoint
    from asterisk.tokenizer import Tokenizer

MODULE = "asterisk.bench.prepare"
FORMAT, RECIPE = "tflite", "int8"  # of the default artifact
EXPORT_SECONDS = 900
BUILD_FACTOR = 5  # how many times as long as a measurement building a peer may take
OPENER = "asterisk.runtimes.load:load"
TITLES = {"torch": "PyTorch", "onnx": "ONNX Runtime", "tflite": "LiteRT", "gguf": "llama.cpp"}
# What an engine's own packages are; an adapter of somebody else's is measured without its size.
DISTRIBUTIONS = {
    "torch": ("torch", "safetensors", "numpy"),
    "onnx": ("onnxruntime", "numpy"),
    "tflite": ("ai-edge-litert", "numpy"),
    "gguf": ("xllamacpp", "numpy"),
}
# What an adapter imports only when it opens something.
ENGINES = {"onnx": ("onnxruntime",), "tflite": ("ai_edge_litert.interpreter",)}
MODEL_SUFFIXES = (".json", ".safetensors", ".bin", ".txt", ".model")
PROSE = ("news", "note", "question", "definition", "passage")
BUCKET_TEXTS = 128  # texts a bucket, at most
MIXED_TEXTS = 512  # enough that starting threads costs nothing
MIXED_TOKENS = 128  # of the longest text in the mixed list


Job = tuple[str, Callable[[], Row]]  # a row's name, and what makes the row


def attempt_all(jobs: Iterable[Job]) -> tuple[list[Row], dict[str, str]]:
    """Return the rows in order, and by name one line for each that could not be made."""
    rows, failed = [], {}
    for name, make in jobs:
        try:
            rows.append(replace(make(), name=name))
        except Exception as failure:  # converters of others raise what they like
            ours = isinstance(failure, AsteriskError | process.CellError)
            line = str(failure) if ours else f"{type(failure).__name__}: {failure}"
            failed[name] = " ".join(line.split())
            report(f"{name}: {failed[name]}")
    return rows, failed


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Return the rows, the failures, the texts and the checkpoint's name and fingerprint.

    ``request`` is that of `asterisk.bench.runner.prepare`. AsteriskError if the checkpoint itself
    cannot be read.
    """
    from asterisk.model.hub import open_checkpoint

    checkpoint = open_checkpoint(request["checkpoint"])
    folder, fingerprint = checkpoint.folder, checkpoint.fingerprint
    if folder is None:
        raise AssertionError("unreachable: a checkpoint that was read has a folder")
    longest = checkpoint.config.max_seq_length
    if max(request["buckets"]) > longest:
        raise errors.UsageError(
            f"{checkpoint.name} reads {longest} tokens: --buckets {longest} are the most"
        )
    jobs: list[Job] = []
    unknown: dict[str, str] = {}
    for name in request["runtimes"]:
        try:
            jobs += _jobs(checkpoint, folder, name, request)
        except AsteriskError as failure:
            unknown[name] = one_line(failure)
    for name in request["peers"]:
        if name == "minilm" and checkpoint.name == peers.MINILM and "dynamic" in request["peers"]:
            continue  # it would be that row once more
        jobs.append((name, partial(_peer, name, folder, fingerprint, request)))
    rows, failed = attempt_all(jobs)
    chosen = choose(checkpoint.tokenizer.open(), request["buckets"])
    for tokens, some in chosen.buckets.items():
        if not some:
            raise errors.InputError(f"no text that ships can be cut to exactly {tokens} tokens")
    return {
        "checkpoint": {"name": checkpoint.name, "fingerprint": fingerprint},
        "rows": [asdict(row) for row in rows],
        "failed": unknown | failed,
        **asdict(chosen),
        "texts": [text.text for text in texts.load()],
    }


def _reference(folder: Path, fingerprint: str) -> Row:
    modules = ("asterisk.runtimes.load", "asterisk.runtimes.torch")
    packages, title = DISTRIBUTIONS[REFERENCE], TITLES[REFERENCE]
    size = sum(path.stat().st_size for path in model_files(folder))
    spaces = (fingerprint,)
    return Row(
        REFERENCE, title, "fp32", OPENER, str(folder), modules, packages, size, spaces=spaces
    )


def model_files(folder: Path) -> list[Path]:
    """Return the files of the encoder and of the modules after it, without pickles it has twice."""
    found = [*folder.glob("*"), *folder.glob("[0-9]*_*/*")]
    files = sorted(path for path in found if path.suffix in MODEL_SUFFIXES and path.is_file())
    in_both = {path.parent for path in files if path.suffix == ".safetensors"}
    return [path for path in files if path.suffix != ".bin" or path.parent not in in_both]


def _jobs(checkpoint: Checkpoint, folder: Path, format: str, request: dict[str, Any]) -> list[Job]:
    if format == REFERENCE:
        return [(format, partial(_reference, folder, checkpoint.fingerprint))]
    make = partial(_artifact, checkpoint, format, Path(request["artifacts"]))
    if not request["every_recipe"]:
        return [(format, partial(make, request.get("recipes", {}).get(format)))]
    from asterisk.exporters.export import find_exporter

    recipes = [recipe.name for recipe in find_exporter(format).recipes]
    return [(f"{format}-{recipe}", partial(make, recipe)) for recipe in recipes]


def _artifact(
    checkpoint: Checkpoint, format: str, artifacts: Path, recipe_name: str | None = None
) -> Row:
    from asterisk.exporters import export

    recipe = export.choose(export.find_exporter(format), recipe_name)
    folder = artifacts / f"{checkpoint.name}-{format}-{recipe.name}"
    if not _is_current(folder, checkpoint.fingerprint):
        export.export(checkpoint, format, recipe.name, folder, report)
    artifact = open_artifact(folder)
    adapter = plugins.find("asterisk.runtimes", format).__module__
    return Row(
        name=format,
        title=TITLES.get(format, format),
        recipe=recipe.name,
        opener=OPENER,
        path=str(folder),
        modules=("asterisk.runtimes.load", adapter, *ENGINES.get(format, ())),
        distributions=DISTRIBUTIONS.get(format, ()),
        size=artifact.size,
        thresholds=asdict(artifact.manifest.thresholds),
        spaces=artifact.manifest.compatible_with,
    )


def _is_current(folder: Path, fingerprint: str) -> bool:
    if not is_artifact(folder):
        return False
    try:
        return open_artifact(folder).manifest.fingerprint == fingerprint
    except errors.ArtifactError as failure:
        report(f"{failure}: exporting it again")
        return False


def _peer(name: str, checkpoint: Path, fingerprint: str, request: dict[str, Any]) -> Row:
    """Return a peer's row; CellError, one line, if it is missing, fails, crashes or hangs."""
    # The default ones need no environment of their own; one of a third party is installed here.
    elsewhere = name in peers.BUILTIN and name not in peers.DEFAULT
    python = request.get("peer_python", "") if elsewhere else ""
    report(f"{name}: preparing")
    work = str(Path(request["work"]).absolute())
    spec = {"peer": name, "work": work, "checkpoint": str(checkpoint), "fingerprint": fingerprint}
    seconds = BUILD_FACTOR * request["timeout"]
    answer = process.ask(MODULE, spec, seconds, python=(python or sys.executable,))
    return replace(Row.from_dict(answer["row"]), python=python)


def build_peer(name: str, work: Path, checkpoint: Path, fingerprint: str) -> Row:
    """Return the row of a peer, whose files are in a folder under ``work``, made if need be."""
    from importlib.metadata import version

    import numpy as np

    from asterisk.bench import machine

    peer = peers.find(name)
    row: Row = peer.ROW
    folder = work / _edition(name, peer, "" if row.model else fingerprint)
    if not folder.is_dir():
        with replacing_folder(folder, lambda _: False) as staging:
            peer.prepare(staging, checkpoint)
    reference = folder / peers.REFERENCE
    has_reference = reference.is_file()
    files = [path for path in folder.rglob("*") if path.is_file() and path != reference]
    return replace(
        row,
        name=name,
        peer=True,
        path=str(folder),
        size=sum(path.stat().st_size for path in files),
        reference=str(reference) if has_reference else "",
        compared=len(np.load(reference)) if has_reference else 0,
        installed=machine.weigh(row.distributions),
        versions={package: version(package) for package in row.distributions},
    )


def _edition(name: str, peer: Any, fingerprint: str) -> str:
    """Name the folder of a peer's files after the code, engine and model they are made of."""
    from asterisk.bench.machine import versions

    here = Path(peers.__file__ if name in peers.BUILTIN else peer.__file__)
    is_package = name in peers.BUILTIN or peer.__package__
    digest = hashlib.sha256(fingerprint.encode())
    for source in sorted(here.parent.glob("*.py")) if is_package else [here]:
        digest.update(source.read_bytes())
    needed = {"onnxruntime", "torch", "transformers", *peer.ROW.distributions}
    for package, version in versions(needed).items():
        digest.update(f"{package} {version}".encode())
    for text in texts.load():
        digest.update(text.text.encode())
    return f"{name}-{digest.hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class Texts:
    """``buckets`` by number of tokens, a ``mixed`` list as the texts come, one ``long`` text."""

    buckets: dict[int, list[str]]
    mixed: list[str]
    long: str


def choose(tokenizer: Tokenizer, tokens: Sequence[int] = BUCKETS) -> Texts:
    """Choose the texts that are timed, in buckets of so many ``tokens``; the same every time.

    Texts that ship, cut at a word's end. Special tokens count.
    """
    prose = [text.text for text in texts.load() if text.kind in PROSE]

    def cut_all(count: int, most: int) -> list[str]:
        starts = (cut(tokenizer, text, count) for text in prose)
        found: dict[str, None] = {}
        for start in starts:
            if start is not None:
                found[start] = None
            if len(found) == most:
                break
        return list(found)

    buckets = {count: cut_all(count, BUCKET_TEXTS) for count in tokens}
    mixed = [text for text in prose if _length(tokenizer, text) <= MIXED_TOKENS][:MIXED_TEXTS]
    return Texts(buckets, mixed, cut_all(LONG, 1)[0])


def cut(tokenizer: Tokenizer, text: str, tokens: int) -> str | None:
    """Return the beginning of ``text`` of exactly ``tokens`` tokens, if a word ends there."""
    count, end = _length(tokenizer, ""), 0
    for word, ids in tokenizer.words(text):
        count, end = count + len(ids), end + len(word)
        if count >= tokens:
            break
    start = text[:end]
    return start if count == tokens and _length(tokenizer, start) == tokens else None


def _length(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.with_special_tokens(tokenizer.encode(text)))


def default_artifact(folder: Path, on_progress: Callable[[str], None]) -> Path:
    """Return the LiteRT artifact of the shipped checkpoint in ``folder``, exported if missing.

    UsageError outside a clone of the project, EngineError with the reason if it cannot be exported.
    """
    wanted = f"{SHIPPED}-{FORMAT}-{RECIPE}"
    if is_artifact(folder / wanted):
        return folder / wanted
    request = {
        "checkpoint": str(shipped_checkpoint()),
        "runtimes": [FORMAT],
        "peers": [],
        "artifacts": str(folder),
        "buckets": [20],
        "every_recipe": False,
    }
    on_progress(f"exporting {wanted} (once, about a minute)")
    try:
        answer = ask(MODULE, request, EXPORT_SECONDS, quiet=False)
    except process.CellError as failure:
        raise errors.EngineError(f"{wanted} could not be exported: {failure}") from failure
    if not answer.get("rows"):
        reason = answer.get("refused") or answer.get("failed", {}).get(FORMAT, "no reason given")
        raise errors.EngineError(f"{wanted} could not be exported: {reason}")
    return Path(answer["rows"][0]["path"])


def _attempt(request: dict[str, Any]) -> dict[str, Any]:
    try:
        if "peer" not in request:
            return prepare(request)
        os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched
        folders = Path(request["work"]), Path(request["checkpoint"])
        return {"row": asdict(build_peer(request["peer"], *folders, request["fingerprint"]))}
    except Exception as failure:  # converters of others raise what they like
        ours = isinstance(failure, AsteriskError)
        line = one_line(failure) if ours else f"{type(failure).__name__}: {one_line(failure)}"
        if "peer" in request:
            return {"error": line}
        status = failure.status if isinstance(failure, AsteriskError) else AsteriskError.status
        return {"refused": line, "status": status}


if __name__ == "__main__":
    sys.exit(serve(_attempt))

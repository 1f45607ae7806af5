"""A bundle: one archive with an artifact, what runs it, and an installer that needs nothing else.

::

    asterisk-bundle/
      install.py     standard library only
      bundle.json    the manifest: what this is for, and the sha256 of everything else
      site/          the package and the wheels it needs, unpacked and slimmed
      lib/           libgomp, where the engine needs it
      artifact/      as exported
      bin/           launchers: shell scripts that start the board's own Python
"""

from __future__ import annotations

import io
import json
import lzma
import shutil
import tarfile
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import asterisk
from asterisk.artifact import MANIFEST as ARTIFACT_MANIFEST
from asterisk.artifact import Artifact, is_artifact, open_artifact, sha256, with_artifact
from asterisk.common import plugins
from asterisk.common.errors import ArtifactError, OutputError, UsageError
from asterisk.common.files import replacing_file
from asterisk.common.terminal import report
from asterisk.deploy import libraries, wheels
from asterisk.deploy.boards import FORMATS, MACHINE, Board
from asterisk.deploy.device import script
from asterisk.deploy.device.manifest import MANIFEST, MODES, SCHEMA, TOP, check_manifest, identity

LIMITS = {"tflite": 35_000_000, "onnx": 40_000_000, "gguf": 60_000_000}  # bytes of an archive
NOT_FOR_DEVICES = (
    *("training/", "exporters/", "apps/classify/", "deploy/", "cli/bundle.py", "cli/classify.py"),
    *("cli/data.py", "cli/deploy.py", "cli/evaluate.py", "cli/export.py", "cli/importing.py"),
    *("cli/teacher.py", "cli/train.py"),
)
_THREADS, _BOTH = ("--threads",), ("--threads", "--max-memory")
LAUNCHERS: dict[str, tuple[str, ...]] = {  # commands, and their options that are the board's
    **{"embed": _BOTH, "verify": (), "search": (), "dedup": _THREADS, "demo": _THREADS},
    **{"serve": _BOTH, "bench": ()},  # bench measures what its options say
}
OLDEST_TIME = 315_532_800  # 1980, of every entry: the oldest that zip files and FAT can name
PRESET = 6  # of xz: 9 takes 64 MB of a board to unpack and gains a percent


class Choice(NamedTuple):
    """An artifact for a board."""

    artifact: Artifact
    why: str  # it is this one
    note: str = ""  # what else there is to say


@contextmanager
def choose_artifact(path: Path, board: Board, format: str | None = None) -> Iterator[Choice]:
    """Give the artifact for ``board``: ``path`` is one, holds several, or is a checkpoint.

    A checkpoint's export is there inside of the ``with`` only. UsageError where the choice is not
    clear, ArtifactError where there is nothing to choose from.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"no format named {format!r}; there are: {', '.join(FORMATS)}")
    from asterisk.model.checkpoint import is_checkpoint, load

    if is_artifact(path):
        artifact = open_artifact(path)
        if format not in (None, artifact.manifest.format):
            raise UsageError(f"{path} is {artifact.manifest.format}, not {format}")
        yield Choice(artifact, "as given", better_recipe(artifact, board))
    elif is_checkpoint(path):
        export = plugins.require("asterisk.exporters.export", "export").export
        checkpoint = load(path)
        format = format or FORMATS[0]
        recipe = board.recipes[format][0]
        with tempfile.TemporaryDirectory(prefix="asterisk-export-") as out:
            folder = Path(out) / f"{checkpoint.name}-{format}-{recipe}"
            artifact = export(checkpoint, format, recipe, folder, report)
            yield Choice(artifact, f"exported; {board.because(format)}")
    else:
        yield _best_artifact(path, board, format)


def better_recipe(artifact: Artifact, board: Board) -> str:
    """Say which recipe of the format would suit ``board`` better than this one; or nothing."""
    manifest = artifact.manifest
    best = board.recipes.get(manifest.format, (manifest.recipe,))[0]
    if best == manifest.recipe:
        return ""
    return f"{best} would suit a {board.title} better: {board.because(manifest.format)}"


def _best_artifact(path: Path, board: Board, format: str | None) -> Choice:
    try:
        folders = sorted(inner for inner in path.iterdir() if is_artifact(inner))
    except OSError as failure:
        raise ArtifactError(f"{path}: {failure.strerror}") from None
    if not folders:
        raise ArtifactError(f"{path} is no artifact, holds none, and is no checkpoint")
    found = [open_artifact(folder) for folder in folders]
    if len({it.manifest.fingerprint for it in found}) > 1:
        raise UsageError(f"{path} holds artifacts of several checkpoints: name one of them")
    suiting = [it for it in found if format in (None, it.manifest.format)]
    if not suiting:
        raise ArtifactError(f"{path} holds no {format} artifact")
    best = min(suiting, key=lambda it: board.rank(it.manifest.format, it.manifest.recipe))
    why, note = f"of {len(found)}", better_recipe(best, board)
    return Choice(best, why if note else f"{why}; {board.because(best.manifest.format)}", note)


class Scratch:
    """A folder that is removed with this object."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="asterisk-bundle-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is to be on the device, but for bundle.json and install.py."""

    manifest: dict[str, Any]  # bundle.json's contents
    files: dict[str, Path]  # files here by their paths in the bundle
    scratch: Scratch | None = field(default=None, repr=False)  # where these files are


def collect(artifact: Artifact, board: Board, python: str) -> Bundle:
    """Gather everything for ``board`` and its Python, "3.11" or "3.13".

    ArtifactError for what cannot be trusted, EngineError where the wheels cannot be had or a
    library would not run on the board.
    """
    needed = wheels.requirements(artifact.manifest.format, artifact.manifest.tokenizer)
    found = wheels.wheels(needed, python)
    scratch = Scratch()
    root = scratch.folder

    def copy(artifact: Artifact) -> Any:
        folder = root / "artifact"
        shutil.rmtree(folder, ignore_errors=True)  # of an export that was replaced meanwhile
        folder.mkdir()
        for name in (ARTIFACT_MANIFEST, *artifact.manifest.files):
            shutil.copyfile(artifact.folder / name, folder / name)
        return artifact.manifest

    model = with_artifact(artifact.folder, copy)
    site = root / "site"
    packages = dict(wheels.unpack(wheel, site) for wheel in found)
    _copy_package(site)
    write_launchers(root / "bin", python, board)
    natives = libraries.read_all(site)
    needs = libraries.check(natives, board, python)
    if libraries.LIBGOMP in needs.system:
        (root / "lib").mkdir()
        for name, path in (libraries.libgomp() or {}).items():
            shutil.copyfile(path, root / "lib" / name)
        needs = libraries.check(natives | libraries.read_all(root / "lib"), board, python)
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    files = {path.relative_to(root).as_posix(): path for path in paths}
    entries = {
        name: {
            "sha256": sha256(path),
            "size": path.stat().st_size,
            "executable": name.startswith("bin/"),
        }
        for name, path in files.items()
    }
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "name": model.name,
        "version": asterisk.__version__,
        "board": board.name,
        "python": python,
        "machine": MACHINE,
        "glibc": ".".join(map(str, needs.glibc)),
        "page_size": needs.page_size,
        "libraries": needs.system,
        "format": model.format,
        "recipe": model.recipe,
        "threads": board.threads,
        "max_memory": board.max_memory,
        "packages": packages,
        "installed_bytes": sum(entry["size"] for entry in entries.values()),
        "files": entries,
    }
    manifest["id"] = identity(manifest)
    return Bundle(check_manifest(manifest), files, scratch)


def _copy_package(site: Path) -> None:
    """Copy the part of this package that devices run, described as pip would have described it."""
    source = Path(asterisk.__file__).parent
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source).as_posix()
        skipped = inner.startswith(NOT_FOR_DEVICES) or path.parent.name == "__pycache__"
        if path.is_file() and not skipped:
            target = site / "asterisk" / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    name, version = wheels.PROJECT, asterisk.__version__
    metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
    (metadata / "licenses").mkdir(parents=True)
    texts = {
        "METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n",
        "entry_points.txt": wheels.entry_points(),
    }
    for licence in ("licenses/LICENSE", "licenses/THIRD_PARTY_NOTICES.md"):
        texts[licence] = wheels.project().read_text(licence) or ""
    for inner, text in texts.items():
        if text:
            (metadata / inner).write_text(text, "utf-8")


def write_launchers(folder: Path, python: str, board: Board) -> None:
    """Write ``python`` and a launcher for each command of this package that devices have."""
    folder.mkdir()
    template = Path(__file__).with_name("templates").joinpath("launcher.sh").read_text("utf-8")
    defaults = {"--threads": board.threads, "--max-memory": board.max_memory}
    launchers = {"python": ""}
    for command, options in LAUNCHERS.items():
        parts = [f" -m asterisk.cli.{command}"]
        parts += [f"{it} {defaults[it]}" for it in options if defaults[it] is not None]
        launchers[f"asterisk-{command}"] = " ".join(parts)
    for name, words in launchers.items():
        text = template.replace("@PYTHON@", python).replace("@WORDS@", words)
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o755)


def write(bundle: Bundle, target: Path, preset: int = PRESET) -> int:
    """Write the .tar.xz and return its bytes; the same bundle gives the same bytes.

    OutputError where it is over the format's limit or cannot be written; nothing is left then.
    ArtifactError where a file has changed since it was collected.
    """
    limit = LIMITS[bundle.manifest["format"]]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise OutputError(f"cannot write {target}: {failure.strerror}") from None
    with replacing_file(target) as path:
        with lzma.open(path, "wb", preset=preset) as stream:
            write_parts(bundle, bundle.files, stream)
        size = path.stat().st_size
        if size > limit:
            most = f"the {limit / 1e6:.0f} MB of a {bundle.manifest['format']} bundle"
            raise OutputError(f"{target} would have {size / 1e6:.1f} MB, over {most}")
    return size


def write_parts(bundle: Bundle, names: Iterable[str], stream: IO[bytes]) -> None:
    """Write a plain tar of install.py, bundle.json and the files ``names``; errors as `write`."""

    def add(name: str, size: int, file: IO[bytes], mode: int = 0o644) -> None:
        info = tarfile.TarInfo(f"{TOP}/{name}")
        info.size, info.mtime, info.mode = size, OLDEST_TIME, mode
        tar.addfile(info, file)

    def by_kind(name: str) -> tuple[str, str, str]:
        """Order files so that those alike are near each other: that is what compresses."""
        top, _, rest = name.partition("/")
        return top, Path(name).suffix, rest

    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        manifest = json.dumps(bundle.manifest, indent=1, sort_keys=True) + "\n"
        for name, text in (("install.py", script("install")), (MANIFEST, manifest)):
            add(name, len(text.encode()), io.BytesIO(text.encode()))
        for name in sorted(names, key=by_kind):
            entry, path = bundle.manifest["files"][name], bundle.files[name]
            if sha256(path) != entry["sha256"]:
                raise ArtifactError(f"{name} has changed while it was bundled")
            with path.open("rb") as file:
                add(name, entry["size"], file, MODES[entry["executable"]])

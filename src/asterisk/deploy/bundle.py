"""A bundle: one archive with an artifact, what runs it, and an installer that needs nothing else.

::

    asterisk-bundle/
      install.py     standard library only
      bundle.json    the manifest: what this is for, and the sha256 of everything else
      site/          the package and the wheels it needs, unpacked and slimmed
      lib/           libgomp, where the engine needs it
      artifact/      as exported
      bin/           launchers
"""

from __future__ import annotations

import io
import json
import lzma
import shutil
import tarfile
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import asterisk
from asterisk.artifact import MANIFEST as ARTIFACT_MANIFEST
from asterisk.artifact import Artifact, open_artifact, sha256
from asterisk.artifact import with_artifact as opened
from asterisk.common.errors import ArtifactError, OutputError
from asterisk.common.files import replacing_file
from asterisk.deploy import launchers, libraries, openmp, project, slim, wheels
from asterisk.deploy.boards import Board
from asterisk.deploy.device import install

TOP = "asterisk-bundle"
MANIFEST = "bundle.json"
INSTALLER = "install.py"
LIMITS = {"tflite": 35_000_000, "onnx": 40_000_000, "gguf": 60_000_000}  # bytes of an archive
NOT_FOR_DEVICES = ("training", "exporters", "apps/classify", "deploy")
COMMANDS_NOT_FOR_DEVICES = (
    *("bundle", "classify", "data", "deploy", "evaluate", "export", "importing", "teacher"),
    "train",
)
_TIME = 315_532_800  # 1980, of every entry: the oldest that zip files and FAT can tell
PRESET = 6  # of xz: 9 takes 64 MB of a board to unpack and gains a percent


class Scratch:
    """A folder that is removed with this object."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="asterisk-bundle-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Bundle:
    """``manifest`` is bundle.json's contents; ``files`` maps a path in the bundle to a file here.

    Every path of ``manifest["files"]`` is in ``files``; bundle.json and install.py are in neither.
    The files are there for as long as the bundle is.
    """

    manifest: dict[str, Any]
    files: dict[str, Path]
    scratch: Scratch | None = field(default=None, repr=False)

    @property
    def installed_bytes(self) -> int:
        """Bytes of all files on the device."""
        return int(self.manifest["installed_bytes"])

    @property
    def engine(self) -> str:
        """The engine's distribution and version."""
        engines = {
            wheels.canonical(line.partition("==")[0])
            for line in project.required_by(self.manifest["format"])
        }
        packages = self.manifest["packages"].items()
        return ", ".join(f"{it} {v}" for it, v in packages if wheels.canonical(it) in engines)

    @property
    def file_name(self) -> str:
        """The archive's usual name."""
        it = self.manifest
        what = f"{it['name']}-{it['format']}-{it['recipe']}-{it['board']}-py{it['python']}"
        return f"{what}.tar.xz"


def collect(artifact: Artifact | Path, board: Board, python: str) -> Bundle:
    """Gather everything for ``board`` and its Python ("3.11" or "3.13"), wheels downloaded once.

    ArtifactError for what cannot be trusted, EngineError where the wheels cannot be had or a
    library would not run on the board.
    """
    source = open_artifact(artifact) if isinstance(artifact, Path) else artifact
    needed = wheels.requirements(source.manifest.format, source.manifest.tokenizer)
    found = wheels.wheels(needed, python)
    scratch = Scratch()
    root = scratch.folder
    held = opened(source.folder, lambda it: _copy(it, root / "artifact"))
    site = root / "site"
    packages = dict(slim.unpack(wheel, site) for wheel in found)
    _package(site)
    launchers.write(root / "bin", python, board)
    needs = libraries.needs(site)
    if openmp.SONAME in needs:
        brought = openmp.libgomp() or {}
        (root / "lib").mkdir()
        for name, path in brought.items():
            shutil.copyfile(path, root / "lib" / name)
    asked = libraries.check(root, board, python)
    files = {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
    described = {
        name: {
            "sha256": sha256(path),
            "size": path.stat().st_size,
            "executable": name.startswith("bin/"),
        }
        for name, path in files.items()
    }
    manifest: dict[str, Any] = {
        "schema": install.SCHEMA,
        "name": held.name,
        "version": asterisk.__version__,
        "board": board.name,
        "python": python,
        "machine": wheels.MACHINE,
        "glibc": ".".join(map(str, asked.glibc)),
        "page_size": asked.page_size,
        "libraries": asked.system,
        "format": held.format,
        "recipe": held.recipe,
        "threads": board.threads,
        "max_memory": board.max_memory,
        "packages": packages,
        "installed_bytes": sum(entry["size"] for entry in described.values()),
        "files": described,
    }
    manifest["id"] = install.identity(manifest)
    return Bundle(install.checked(manifest), files, scratch)


def _copy(artifact: Artifact, folder: Path) -> Any:
    shutil.rmtree(folder, ignore_errors=True)  # of an export that was replaced meanwhile
    folder.mkdir()
    for name in (ARTIFACT_MANIFEST, *artifact.manifest.files):
        shutil.copyfile(artifact.folder / name, folder / name)
    return artifact.manifest


def _package(site: Path) -> None:
    """Copy the part of this package that devices run, described as pip would have described it."""
    source = Path(asterisk.__file__).parent
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        if path.is_file() and "__pycache__" not in inner.parts and _for_devices(inner):
            target = site / "asterisk" / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    known = site / f"{project.NAME.replace('-', '_')}-{asterisk.__version__}.dist-info"
    known.mkdir()
    told = f"Metadata-Version: 2.4\nName: {project.NAME}\nVersion: {asterisk.__version__}\n"
    (known / "METADATA").write_text(told, "utf-8")
    (known / "entry_points.txt").write_text(project.entry_points(), "utf-8")
    for name, text in project.licences():
        (known / "licenses").mkdir(exist_ok=True)
        (known / "licenses" / name).write_text(text, "utf-8")


def _for_devices(inner: Path) -> bool:
    if inner.parts[0] == "cli" and inner.stem in COMMANDS_NOT_FOR_DEVICES:
        return False
    return not inner.as_posix().startswith(tuple(f"{room}/" for room in NOT_FOR_DEVICES))


def write(bundle: Bundle, target: Path, preset: int = PRESET) -> int:
    """Write the .tar.xz and return its bytes; the same bundle gives the same bytes.

    OutputError where it is over the format's limit or cannot be written; nothing is left then.
    ArtifactError where a file has changed since it was collected.
    """
    limit = LIMITS.get(bundle.manifest["format"])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise OutputError(f"cannot write {target}: {failure.strerror}") from None
    with replacing_file(target) as path:
        with lzma.open(path, "wb", preset=preset) as stream:
            write_parts(bundle, bundle.files, stream)
        size = path.stat().st_size
        if limit is not None and size > limit:
            raise OutputError(
                f"{target} would have {size / 1e6:.1f} MB, over the {limit / 1e6:.0f} MB of a "
                f"{bundle.manifest['format']} bundle"
            )
    return size


def write_parts(bundle: Bundle, names: Iterable[str], stream: IO[bytes]) -> None:
    """Write a plain tar of install.py, bundle.json and the files ``names``, under `TOP`.

    ArtifactError where a file has changed since it was collected.
    """
    described = bundle.manifest["files"]
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, INSTALLER, Path(install.__file__).read_bytes(), executable=False)
        _add(tar, MANIFEST, to_json(bundle.manifest), executable=False)
        for name in sorted(names, key=_near):
            entry = described[name]
            if sha256(bundle.files[name]) != entry["sha256"]:
                raise ArtifactError(f"{name} has changed while it was bundled")
            with bundle.files[name].open("rb") as file:
                tar.addfile(_info(name, entry["size"], executable=entry["executable"]), file)


def to_json(manifest: dict[str, Any]) -> bytes:
    """Return a bundle.json's text, the same for the same contents."""
    return json.dumps(manifest, indent=1, sort_keys=True).encode("utf-8") + b"\n"


def _near(name: str) -> tuple[str, str, str]:
    """Order files so that those alike are near each other: that is what compresses."""
    top, _, rest = name.partition("/")
    return top, Path(name).suffix, rest


def _info(name: str, size: int, *, executable: bool) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"{TOP}/{name}")
    info.size, info.mtime = size, _TIME
    info.mode = 0o755 if executable else 0o644
    return info


def _add(tar: tarfile.TarFile, name: str, data: bytes, *, executable: bool) -> None:
    tar.addfile(_info(name, len(data), executable=executable), io.BytesIO(data))

"""What an export leaves behind: a folder that can be copied, run and verified anywhere.

::

    artifact.json    the manifest: what this is, and the sha256 of everything else
    tokenizer.bin    the tokenizer's table
    golden.json      texts ...
    golden.npy       ... and their FP32 vectors, float32 [n, d], L2-normalised
    model.*          what the engine reads
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from asterisk.digest import sha256 as digest_sha256
from asterisk.errors import ArtifactError, AsteriskError
from asterisk.model.config import ModelConfig

MANIFEST = "artifact.json"
TOKENIZER = "tokenizer.bin"
GOLDEN_TEXTS = "golden.json"
GOLDEN_VECTORS = "golden.npy"
SCHEMA = 1
LARGEST_MANIFEST = 1 << 20
LARGEST_FILE = 2 << 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LEAST_COSINE = 0.8  # of any recipe: a manifest that asks for less would have nothing verified
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ATTEMPTS = 5
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How far a recipe may stray from FP32: cosine mean and minimum, overlap@10."""

    cosine_mean: float
    cosine_min: float
    overlap_at_10: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of ``artifact.json``.

    ``entry`` is the file that the engine opens; ``files`` maps every other file of the folder to
    its sha256; ``fingerprint`` names the checkpoint's embedding space and ``compatible_with`` the
    spaces whose vectors these may be compared with, a promise that the benchmark's interchange
    table is held against; ``fidelity`` holds the gate's figures.
    """

    format: str
    recipe: str
    name: str
    entry: str
    model: ModelConfig
    fingerprint: str
    compatible_with: tuple[str, ...]
    files: Mapping[str, str]
    thresholds: Thresholds
    fidelity: Mapping[str, float]
    versions: Mapping[str, str]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the manifest's text, the same for the same contents."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True)
class Artifact:
    """An opened artifact: its folder and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self.manifest.model

    @property
    def entry(self) -> Path:
        """The file that the engine opens."""
        return self.folder / self.manifest.entry

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's table."""
        return self.folder / TOKENIZER

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.folder / name).stat().st_size for name in (MANIFEST, *self.manifest.files))


def is_artifact(folder: Path) -> bool:
    """Tell whether ``folder`` looks like an artifact."""
    return (folder / MANIFEST).is_file()


def open_artifact(folder: Path) -> Artifact:
    """Read and check ``folder`` before any engine sees it.

    ArtifactError unless the manifest is of a known schema, names only plain files inside the
    folder, and every file is there, is no link and has the recorded sha256.
    """
    return opened(folder, lambda artifact: artifact)


def opened(folder: Path, use: Callable[[Artifact], _T]) -> _T:
    """Return ``use(artifact)`` of the artifact in ``folder``, all of it of one and the same export.

    An export replaces the folder as a whole: whoever reads it file by file may see the old one
    first and the new one then. If that happened, everything is done again. ArtifactError as for
    `open_artifact`.
    """
    for _ in range(_ATTEMPTS):
        before = _identity(folder)
        try:
            result = use(_open(folder))
        except AsteriskError:
            if _identity(folder) == before:
                raise
        else:
            if _identity(folder) == before:
                return result
    raise ArtifactError(f"{folder} is replaced again and again while it is read")


def _identity(folder: Path) -> tuple[int, int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    # The time too: a removed folder's number is given to the next one.
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _open(folder: Path) -> Artifact:
    manifest = _manifest(folder / MANIFEST)
    for name, expected in manifest.files.items():
        if sha256(_plain(folder, name)) != expected:
            raise ArtifactError(f"{folder / name} is not the file that was exported (sha256)")
    return Artifact(folder, manifest)


def is_plain_name(name: str) -> bool:
    """Tell whether ``name`` may name an artifact or a file in it."""
    return _NAME.fullmatch(name) is not None


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file, reading it piece by piece."""
    digest = digest_sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 16):
            digest.update(block)
    found: str = digest.hexdigest()
    return found


def _plain(folder: Path, name: str) -> Path:
    path = folder / name
    try:
        status = path.lstat()
    except OSError:
        raise ArtifactError(f"{path} is missing") from None
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
        raise ArtifactError(f"{path} is not a plain file of at most {LARGEST_FILE >> 30} GiB")
    return path


def _manifest(path: Path) -> Manifest:
    if not path.exists():
        raise ArtifactError(f"{path.parent} is not an artifact: it has no {MANIFEST}")
    _plain(path.parent, path.name)
    if path.stat().st_size > LARGEST_MANIFEST:
        raise ArtifactError(f"{path} is too large to be a manifest")
    try:
        values = json.loads(
            path.read_bytes(), object_pairs_hook=_unambiguous, parse_constant=_no_number
        )
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path} is not JSON") from None
    try:
        return _parse(values)
    except ArtifactError as failure:
        raise ArtifactError(f"{path}: {failure}") from None


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):  # readers differ in which one they believe
        raise ValueError("a name that stands twice")
    return values


def _no_number(name: str) -> None:
    raise ValueError(name)


def _parse(values: Any) -> Manifest:
    if not isinstance(values, dict) or type(values.get("schema")) is not int:
        raise ArtifactError("not a manifest")
    if values["schema"] != SCHEMA:
        raise ArtifactError(
            f"manifest schema {values['schema']}, this version reads {SCHEMA}: "
            "install a newer asterisk-edge or export again"
        )
    expected = {field.name for field in fields(Manifest)}
    if set(values) != expected:
        raise ArtifactError(f"wrong field {min(expected ^ set(values))!r}")
    for name in ("format", "recipe", "name", "entry", "fingerprint"):
        if not isinstance(values[name], str) or not _NAME.fullmatch(values[name]):
            raise ArtifactError(f"{name} is not a plain name")
    files = _mapping(values, "files", str)
    for name, digest in files.items():
        if not _NAME.fullmatch(name) or name == MANIFEST:
            raise ArtifactError(f"file name {name[:100]!r} leaves the folder")
        if not _SHA256.fullmatch(digest):
            raise ArtifactError(f"no sha256 for {name}")
    needed = {values["entry"], TOKENIZER, GOLDEN_TEXTS, GOLDEN_VECTORS}
    if not needed <= set(files):
        raise ArtifactError(f"no hash for {min(needed - set(files))}")
    spaces = values["compatible_with"]
    if not isinstance(spaces, list) or not all(isinstance(space, str) for space in spaces):
        raise ArtifactError("compatible_with is not a list of fingerprints")
    limits = _mapping(values, "thresholds", (int, float))
    if set(limits) != {field.name for field in fields(Thresholds)}:
        raise ArtifactError("wrong thresholds")
    if not all(0 <= limit <= 1 for limit in limits.values()) or limits["cosine_min"] < LEAST_COSINE:
        raise ArtifactError("thresholds under which anything would pass")
    return Manifest(
        **{name: values[name] for name in ("format", "recipe", "name", "entry", "fingerprint")},
        model=ModelConfig.from_dict(values["model"]),
        compatible_with=tuple(spaces),
        files=files,
        thresholds=Thresholds(**limits),
        fidelity=_mapping(values, "fidelity", (int, float)),
        versions=_mapping(values, "versions", str),
    )


def _mapping(values: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> dict[str, Any]:
    mapping = values[name]
    if not isinstance(mapping, dict) or not all(
        isinstance(v, kind) and not isinstance(v, bool) for v in mapping.values()
    ):
        raise ArtifactError(f"{name} is malformed")
    return mapping

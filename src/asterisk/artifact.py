"""What an export leaves behind: a folder that can be copied, run and verified anywhere.

::

    artifact.json    the manifest: what this is, and the sha256 of everything else
    tokenizer.bin    the tokenizer's table, or tokenizer.json where a library reads it
    golden.json      texts ...
    golden.npy       ... and their FP32 vectors, float32 [n, d], L2-normalised
    model.*          what the engine reads

A fingerprint names an embedding space. A model lists in ``compatible_with`` the spaces whose
vectors may be compared with its own: a student distilled as LEAF does it (arXiv 2509.12539) lists
its teacher's, so that the teacher can embed the documents and the student the queries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from asterisk.common.digest import sha256 as digest_sha256
from asterisk.common.errors import ArtifactError, AsteriskError
from asterisk.common.files import LARGEST_FILE, has_file, read_json, regular_file
from asterisk.model.config import FINGERPRINT, ModelConfig

MANIFEST = "artifact.json"
TOKENIZERS = ("tokenizer.bin", "tokenizer.json")
GOLDEN_TEXTS = "golden.json"
GOLDEN_VECTORS = "golden.npy"
SCHEMA = 2
LARGEST_MANIFEST = 1 << 20
LEAST_COSINE = 0.8  # of any recipe: a manifest that asks for less would have nothing verified
MOST_PROMPTS = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN_NAMES = ("format", "recipe", "name", "entry", "tokenizer", "fingerprint")
_TEXTS_OR_NONE = ("default_prompt_name", "similarity", "source")
_MAPPINGS = {  # and the types of their values
    **dict.fromkeys(("prompts", "files", "versions"), (str,)),
    **dict.fromkeys(("thresholds", "fidelity"), (int, float)),
}
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
    """The contents of ``artifact.json``."""

    format: str
    recipe: str
    name: str
    entry: str  # the file that the engine opens
    tokenizer: str  # the tokenizer's file
    model: ModelConfig
    fingerprint: str
    compatible_with: tuple[str, ...]  # a promise that the benchmark's interchange table checks
    prompts: Mapping[str, str]  # by name; one goes before a text
    default_prompt_name: str | None
    similarity: str | None  # the function that the model's folder asks for
    source: str | None  # where the checkpoint came from, if that was a hub
    files: Mapping[str, str]  # the sha256 of every other file of the folder
    thresholds: Thresholds
    fidelity: Mapping[str, float]  # the gate's figures
    versions: Mapping[str, str]
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Return the manifest's text, the same for the same contents."""
        values = {**asdict(self), "model": self.model.to_dict()}
        return json.dumps(values, indent=2, sort_keys=True) + "\n"


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
        """The tokenizer's file."""
        return self.folder / self.manifest.tokenizer

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.folder / name).stat().st_size for name in (MANIFEST, *self.manifest.files))


def is_artifact(folder: Path) -> bool:
    """Tell whether ``folder`` looks like an artifact."""
    return (folder / MANIFEST).is_file()


def is_plain_name(name: str) -> bool:
    """Tell whether ``name`` may name an artifact or a file in it."""
    return _NAME.fullmatch(name) is not None


def open_artifact(folder: Path) -> Artifact:
    """Read and check ``folder`` before any engine sees it.

    ArtifactError unless the manifest is of a known schema, names only plain files inside the folder
    (for links see `asterisk.common.files`), and every file is there and has the recorded sha256.
    """
    return with_artifact(folder, lambda artifact: artifact)


def with_artifact(folder: Path, use: Callable[[Artifact], _T]) -> _T:
    """Return ``use(artifact)`` of the artifact in ``folder``, checked as by `open_artifact`.

    If another export replaced it meanwhile, ``use`` is called again.
    """
    for _ in range(_ATTEMPTS):
        before = _identity(folder)
        try:
            manifest = _read_manifest(folder)
            for name, expected in manifest.files.items():
                if sha256(regular_file(folder, name, LARGEST_FILE)) != expected:
                    reason = "is not the file that was exported (sha256)"
                    raise ArtifactError(f"{folder / name} {reason}")
            result = use(Artifact(folder, manifest))
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


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    digest = digest_sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 16):
            digest.update(block)
    found: str = digest.hexdigest()
    return found


def _read_manifest(folder: Path) -> Manifest:
    if not has_file(folder, MANIFEST):
        raise ArtifactError(f"{folder} is not an artifact: it has no {MANIFEST}")
    values = read_json(folder, MANIFEST, LARGEST_MANIFEST)
    try:
        return _parse(values)
    except ArtifactError as failure:
        raise ArtifactError(f"{folder / MANIFEST}: {failure}") from None


def _parse(values: Any) -> Manifest:
    if not isinstance(values, dict) or type(values.get("schema")) is not int:
        raise ArtifactError("not a manifest")
    if values["schema"] != SCHEMA:
        found = f"manifest schema {values['schema']}, this version reads {SCHEMA}"
        raise ArtifactError(f"{found}: install a newer asterisk-edge or export again")
    expected = {field.name for field in fields(Manifest)}
    if set(values) != expected:
        raise ArtifactError(f"wrong field {min(expected ^ set(values))!r}")
    for name in _PLAIN_NAMES:
        if not isinstance(values[name], str) or not is_plain_name(values[name]):
            raise ArtifactError(f"{name} is not a plain name")
    for name in _TEXTS_OR_NONE:
        if not isinstance(values[name], str | None):
            raise ArtifactError(f"{name} is not a text")
    for name, kinds in _MAPPINGS.items():
        mapping = values[name]
        if not isinstance(mapping, dict) or any(type(it) not in kinds for it in mapping.values()):
            raise ArtifactError(f"{name} is malformed")
    spaces = values["compatible_with"]
    if not isinstance(spaces, list) or not all(isinstance(space, str) for space in spaces):
        raise ArtifactError("compatible_with is not a list of fingerprints")
    _check_contents(values)
    model = ModelConfig.from_dict(values["model"])
    limits = Thresholds(**values["thresholds"])
    changed = {"model": model, "compatible_with": tuple(spaces), "thresholds": limits}
    return Manifest(**{**values, **changed})


def _check_contents(values: dict[str, Any]) -> None:
    if values["tokenizer"] not in TOKENIZERS:
        raise ArtifactError(f"tokenizer is none of {', '.join(TOKENIZERS)}")
    files, prompts, limits = values["files"], values["prompts"], values["thresholds"]
    for name, digest in files.items():
        if not is_plain_name(name) or name == MANIFEST:
            raise ArtifactError(f"file name {name[:100]!r} leaves the folder")
        if not _SHA256.fullmatch(digest):
            raise ArtifactError(f"no sha256 for {name}")
    needed = {values["entry"], values["tokenizer"], GOLDEN_TEXTS, GOLDEN_VECTORS}
    if not needed <= set(files):
        raise ArtifactError(f"no hash for {min(needed - set(files))}")
    if len(prompts) > MOST_PROMPTS:
        raise ArtifactError(f"{len(prompts)} prompts; {MOST_PROMPTS} are the most")
    if values["default_prompt_name"] not in (None, *prompts):
        raise ArtifactError("default_prompt_name is no prompt")
    if set(limits) != {field.name for field in fields(Thresholds)}:
        raise ArtifactError("wrong thresholds")
    if not all(0 <= limit <= 1 for limit in limits.values()) or limits["cosine_min"] < LEAST_COSINE:
        raise ArtifactError("thresholds under which anything would pass")


class InSpace(Protocol):
    """A runtime, a checkpoint, a manifest or an index's settings."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def compatible_with(self) -> tuple[str, ...]: ...  # noqa: D102


def spaces(model: InSpace) -> tuple[str, ...]:
    """Return the fingerprints of ``model``'s spaces, its own first, each once."""
    return tuple(dict.fromkeys((model.fingerprint, *model.compatible_with)))


def share_space(one: Iterable[str], other: Iterable[str]) -> bool:
    """Tell whether two models' vectors may be compared: their `spaces` have a member in common."""
    return not set(one).isdisjoint(other)


def read_spaces(model: str) -> tuple[tuple[str, ...], int | None]:
    """Return the spaces of an artifact or a checkpoint folder, and the size of its vectors.

    Of a fingerprint no size is known. ArtifactError for anything else.
    """
    folder = Path(model)
    if FINGERPRINT.fullmatch(model) and not folder.exists():
        return (model,), None
    if is_artifact(folder):
        manifest = open_artifact(folder).manifest
        return spaces(manifest), manifest.model.embedding_size
    from asterisk.model.checkpoint import is_checkpoint, load

    if not folder.is_dir() or not is_checkpoint(folder):
        kinds = "no artifact, no checkpoint and no fingerprint of 64 hexadecimal digits"
        raise ArtifactError(f"{model[:200]} is {kinds}")
    checkpoint = load(folder)
    return spaces(checkpoint), checkpoint.config.embedding_size

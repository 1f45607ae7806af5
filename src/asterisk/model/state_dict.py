"""The tensors of a file that `torch.save` wrote, without running what else may be in it.

Such a file is a zip archive of a pickle and of the tensors' bytes. The pickle is read by PyTorch's
``weights_only`` unpickler, which calls nothing but what makes tensors; the bytes are mapped, so
that a tensor which claims more of them than there are cannot be made.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError
from asterisk.common.files import LARGEST_FILE
from asterisk.common.plugins import require

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float32]
WRAPPERS = ("state_dict", "model_state_dict", "model")
# What DataParallel and torch.compile put before the names of the module that they wrap.
WRAPPING = frozenset({"module", "_orig_mod"})


def read_state_dict(path: Path) -> dict[str, Array]:
    """Return the tensors of the state dict in ``path``, float32, by name.

    It is the whole file, or stands under one of `WRAPPERS` among other things. Tensors of whole
    numbers, such as ``position_ids``, are left out. ArtifactError for any other file, MissingExtra
    without PyTorch.
    """
    _check_archive(path)
    torch = require("torch", "torch")
    found = _unwrapped(_load(torch, path), path)
    named: dict[str, Tensor] = {}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ArtifactError(f"{path}: {ascii(name)[:100]} in its state dict is no named tensor")
        plain = ".".join(part for part in name.split(".") if part not in WRAPPING)
        if plain in named:
            raise ArtifactError(f"{path}: tensor {ascii(plain)[:100]} stands twice")
        named[plain] = value
    _check_size(path, named)
    whole = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}
    return {
        name: _array(path, name, value) for name, value in named.items() if value.dtype not in whole
    }


def _check_archive(path: Path) -> None:
    """Refuse what is no plain, whole archive of bounded contents, before PyTorch sees it."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
            raise ArtifactError(f"{path} is not a plain file of at most {LARGEST_FILE >> 30} GiB")
        with zipfile.ZipFile(path) as archive:
            wrong = _wrong_with(archive, status.st_size)
    except ArtifactError:
        raise
    except OSError as failure:
        raise ArtifactError(f"cannot read {path}: {failure.strerror or failure}") from None
    except Exception:  # BadZipFile, and what damaged entries raise
        wrong = "not a file that torch.save wrote"
    if wrong:
        raise ArtifactError(f"{path} is {wrong}")


def _wrong_with(archive: zipfile.ZipFile, size: int) -> str:
    entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        return "a TorchScript program, not a state dict"
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > size:
        return "not a file that torch.save wrote: it is compressed"
    damaged = archive.testzip()  # PyTorch itself does not look at the checksums
    return "" if damaged is None else f"damaged: {ascii(damaged)[:100]} has another checksum"


def _load(torch: Any, path: Path) -> object:
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if not foreign:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # a damaged pickle raises what it likes
        raise ArtifactError(f"{path} is not a file that torch.save wrote, or damaged") from None
    told = ascii(", ".join(sorted(foreign)))[1:100].rstrip("'")
    raise ArtifactError(
        f"{path} holds more than tensors ({told}) and is not opened: "
        "where it is trusted, torch.save(model.state_dict(), ...) makes one that can be"
    )


def _unwrapped(found: object, path: Path) -> Mapping[Any, Any]:
    if isinstance(found, Mapping):
        inside = [name for name in WRAPPERS if isinstance(found.get(name), Mapping)]
        if len(inside) > 1:
            raise ArtifactError(f"{path} holds several state dicts: {', '.join(inside)}")
        found = found[inside[0]] if inside else found
    if not isinstance(found, Mapping) or not found:
        raise ArtifactError(f"{path} holds no state dict, alone or as {', '.join(WRAPPERS)}")
    return found


def _check_size(path: Path, named: Mapping[str, Tensor]) -> None:
    # A view may repeat a few bytes without end; copied, it would fill the memory.
    claimed = sum(value.numel() * value.element_size() for value in named.values())
    if claimed > path.stat().st_size:
        raise ArtifactError(f"{path}: its tensors are larger than the file")


def _array(path: Path, name: str, value: Tensor) -> Array:
    if not value.is_floating_point() or value.is_quantized or value.device.type != "cpu":
        raise ArtifactError(f"{path}: tensor {ascii(name)[:100]} is no array of floats")
    try:
        # Copied: the file may change or go.
        return np.array(value.detach().float().numpy(), np.float32)
    except Exception:  # sparse, nested and other layouts
        raise ArtifactError(f"{path}: tensor {ascii(name)[:100]} is no array of floats") from None

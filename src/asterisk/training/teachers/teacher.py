"""The teacher: a sentence-transformers or Hugging Face encoder, seen token by token."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, one_line
from asterisk.common.plugins import require
from asterisk.model.hub import PACKAGED, packaged
from asterisk.training.teachers.manner import Manner, manner

LONGEST = 512
AT_ONCE = 256
Array = npt.NDArray[np.float32]


def find(name: str) -> Path:
    """Return the folder of a teacher: a path, or the name of one that a package carries."""
    if name in PACKAGED:
        return packaged(name, "train")
    if not any((Path(name) / file).is_file() for file in ("config.json", "modules.json")):
        raise ArtifactError(f"{name} is neither a model folder nor one of: {', '.join(PACKAGED)}")
    return Path(name)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the teacher made of one text of T word pieces.

    ``sentence`` float32 [D], L2-normalised; ``states`` float32 [T, D], the last hidden states;
    ``ids`` int64 [T], the pieces; ``spans`` int64 [T, 2], each piece's characters, empty for
    special tokens.
    """

    sentence: Array
    states: Array
    ids: npt.NDArray[np.int64]
    spans: npt.NDArray[np.int64]


class _Encoder(Protocol):
    size: int

    def states(self, texts: Sequence[npt.NDArray[np.int64]]) -> list[Array]: ...


class Teacher:
    """An encoder with mean or CLS pooling, whose every token state is seen.

    ``engine`` "int8" is ONNX Runtime, for BERT itself; "bf16" is PyTorch in bfloat16; "torch" the
    same, in float32 on a CPU; None is the first that can. ``longest`` is how many word pieces are
    read, as far as the model's positions reach; None is what its makers say. ArtifactError for a
    folder that is no such model.
    """

    def __init__(
        self,
        folder: Path,
        *,
        engine: str | None = None,
        longest: int | None = LONGEST,
        threads: int = 1,
    ) -> None:
        told = manner(folder)
        self._manner, self._folder = told, folder
        self.pooling = told.pooling
        wanted = longest or told.own_length or LONGEST
        self.longest = min(wanted, told.positions or wanted)
        self.tokenizer = _tokenizer(told, self.longest)
        self.uncased = told.lowercase or _is_uncased(told.model)
        self.engine, self._encoder = _encoder(told, engine, threads)
        self.size = self._encoder.size

    @property
    def identity(self) -> dict[str, Any]:
        """What its vectors depend on, as JSON."""
        return {
            "kind": "model",
            "sha256": _digest(self._manner, self._folder),
            "engine": self.engine,
            "pooling": self.pooling,
            "longest": self.longest,
        }

    def look(self, texts: Sequence[str]) -> list[Seen]:
        """Read every text; what is beyond the longest is not seen."""
        encoded = [self.tokenizer.encode(text) for text in texts]
        states = self._encoder.states([np.array(one.ids, "i8") for one in encoded])
        return [self._seen(one, some) for one, some in zip(encoded, states, strict=True)]

    def sentences(self, start: int, texts: Sequence[str]) -> Array:  # noqa: ARG002
        """Return the sentence vectors of texts, float32 [n, size], L2-normalised."""
        # Token states take up to a megabyte a text: a few texts at a time.
        parts = (texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE))
        return np.stack([seen.sentence for part in parts for seen in self.look(part)])

    def _seen(self, encoded: Any, states: Array) -> Seen:
        whole = states.mean(0) if self.pooling == "mean" else states[0]
        unit = whole / max(float(np.linalg.norm(whole)), 1e-12)
        return Seen(unit, states, np.array(encoded.ids, "i8"), np.array(encoded.offsets))


def _encoder(told: Manner, engine: str | None, threads: int) -> tuple[str, _Encoder]:
    from asterisk.training.teachers import bert_int8, bert_torch

    if engine == "bf16":
        return "bf16", bert_torch.TorchEncoder(told.model, half=True)
    if engine != "torch" and bert_int8.is_readable(told.model, told.config):
        try:
            return "int8", bert_int8.Int8Bert(told.model, told.config, threads)
        except (KeyError, ValueError, OSError, RuntimeError) as failure:
            raise ArtifactError(f"cannot open {told.model}: {one_line(failure)}") from None
    if engine == "int8":
        raise ArtifactError(
            f"{told.model} is not BERT in one model.safetensors: use --engine torch"
        )
    return "torch", bert_torch.TorchEncoder(told.model)


def _tokenizer(told: Manner, longest: int) -> Any:
    tokenizers = require("tokenizers", "train")
    path = told.model / "tokenizer.json"
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as failure:  # the library raises Exception itself
        raise ArtifactError(f"cannot read {path}: {one_line(failure)}") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    if told.lowercase:
        steps = [tokenizers.normalizers.Lowercase(), tokenizer.normalizer]
        tokenizer.normalizer = tokenizers.normalizers.Sequence([step for step in steps if step])
    return tokenizer


def _is_uncased(folder: Path) -> bool:
    """Tell whether the teacher cannot see case."""
    told = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    normalizer = told.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    return any(step.get("lowercase") or step.get("type") == "Lowercase" for step in steps)


def _digest(told: Manner, folder: Path) -> str:
    """Return the SHA-256 of the files that a model's vectors depend on."""
    kinds = ("*.json", "*.safetensors", "*.bin", "*/config.json")
    found = {path for root in (folder, told.model) for kind in kinds for path in root.glob(kind)}
    whole = hashlib.sha256()
    for path in sorted(found):
        with path.open("rb") as file:
            part = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder)} {part}\n".encode())
    return whole.hexdigest()

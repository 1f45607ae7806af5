"""Teachers that are encoders, seen token by token, and what any teacher must answer.

An `EncoderTeacher` is a sentence-transformers or Hugging Face folder of any architecture, for
students with tokens of their own. A `CheckpointTeacher` is of BERT's family, for students that
share its tokenizer: student token i is asked for the teacher's state at token i.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, UsageError, one_line
from asterisk.common.files import read_object
from asterisk.common.plugins import require
from asterisk.model.checkpoint import load
from asterisk.model.hub import PACKAGED, packaged
from asterisk.model.modules import read_modules
from asterisk.training.teachers.encoders import Int8Bert, TorchEncoder, padded

LONGEST = 512
AT_ONCE = 256  # texts that a teacher is shown together
POOLINGS = ("mean", "cls")
NO_LENGTH = 1 << 20  # a tokenizer's configuration that means "any" has a larger number
ROBERTA_LIKE = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer")
Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class Teacher(Protocol):
    """Sentence vectors of ``size`` dimensions for the texts of one part of a corpus."""

    @property
    def size(self) -> int:
        """How many dimensions there are."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the vectors depend on, as JSON."""

    def sentences(self, start: int, texts: Sequence[str]) -> Array:
        """Return float32 [n, size], L2-normalised, for n texts, the first of them at ``start``."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A teacher's output for one text of T tokens.

    ``sentence`` float32 [D], L2-normalised; ``states`` float32 [T, D], the last hidden states;
    ``ids`` int64 [T]; ``spans`` int64 [T, 2], each token's characters, empty for special tokens.
    """

    sentence: Array
    states: Array
    ids: Indices
    spans: Indices


class TokenTeacher(ABC):
    """A teacher that shows its token states."""

    size: int
    uncased = False

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What its vectors depend on, as JSON."""

    @abstractmethod
    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Read every text as far as the teacher's longest allows."""

    def sentences(self, start: int, texts: Sequence[str]) -> Array:  # noqa: ARG002
        """Return the sentence vectors of texts, float32 [n, size], L2-normalised."""
        # Token states take up to a megabyte a text: a few texts at a time.
        parts = (texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE))
        return np.stack([reading.sentence for part in parts for reading in self.read(part)])


def find(name: str) -> Path:
    """Return the folder of a teacher: a path, or the name of one that a package carries."""
    if name in PACKAGED:
        return packaged(name, "train")
    if not any((Path(name) / file).is_file() for file in ("config.json", "modules.json")):
        raise ArtifactError(f"{name} is neither a model folder nor one of: {', '.join(PACKAGED)}")
    return Path(name)


class EncoderTeacher(TokenTeacher):
    """An encoder with mean or CLS pooling that shows every token state.

    ``engine`` "int8" is ONNX Runtime, for BERT itself; "bf16" is PyTorch in bfloat16; "torch" the
    same, in float32 on a CPU; None is the first that can. ``longest`` is how many word pieces are
    read, as far as the model's positions reach; None is what its makers say. ArtifactError for a
    folder that is no such model. Vectors are normalised whether or not the folder asks for it: a
    student is asked for directions.
    """

    def __init__(
        self,
        folder: Path,
        *,
        engine: str | None = None,
        longest: int | None = LONGEST,
        threads: int = 1,
    ) -> None:
        modules = read_modules(folder)
        problem = ""
        if modules.pooling not in POOLINGS:
            problem = f": pooling {modules.pooling!r} is none of: {', '.join(POOLINGS)}; "
        elif modules.dense:
            problem = " has a module Dense, which token states do not pass: "
        elif modules.default_prompt_name and modules.prompts.get(modules.default_prompt_name):
            problem = " puts a prompt before every text, which is not supported: "
        if problem:
            advice = "embed the corpus with it and give the vectors as .npy"
            raise ArtifactError(f"{folder}{problem}{advice}")
        self._folder, self._model = folder, modules.transformer
        self.pooling = modules.pooling
        config = read_object(self._model, "config.json")
        if not config:
            raise ArtifactError(f"{self._model / 'config.json'} is missing or empty")
        tokenizer_config = read_object(self._model, "tokenizer_config.json")
        own = modules.max_seq_length or tokenizer_config.get("model_max_length")
        length = longest or (own if isinstance(own, int) and 0 < own < NO_LENGTH else LONGEST)
        positions = config.get("max_position_embeddings")
        if isinstance(positions, int) and config.get("model_type") in ROBERTA_LIKE:
            positions -= 1 + int(config.get("pad_token_id") or 0)  # they start behind padding
        if isinstance(positions, int) and positions > 0:
            length = min(length, positions)
        self.longest = length
        self._tokenizer = self._open_tokenizer(lowercase=modules.lowercase)
        tokenizer = json.loads((self._model / "tokenizer.json").read_text("utf-8"))
        normalizer = tokenizer.get("normalizer") or {}
        steps = normalizer.get("normalizers", [normalizer])
        lowercases = any(step.get("lowercase") or step.get("type") == "Lowercase" for step in steps)
        self.uncased = modules.lowercase or lowercases
        self.engine, self._encoder = self._open_encoder(config, engine, threads)
        self.size = self._encoder.size

    def _open_tokenizer(self, *, lowercase: bool) -> Any:
        tokenizers, path = require("tokenizers", "train"), self._model / "tokenizer.json"
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as failure:  # the library raises Exception itself
            raise ArtifactError(f"cannot read {path}: {one_line(failure)}") from None
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.longest)
        if lowercase:
            steps = [tokenizers.normalizers.Lowercase(), tokenizer.normalizer]
            tokenizer.normalizer = tokenizers.normalizers.Sequence([step for step in steps if step])
        return tokenizer

    def _open_encoder(
        self, config: dict[str, Any], engine: str | None, threads: int
    ) -> tuple[str, Int8Bert | TorchEncoder]:
        model = self._model
        if engine == "bf16":
            return "bf16", TorchEncoder(model, half=True)
        if engine != "torch" and Int8Bert.can_read(model, config):
            try:
                return "int8", Int8Bert(model, config, threads)
            except (KeyError, ValueError, OSError, RuntimeError) as failure:
                raise ArtifactError(f"cannot open {model}: {one_line(failure)}") from None
        if engine == "int8":
            raise ArtifactError(f"{model} is not BERT in one model.safetensors: use --engine torch")
        return "torch", TorchEncoder(model)

    @property
    def identity(self) -> dict[str, Any]:
        """The files and settings that its vectors depend on."""
        kinds = ("*.json", "*.safetensors", "*.bin", "*/config.json")
        roots = (self._folder, self._model)
        whole = hashlib.sha256()
        for path in sorted({path for root in roots for kind in kinds for path in root.glob(kind)}):
            with path.open("rb") as file:
                part = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.relative_to(self._folder)} {part}\n".encode())
        return {
            "kind": "model",
            "sha256": whole.hexdigest(),
            "engine": self.engine,
            "pooling": self.pooling,
            "longest": self.longest,
        }

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Read every text as far as the longest allows."""
        encoded = [self._tokenizer.encode(text) for text in texts]
        ids = [np.array(one.ids, "i8") for one in encoded]
        readings = []
        for one, pieces, states in zip(encoded, ids, self._encoder.states(ids), strict=True):
            pooled = states.mean(0) if self.pooling == "mean" else states[0]
            unit = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
            readings.append(Reading(unit, states, pieces, np.array(one.offsets)))
        return readings


class CheckpointTeacher(TokenTeacher):
    """A checkpoint folder, seen in its own tokens, special ones included, by PyTorch.

    Texts are cut to ``longest`` tokens, or the checkpoint's own length if that is less.
    ``engine`` is "bf16" or "torch", float32. ArtifactError for a folder that is no checkpoint or
    puts a prompt before every text.
    """

    def __init__(self, folder: Path, *, engine: str | None = None, longest: int = LONGEST) -> None:
        if engine == "int8":
            raise UsageError("--engine int8 is for students with GPT-2's tokenizer")
        import torch

        from asterisk.model.encoder import of_checkpoint

        self.engine = engine or "bf16"
        self.checkpoint = load(folder)
        config = self.checkpoint.config
        if self.checkpoint.prompts.get(self.checkpoint.default_prompt_name or ""):
            raise ArtifactError(f"{folder} puts a prompt before every text, which is not supported")
        self.size = config.embedding_size
        self.longest = min(longest, config.max_seq_length)
        self._tokenizer = self.checkpoint.tokenizer.open()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = torch.bfloat16 if self.engine == "bf16" else torch.float32
        self._model = of_checkpoint(self.checkpoint).eval().to(self._device, self._dtype)

    @property
    def identity(self) -> dict[str, Any]:
        """The weights and settings that its vectors depend on."""
        return {
            "kind": "checkpoint",
            "fingerprint": self.checkpoint.fingerprint,
            "tokenizer": self.checkpoint.tokenizer.identity(),
            "engine": self.engine,
            "longest": self.longest,
        }

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Read every text as far as the longest allows."""
        import torch

        from asterisk.model.encoder import pool

        tokenizer, model = self._tokenizer, self._model
        length = self.longest - self.checkpoint.tokenizer.specials
        encoded = (tokenizer.with_special_tokens(tokenizer.encode(text, length)) for text in texts)
        ids = [np.array(one, "i8") for one in encoded]
        readings: dict[int, Reading] = {}
        for indices, rows, is_token in padded(ids, self._device.type):
            mask = torch.from_numpy(is_token).to(self._device)
            with torch.inference_mode():
                states = model.tokens(torch.from_numpy(rows).to(self._device), mask).float()
                pooled = pool(states, mask, self.checkpoint.config.pooling)
                if model.dense:
                    pooled = model.project(pooled.to(self._dtype)).float()
                sentences = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
                shown: Array = states.cpu().numpy()
            for row, index in enumerate(indices):
                own, no_spans = ids[index], np.empty((0, 2), "i8")
                readings[index] = Reading(sentences[row], shown[row, : len(own)], own, no_spans)
        return [readings[index] for index in range(len(texts))]

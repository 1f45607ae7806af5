"""Teachers that are encoders, seen token by token, and what any teacher must answer.

An `EncoderTeacher` is a sentence-transformers or Hugging Face folder of any architecture, for
students with tokens of their own. A `CheckpointTeacher` is of BERT's family, for students that
share its tokenizer: student token i is asked for the teacher's state at token i.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, UsageError, one_line
from asterisk.common.folders import read_object
from asterisk.common.plugins import require
from asterisk.model.checkpoint import load
from asterisk.model.hub import PACKAGED, packaged
from asterisk.model.modules import read_modules
from asterisk.training.teachers.encoders import Int8Bert, StatesEncoder, TorchEncoder, padded

LONGEST = 512
AT_ONCE = 256
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


@runtime_checkable
class TokenTeacher(Protocol):
    """A teacher that shows its token states."""

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Read every text."""


def find(name: str) -> Path:
    """Return the folder of a teacher: a path, or the name of one that a package carries."""
    if name in PACKAGED:
        return packaged(name, "train")
    if not any((Path(name) / file).is_file() for file in ("config.json", "modules.json")):
        raise ArtifactError(f"{name} is neither a model folder nor one of: {', '.join(PACKAGED)}")
    return Path(name)


@dataclass(frozen=True, slots=True)
class PoolingConfig:
    """How a model folder wants its model used.

    ``pooling`` is "mean" or "cls"; ``own_length`` the word pieces that its makers read, None if
    they did not say; ``positions`` how many there can be, None if any number; ``lowercase``,
    whether texts are lower-cased before its tokenizer sees them.
    """

    model: Path
    config: dict[str, Any]
    pooling: str = "mean"
    own_length: int | None = None
    positions: int | None = None
    lowercase: bool = False

    @classmethod
    def read(cls, folder: Path) -> PoolingConfig:
        """Read ``modules.json`` and what it names; a plain folder is pooled by the mean.

        Vectors are normalised whether or not the folder asks for it: a student is asked for
        directions. ArtifactError for what a token-by-token teacher cannot be.
        """
        modules = read_modules(folder)
        advice = "embed the corpus with it and give the vectors as .npy"
        if modules.pooling not in POOLINGS:
            problem = f"pooling {modules.pooling!r} is none of: {', '.join(POOLINGS)}"
            raise ArtifactError(f"{folder}: {problem}; {advice}")
        if modules.dense:
            problem = "has a module Dense, which token states do not pass"
            raise ArtifactError(f"{folder} {problem}: {advice}")
        if modules.default_prompt_name and modules.prompts.get(modules.default_prompt_name):
            problem = "puts a prompt before every text, which is not supported"
            raise ArtifactError(f"{folder} {problem}: {advice}")
        model = modules.transformer
        config = read_object(model, "config.json")
        if not config:
            raise ArtifactError(f"{model / 'config.json'} is missing or empty")
        tokenizer_length = read_object(model, "tokenizer_config.json").get("model_max_length")
        length = modules.max_seq_length or tokenizer_length
        positions = config.get("max_position_embeddings")
        if isinstance(positions, int) and config.get("model_type") in ROBERTA_LIKE:
            positions -= 1 + int(config.get("pad_token_id") or 0)  # they start behind padding
        return cls(
            model,
            config,
            modules.pooling,
            length if isinstance(length, int) and 0 < length < NO_LENGTH else None,
            positions if isinstance(positions, int) and positions > 0 else None,
            modules.lowercase,
        )


class EncoderTeacher:
    """An encoder with mean or CLS pooling that shows every token state.

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
        self._folder, self._pooling_config = folder, PoolingConfig.read(folder)
        config = self._pooling_config
        self.pooling = config.pooling
        length = longest or config.own_length or LONGEST
        self.longest = min(length, config.positions or length)
        self.tokenizer = self._open_tokenizer()
        tokenizer = json.loads((config.model / "tokenizer.json").read_text("utf-8"))
        normalizer = tokenizer.get("normalizer") or {}
        steps = normalizer.get("normalizers", [normalizer])
        lowercases = any(step.get("lowercase") or step.get("type") == "Lowercase" for step in steps)
        self.uncased = config.lowercase or lowercases
        self.engine, self._encoder = self._open_encoder(engine, threads)
        self.size = self._encoder.size

    def _open_tokenizer(self) -> Any:
        tokenizers = require("tokenizers", "train")
        path = self._pooling_config.model / "tokenizer.json"
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as failure:  # the library raises Exception itself
            raise ArtifactError(f"cannot read {path}: {one_line(failure)}") from None
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.longest)
        if self._pooling_config.lowercase:
            steps = [tokenizers.normalizers.Lowercase(), tokenizer.normalizer]
            tokenizer.normalizer = tokenizers.normalizers.Sequence([step for step in steps if step])
        return tokenizer

    def _open_encoder(self, engine: str | None, threads: int) -> tuple[str, StatesEncoder]:
        model, config = self._pooling_config.model, self._pooling_config.config
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
        """What its vectors depend on, as JSON."""
        kinds = ("*.json", "*.safetensors", "*.bin", "*/config.json")
        roots = (self._folder, self._pooling_config.model)
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
        encoded = [self.tokenizer.encode(text) for text in texts]
        ids = [np.array(one.ids, "i8") for one in encoded]
        readings = []
        for one, pieces, states in zip(encoded, ids, self._encoder.states(ids), strict=True):
            pooled = states.mean(0) if self.pooling == "mean" else states[0]
            unit = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
            readings.append(Reading(unit, states, pieces, np.array(one.offsets)))
        return readings

    def sentences(self, start: int, texts: Sequence[str]) -> Array:  # noqa: ARG002
        """Return the sentence vectors of texts, float32 [n, size], L2-normalised."""
        return _sentences(self, texts)


class CheckpointTeacher:
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
        """What its vectors depend on, as JSON."""
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

    def sentences(self, start: int, texts: Sequence[str]) -> Array:  # noqa: ARG002
        """Return the sentence vectors of texts, float32 [n, size], L2-normalised."""
        return _sentences(self, texts)


def _sentences(teacher: TokenTeacher, texts: Sequence[str]) -> Array:
    # Token states take up to a megabyte a text: a few texts at a time.
    parts = (texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE))
    return np.stack([reading.sentence for part in parts for reading in teacher.read(part)])

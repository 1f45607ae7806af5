"""Teachers that are encoders, seen token by token, and what any teacher must answer."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from asterisk.common.errors import ArtifactError, UsageError, one_line
from asterisk.common.files import read_object
from asterisk.common.plugins import require
from asterisk.model.checkpoint import load
from asterisk.model.hub import PACKAGED, packaged
from asterisk.model.huggingface import SINGLE, read_encoder
from asterisk.model.modules import read_modules

LONGEST = 512
AT_ONCE = 256  # texts that a teacher is shown together
PIECES = {"cpu": 4_096, "cuda": 65_536}  # word pieces at once, padding included
POOLINGS = ("mean", "cls")
NO_LENGTH = 1 << 20  # a tokenizer's configuration that means "any" has a larger number
ROBERTA_LIKE = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer")
Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class Teacher(Protocol):
    """Sentence vectors for the texts of one part of a corpus."""

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
    """A teacher's output for one text of T tokens."""

    sentence: Array  # [D], L2-normalised
    states: Array  # [T, D], the last hidden states
    ids: Indices  # [T]
    spans: Indices  # [T, 2], each token's characters, empty for special tokens


class TokenTeacher(ABC):
    """A teacher that shows its token states."""

    size: int
    uncased = False

    @abstractmethod
    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Read every text as far as the teacher's longest allows."""

    def sentences(self, start: int, texts: Sequence[str]) -> Array:  # noqa: ARG002
        """See `Teacher`."""
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
    """An encoder with mean or CLS pooling, for students with tokens of their own.

    ``engine`` "int8" is ONNX Runtime, for BERT itself; "bf16" is PyTorch in bfloat16; "torch" the
    same, in float32 on a CPU; None is the first that can. ``longest`` is in word pieces; None is
    what its makers say.
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
        self._folder, self._model, self.pooling = folder, modules.transformer, modules.pooling
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
    ) -> tuple[str, _Int8Bert | _TorchEncoder]:
        model = self._model
        if engine == "bf16":
            return "bf16", _TorchEncoder(model, half=True)
        is_bert = (
            config.get("model_type") == "bert"
            and config.get("hidden_act", "gelu") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
            and (model / SINGLE).is_file()
        )
        if engine != "torch" and is_bert:
            try:
                return "int8", _Int8Bert(model, config, threads)
            except (ArtifactError, KeyError, ValueError, OSError, RuntimeError) as failure:
                raise ArtifactError(f"cannot open {model}: {one_line(failure)}") from None
        if engine == "int8":
            raise ArtifactError(f"{model} is not BERT in one {SINGLE}: use --engine torch")
        return "torch", _TorchEncoder(model)

    @property
    def identity(self) -> dict[str, Any]:
        """The files and settings that its vectors depend on."""
        kinds = ("*.json", "*.safetensors", "*.bin", "*/config.json")
        roots = (self._folder, self._model)
        sha256 = hashlib.sha256()
        for path in sorted({path for root in roots for kind in kinds for path in root.glob(kind)}):
            with path.open("rb") as file:
                part = hashlib.file_digest(file, "sha256").hexdigest()
            sha256.update(f"{path.relative_to(self._folder)} {part}\n".encode())
        settings = {"engine": self.engine, "pooling": self.pooling, "longest": self.longest}
        return {"kind": "model", "sha256": sha256.hexdigest(), **settings}

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """See `TokenTeacher`."""
        encoded = [self._tokenizer.encode(text) for text in texts]
        ids = [np.array(one.ids, "i8") for one in encoded]
        readings = []
        for one, pieces, states in zip(encoded, ids, self._encoder.states(ids), strict=True):
            pooled = states.mean(0) if self.pooling == "mean" else states[0]
            unit = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
            readings.append(Reading(unit, states, pieces, np.array(one.offsets)))
        return readings


class _Int8Bert:
    """BERT by ONNX Runtime, in the graph of our own exporter: each text at its exact length.

    On a CPU int8 is three times as fast as bfloat16. Its vectors keep a cosine of .99 with the
    FP32 ones, far nearer than any two-layer student comes.
    """

    def __init__(self, folder: Path, config: dict[str, Any], threads: int) -> None:
        from asterisk.exporters.onnx import ENTRY, WEIGHTS, EncoderGraph, states_model

        runtime: Any = require("onnxruntime", "train")
        encoder = read_encoder(folder, config)
        self.size = encoder.config.hidden_size
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        with TemporaryDirectory() as scratch:
            entry = Path(scratch) / ENTRY
            with (Path(scratch) / WEIGHTS).open("wb") as weights:
                graph = EncoderGraph(encoder.config, weights, WEIGHTS, quantised=True)
                entry.write_bytes(states_model(graph, folder.name, encoder.tensors))
            providers = ["CPUExecutionProvider"]
            self._session = runtime.InferenceSession(str(entry), options, providers=providers)
        self._pool = ThreadPoolExecutor(threads)

    def states(self, texts: Sequence[Indices]) -> list[Array]:
        feeds = ({"input_ids": ids[None]} for ids in texts)
        return [found for (found,) in self._pool.map(partial(self._session.run, None), feeds)]


class _TorchEncoder:
    """Any Hugging Face encoder: in bfloat16 if ``half`` or on a GPU. Code in it is never run."""

    def __init__(self, folder: Path, *, half: bool = False) -> None:
        self._torch: Any = require("torch", "train")
        models: Any = require("transformers", "train").AutoModel
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        dtype = self._torch.bfloat16 if half or self._device == "cuda" else self._torch.float32
        require("transformers.utils.logging", "train").disable_progress_bar()
        try:
            model = models.from_pretrained(
                folder, dtype=dtype, local_files_only=True, trust_remote_code=False
            )
        except Exception as failure:
            # Whatever the library and those below it raise for a folder they cannot open.
            raise ArtifactError(f"cannot open the teacher {folder}: {one_line(failure)}") from None
        if getattr(model.config, "is_encoder_decoder", False):
            raise ArtifactError(f"the teacher {folder} is no encoder alone")
        self._model = model.to(self._device).eval()
        self.size: int = model.config.hidden_size

    def states(self, texts: Sequence[Indices]) -> list[Array]:
        def run(ids: Any, mask: Any) -> Array:
            output = self._model(input_ids=ids, attention_mask=mask.long())
            states: Array = output.last_hidden_state.float().cpu().numpy()
            return states

        found = _in_batches(texts, self._device, run, self._model.config.pad_token_id or 0)
        return [states[: len(ids)] for states, ids in zip(found, texts, strict=True)]


class CheckpointTeacher(TokenTeacher):
    """A checkpoint, for students that share its tokenizer; ``engine`` is "bf16" or "torch"."""

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
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._dtype = torch.bfloat16 if self.engine == "bf16" else torch.float32
        self._model = of_checkpoint(self.checkpoint).eval().to(self._device, self._dtype)
        self.identity = {
            "kind": "checkpoint",
            "fingerprint": self.checkpoint.fingerprint,
            "tokenizer": self.checkpoint.tokenizer.identity(),
            "engine": self.engine,
            "longest": self.longest,
        }

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """See `TokenTeacher`."""
        import torch

        from asterisk.model.encoder import pool

        def run(ids: torch.Tensor, mask: torch.Tensor) -> Iterable[tuple[Array, Array]]:
            states = model.tokens(ids, mask).float()
            pooled = pool(states, mask, self.checkpoint.config.pooling)
            if model.dense:
                pooled = model.project(pooled.to(self._dtype)).float()
            sentences = torch.nn.functional.normalize(pooled, dim=-1)
            return zip(sentences.cpu().numpy(), states.cpu().numpy(), strict=True)

        tokenizer, model, no_spans = self._tokenizer, self._model, np.empty((0, 2), "i8")
        length = self.longest - self.checkpoint.tokenizer.specials
        encoded = (tokenizer.with_special_tokens(tokenizer.encode(text, length)) for text in texts)
        ids = [np.array(one, "i8") for one in encoded]
        found = zip(ids, _in_batches(ids, self._device, run), strict=True)
        return [
            Reading(sentence, states[: len(own)], own, no_spans)
            for own, (sentence, states) in found
        ]


def _in_batches(
    texts: Sequence[Indices], device: str, run: Callable[..., Iterable[Any]], padding: int = 0
) -> list[Any]:
    """Return what ``run`` gives each text; it gets ids and mask [n, T] of texts of like length."""
    import torch

    results: dict[int, Any] = {}
    lengths = np.array([len(ids) for ids in texts])
    for indices in by_length(lengths, PIECES[device]):
        rows = [torch.from_numpy(texts[index]) for index in indices]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
        mask = torch.arange(ids.shape[1]) < torch.from_numpy(lengths[indices])[:, None]
        with torch.inference_mode():
            found = run(ids.to(device), mask.to(device))
        results |= zip(indices.tolist(), found, strict=True)
    return [results[index] for index in range(len(texts))]


def by_length(lengths: Indices, most: int) -> list[Indices]:
    """Return batches of texts of like length, at most ``most`` tokens each with their padding."""
    order, batches, start = np.argsort(lengths, kind="stable"), [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > most:
            batches.append(order[start:end])
            start = end
    return batches

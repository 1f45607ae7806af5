r"""A fully connected classifier over frozen embeddings: the paper's "Asterisk\* + FC".

arXiv 2411.05691, section 3. One file in the safetensors format, float32, run by numpy alone::

    layers.0.weight [hidden, dim]      layers.0.bias [hidden]      then ReLU
    layers.1.weight [labels, hidden]   layers.1.bias [labels]      logits

or one layer, for a linear head. Its metadata name the labels and the embedding space.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asterisk.apps.classify.labelled import MOST_LABELS, check_label
from asterisk.artifact import share_space
from asterisk.common import tensors
from asterisk.common.errors import ArtifactError, InputError, UsageError

Floats = npt.NDArray[np.float32]
FORMAT = "asterisk-head"
SCHEMA = "1"
LARGEST = 256 << 20  # bytes
MOST_LAYERS = 4
BLOCK = 256  # rows: a wide hidden layer must not be held for all texts at once


@dataclass(frozen=True, slots=True)
class Layer:
    """``weight`` float32 [out, in] and ``bias`` float32 [out]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Head:
    """Layers with ReLU between them, over unit vectors of the space ``fingerprint``.

    ArtifactError unless the layers fit each other and there are as many outputs as ``labels``.
    """

    labels: tuple[str, ...]
    layers: tuple[Layer, ...]
    fingerprint: str

    def __post_init__(self) -> None:
        if not 2 <= len(self.labels) <= MOST_LABELS or len(set(self.labels)) < len(self.labels):
            raise ArtifactError(f"a head needs 2 to {MOST_LABELS} different labels")
        if not 1 <= len(self.layers) <= MOST_LAYERS:
            raise ArtifactError(f"a head has 1 to {MOST_LAYERS} layers")
        size = self.layers[0].weight.shape[-1]
        for number, layer in enumerate(self.layers):
            if layer.weight.shape != (len(layer.bias), size) or not size or not len(layer.bias):
                raise ArtifactError(f"layer {number} of the head does not fit the one before it")
            size = len(layer.bias)
        if size != len(self.labels):
            raise ArtifactError(f"the head has {size} outputs for {len(self.labels)} labels")

    @property
    def dim(self) -> int:
        """Elements of the vectors it takes: the first ones of the space's."""
        return int(self.layers[0].weight.shape[1])

    def logits(self, vectors: Floats) -> Floats:
        """Return the logits of unit vectors float32 [n, dim], float32 [n, labels].

        UsageError for other shapes and dtypes, and for values that are not finite; ArtifactError
        for a head whose numbers leave float32.
        """
        found = getattr(vectors, "dtype", type(vectors).__name__)
        if found != np.float32 or vectors.ndim != 2 or vectors.shape[1] != self.dim:
            shape = list(getattr(vectors, "shape", ()))
            raise UsageError(f"vectors must be float32 [n, {self.dim}], not {found} {shape}")
        if not np.isfinite(vectors).all():
            raise UsageError("vectors hold values that are not finite")
        out = np.empty((len(vectors), len(self.labels)), np.float32)
        for start in range(0, len(vectors), BLOCK):
            out[start : start + BLOCK] = self._forward(vectors[start : start + BLOCK])
        if not np.isfinite(out).all():
            raise ArtifactError("the head's weights are too large for float32")
        return out

    def probabilities(self, vectors: Floats) -> Floats:
        """Return the softmax of `logits`, float32 [n, labels]."""
        logits = self.logits(vectors)
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Floats = raised / raised.sum(axis=1, keepdims=True)
        return shares

    def predict(self, vectors: Floats) -> list[str]:
        """Return the most probable label of each vector."""
        return [self.labels[best] for best in self.logits(vectors).argmax(axis=1)]

    def check(self, spaces: Sequence[str], size: int) -> None:
        """Raise ArtifactError unless this head goes with a model's vectors of ``size`` elements.

        ``spaces`` are the model's, its own first; see `asterisk.artifact`.
        """
        if not share_space((self.fingerprint,), spaces):
            raise ArtifactError(
                f"the head is of embedding space {self.fingerprint[:12]}, the model of "
                f"{spaces[0][:12]}: train a head for this model"
            )
        if self.dim > size:
            raise ArtifactError(f"the head takes {self.dim} dimensions, the model gives {size}")

    def save(self, path: str | Path) -> None:
        """Write the head, whole or not at all; the same head gives the same bytes."""
        arrays = {}
        for number, layer in enumerate(self.layers):
            arrays[f"layers.{number}.weight"] = layer.weight
            arrays[f"layers.{number}.bias"] = layer.bias
        metadata = {
            "format": FORMAT,
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "labels": json.dumps(self.labels),
        }
        tensors.write(Path(path), arrays, metadata)

    @classmethod
    def open(cls, path: str | Path) -> Head:
        """Read a head; ArtifactError if the file is damaged, unknown or makes no sense."""
        read = tensors.read(Path(path), largest=LARGEST)
        try:
            return cls._parse(read)
        except ArtifactError as failure:
            raise ArtifactError(f"{path}: {failure}") from None

    @classmethod
    def _parse(cls, read: tensors.Tensors) -> Head:
        if read.metadata.get("format") != FORMAT:
            raise ArtifactError("not a head")
        if read.metadata.get("schema") != SCHEMA:
            raise ArtifactError(f"a head of another schema than {SCHEMA}, which this version reads")
        fingerprint = read.metadata.get("fingerprint", "")
        if not fingerprint or len(fingerprint) > 100 or not fingerprint.isprintable():
            raise ArtifactError("it names no embedding space")
        count = len(read.arrays) // 2
        names = [(f"layers.{n}.weight", f"layers.{n}.bias") for n in range(count)]
        if count > MOST_LAYERS or set(read.arrays) != {name for pair in names for name in pair}:
            raise ArtifactError("its tensors are not those of a head")
        layers = tuple(Layer(read.arrays[weight], read.arrays[bias]) for weight, bias in names)
        if any(layer.weight.ndim != 2 or layer.bias.ndim != 1 for layer in layers):
            raise ArtifactError("its tensors are not matrices and vectors")
        return cls(_labels(read.metadata.get("labels", "")), layers, fingerprint)

    def _forward(self, rows: Floats) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):  # the outcome is checked
            for number, layer in enumerate(self.layers):
                if number:
                    rows = np.maximum(rows, np.float32(0))
                rows = rows @ layer.weight.T + layer.bias
        return rows


def _labels(text: str) -> tuple[str, ...]:
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError):
        raise ArtifactError("its labels are not JSON") from None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ArtifactError("its labels are not a list of strings")
    try:
        return tuple(check_label(label) for label in labels)
    except InputError as failure:
        raise ArtifactError(str(failure)) from None

r"""A fully connected classifier over frozen embeddings: the paper's "Asterisk\* + FC".

arXiv 2411.05691, section 3. One file in the safetensors format, float32, run by numpy alone::

    layers.0.weight [hidden, dim]      layers.0.bias [hidden]      then ReLU
    layers.1.weight [labels, hidden]   layers.1.bias [labels]      logits

or one layer, for a linear head. Its metadata name the labels and the embedding space.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from asterisk.artifact import share_space
from asterisk.common import tensors
from asterisk.common.errors import ArtifactError, InputError, UsageError, strings
from asterisk.evaluation import logistic_regression
from asterisk.evaluation.logistic_regression import Classifier, Floats, HeadRecipe, Layer
from asterisk.runtimes.runtime import Runtime

__all__ = ["Head", "HeadRecipe", "Layer", "fit", "zero_shot"]

FORMAT, SCHEMA = "asterisk-head", "1"
LARGEST = 256 << 20  # bytes
LONGEST_LABEL = 200  # characters
TEMPLATE = "{}"
TEMPERATURE = 0.05


class Head(Classifier):
    """A classifier that is saved in a file and belongs to one embedding space."""

    __slots__ = ()

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
        metadata = {"format": FORMAT, "schema": SCHEMA, "fingerprint": self.fingerprint}
        tensors.write(Path(path), arrays, metadata | {"labels": json.dumps(self.labels)})

    @classmethod
    def open(cls, path: str | Path) -> Head:
        """Read a head; ArtifactError if the file is damaged, unknown or makes no sense."""
        read = tensors.read(Path(path), largest=LARGEST)
        try:
            return _parse(read)
        except (ArtifactError, InputError) as failure:
            raise ArtifactError(f"{path}: {failure}") from None


def fit(
    vectors: Floats,
    labels: Sequence[str],
    fingerprint: str,
    recipe: HeadRecipe | None = None,
    *,
    progress: Callable[[], None] = lambda: None,
) -> Head:
    """Train a head; see `asterisk.evaluation.logistic_regression.fit`."""
    fitted = logistic_regression.fit(vectors, labels, fingerprint, recipe, progress=progress)
    return Head(fitted.labels, fitted.layers, fingerprint)


def _parse(read: tensors.Tensors) -> Head:
    if read.metadata.get("format") != FORMAT:
        raise ArtifactError("not a head")
    if read.metadata.get("schema") != SCHEMA:
        raise ArtifactError(f"a head of another schema than {SCHEMA}, which this version reads")
    fingerprint = read.metadata.get("fingerprint", "")
    if not fingerprint or len(fingerprint) > 100 or not fingerprint.isprintable():
        raise ArtifactError("it names no embedding space")
    count, most = len(read.arrays) // 2, logistic_regression.MOST_LAYERS
    names = [(f"layers.{n}.weight", f"layers.{n}.bias") for n in range(count)]
    if count > most or set(read.arrays) != {name for pair in names for name in pair}:
        raise ArtifactError("its tensors are not those of a head")
    layers = tuple(Layer(read.arrays[weight], read.arrays[bias]) for weight, bias in names)
    if any(layer.weight.ndim != 2 or layer.bias.ndim != 1 for layer in layers):
        raise ArtifactError("its tensors are not matrices and vectors")
    try:
        labels = json.loads(read.metadata.get("labels", ""))
    except (ValueError, RecursionError):
        raise ArtifactError("its labels are not JSON") from None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ArtifactError("its labels are not a list of strings")
    return Head(tuple(map(check_label, labels)), layers, fingerprint)


def zero_shot(
    runtime: Runtime,
    labels: Sequence[str],
    *,
    template: str = TEMPLATE,
    temperature: float = TEMPERATURE,
    prompt_name: str | None = None,
) -> Head:
    """Return a linear head whose rows are the embedded ``labels`` over ``temperature``.

    ``{}`` in ``template`` stands for the label, in which ``_`` is read as a space; ``prompt_name``
    names the model's prompt before it, which should be the texts' prompt too. UsageError for fewer
    than two labels, a label given twice, a template without ``{}``, or a temperature outside 0.001
    to 100.
    """
    given = strings(labels, "labels must be a list of strings")
    names = tuple(check_label(label.strip()) for label in given)
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError("zero-shot needs two or more different labels")
    if "{}" not in template:
        raise UsageError("the template needs a {} where the label goes")
    if not 0.001 <= temperature <= 100:
        raise UsageError(f"temperature must be 0.001 to 100, not {temperature}")
    texts = [template.replace("{}", name.replace("_", " ")) for name in names]
    vectors = runtime.encode(texts, prompt_name=prompt_name, normalize=True)
    weight = (vectors / np.float32(temperature)).astype(np.float32)
    return Head(names, (Layer(weight, np.zeros(len(names), np.float32)),), runtime.fingerprint)


def check_label(label: str) -> str:
    """Return ``label``; InputError if it is empty, too long, or would spoil a line of output."""
    if not label.strip() or len(label) > LONGEST_LABEL or not label.isprintable():
        raise InputError(f"{label[:40]!r} cannot be a label")
    return label

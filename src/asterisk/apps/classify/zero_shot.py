"""Classification without examples: the label whose name is nearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asterisk.apps.classify.head import Head, Layer
from asterisk.apps.classify.labelling import check_label
from asterisk.common.errors import UsageError
from asterisk.common.validation import strings
from asterisk.runtimes.runtime import Runtime

TEMPLATE = "{}"
TEMPERATURE = 0.05
LABELS = "labels must be a list of strings"


def head(
    runtime: Runtime,
    labels: Sequence[str],
    *,
    template: str = TEMPLATE,
    temperature: float = TEMPERATURE,
    prompt_name: str | None = None,
) -> Head:
    """Return a linear head whose rows are the embedded ``labels`` over ``temperature``.

    Its probabilities are the softmax of the cosines over ``temperature``. ``{}`` in ``template``
    stands for the label, in which ``_`` is read as a space; ``prompt_name`` names the model's
    prompt before it, which should be the texts' prompt too. UsageError for fewer than two labels, a
    label given twice, a template without ``{}``, or a temperature outside 0.001 to 100.
    """
    names = tuple(check_label(label.strip()) for label in strings(labels, LABELS))
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

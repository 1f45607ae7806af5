"""The gate lets nothing through that is wrong in one place only."""

from __future__ import annotations

import numpy as np
import pytest

from asterisk.common.errors import FidelityError
from asterisk.exporters import thresholds
from asterisk.exporters.export import Reference, gate
from asterisk.runtimes.engine import Engine
from asterisk.runtimes.runtime import Runtime
from asterisk.runtimes.torch import reference
from asterisk.tokenizer import gpt2

INT8 = thresholds("int8", 2)


@pytest.fixture(scope="module")
def truth(toy_reference):
    """The reference, whose texts a test may change."""
    return Reference(toy_reference.runtime)


class Faulty(Engine):
    """PyTorch's vectors, changed by a function of the ids and a count of calls."""

    format = "faulty"

    def __init__(self, checkpoint, change):
        self.engine = reference(checkpoint)._engines[0]
        self.change = change
        self.calls = 0

    def run(self, ids):
        self.calls += 1
        return self.change(self.engine.run(ids).copy(), ids, self.calls)


def nan(vector, ids, calls):
    return vector * np.nan if len(ids) == 511 else vector


def zeros(vector, ids, calls):
    return vector * 0 if len(ids) > 300 else vector


def zero_at_one_length(vector, ids, calls):
    return vector * 0 if len(ids) == 257 else vector


def turned(vector, ids, calls):
    return -vector if len(ids) == 3 else vector


def noisy(vector, ids, calls):
    return vector + np.random.default_rng(len(ids)).normal(size=256).astype("f4") * 0.3


def drifting(vector, ids, calls):
    vector[0] *= 1 + 1e-6 * calls
    return vector


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (nan, "some length|not finite"),
        (zeros, "all zeros"),
        (zero_at_one_length, "some length|all zeros"),
        (turned, "cosine"),
        (noisy, "cosine_mean"),
        (drifting, "depends on its neighbours"),
    ],
)
def test_a_fault_is_found(toy, truth, change, named):
    candidate = Runtime([Faulty(toy, change)], gpt2(), toy.config, "0")
    with pytest.raises(FidelityError, match=named):
        gate(candidate, truth, INT8)


def test_the_reference_passes_its_own_gate(toy, truth):
    with reference(toy) as other:
        figures = gate(other, truth, INT8)
    assert figures["cosine_min"] == pytest.approx(1)

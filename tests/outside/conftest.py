"""Engines and checkers of others, on what the shipped checkpoint is exported to."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import SHIPPED, bare_artifact

from asterisk.exporters.export import choose, find_exporter
from asterisk.model.checkpoint import load

LENGTHS = (1, 2, 9, 20, 128, 512)


@pytest.fixture(scope="session")
def shipped():
    """The shipped checkpoint."""
    if not (SHIPPED / "model.safetensors").is_file():
        pytest.skip("no shipped checkpoint here")
    return load(SHIPPED)


@pytest.fixture(scope="session")
def written(shipped, tmp_path_factory):
    """Write the engine's files of the shipped checkpoint, once a format and recipe."""
    made = {}

    def get(name, recipe):
        if (name, recipe) not in made:
            folder = tmp_path_factory.mktemp(f"{name}-{recipe}")
            writer = find_exporter(name)
            made[name, recipe] = bare_artifact(writer, shipped, choose(writer, recipe), folder)
        return made[name, recipe]

    return get


@pytest.fixture(scope="session")
def ids(lines):
    """Token ids of real text, one list for each of `LENGTHS`."""
    from asterisk.tokenizer import gpt2

    tokenizer = gpt2()
    stream = [token for line in lines[:200] for token in tokenizer.encode(line)]
    return [stream[97 * index :][:length] for index, length in enumerate(LENGTHS)]


def cosine(a, b) -> float:
    a, b = np.asarray(a, "f8").ravel(), np.asarray(b, "f8").ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))

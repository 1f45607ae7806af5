"""Small artifacts for what is done a thousand times, and processes that may die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import random_checkpoint

from asterisk.exporters.export import export
from asterisk.model.config import ModelConfig

HERE = Path(__file__).parent
SMALL = ModelConfig(hidden_size=32, num_heads=1, num_layers=1, intermediate_size=64)
RECIPES = {"onnx": "int8", "tflite": "int8", "gguf": "q8_0"}


@pytest.fixture(scope="session")
def small():
    """A checkpoint of one narrow layer over the whole vocabulary."""
    return random_checkpoint(SMALL, "small")


@pytest.fixture(scope="session")
def small_artifact(small, tmp_path_factory):
    """Export the small checkpoint once a format, when first asked for."""
    root = tmp_path_factory.mktemp("small")

    def get(name: str) -> Path:
        if not (root / name).exists():
            export(small, name, RECIPES[name], root / name)
        return root / name

    return get


@pytest.fixture
def child():
    """Run one of this folder's scripts to its end and return the JSON that it prints."""

    def call(script: str, *arguments: object, timeout: float = 120) -> dict:
        done = subprocess.run(
            [sys.executable, HERE / script, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=os.environ | {"PYTHONPATH": str(HERE.parent)},
        )
        assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"
        return json.loads(done.stdout.splitlines()[-1])

    return call

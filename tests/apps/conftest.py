"""An artifact with prompts, which the commands and the server are tried on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import PROMPTS


@pytest.fixture(scope="session")
def prompted(artifact_of, tmp_path_factory) -> Path:
    """The toy artifact with the prompts of an E5 folder: nothing is exported again for them."""
    pytest.importorskip("ai_edge_litert")
    out = tmp_path_factory.mktemp("artifacts") / "prompted-tflite-int8"
    shutil.copytree(artifact_of("tflite", "int8"), out)
    manifest = json.loads((out / "artifact.json").read_text())
    manifest |= {"name": "prompted", "prompts": dict(sorted(PROMPTS.items()))}
    (out / "artifact.json").write_text(json.dumps(manifest))
    return out

"""A real artifact, texts, and the reference that the artifact was exported from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import ROOT, SHIPPED

from asterisk.common import texts
from asterisk.exporters.export import export
from asterisk.model.checkpoint import load

NAME = "asterisk-256-onnx-int8"


@pytest.fixture(scope="session")
def artifact(tmp_path_factory) -> Path:
    """An artifact of the shipped checkpoint: one that is there, else exported now."""
    for folder in (os.environ.get("ASTERISK_ARTIFACTS"), ROOT / "artifacts"):
        if folder and (Path(folder) / NAME / "artifact.json").is_file():
            return Path(folder) / NAME
    out = tmp_path_factory.mktemp("artifacts") / NAME
    export(load(SHIPPED), "onnx", "int8", out)
    return out


@pytest.fixture(scope="session")
def some() -> list[str]:
    """A varied dozen of the texts that ship, none long."""
    return [text.text for text in texts.load() if len(text.text) < 200][:12]

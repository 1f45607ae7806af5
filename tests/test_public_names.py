"""The package's public names: those that the docs list, each as it is promised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import asterisk

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_docs_list_every_public_name_and_no_other():
    page = (DOCS / "api.md").read_text("utf-8").partition("\n## ")[0]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`(\w+)", row)]
    assert sorted(listed) == sorted(asterisk.__all__)


@pytest.mark.parametrize("name", asterisk.__all__)
def test_every_public_name_is_there(name):
    assert getattr(asterisk, name) is not None
    assert name in dir(asterisk)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        asterisk.nothing  # noqa: B018


def test_importing_the_package_loads_neither_numpy_nor_an_engine(python):
    done = python(
        "import sys, asterisk\n"
        "print(*{'numpy', 'torch', 'onnxruntime', 'ai_edge_litert'} & set(sys.modules))"
    )
    assert done.stdout.strip() == "", done.stderr


def test_a_model_is_exported_by_its_folder(toy_folder, tmp_path):
    folder = asterisk.export(toy_folder, "onnx", out=tmp_path)
    assert folder == tmp_path / "toy-onnx-int8"
    with asterisk.load(folder) as runtime:
        assert runtime.encode("a text").shape == (256,)

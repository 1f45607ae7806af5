"""Plug-ins: the standard's own reader is the truth, and a stranger's package comes in."""

from __future__ import annotations

import importlib.metadata

import pytest

from asterisk.common import plugins
from asterisk.common.errors import MissingExtra, MissingPackage, UnknownName


@pytest.mark.parametrize("group", plugins.GROUPS)
def test_finds_what_importlib_metadata_finds(group):
    truth = {entry.name for entry in importlib.metadata.entry_points(group=group)}
    assert set(plugins.names(group)) == truth
    if group != "asterisk.peers":  # those that come along are no entry points
        assert {"onnx", "tflite", "gguf"} <= truth


def test_a_strangers_format_is_listed_and_loaded(tmp_path, monkeypatch):
    info = tmp_path / "strange-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(
        "[console_scripts]\nonnx = other:main\n\n"
        "[asterisk.exporters]\n# a comment\nnumpy = strange.format:Exporter [fast]\n"
        "[asterisk.runtimes]\nlame = strange.engine:Engine\n"
    )
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "__init__.py").write_text("")
    (tmp_path / "strange" / "format.py").write_text("class Exporter:\n    format = 'numpy'\n")
    (tmp_path / "strange" / "engine.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins._found.cache_clear()
    try:
        assert "numpy" in plugins.names("asterisk.exporters")
        assert plugins.find("asterisk.exporters", "numpy").format == "numpy"
        assert "numpy" not in plugins.names("asterisk.runtimes")
        assert "onnx" in plugins.names("asterisk.exporters")
        # Nothing of this project would bring it.
        with pytest.raises(MissingPackage, match=r"^surely_not_installed is not installed$"):
            plugins.find("asterisk.runtimes", "lame")
    finally:
        plugins._found.cache_clear()


def test_unknown_names_and_missing_extras():
    with pytest.raises(UnknownName, match="no runtime named 'none'; there are: gguf, onnx"):
        plugins.find("asterisk.runtimes", "none")
    with pytest.raises(MissingExtra, match=r"asterisk-edge\[export\]"):
        plugins.require("surely_not_installed.module", "export")

"""Graphs without a part are that part faster to count, and every mapping has a kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import anatomy

SMAPS = """\
559a-55ff r--p 00000000 fe:00 11 /usr/lib/python3.11/json.so
Pss:                   4 kB
Pss_Dirty:             1 kB
55ff-5600 rw-p 00000000 00:00 0 [heap]
Pss:                  10 kB
7f00-7f01 r--s 00000000 fe:00 12 /somewhere/artifacts/a-onnx-int8/weights.bin
Pss:                   8 kB
7f01-7f02 r-xp 00000000 fe:00 13 /x/site-packages/onnxruntime/capi/core.so
Pss:                   2 kB
7f02-7f03 rw-p 00000000 00:00 0
Pss:                   1 kB
7f04-7f05 rw-p 00000000 fe:00 14 /some/thing
Pss:                   3 kB
"""


def test_every_mapping_counts_once():
    by_kind = anatomy.by_kind(SMAPS, "/somewhere/artifacts/a-onnx-int8")
    found = {kind: round(size * 1e6 / 1024) for kind, size in by_kind.items()}
    assert found == {
        "the model's file": 8,
        "the engine's code": 2,
        "numpy's code": 0,
        "Python, the C library": 4,
        "other files": 3,
        "heap and stacks: written": 11,
    }


def kinds(path: Path) -> dict[str, int]:
    import onnx

    found: dict[str, int] = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


@pytest.mark.parametrize(
    ("without", "gone"),
    [("LayerNorm", {"LayerNormalization"}), ("GELU", {"Gelu"}), ("attention", {"Softmax"})],
)
def test_a_part_is_gone_and_products_stay(toy, tmp_path, without, gone):
    calls = {}
    for name, parts in (("whole", anatomy.WHOLE), ("part", frozenset([without]))):
        (tmp_path / name).mkdir()
        calls[name] = anatomy.onnx_call(toy, anatomy.NOTHING, parts, tmp_path / name)
        calls[name](7)()
    whole, part = (kinds(tmp_path / name / "model.onnx") for name in calls)
    assert gone <= whole.keys()
    assert not gone & part.keys()
    assert part["MatMulInteger"] == whole["MatMulInteger"] == 4 * toy.config.num_layers
    assert part["MatMul"] == (1 if without == "attention" else whole["MatMul"])


def test_tflite_runs_without_parts(toy, tmp_path):
    for without in (anatomy.WHOLE, anatomy.PRODUCTS, frozenset(["softmax"])):
        at = anatomy.tflite_call(toy, anatomy.NOTHING, without, tmp_path)
        at(5)()
        at(9)()


@pytest.mark.slow
def test_the_table(toy_folder, artifact_of, monkeypatch, capsys):
    folder = artifact_of("tflite", "int8").parent
    monkeypatch.setattr(anatomy, "CALLS_OF", {"tflite": anatomy.tflite_call})
    monkeypatch.setattr(anatomy, "ROUNDS", 1)
    monkeypatch.setattr(anatomy, "CALLS", 2)
    arguments = ["--checkpoint", str(toy_folder), "--artifacts", str(folder)]
    monkeypatch.setattr("sys.argv", ["anatomy", *arguments])
    assert anatomy.main() == 0
    rows = re.findall(r"^\| (.*?) \|", capsys.readouterr().out, re.MULTILINE)
    assert rows.count("products in int8") == rows.count("**text to vector**") == 1
    assert rows[-1] == "**sum**"

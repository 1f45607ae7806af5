"""A weight's exponent bit flipped in an artifact whose hashes fit: fidelity alone can tell."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SHIPPED, thresholds_of

import asterisk
from asterisk.artifact import MANIFEST, Manifest, open_artifact, sha256
from asterisk.bench import collect
from asterisk.bench.comparison import compare, parse_limits
from asterisk.bench.plan import REFERENCE, Row
from asterisk.bench.results import RowResult
from asterisk.common.errors import AsteriskError
from asterisk.exporters.export import choose
from asterisk.exporters.export import find_exporter as exporter
from asterisk.model.checkpoint import load
from asterisk.tokenizer import BUILTIN

pytestmark = pytest.mark.slow
TOKENIZER = "tokenizer.bin"
FORMATS = ("onnx", "tflite", "gguf")
WEIGHT = "encoder.layer.1.output.LayerNorm.weight"  # stored as it is in every format
PLACE = 17
SMALLEST, LARGE, LARGEST = 23, 29, 30  # bits of a float32's exponent
TEXTS = 100


@pytest.fixture(scope="module")
def shipped():
    """The real checkpoint: random weights weigh all dimensions alike, trained ones do not."""
    return load(SHIPPED)


@pytest.fixture(scope="module")
def truth(lines, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("truth") / "torch.npy"
    with asterisk.load(SHIPPED) as runtime:
        np.save(path, runtime.encode(lines[:TEXTS]))
    return path


@pytest.fixture
def artifact(shipped, tmp_path):
    """Write an artifact under its format's default recipe, without the gate."""

    def write(format: str) -> Path:
        folder = tmp_path / format
        folder.mkdir()
        recipe = choose(exporter(format), None)
        written = exporter(format).write(shipped, recipe, folder, [])
        (folder / TOKENIZER).write_bytes(BUILTIN.read_bytes())
        for name in ("golden.json", "golden.npy"):
            (folder / name).write_bytes(b"")
        manifest = Manifest(
            format=format,
            recipe=recipe.name,
            name=shipped.name,
            entry=written.entry,
            tokenizer=TOKENIZER,
            model=shipped.config,
            fingerprint=shipped.fingerprint,
            compatible_with=(shipped.fingerprint,),
            prompts={},
            default_prompt_name=None,
            similarity=None,
            source=None,
            files={path.name: sha256(path) for path in folder.iterdir()},
            thresholds=thresholds_of(format, recipe.name),
            fidelity={},
            versions={},
        )
        (folder / MANIFEST).write_text(manifest.to_json(), "utf-8")
        return folder

    return write


def flip(folder: Path, weights: np.ndarray, bit: int) -> float:
    """Flip one bit of one weight, mend the hash, return by what the weight has been multiplied."""
    needle = np.asarray(weights[PLACE + 1 :], "<f4").tobytes()
    (file,) = (path for path in folder.iterdir() if needle in path.read_bytes())
    data = bytearray(file.read_bytes())
    at = data.index(needle) - 4
    data[at + bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    manifest["files"][file.name] = sha256(file)
    (folder / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    open_artifact(folder)  # every hash fits: nothing but its vectors can tell
    return float(np.frombuffer(data[at : at + 4], "<f4")[0]) / float(weights[PLACE])


@pytest.fixture
def judged(truth, lines):
    """Embed and judge as the benchmark does."""

    def judge(folder: Path) -> RowResult:
        manifest = open_artifact(folder).manifest
        thresholds = asdict(manifest.thresholds)
        row = Row(manifest.format, "", "", "", "", (), (), 1, thresholds=thresholds)
        ours = folder.parent / "ours.npy"
        with asterisk.load(folder) as runtime:
            np.save(ours, runtime.encode(lines[:TEXTS]))
        result = collect.collect(row, [], 1)
        collect.judge([row], [result], {row.name: ours, REFERENCE: truth})
        return result

    return judge


@pytest.mark.parametrize("format", FORMATS)
def test_one_exponent_bit_fails_fidelity(artifact, shipped, judged, report, format):
    folder, weights = artifact(format), shipped.tensors[WEIGHT]
    sound = judged(folder)
    assert sound.below == []
    old = replace(report, rows=[sound], settings={"runtimes": [format]})
    for bit in (SMALLEST, LARGE):
        factor = flip(folder, weights, bit)
        assert abs(np.log2(factor)) == 2 ** (bit - SMALLEST)
        broken = judged(folder)
        assert any(line.startswith("cosine_mean") for line in broken.below)
        new = replace(old, rows=[broken])
        (failed,) = compare(old, new, parse_limits("cosine:0.9")).failed
        assert failed.figure == "cosine"
        flip(folder, weights, bit)
    assert judged(folder).fidelity == sound.fidelity
    assert abs(flip(folder, weights, LARGEST)) > 1e30
    with pytest.raises(AsteriskError):
        judged(folder)

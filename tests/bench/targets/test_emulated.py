"""Every engine on emulated processors, against the FP32 reference made on this one."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import replace

import numpy as np
import pytest

from asterisk.bench.collect import RunState
from asterisk.bench.plan import QUICK, Row
from asterisk.bench.prepare import _artifact
from asterisk.bench.process import CellError
from asterisk.bench.runner import Request, Work, measure_targets
from asterisk.bench.targets import Emulated, Unavailable, emulated, opened, parse_target
from asterisk.evaluation.fidelity import compare
from asterisk.runtimes.load import load
from benchmarks import emulation as made

EXPECTED = ("CI", "ASTERISK_EMULATION")  # where a missing emulation is a failure
SOME = 16
DEFAULTS = (("onnx", "int8"), ("tflite", "int8"), ("gguf", "q8_0"))
LEAST = {"onnx": 0.998, "tflite": 0.998, "gguf": 0.999}  # cosine, as in the gates


@pytest.fixture
def emulation(tmp_path):
    """Open an emulated processor; where none is expected, skip."""
    expected = any(map(os.environ.get, EXPECTED))
    if expected:
        made.make()

    def start(name):
        try:
            with opened(parse_target(f"emu:{name}"), tmp_path, keep=False) as session:
                return session
        except Unavailable as reason:
            if expected:
                raise
            pytest.skip(str(reason))

    return start


@pytest.fixture(scope="session")
def reference(toy_folder, lines):
    """The FP32 vectors of some texts."""
    return load(toy_folder).encode(lines[:SOME])


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.timeout(900)
# The newer cores run what tests/deploy/test_emulated_pi.py installs on them.
@pytest.mark.parametrize(
    ("format", "recipe", "cpu"),
    [
        *((*default, "cortex-a53") for default in DEFAULTS),
        *((*default, "haswell") for default in DEFAULTS[:2]),  # llama.cpp's AVX2 takes minutes
    ],
)
def test_vectors_of_an_emulated_processor_are_the_reference_s(  # noqa: PLR0917
    emulation, artifact_of, toy, lines, reference, tmp_path, monkeypatch, format, recipe, cpu
):
    monkeypatch.setattr(emulated, "find_counting", lambda: None)  # counting takes its time
    session = emulation(cpu)
    row = _artifact(toy, format, artifact_of(format, recipe).parent, recipe)
    assert session.accepts(row)
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(lines[:SOME]), "utf-8")
    spec = {
        **{"kind": "vectors", "opener": row.opener, "path": row.path, "modules": row.modules},
        **{"threads": 1, "first": lines[0], "texts": str(texts), "count": None},
        **{"vectors": str(tmp_path / "out.npy"), "counted": {"20": [lines[0]]}},
    }
    answer = session.ask("asterisk.bench.worker", spec, 300)
    assert set(answer) <= {"marked", "instructions"}
    agreement = compare(np.load(tmp_path / "out.npy"), reference)
    assert agreement.cosine_mean > LEAST[format]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_instruction_counts_repeat(emulation, artifact_of, toy, lines, tmp_path):
    session = emulation("cortex-a72")
    if not session.counting:
        pytest.skip("qemu with plugins is not built: python -m benchmarks.emulation --counting")
    row = _artifact(toy, "tflite", artifact_of("tflite", "int8").parent, "int8")
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(lines[:1]), "utf-8")
    spec = {
        **{"kind": "vectors", "opener": row.opener, "path": row.path, "modules": row.modules},
        **{"threads": 1, "first": lines[0], "texts": str(texts), "count": None},
        **{"vectors": str(tmp_path / "out.npy"), "counted": {"20": [lines[0]]}},
    }
    counts = [
        session.ask("asterisk.bench.worker", spec, 300)["instructions"]["20"] for _ in range(2)
    ]
    assert counts[0] > 0.5
    assert abs(counts[0] - counts[1]) / statistics.mean(counts) < 0.001


def test_marks_become_million_instructions_a_call(tmp_path):
    path = tmp_path / "counts"
    path.write_text("10\n2000010\n2000100\n4000100\n5000000\n8000000\n", "ascii")
    assert emulated.million_instructions(path, ["8", "8", "20"]) == {"8": 2.0, "20": 3.0}
    for text in ("", "1\n", "x\n" * 6):
        path.write_text(text, "ascii")
        with pytest.raises(CellError, match="marks were counted instead of 6"):
            emulated.million_instructions(path, ["8", "8", "20"])


@pytest.fixture
def nothing_made(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def absent(tmp_path):
    (tmp_path / "w").mkdir()
    targets = (Emulated("cortex-a72"),)
    request = Request((), (), tmp_path, tmp_path, tmp_path, (1,), QUICK, 1, 9.0, targets)
    prepared = {"buckets": {"20": ["a"]}, "mixed": ["a"], "long": "a", "texts": ["a"]}
    work = Work(tmp_path / "w", {}, prepared, request)
    told: list[str] = []
    row = Row("x", "x", "x", "m:f", "p", (), (), 0)
    return measure_targets(work, [row], told.append), told


@pytest.mark.usefixtures("nothing_made")
def test_without_emulation_a_row_is_left_out_in_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    done, told = absent(tmp_path)
    assert done.failed == {}
    assert done.results == []
    assert told == done.left_out
    assert "python -m benchmarks.emulation" in told[0]


@pytest.mark.usefixtures("nothing_made")
def test_under_ci_that_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("CI", "true")
    done, _ = absent(tmp_path)
    assert list(done.failed) == ["emu:cortex-a72"]


def test_the_root_is_named_after_what_it_is_made_of(monkeypatch):
    pinned = emulated.wheels()
    assert [line.partition("==")[0] for line in pinned] == [
        *("numpy", "onnxruntime", "ai-edge-litert", "xllamacpp")
    ]
    before = emulated.root_path()
    monkeypatch.setattr(emulated, "PACKAGES", ("python3",))
    assert emulated.root_path() != before


def test_a_peer_and_pytorch_are_not_emulated(artifact_of, toy_folder):
    from asterisk.bench.targets.emulated import EmulatedSession

    accepts = EmulatedSession.accepts
    row = Row("x", "x", "x", "m:f", str(artifact_of("onnx", "int8")), (), (), 0)
    assert accepts(None, row)
    assert not accepts(None, replace(row, peer=True))
    assert not accepts(None, replace(row, path=str(toy_folder)))


def test_a_row_elsewhere_is_judged_by_the_vectors_of_this_machine(tmp_path):
    from asterisk.bench.collect import collect

    random = np.random.default_rng(0)
    vectors = {name: random.normal(size=(12, 8)).astype("f4") for name in ("torch", "other")}
    files = {name: tmp_path / f"{name}.npy" for name in vectors}
    for name, path in files.items():
        np.save(path, vectors[name])
    state = RunState()
    state.files = {"home": {"torch": files["torch"]}, "emu:x": {"onnx": files["torch"]}}
    state.files["emu:y"] = {"onnx": files["other"]}
    row = Row("onnx", "onnx", "r", "m:f", "p", (), (), 1)
    for target in ("emu:x", "emu:y"):
        result = collect(row, [], 1)
        result.target = target
        state.rows.append(row)
        state.results.append(result)
    state.judge()
    same, other = state.results
    assert same.fidelity["cosine_min"] == pytest.approx(1)
    assert other.fidelity["cosine_min"] < 0.9

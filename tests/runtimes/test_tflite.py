"""LiteRT: the right vectors at every length, alone or in company, in little memory, in silence."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import bare_artifact, bare_runtime, random_checkpoint

from asterisk.artifact import Artifact
from asterisk.common.errors import ArtifactError, EngineError, MissingExtra
from asterisk.exporters.tflite import TfliteExporter
from asterisk.model.config import Dense, ModelConfig
from asterisk.runtimes.tflite import TfliteEngine
from asterisk.runtimes.torch import reference

INT8, *_, FP32 = TfliteExporter.recipes
SMALL = ModelConfig(hidden_size=32, num_layers=1, intermediate_size=64, vocab_size=500)
ORIGINAL = replace(
    SMALL, layer_norm_eps=1e-5, norm_first=True, embedding_norm=False, dense=(Dense(24),)
)
LENGTHS = (1, 2, 3, 5, 17, 64, 127, 128, 129, 256, 511, 512)


_artifact = partial(bare_artifact, TfliteExporter())
_runtime = partial(bare_runtime, TfliteEngine)


@pytest.fixture(scope="module")
def fp32(toy, tmp_path_factory) -> Artifact:
    return _artifact(toy, FP32, tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def int8(toy, tmp_path_factory) -> Artifact:
    return _artifact(toy, INT8, tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Artifact:
    return _artifact(random_checkpoint(SMALL), INT8, tmp_path_factory.mktemp("small"))


def _texts(vocabulary: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, vocabulary, length).tolist() for length in LENGTHS]


def _agrees(artifact: Artifact, checkpoint, least: float) -> None:
    truth = reference(checkpoint)
    with _runtime(artifact) as runtime:
        for ids in _texts(checkpoint.config.vocab_size):
            ours, theirs = runtime.embed_ids(ids), truth.embed_ids(ids)
            assert ours.dtype == np.float32
            assert ours.shape == (checkpoint.config.embedding_size,)
            cosine = ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs))
            assert cosine > least, len(ids)
            # Normalising would hide a wrong length; rounding five numbers moves it more than 256.
            assert np.linalg.norm(ours) == pytest.approx(
                np.linalg.norm(theirs), rel=20 * (1 - least)
            )


@pytest.mark.parametrize(("recipe", "least"), [("fp32", 0.99999), ("int8", 0.9995)])
def test_agrees_with_pytorch(request, toy, recipe, least):
    _agrees(request.getfixturevalue(recipe), toy, least)


@pytest.mark.parametrize(
    "config",
    [
        ORIGINAL,
        replace(ORIGINAL, embedding_norm=True, num_heads=4, num_layers=2),
        replace(SMALL, num_heads=1),
        replace(SMALL, pooling="cls", activation="relu"),
        replace(SMALL, pooling="max", activation="gelu_tanh", num_layers=0),
        replace(SMALL, pooling="mean_sqrt_len_tokens", dense=(Dense(48), Dense(9, bias=False))),
        replace(SMALL, num_heads=8, num_layers=3),
        replace(SMALL, num_layers=0, embedding_norm=False),
        replace(SMALL, dense=(Dense(5, "tanh"),)),
    ],
)
def test_agrees_with_pytorch_in_other_shapes(tmp_path, config):
    checkpoint = random_checkpoint(config)
    for recipe, least in ((FP32, 0.99999), (INT8, 0.998)):
        _agrees(_artifact(checkpoint, recipe, tmp_path), checkpoint, least)


@pytest.mark.parametrize("recipe", ["fp32", "int8"])
def test_a_vector_is_the_same_in_any_order_and_company(request, recipe):
    texts = _texts(50_259)
    artifact = request.getfixturevalue(recipe)
    with _runtime(artifact) as runtime:
        rising = [runtime.embed_ids(ids) for ids in texts]
        mixed = {n: runtime.embed_ids(texts[n]) for n in np.random.default_rng(1).permutation(12)}
    assert np.array_equal(rising, [mixed[n] for n in range(12)])
    with _runtime(artifact) as runtime:
        falling = [runtime.embed_ids(ids) for ids in texts[::-1]][::-1]
    assert np.array_equal(rising, falling)
    for ids, expected in list(zip(texts, rising, strict=True))[2:5]:
        with _runtime(artifact) as fresh:
            assert np.array_equal(fresh.embed_ids(ids), expected)


def test_eight_threads_on_two_sessions(int8):
    texts = [ids for seed in range(3) for ids in _texts(50_259, seed) if len(ids) < 130]
    with _runtime(int8) as runtime:
        expected = np.stack([runtime.embed_ids(ids) for ids in texts])
    with _runtime(int8, 2) as runtime, ThreadPoolExecutor(8) as pool:
        found = np.stack(list(pool.map(runtime.embed_ids, texts * 4)))
    assert np.array_equal(found, np.concatenate([expected] * 4))


def test_opening_in_several_threads_at_once(small, capfd):
    with ThreadPoolExecutor(8) as pool:
        engines = [
            engine for (engine,) in pool.map(lambda _: TfliteEngine.open(small, 1), range(16))
        ]
    vectors = [engine.run([1, 2, 3]) for engine in engines]
    assert all(np.array_equal(vector, vectors[0]) for vector in vectors)
    assert capfd.readouterr().err == ""


MEASURE = """
import sys
import asterisk
from asterisk.common.process_memory import read_sizes
runtime = asterisk.load(sys.argv[1])
for start in range(200):
    runtime.embed_ids(range(start * 20, start * 20 + 20))
known = {"numpy", "ai_edge_litert", "asterisk", "backports", "_distutils_hack", "__main__"}
names = {name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - known
names = {name for name in names if not name.startswith("__editable__")}
print(read_sizes()["Pss"] // 1024, *names)
"""


def test_memory_imports_and_silence(artifact_of, python):
    done = python(MEASURE, artifact_of("tflite", "int8"))
    assert done.returncode == 0
    assert done.stderr == ""
    kilobytes, *others = done.stdout.split()
    assert not others
    assert int(kilobytes) < 40_000


def test_what_the_engine_refuses_does_not_end_the_process(small):
    (engine,) = TfliteEngine.open(small, 1)
    before = engine.run([1, 2, 3])
    for ids in ([], [SMALL.vocab_size], [1, -1], [0] * 513):
        with pytest.raises(EngineError, match="LiteRT"):
            engine.run(ids)
        assert np.array_equal(engine.run([1, 2, 3]), before)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run([1, 2, 3])


DAMAGE = """
import sys
from pathlib import Path
import numpy as np
from asterisk.common.errors import ArtifactError, EngineError
from asterisk.model.config import ModelConfig
from asterisk.runtimes.tflite import TfliteEngine

class Damaged:
    entry = Path(sys.argv[1]).with_name("damaged.tflite")
    config = ModelConfig(hidden_size=32, num_layers=1, intermediate_size=64, vocab_size=500)

def attempt(data):
    # A file of its own: one that is mapped must not change under its reader.
    Damaged.entry.unlink(missing_ok=True)
    Damaged.entry.write_bytes(data)
    try:
        (engine,) = TfliteEngine.open(Damaged, 1)
        engine.run([1, 2, 3])
    except (ArtifactError, EngineError) as refused:
        assert "\\n" not in str(refused)
        return 1
    return 0

whole = Path(sys.argv[1]).read_bytes()
random = np.random.default_rng(0)
assert not attempt(whole)
for size in (0, 3, 8, 12, 100, 5000, len(whole) // 2, len(whole) - 400):
    assert attempt(whole[:size]), size
refused = tried = 0
# The graph is written at the end, the root at the start.
for place in [*range(0, 64, 3), *random.integers(len(whole) - 9000, len(whole), 400)]:
    data = bytearray(whole)
    data[place] ^= 1 << int(random.integers(8))
    refused += attempt(data)
    tried += 1
print(refused, tried)
"""


def test_damage_is_refused_not_fatal(small, python):
    done = python(DAMAGE, small.entry)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, tried = map(int, done.stdout.split())
    assert refused > tried / 5


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dense": (Dense(24),)}, "other inputs or outputs"),
        ({"vocab_size": 501}, "LiteRT refuses"),
    ],
)
def test_a_file_of_another_shape_is_refused(small, change, complaint):
    manifest = replace(small.manifest, model=replace(SMALL, **change))
    with pytest.raises(ArtifactError, match=complaint):
        TfliteEngine.open(Artifact(small.folder, manifest), 1)


WITHOUT_STDERR = """
import os, sys
import asterisk
os.close(2)
asterisk.load(sys.argv[1]).encode("a text")
"""
OTHERS = """
import os
from asterisk.runtimes.tflite import _NOTICE, _without_notice
with _without_notice():
    os.write(2, b"one\\n" + _NOTICE + b"\\ntwo")
os.write(2, b"!\\n")
"""


def test_only_the_engines_notice_is_kept_off_stderr(artifact_of, python):
    assert python(OTHERS).stderr == "one\ntwo!\n"
    assert python(WITHOUT_STDERR, artifact_of("tflite", "int8")).returncode == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_opening_leaves_no_descriptor_behind(small):
    TfliteEngine.open(small, 1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        (engine,) = TfliteEngine.open(small, 1)
        engine.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_says_what_is_not_installed(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtra, match=r"ai-edge-litert .*asterisk-edge\[tflite\]"):
        TfliteEngine.open(small, 1)

"""llama.cpp through its C functions: right, small, and never the end of the process."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from conftest import bare_artifact, bare_runtime, random_checkpoint

from asterisk.artifact import Artifact
from asterisk.errors import ArtifactError, EngineError, MissingExtra
from asterisk.exporters.gguf import ENTRY, GgufExporter
from asterisk.model.config import ModelConfig
from asterisk.runtimes import llama_cpp
from asterisk.runtimes.gguf import GgufEngine
from asterisk.runtimes.gguf_header import check_header
from asterisk.runtimes.torch import reference
from asterisk.tokenizer import gpt2

RECIPES = {recipe.name: recipe for recipe in GgufExporter.recipes}
Q8_0, FP32 = RECIPES["q8_0"], RECIPES["fp32"]
SMALL = ModelConfig(hidden_size=32, num_heads=1, num_layers=1, intermediate_size=32)

AWKWARD = [
    "The 12,345 cats' toys weren't HERE  \n\n\tuntil 2026…",
    "naïve café e\u0301 Straße İstanbul ǅ ﬁ",
    "日本語テスト、全角\u3000空白 한국어 中文 ไทย हिन्दी עברית العربية",
    "👩‍👩‍👧‍👦 🏳️‍🌈 ☃️ \u200b\ufeff\u2028 x \xa0 y",
    "½ Ⅷ ² ١٢٣ 𝟘 a\x1cb \x85 c\r\n",
    "\x00\x01\x7f\x80\xff \U0010ffff",
    "it's I'm we'll 'S 'LL ''s '''re 's",
    "x" * 300 + "=" * 200 + " " * 100 + "end",
    "def f(x):\n        return x**2  # ok\n",
    "<|endoftext|> [PAD] [MASK]",
]


_artifact = partial(bare_artifact, GgufExporter())
_runtime = partial(bare_runtime, GgufEngine)


@pytest.fixture(scope="module")
def q8_0(toy, tmp_path_factory) -> Artifact:
    return _artifact(toy, Q8_0, tmp_path_factory.mktemp("q8_0"))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Artifact:
    return _artifact(random_checkpoint(SMALL), Q8_0, tmp_path_factory.mktemp("small"))


def _texts(seed: int = 0) -> list[list[int]]:
    """One text a length, longest first, shortest last."""
    random = np.random.default_rng(seed)
    lengths = (512, 511, 384, 257, 256, 129, 128, 127, 65, 64, 33, 32, 31, 20, 8, 3, 2, 1)
    return [random.integers(0, 50_256, length).tolist() for length in lengths]


def _cosine(a, b) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize(
    ("recipe", "least"),
    [("fp32", 0.99999), ("f16", 0.99999), ("q8_0", 0.999), ("q6_k", 0.998), ("q4_k_m", 0.98)],
)
def test_agrees_with_pytorch(toy, tmp_path, recipe, least):
    truth = reference(toy)
    with _runtime(_artifact(toy, RECIPES[recipe], tmp_path)) as runtime:
        for ids in _texts():
            ours, theirs = runtime.embed_ids(ids), truth.embed_ids(ids)
            assert ours.dtype == np.float32
            assert ours.shape == (256,)
            assert _cosine(ours, theirs) > least, len(ids)
            assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=0.01)


def test_a_vector_is_the_same_in_any_order_and_company(q8_0):
    texts = _texts()
    with _runtime(q8_0) as runtime:
        falling = [runtime.embed_ids(ids) for ids in texts]
    with _runtime(q8_0) as runtime:
        rising = [runtime.embed_ids(ids) for ids in texts[::-1]][::-1]
    assert np.array_equal(falling, rising)


def test_eight_threads_on_two_lanes(q8_0):
    texts = [ids for seed in range(4) for ids in _texts(seed) if len(ids) < 130]
    with _runtime(q8_0) as runtime:
        expected = np.stack([runtime.embed_ids(ids) for ids in texts])
    with _runtime(q8_0, lanes=2) as runtime, ThreadPoolExecutor(8) as pool:
        found = np.stack(list(pool.map(runtime.embed_ids, texts * 4)))
    assert np.array_equal(found, np.concatenate([expected] * 4))


@pytest.fixture(scope="module")
def vocabulary(small):
    """llama.cpp's own reading of the file's vocabulary."""
    dll = llama_cpp.library().dll
    dll.llama_model_get_vocab.restype = ctypes.c_void_p
    dll.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
    dll.llama_tokenize.argtypes = [
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32),
        *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool),
    ]
    params = dll.llama_model_default_params()
    params.vocab_only = True
    model = dll.llama_model_load_from_file(os.fsencode(small.entry), params)

    def tokenize(text: str) -> list[int]:
        data, room = text.encode(), (ctypes.c_int32 * 4096)()
        count = dll.llama_tokenize(
            dll.llama_model_get_vocab(model), data, len(data), room, len(room), False, False
        )
        return room[:count]

    yield tokenize
    dll.llama_model_free(model)


def test_llama_cpp_tokenises_as_we_do(vocabulary, lines):
    tokenizer = gpt2()
    for text in [*AWKWARD, *lines]:
        assert vocabulary(text) == tokenizer.encode(text), text


SERVER = """
import json, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, texts = sys.argv[1], json.loads(sys.argv[2])
params.embedding, params.warmup, params.verbosity = True, False, -1
params.n_ctx = params.n_batch = params.n_ubatch = 512
params.n_parallel = params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
answer = server.handle_embeddings({"input": texts, "embd_normalize": -1})
print("VECTORS" + json.dumps([row["embedding"] for row in answer["data"]]))
"""


def test_the_file_stands_alone(q8_0, python):
    """llama-server, given texts and nothing but the file, answers with the same vectors."""
    import json

    texts = AWKWARD[:5]
    done = python(SERVER, str(q8_0.entry), json.dumps(texts))
    answer = next(line for line in done.stdout.splitlines() if line.startswith("VECTORS"))
    theirs = np.array(json.loads(answer.removeprefix("VECTORS")), np.float32)
    with _runtime(q8_0) as runtime:
        ours = runtime.encode(texts, normalize=False)
    assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


MEASURE = """
import sys
from pathlib import Path
from asterisk.artifact import Artifact, open_artifact
import asterisk
runtime = asterisk.load(sys.argv[1])
for start in range(200):
    runtime.embed_ids(range(start * 20, start * 20 + 20))
rollup = Path("/proc/self/smaps_rollup").read_text().split("Pss:")[1]
heavy = {"torch", "transformers", "onnxruntime", "xllamacpp", "gguf", "safetensors"}
print(int(rollup.split()[0]), *(heavy & {name.split(".")[0] for name in sys.modules}))
runtime.embed_ids(range(512))
rollup = Path("/proc/self/smaps_rollup").read_text().split("Pss:")[1]
print(int(rollup.split()[0]))
"""


def test_memory_imports_and_silence(artifact_of, python):
    done = python(MEASURE, artifact_of("gguf", "q8_0"))
    assert done.returncode == 0
    assert done.stderr == ""
    (short, *imported), (long,) = (line.split() for line in done.stdout.splitlines())
    assert not imported
    assert int(short) < 70_000
    # The 100 MB of logits that a text of 512 tokens makes llama.cpp clear are gone again.
    assert int(long) < 80_000


def test_what_the_engine_refuses_does_not_end_the_process(small):
    (engine,) = GgufEngine.open(small, 1)
    before = engine.run([1, 2, 3])
    for ids in ([], [SMALL.vocab_size], [-1]):
        with pytest.raises(EngineError, match="cannot encode"):
            engine.run(ids)
    with pytest.raises(EngineError, match="1 to 512"):
        engine.run([0] * 513)
    assert np.array_equal(engine.run([1, 2, 3]), before)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run([1])


DAMAGE = """
import sys
from pathlib import Path
import numpy as np
from asterisk.artifact import Artifact
from asterisk.errors import ArtifactError
from asterisk.model.config import ModelConfig
from asterisk.runtimes.gguf import GgufEngine

class Told:
    entry = Path(sys.argv[1]).with_name("damaged.gguf")
    config = ModelConfig(hidden_size=32, num_heads=1, num_layers=1, intermediate_size=32)

def attempt(data):
    Told.entry.write_bytes(data)
    try:
        (engine,) = GgufEngine.open(Told, 1)
        engine.run([1, 2, 3])
    except ArtifactError as refused:
        assert "\\n" not in str(refused)
        return 1
    return 0

whole = Path(sys.argv[1]).read_bytes()
random = np.random.default_rng(0)
assert not attempt(whole)
for size in (0, 3, 8, 24, 100, 5000, 500_000, len(whole) // 2, len(whole) - 40):
    assert attempt(whole[:size]), size
# Flipped bits among the model's keys, where arrays begin, and in the tensors' descriptions.
places = [*range(0, 600, 7), *(whole.index(name) + 60 for name in (b"ggml.tokens", b"ggml.merges"))]
start = whole.index(b"token_embd.weight") - 8
places += [start + int(i) for i in random.integers(0, 1200, 60)]
refused = 0
for place in places:
    data = bytearray(whole)
    data[place] ^= 1 << int(random.integers(8))
    refused += attempt(data)
print(refused, len(places))
"""


def test_damage_is_refused_not_fatal(small, python):
    done = python(DAMAGE, small.entry)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, tried = map(int, done.stdout.split())
    assert refused > tried / 2


def test_a_file_of_another_shape_is_refused(small):
    check_header(small.entry, SMALL)
    with pytest.raises(ArtifactError, match=r"bert\.embedding_length is 32, the manifest says 256"):
        check_header(small.entry, ModelConfig())


def test_unknown_keys_are_refused(small, tmp_path):
    # A key such as split.count would make llama.cpp open other files.
    path = tmp_path / ENTRY
    path.write_bytes(small.entry.read_bytes().replace(b"general.name", b"split.count0"))
    with pytest.raises(ArtifactError, match=r"does not belong: 'split\.count0'"):
        check_header(path, SMALL)


def test_says_what_is_not_installed(monkeypatch):
    load = llama_cpp.library.__wrapped__
    with monkeypatch.context() as patch:
        patch.setattr(llama_cpp, "find_spec", lambda name: None)
        with pytest.raises(MissingExtra, match=r"asterisk-edge\[gguf\]"):
            load()
    with monkeypatch.context() as patch:
        patch.setattr(llama_cpp, "VERSION", "1.2.3")
        with pytest.raises(EngineError, match=r"not version 1\.2\.3"):
            load()

    def missing(*_):
        raise OSError("libgomp.so.1: cannot open shared object file: No such file or directory")

    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", missing)
        with pytest.raises(EngineError, match="apt-get install libgomp1"):
            load()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86-64 only")
def test_an_old_processor_is_refused(monkeypatch):
    monkeypatch.setattr(llama_cpp, "CPU_NEEDS", {"avx2", "avx9000"})
    with pytest.raises(EngineError, match="needs a processor with avx9000"):
        llama_cpp.library.__wrapped__()


def test_another_layout_is_refused(monkeypatch):
    monkeypatch.setitem(llama_cpp._CONTEXT_DEFAULTS, "n_ubatch", 513)
    with pytest.raises(EngineError, match="n_ubatch reads 512, not 513"):
        llama_cpp.library.__wrapped__()

"""llama.cpp through its C functions: right, small, and never the end of the process."""

from __future__ import annotations

import ctypes
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import folders
import numpy as np
import pytest
from conftest import bare_artifact, bare_runtime, random_checkpoint

from asterisk.artifact import Artifact
from asterisk.common import tensors
from asterisk.common.errors import ArtifactError, EngineError, MissingExtra
from asterisk.exporters.gguf import ENTRY, GgufExporter
from asterisk.model.checkpoint import load
from asterisk.model.config import Dense, ModelConfig
from asterisk.runtimes import llama_cpp
from asterisk.runtimes.gguf import DENSE, GgufEngine, check_header
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
# Composed and decomposed: words of pieces for Hugging Face, and unknown ones in some engines.
DIACRITICS = [
    "Hokkaid\u014d",
    "Hokkaido\u0304",
    "caf\u00e9 cafe\u0301",
    "Gr\u00f6\u00dfe",
    "na\u00efve",
    "Vi\u1ec7t Nam",
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
    lengths = (512, 511, 257, 128, 65, 64, 33, 32, 20, 3, 1)
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


def test_eight_threads_on_two_sessions(q8_0):
    texts = [ids for seed in range(3) for ids in _texts(seed) if len(ids) < 130]
    with _runtime(q8_0) as runtime:
        expected = np.stack([runtime.embed_ids(ids) for ids in texts])
    with _runtime(q8_0, 2) as runtime, ThreadPoolExecutor(8) as pool:
        found = np.stack(list(pool.map(runtime.embed_ids, texts * 4)))
    assert np.array_equal(found, np.concatenate([expected] * 4))


@contextmanager
def vocabulary(path):
    """Give llama.cpp's own reading of a text by the file's vocabulary, special tokens around it."""
    dll = llama_cpp.library().dll
    dll.llama_model_get_vocab.restype = ctypes.c_void_p
    dll.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
    dll.llama_tokenize.argtypes = [
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32),
        *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool),
    ]
    params = dll.llama_model_default_params()
    params.vocab_only = True
    model = dll.llama_model_load_from_file(os.fsencode(path), params)

    def tokenize(text: str) -> list[int]:
        data, room = text.encode(), (ctypes.c_int32 * 4096)()
        count = dll.llama_tokenize(
            dll.llama_model_get_vocab(model), data, len(data), room, len(room), True, False
        )
        return room[:count]

    yield tokenize
    dll.llama_model_free(model)


def test_llama_cpp_tokenises_as_we_do(small, lines):
    tokenizer = gpt2()
    with vocabulary(small.entry) as tokenize:
        for text in [*AWKWARD, *lines]:
            assert tokenize(text) == tokenizer.encode(text), text


FOREIGN = {
    "wordpiece": folders.bert,
    "roberta": folders.roberta,
    "unigram": folders.multilingual,
}


@pytest.fixture(scope="module", params=FOREIGN)
def foreign(request, tmp_path_factory):
    """A random model as `transformers` saves it: its folder, and its artifact in float32."""
    folder = FOREIGN[request.param](tmp_path_factory.mktemp(request.param) / "model")
    return folder, _artifact(load(folder), FP32, tmp_path_factory.mktemp("artifact"))


# Where llama.cpp alone differs on a text that ships: it takes all marks for accents.
MARKS = {"wordpiece": 2, "roberta": 0, "unigram": 0}


def equally_likely(folder: Path, ids: list[int], others: list[int]) -> bool:
    """Tell whether two readings are as good to a Unigram model: of five zeros, 2 + 3 and 3 + 2."""
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    if model["type"] != "Unigram":
        return False
    scores = np.array([score for _, score in model["vocab"]])
    return bool(np.isclose(scores[ids].sum(), scores[others].sum(), rtol=0, atol=1e-3))


def test_llama_cpp_tokenises_as_hugging_face_does(foreign, lines, request):
    from transformers import AutoTokenizer

    folder, artifact = foreign
    truth = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    texts = [*DIACRITICS, *lines]
    with vocabulary(artifact.entry) as tokenize:
        readings = [(text, tokenize(text), truth(text)["input_ids"]) for text in texts]
    differing = [
        text
        for text, ids, true in readings
        if ids != true and not equally_likely(folder, ids, true)
    ]
    assert len(differing) <= MARKS[request.node.callspec.params["foreign"]], differing
    assert not set(differing) & set(DIACRITICS)


def test_diacritics_are_no_unknown_words(tmp_path):
    checkpoint = load(folders.bert(tmp_path / "model"))
    artifact = _artifact(checkpoint, Q8_0, tmp_path)
    with vocabulary(artifact.entry) as tokenize:
        for text in DIACRITICS:
            assert checkpoint.tokenizer.special["unk"] not in tokenize(text), text
        assert tokenize("Hokkaid\u014d") == tokenize("Hokkaido\u0304") == tokenize("hokkaido")


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("lower", [True, False])
def test_case_and_accents_are_the_tokenizers(tmp_path, lines, lower, strip):
    folder = folders.bert(tmp_path / "model")
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["normalizer"] |= {"lowercase": lower, "strip_accents": strip}
    settings = {"do_lower_case": lower, "strip_accents": strip}
    folders.edit(folder / "tokenizer.json", normalizer=definition["normalizer"])
    folders.edit(folder / "tokenizer_config.json", **settings)
    checkpoint = load(folder)
    ours = checkpoint.tokenizer.open()
    artifact = _artifact(checkpoint, Q8_0, tmp_path)
    with vocabulary(artifact.entry) as tokenize:
        for text in [*DIACRITICS, "Ein GROSSES Haus", *lines[::20]]:
            assert tokenize(text) == [*ours.prefix, *ours.encode(text), *ours.suffix], text


def test_where_llama_cpps_wordpiece_differs(tmp_path):
    """What docs/gguf.md says of the file alone; the day this fails, it can say less."""
    checkpoint = load(folders.bert(tmp_path / "model"))
    artifact, ours = _artifact(checkpoint, Q8_0, tmp_path), checkpoint.tokenizer.open()
    with vocabulary(artifact.entry) as tokenize:
        for text in ("x" * 101, "\u0938\u092d\u0940", "\ud55c\uad6d", "1\ufe0f\u20e3"):
            assert tokenize(text)[1:-1] != ours.encode(text), text
        assert tokenize("x" * 100)[1:-1] == ours.encode("x" * 100)


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


@pytest.fixture
def stock(python):
    """Embed texts by llama-server, given nothing but a file."""

    def embed(path, texts):
        done = python(SERVER, str(path), json.dumps(texts))
        answer = next(line for line in done.stdout.splitlines() if line.startswith("VECTORS"))
        return np.array(json.loads(answer.removeprefix("VECTORS")), np.float32)

    return embed


def test_the_file_stands_alone(q8_0, stock):
    """llama-server, given texts and nothing but the file, answers with the same vectors."""
    texts = AWKWARD[:5]
    theirs = stock(q8_0.entry, texts)
    with _runtime(q8_0) as runtime:
        ours = runtime.encode(texts, normalize=False)
    assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_any_bert_stands_alone(foreign, stock):
    """By llama-server and by us, the vectors of sentence-transformers on the folder."""
    folder, artifact = foreign
    texts = [*DIACRITICS, "It's $5.00 + 3%!", "one two three " * 40]
    truth = folders.truth(folder).encode(texts)
    assert folders.cosines(stock(artifact.entry, texts), truth).min() > 0.99999
    with _runtime(artifact) as runtime:
        assert folders.cosines(runtime.encode(texts), truth).min() > 0.99999


def test_cls_pooling_stands_alone(tmp_path, stock):
    source = folders.bert(tmp_path / "source")
    folder = folders.sentence_transformer(source, tmp_path / "model", pooling="cls")
    artifact = _artifact(load(folder), FP32, tmp_path)
    truth = folders.truth(folder).encode(DIACRITICS)
    assert folders.cosines(stock(artifact.entry, DIACRITICS), truth).min() > 0.99999
    with _runtime(artifact) as runtime:
        assert folders.cosines(runtime.encode(DIACRITICS), truth).min() > 0.99999


@pytest.mark.parametrize(
    "change",
    [
        {"pooling": "cls"},
        {"pooling": "max"},
        {"pooling": "mean_sqrt_len_tokens"},
        {"dense": (Dense(48),)},
        {"dense": (Dense(64, "tanh"), Dense(16, bias=False)), "pooling": "mean_sqrt_len_tokens"},
        {"activation": "gelu_tanh"},
        {"max_seq_length": 100},
        {"vocab_size": 60_000},
    ],
)
def test_what_a_bert_may_have_agrees_with_pytorch(tmp_path, change):
    checkpoint = random_checkpoint(replace(SMALL, num_layers=2, **change))
    longest, size = checkpoint.config.max_seq_length, checkpoint.config.embedding_size
    with (
        reference(checkpoint) as truth,
        _runtime(_artifact(checkpoint, FP32, tmp_path)) as runtime,
    ):
        for ids in (ids[:longest] for ids in _texts()):
            ours, theirs = runtime.embed_ids(ids), truth.embed_ids(ids)
            assert ours.shape == (size,)
            assert _cosine(ours, theirs) > 0.99999, len(ids)
            assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=1e-3)


def test_dense_maps_that_are_not_the_manifests_are_refused(tmp_path):
    checkpoint = random_checkpoint(replace(SMALL, dense=(Dense(48),)))
    artifact = _artifact(checkpoint, Q8_0, tmp_path)
    beside = tmp_path / DENSE
    other = {"dense.0.weight": np.zeros((48, 31), "f4"), "dense.0.bias": np.zeros(48, "f4")}
    tensors.write(beside, other, {})
    with pytest.raises(ArtifactError, match="does not hold the Dense maps of the manifest"):
        GgufEngine.open(artifact, 1)
    beside.write_bytes(bytes(1 << 24))
    with pytest.raises(ArtifactError, match="not a plain file of at most"):
        GgufEngine.open(artifact, 1)
    beside.unlink()
    with pytest.raises(ArtifactError, match="cannot read"):
        GgufEngine.open(artifact, 1)


MEASURE = """
import sys
import asterisk
from asterisk.common.process_memory import read_sizes
runtime = asterisk.load(sys.argv[1])
for start in range(200):
    runtime.embed_ids(range(start * 20, start * 20 + 20))
heavy = {"torch", "transformers", "onnxruntime", "xllamacpp", "gguf", "safetensors"}
print(read_sizes()["Pss"] // 1024, *(heavy & {name.split(".")[0] for name in sys.modules}))
runtime.embed_ids(range(512))
print(read_sizes()["Pss"] // 1024)
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
from asterisk.common.errors import ArtifactError
from asterisk.model.config import ModelConfig
from asterisk.runtimes.gguf import GgufEngine

class Damaged:
    entry = Path(sys.argv[1]).with_name("damaged.gguf")
    config = ModelConfig(hidden_size=32, num_heads=1, num_layers=1, intermediate_size=32)

def attempt(data):
    Damaged.entry.write_bytes(data)
    try:
        (engine,) = GgufEngine.open(Damaged, 1)
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

"""Upstream llama.cpp, built from its own source, on what we export.

Results: benchmarks/results/outside-truth.md.

Needs what `build_llama` builds, and the official OpenAI client: the environment `outside-llama`
of tox has both.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import SHIPPED, bare_artifact, bare_runtime, random_checkpoint

from asterisk.exporters.export import choose
from asterisk.exporters.gguf import GgufExporter
from asterisk.model.config import Dense, ModelConfig, llama_shape
from asterisk.runtimes import gguf as runtime_module
from asterisk.runtimes.gguf import GgufEngine
from asterisk.tokenizer import gpt2

from .build_llama import VARIABLE, built, home
from .conftest import cosine

pytestmark = [
    pytest.mark.llama,
    pytest.mark.slow,
    pytest.mark.skipif(
        not built(home()),
        reason=f"no llama.cpp: run tests/outside/build_llama.py, or name its folder in {VARIABLE}",
    ),
]
QUANTISED = [recipe.name for recipe in GgufExporter.recipes if recipe.name != "fp32"]
SLOTS = 4
SPECIALS = ("<|endoftext|>", "[PAD]", "[MASK]")
SPECIAL = "before <|endoftext|> after"


@dataclass
class Served:
    """A llama-server with one file, and the official client on it."""

    url: str
    client: object

    def embed(self, inputs) -> np.ndarray:
        answer = self.client.embeddings.create(
            model="asterisk", input=inputs, encoding_format="float"
        )
        assert [row.index for row in answer.data] == list(range(len(answer.data)))
        return np.array([row.embedding for row in answer.data], np.float32)

    def tokenise(self, text: str) -> list[int]:
        body = json.dumps({"content": text}).encode()
        request = urllib.request.Request(
            f"{self.url}/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["tokens"]


@contextmanager
def serving(path: Path, log: Path, *options: str) -> Iterator[Served]:
    """Run llama-server with its defaults, but for as many tokens a slot as the model has."""
    openai = pytest.importorskip("openai")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [str(home() / "bin" / "llama-server"), "--model", str(path), "--embedding"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--parallel", str(SLOTS)]
    command += ["--ctx-size", str(512 * SLOTS), "--ubatch-size", "512", "--threads", "1"]
    command += options
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            _await(url, server, log)
            yield Served(url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0))
        finally:
            server.terminate()


def _await(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail("llama-server did not start: " + log.read_text(errors="replace")[-2000:])


@pytest.fixture(scope="module", params=["q8_0", "q4_k_m"])
def served(request, written, tmp_path_factory):
    artifact = written("gguf", request.param)
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(artifact.entry, log) as server, bare_runtime(GgufEngine, artifact) as runtime:
        yield server, runtime


def _varied(lines: list[str]) -> list[str]:
    """Texts of 1 to some 500 tokens, without the names of special tokens."""
    tokenizer = gpt2()
    plain = [text for text in lines if not any(name in text for name in SPECIALS)]
    plain = [text for text in plain if len(tokenizer.encode(text)) <= 512]
    long = " ".join(plain[:60])
    return [*(long[:size] for size in (1, 3, 10, 40, 160, 640, 1_200)), *plain[:200]]


def test_the_openai_client_gets_our_vectors_from_several_slots_at_once(served, lines):
    server, runtime = served
    texts = _varied(lines)
    ours = runtime.encode(texts)
    with ThreadPoolExecutor(2 * SLOTS) as pool:
        theirs = np.concatenate(list(pool.map(lambda text: server.embed([text]), texts)))
    assert theirs.shape == (len(texts), 256)
    assert np.allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-4)
    assert min(map(cosine, ours, theirs)) > 0.999
    # And as lists, several at once.
    batches = [texts[at : at + 8] for at in range(0, 64, 8)]
    with ThreadPoolExecutor(SLOTS) as pool:
        theirs = np.concatenate(list(pool.map(server.embed, batches)))
    assert min(map(cosine, ours, theirs)) > 0.999


def test_token_ids_may_be_sent_too(served, ids):
    server, runtime = served
    for some in ids:
        (theirs,) = server.embed([some])
        assert cosine(runtime.embed_ids(some), theirs) > 0.999


def test_the_server_reads_special_tokens_where_we_read_text(served):
    """The one difference: llama-server parses the names of special tokens in a user's text."""
    server, runtime = served
    (theirs,) = server.embed([SPECIAL])
    parsed = [*server.tokenise("before "), 50_256, *server.tokenise(" after")]
    assert cosine(runtime.embed_ids(parsed), theirs) > 0.999
    assert max(runtime.tokenize(SPECIAL)) < 50_256
    assert cosine(runtime.encode(SPECIAL), theirs) < 0.999
    # What to do about it: tokenise here, send ids.
    (sent,) = server.embed([runtime.tokenize(SPECIAL)])
    assert cosine(runtime.encode(SPECIAL), sent) > 0.999


def test_the_server_refuses_what_is_too_long_and_lives(served):
    import openai

    server, runtime = served
    with pytest.raises(openai.APIStatusError):
        server.embed(["word " * 600])
    (theirs,) = server.embed(["still there"])
    assert cosine(runtime.encode("still there"), theirs) > 0.999


@pytest.mark.parametrize("recipe", QUANTISED)
def test_llama_quantize_writes_the_same_tensors(written, tmp_path, recipe):
    """The same types, and the same bits: our choice of types and our packing are llama.cpp's."""
    packed = tmp_path / "packed.gguf"
    command = [home() / "bin" / "llama-quantize", written("gguf", "fp32").entry, packed]
    subprocess.run([*map(str, command), recipe.upper(), "1"], check=True, capture_output=True)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(packed).tensors}
    ours = {
        tensor.name: tensor for tensor in gguf.GGUFReader(written("gguf", recipe).entry).tensors
    }
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.tensor_type == theirs[name].tensor_type, name
        assert tensor.data.tobytes() == theirs[name].data.tobytes(), name


@pytest.fixture(scope="module")
def converted(shipped, tmp_path_factory) -> Path:
    """What llama.cpp's own converter makes of the checkpoint folder."""
    path = tmp_path_factory.mktemp("converted") / "model.gguf"
    source = home() / "source"
    command = [sys.executable, source / "convert_hf_to_gguf.py", SHIPPED, "--outfile", path]
    done = subprocess.run(
        [*map(str, command), "--outtype", "f32"],
        env={**os.environ, "PYTHONPATH": str(source / "gguf-py")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return path


def _keys(path: Path) -> dict:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_llama_cpps_converter_writes_the_same_model(converted, written):
    ours, theirs = written("gguf", "fp32").entry, converted
    mine, others = (
        {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
        for path in (ours, theirs)
    )
    assert mine.keys() == others.keys()
    for name, data in mine.items():
        assert data.tobytes() == others[name].tobytes(), name
    mine, others = _keys(ours), _keys(theirs)
    shape = {name for name in mine if name.startswith("bert.")}
    assert len(shape) == 8
    assert {name: others.get(name) for name in shape} == {name: mine[name] for name in shape}
    # It takes every BertModel for WordPiece and drops the merges: its file reads text wrongly.
    assert others["tokenizer.ggml.model"] == "bert"
    assert "tokenizer.ggml.merges" not in others
    assert others["tokenizer.ggml.pre"] == mine["tokenizer.ggml.pre"] == "gpt-2"
    assert others["tokenizer.ggml.token_type"] == mine["tokenizer.ggml.token_type"]


def test_the_converters_file_gives_the_same_vectors_for_the_same_ids(
    converted, written, ids, monkeypatch
):
    artifact = written("gguf", "fp32")
    with bare_runtime(GgufEngine, artifact) as runtime:
        ours = [runtime.embed_ids(some) for some in ids]

    class Theirs:
        entry, config = converted, artifact.config

    # Our check refuses its keys, such as general.type: they are not those of an artifact.
    monkeypatch.setattr(runtime_module, "check_header", lambda path, config: llama_shape(config))
    (engine,) = GgufEngine.open(Theirs, 1)
    assert np.array_equal(ours, [engine.run(some) for some in ids])
    engine.close()


@pytest.fixture(scope="module", params=["fp32", "q8_0"])
def widened(request, tmp_path_factory):
    """A small model of the original project's shape, as a gpt2."""
    config = ModelConfig(
        vocab_size=50_258,
        hidden_size=64,
        intermediate_size=128,
        layer_norm_eps=1e-5,
        norm_first=True,
        embedding_norm=False,
        dense=(Dense(32),),
    )
    writer, folder = GgufExporter(), tmp_path_factory.mktemp(request.param)
    return bare_artifact(writer, random_checkpoint(config), choose(writer, request.param), folder)


def _served(artifact, texts, log, threads, *options) -> list[float]:
    """Return each text's cosine between llama-server's vector and ours."""
    with serving(artifact.entry, log, *options) as server, ThreadPoolExecutor(threads) as pool:
        theirs = np.concatenate(list(pool.map(lambda text: server.embed([text]), texts)))
    assert theirs.shape == (len(texts), 96)
    assert not theirs[:, 32:].any()
    with bare_runtime(GgufEngine, artifact) as runtime:
        return list(map(cosine, runtime.encode(texts), theirs[:, :32]))


def test_the_widened_original_is_served(widened, lines, tmp_path):
    """The embedding, then zeros: one text at a time, or several in one unified cache."""
    texts = _varied(lines)[:80]
    assert min(_served(widened, texts[:20], tmp_path / "one", 1)) > 0.999
    assert min(_served(widened, texts, tmp_path / "many", 2 * SLOTS, "--kv-unified")) > 0.999


def test_the_widened_original_needs_a_unified_cache(widened, lines, tmp_path):
    # llama.cpp cuts the texts of several slots to equal lengths, which only causal models bear,
    # and says nothing. The day this fails, docs/gguf.md can drop its warning.
    assert min(_served(widened, _varied(lines)[:80], tmp_path / "log", 2 * SLOTS)) < 0.99

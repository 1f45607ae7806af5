"""What every exporter and every runtime promises, for each format and recipe."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import ALL, random_checkpoint, thresholds_of

import asterisk
from asterisk.artifact import open_artifact
from asterisk.common import errors
from asterisk.exporters.export import choose, export, find_exporter, gate, open_reference
from asterisk.model.config import Dense, ModelConfig
from asterisk.runtimes.load import load, verify
from asterisk.runtimes.torch import reference

ENGINES = {
    "onnx": "onnxruntime",
    "tflite": "ai_edge_litert",
    "gguf": "xllamacpp",
    "torch": "torch",
    "jax": "jax",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "psutil": "psutil",
}

every = pytest.mark.parametrize(("name", "recipe"), ALL)


@pytest.fixture(scope="module")
def every_text(toy, lines):
    """The gate's reference with all texts, of which conftest.py gives other tests a few."""
    with open_reference(toy) as truth:
        truth.texts = lines
        yield truth


@every
def test_passes_its_gate_on_the_shipped_texts(artifact_of, every_text, name, recipe):
    artifact = artifact_of(name, recipe)
    manifest = open_artifact(artifact).manifest
    limits, figures = manifest.thresholds, manifest.fidelity
    if recipe == choose(find_exporter(name), None).name:
        with load(artifact) as runtime:
            figures = gate(runtime, every_text, limits)
        assert figures["texts"] > 900
    assert figures["cosine_mean"] >= limits.cosine_mean
    assert figures["cosine_min"] >= limits.cosine_min
    assert figures["overlap_at_10"] >= limits.overlap_at_10


@every
def test_agrees_with_pytorch_at_every_length(artifact_of, toy, lines, name, recipe):
    least = thresholds_of(name, recipe).cosine_min
    with asterisk.load(artifact_of(name, recipe)) as runtime, reference(toy) as truth:
        stream = [token for line in lines for token in truth.tokenize(line)]
        for length in [*range(1, 40), *range(40, 513, 43), 127, 128, 129, 511, 512]:
            ids = stream[length * 7 :][:length]
            a, b = runtime.embed_ids(ids), truth.embed_ids(ids)
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            assert cosine >= least, length
            # The vector's length is kept too, for normalize=False.
            assert abs(np.sqrt((a @ a) / (b @ b)) - 1) < 0.05, length


@every
def test_a_vector_depends_on_its_text_alone(artifact_of, lines, name, recipe):
    some = lines[:60]
    with asterisk.load(artifact_of(name, recipe), threads=2) as runtime:
        together = runtime.encode(some)
        alone = np.stack([runtime.encode(text) for text in reversed(some)])[::-1]
        assert np.array_equal(together, alone)
        shuffled = runtime.encode(some[::-1])[::-1]
        assert np.array_equal(together, shuffled)


@every
def test_shapes_and_truncated_dimensions(artifact_of, name, recipe):
    with asterisk.load(artifact_of(name, recipe)) as runtime:
        one, many = runtime.encode("one text"), runtime.encode(["one text", "another"])
        assert one.shape == (256,)
        assert many.shape == (2, 256)
        assert one.dtype == many.dtype == np.float32
        assert np.array_equal(one, many[0])
        assert np.allclose(np.linalg.norm(many, axis=1), 1, atol=1e-6)
        short = runtime.encode("one text", dim=64)
        assert short.shape == (64,)
        assert np.allclose(short, one[:64] / np.linalg.norm(one[:64]), atol=1e-6)
        raw = runtime.encode("one text", normalize=False)
        assert np.allclose(raw / np.linalg.norm(raw), one, atol=1e-6)
        assert runtime.encode([]).shape == (0, 256)


@every
def test_bad_input_is_refused_before_the_engine(artifact_of, name, recipe):
    with asterisk.load(artifact_of(name, recipe)) as runtime:
        before = runtime.encode("still alive")
        for wrong in ([], [-1], [50_259], [0] * 513):
            with pytest.raises(errors.InputError):
                runtime.embed_ids(wrong)
        with pytest.raises(errors.InputError, match="empty text"):
            runtime.encode("")
        with pytest.raises(errors.InputError, match="empty text"):
            runtime.encode(["full", ""])
        with pytest.raises(errors.UsageError):
            runtime.encode("text", dim=0)
        with pytest.raises(errors.UsageError):
            runtime.encode("text", dim=257)
        with pytest.raises(errors.UsageError):
            runtime.encode([b"bytes"])
        assert np.array_equal(runtime.encode("still alive"), before)


@every
def test_surrogate_pairs_are_their_characters(artifact_of, name, recipe):
    with asterisk.load(artifact_of(name, recipe)) as runtime:
        pair = runtime.encode("good \ud83d\udc4d")
        assert np.array_equal(pair, runtime.encode("good \N{THUMBS UP SIGN}"))
        assert not np.array_equal(pair, runtime.encode("good \ufffd"))
        lone = runtime.encode(["\ud83d", "\udc4d a"])
        assert np.array_equal(lone, runtime.encode(["\ufffd", "\ufffd a"]))


@every
def test_long_texts_are_truncated_and_counted_or_refused(artifact_of, name, recipe):
    long = "word " * 2_000
    with asterisk.load(artifact_of(name, recipe)) as runtime:
        assert runtime.truncated == 0
        cut = runtime.encode(long)
        assert runtime.truncated == 1
        assert np.array_equal(cut, runtime.encode(long + "and more"))
        assert np.array_equal(cut, runtime.encode("word" + " word" * 511))
        assert runtime.truncated == 2
        with pytest.raises(errors.InputError, match="512"):
            runtime.encode(long, on_long="error")


@every
def test_ten_megabytes_of_text(artifact_of, name, recipe):
    with asterisk.load(artifact_of(name, recipe)) as runtime:
        for unit in ("a", "xq", "漢", " ", "word "):
            vector = runtime.encode(unit * (10_000_000 // len(unit)))
            assert np.isfinite(vector).all()


@every
def test_special_tokens_in_text_are_plain_text(artifact_of, name, recipe):
    with asterisk.load(artifact_of(name, recipe)) as runtime:
        for special in ("[PAD]", "[MASK]", "<|endoftext|>"):
            ids = runtime.tokenize(f"a {special} b")
            assert max(ids) < 50_256
            assert len(ids) > 4
            assert np.isfinite(runtime.encode(special)).all()


@every
def test_eight_threads_on_one_runtime(artifact_of, lines, name, recipe):
    some = lines[:40]
    with asterisk.load(artifact_of(name, recipe), threads=2) as runtime:
        expected = runtime.encode(some)
        wrong = []

        def work(offset: int) -> None:
            for index in range(len(some)):
                at = (index * 7 + offset) % len(some)
                if not np.array_equal(runtime.encode(some[at]), expected[at]):
                    wrong.append(at)

        threads = [threading.Thread(target=work, args=(offset,)) for offset in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


@every
def test_imports_only_its_engine(artifact_of, python, name, recipe):
    code = (
        "import sys, asterisk\n"
        "asterisk.load(sys.argv[1]).encode('a text')\n"
        "print(*sorted({module.split('.')[0] for module in sys.modules}))"
    )
    done = python(code, artifact_of(name, recipe))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    others = {module for engine, module in ENGINES.items() if engine != name}
    assert not loaded & others


@every
def test_verifies_where_it_is_copied_to(artifact_of, tmp_path, name, recipe):
    copy = tmp_path / "elsewhere"
    shutil.copytree(artifact_of(name, recipe), copy)
    verdict = verify(copy)
    assert verdict.cosine_min >= verdict.artifact.manifest.thresholds.cosine_min
    assert verdict.texts == 32


@every
def test_two_exports_are_the_same_bytes(  # noqa: PLR0917 - fixtures
    artifact_of, toy, toy_reference, tmp_path, name, recipe
):
    first, again = artifact_of(name, recipe), tmp_path / "again"
    if recipe == choose(find_exporter(name), None).name:
        export(toy, name, recipe, again)
        assert len(list(again.iterdir())) == len(list(first.iterdir()))
    else:  # what is the recipe's own; the gate would take its seconds once more
        again.mkdir()
        find_exporter(name).write(
            toy, choose(find_exporter(name), recipe), again, toy_reference.samples
        )
    for path in again.iterdir():
        assert path.read_bytes() == (first / path.name).read_bytes(), path.name


@every
@pytest.mark.slow
def test_damage_is_found_before_the_engine(artifact_of, tmp_path, name, recipe):
    source = artifact_of(name, recipe)
    random = np.random.default_rng(0)
    for victim in sorted(path.name for path in source.iterdir() if path.name != "artifact.json"):
        for kind in ("flipped", "truncated", "missing", "empty"):
            copy = tmp_path / f"{victim}-{kind}"
            shutil.copytree(source, copy)
            path = copy / victim
            data = bytearray(path.read_bytes())
            if kind == "flipped":
                data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
            elif kind == "truncated":
                data = data[: len(data) // 2]
            elif kind == "empty":
                data = bytearray()
            path.unlink()
            if kind != "missing":
                path.write_bytes(data)
            with pytest.raises(errors.ArtifactError):
                asterisk.load(copy)
            shutil.rmtree(copy)


@every
def test_an_engine_file_re_hashed_after_damage_does_not_kill_the_process(
    artifact_of, tmp_path, python, name, recipe
):
    from asterisk.artifact import sha256

    source = artifact_of(name, recipe)
    manifest = json.loads((source / "artifact.json").read_text())
    entry = manifest["entry"]
    original = (source / entry).read_bytes()
    damages = {
        "half": original[: len(original) // 2],
        "head": original[:100],
        "noise": bytes(np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8)),
        "empty": b"",
    }
    for kind, data in damages.items():
        copy = tmp_path / kind
        shutil.copytree(source, copy)
        (copy / entry).write_bytes(data)
        manifest["files"][entry] = sha256(copy / entry)
        (copy / "artifact.json").write_text(json.dumps(manifest))
        done = python(
            "import sys, asterisk\n"
            "from asterisk.common.errors import AsteriskError\n"
            "try:\n    asterisk.load(sys.argv[1]).encode('a text')\n"
            "except AsteriskError as failure:\n    print(type(failure).__name__)\n",
            copy,
        )
        assert done.returncode == 0, (kind, done.stderr)
        assert done.stdout.strip() in {"ArtifactError", "EngineError"}, (kind, done.stdout)
        shutil.rmtree(copy)


ORIGINAL = ModelConfig(
    vocab_size=50_259,
    hidden_size=64,
    intermediate_size=128,
    layer_norm_eps=1e-5,
    norm_first=True,
    embedding_norm=False,
    dense=(Dense(32),),
)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_the_original_projects_shape_exports_too(tmp_path, name):
    checkpoint = random_checkpoint(ORIGINAL, "original")
    artifact = export(checkpoint, name, "fp32", tmp_path / "original")
    assert artifact.manifest.fidelity["cosine_min"] > 0.99999
    with asterisk.load(artifact.folder) as runtime:
        assert runtime.encode("a text").shape == (32,)


def test_pytorch_does_not_see_padding_or_neighbours(toy, lines):
    import torch

    with reference(toy) as truth:
        encoder = truth._engines[0].encoder
        batch = [truth.tokenize(text) for text in lines[:16]]
        width = max(map(len, batch)) + 9
        ids = torch.full((len(batch), width), 50_257)
        mask = torch.zeros((len(batch), width), dtype=torch.bool)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = True
        with torch.inference_mode():
            padded = torch.nn.functional.normalize(encoder(ids, mask), dim=-1).numpy()
        assert np.abs(padded - truth.encode(lines[:16])).max() < 1e-6


def test_an_artifact_path_may_be_a_string(artifact_of):
    with asterisk.load(str(artifact_of("onnx", "int8"))) as runtime:
        assert runtime.format == "onnx"
    with pytest.raises(errors.ArtifactError, match="neither an artifact nor a checkpoint"):
        asterisk.load(Path("nowhere"))

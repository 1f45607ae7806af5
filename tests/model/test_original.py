"""What `asterisk-import` makes of the original's files, against a build of PyTorch's parts."""

from __future__ import annotations

import os
import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import asterisk
from asterisk.common.errors import ArtifactError, InputError, UsageError
from asterisk.model import huggingface, original
from asterisk.model.checkpoint import load, save
from asterisk.runtimes.torch import reference
from model.original_project import build, vectors

SMALL = {"hidden": 32, "out": 24, "positions": 64}


@pytest.fixture(scope="module")
def small():
    return build(**SMALL)


@pytest.fixture(scope="module")
def raw(small):
    return small.state_dict()


@pytest.fixture(scope="module")
def truth(raw, tmp_path_factory):
    """The small model's own state dict, imported."""
    path = tmp_path_factory.mktemp("raw") / "model.pt"
    torch.save(raw, path)
    return original.read(path, "small")


def check(runtime, model, texts, **tolerance):
    ids = [runtime.tokenize(text) for text in texts]
    np.testing.assert_allclose(runtime.encode(texts), vectors(model, ids), **tolerance)


@pytest.mark.slow
def test_the_original_itself_through_the_command(command, tmp_path, lines):
    model = build()
    torch.save(model.state_dict(), tmp_path / "theirs.pt")
    done = command("importing", "theirs.pt", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"2 layers, 2 heads, hidden 512, 256-d vectors, 50,259 tokens" in done.stdout
    some = [*lines[:100], "long " * 600]
    assert load(tmp_path / "checkpoints" / "theirs").name == "theirs"
    with asterisk.load(tmp_path / "checkpoints" / "theirs", threads=2) as runtime:
        check(runtime, model, some, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.fixed_dictionaries(
        {
            "hidden": st.sampled_from([32, 48, 64]),
            "heads": st.sampled_from([1, 2, 4, 8]),
            "layers": st.integers(1, 3),
            "vocabulary": st.sampled_from(original.VOCABULARIES),
            "out": st.integers(1, 40),
            "positions": st.integers(8, 90),
        }
    ),
)
def test_any_shape(tmp_path_factory, seed, shape):
    folder, model = tmp_path_factory.mktemp("any"), build(seed, **shape)
    torch.save(model.state_dict(), folder / "model.pt")
    save(original.read(folder / "model.pt", "any", shape["heads"]), folder / "any")
    vocabulary, positions = shape["vocabulary"], shape["positions"]
    ids = np.random.default_rng(seed).integers(0, vocabulary, positions).tolist()
    with asterisk.load(folder / "any") as runtime:
        assert runtime.config.max_positions == positions
        for length in (1, 2, 7, positions):
            ours = runtime.embed_ids(ids[:length])
            unit = ours / np.linalg.norm(ours)
            np.testing.assert_allclose(unit, vectors(model, [ids[:length]])[0], atol=1e-5)
        with pytest.raises(InputError):
            runtime.embed_ids([vocabulary])


def prefixed(raw, prefix):
    return OrderedDict((prefix + name, value) for name, value in raw.items())


FORMS = {
    "parallel": lambda raw: prefixed(raw, "module."),
    "compiled": lambda raw: prefixed(raw, "_orig_mod."),
    "both": lambda raw: prefixed(raw, "module._orig_mod."),
    "a compiled part": lambda raw: {
        name.replace("encoder.", "encoder._orig_mod."): value for name, value in raw.items()
    },
    "state_dict": lambda raw: {"state_dict": raw, "epoch": 3},
    "model": lambda raw: {"model": prefixed(raw, "module."), "args": {"lr": 2e-4}},
    "parameters": lambda raw: {
        name: torch.nn.Parameter(value.clone()) for name, value in raw.items()
    },
    "transposed": lambda raw: {
        name: value.T.contiguous().T if value.ndim == 2 else value for name, value in raw.items()
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_it_is_the_same_checkpoint(raw, truth, tmp_path, form):
    torch.save(FORMS[form](raw), tmp_path / "model.pt")
    assert original.read(tmp_path / "model.pt", "small").fingerprint == truth.fingerprint


def test_a_whole_training_checkpoint(small, truth, tmp_path):
    model = build(**SMALL)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimiser.step()  # so that it has a state; a rate of nothing leaves the weights
    content = {
        "model_state_dict": model.state_dict(),
        "optimizer": optimiser.state_dict(),
        "step": 1,
    }
    torch.save(content, tmp_path / "last.pt")
    assert original.read(tmp_path / "last.pt", "small").fingerprint == truth.fingerprint


def test_a_file_saved_on_a_gpu(raw, truth, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save(raw, tmp_path / "model.pt")
    assert b"cuda:0" in (tmp_path / "model.pt").read_bytes()
    assert original.read(tmp_path / "model.pt", "small").fingerprint == truth.fingerprint


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_widths_become_float32(raw, tmp_path, dtype):
    torch.save({name: value.to(dtype) for name, value in raw.items()}, tmp_path / "model.pt")
    read = original.read(tmp_path / "model.pt", "small").tensors
    table = read["embeddings.word_embeddings.weight"]
    assert table.dtype == np.float32
    assert np.array_equal(table, raw["token_emb.weight"].to(dtype).float().numpy())


def test_no_token_of_a_text_lies_beyond_a_vocabulary_without_masks(tmp_path, lines):
    model = build(vocabulary=50_258, hidden=32, out=24)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with reference(original.read(tmp_path / "model.pt", "no-mask")) as runtime:
        assert runtime.config.vocab_size == 50_258
        check(runtime, model, [*lines[:50], "[MASK] [PAD] <|endoftext|>"], atol=1e-5)


def test_the_norms_epsilon(tmp_path, lines):
    model = build(embedded=0.003, **SMALL)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with reference(original.read(tmp_path / "model.pt", "faint")) as runtime:
        check(runtime, model, [line[:60] for line in lines[:50]], atol=1e-5)


class Evil:
    """A pickle that would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def changed(name, value=None):
    def change(raw, _):
        tensors = dict(raw)
        del tensors[name]
        return tensors if value is None else tensors | {name: value(raw[name])}

    return change


def poisoned(value):
    value = value.clone()
    value.view(-1)[7] = torch.nan
    return value


NOT_IT = "is not the original's model: "
WRONG = {
    "another model": (
        lambda raw, _: torch.nn.Linear(3, 4).state_dict(),
        NOT_IT + "token_emb.weight is missing",
    ),
    "a tensor missing": (
        changed("encoder.layers.1.linear2.bias"),
        NOT_IT + "encoder.layers.1.linear2.bias is missing",
    ),
    "a layer missing": (
        lambda raw, _: {k: v for k, v in raw.items() if "layers.0" not in k},
        NOT_IT + "encoder.layers.0.linear1.weight is missing",
    ),
    "a final norm": (
        lambda raw, _: dict(raw) | {"encoder.norm.weight": torch.ones(32)},
        NOT_IT + "unexpected tensor 'encoder.norm.weight'",
    ),
    "a wrong shape": (
        changed("encoder.layers.0.self_attn.in_proj_weight", lambda it: it[:64]),
        NOT_IT + "encoder.layers.0.self_attn.in_proj_weight has shape [64, 32], expected [96, 32]",
    ),
    "no matrix": (changed("proj.weight", lambda it: it[0]), "proj.weight is missing, or no matrix"),
    "another vocabulary": (
        changed("token_emb.weight", lambda it: it[:30_522]),
        "token_emb.weight has 30,522 rows, GPT-2's vocabulary 50,257 to 50,259",
    ),
    "too many layers": (
        lambda raw, _: dict(raw) | {"encoder.layers.9999.linear1.bias": torch.ones(1)},
        "num_layers must be 0 to 48, not 10000",
    ),
    "not finite": (
        changed("encoder.layers.0.norm1.bias", poisoned),
        NOT_IT + "encoder.layers.0.norm1.bias holds values that are not finite",
    ),
    "too large for 32 bits": (
        lambda raw, _: dict(raw) | {"proj.bias": torch.full((24,), 1e300, dtype=torch.float64)},
        NOT_IT + "proj.bias holds values that are not finite",
    ),
    "integers": (
        changed("proj.bias", lambda it: it.to(torch.int8)),
        NOT_IT + "proj.bias is missing",  # whole numbers are no weights
    ),
    "sparse": (
        changed("proj.weight", lambda it: it.to_sparse()),
        "tensor 'proj.weight' is no array of floats",
    ),
    "one value repeated": (
        changed("pos_emb.weight", lambda it: it[:1, :1].expand(1 << 20, 1 << 20)),
        "its tensors are larger than the file",
    ),
    "twice": (
        lambda raw, _: {**raw, "module.proj.bias": raw["proj.bias"]},
        "tensor 'proj.bias' occurs twice",
    ),
    "two state dicts": (
        lambda raw, _: {"model": dict(raw), "state_dict": dict(raw)},
        "holds several state dicts: state_dict, model",
    ),
    "a number among tensors": (
        lambda raw, _: dict(raw) | {"epoch": 3},
        "'epoch' in its state dict is not a named tensor",
    ),
    "a list": (lambda raw, _: list(raw.values()), "holds no state dict"),
    "nothing": (lambda raw, _: {}, "holds no state dict"),
    "a whole module": (
        lambda raw, _: build(**SMALL),
        "holds more than tensors (model.original_project.OriginalModel, ",
    ),
    "an object beside": (
        lambda raw, _: {"state_dict": raw, "args": Namespace(lr=1)},
        "holds more than tensors (argparse.Namespace) and is not opened: where it is trusted",
    ),
    "code": (
        lambda raw, folder: {"state_dict": raw, "x": Evil(folder / "made")},
        "holds more than tensors (posix.mkdir)",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_other_contents_get_one_line(raw, tmp_path, kind):
    make, message = WRONG[kind]
    torch.save(make(raw, tmp_path), tmp_path / "model.pt")
    with pytest.raises(ArtifactError) as caught:
        original.read(tmp_path / "model.pt", "x")
    assert message in str(caught.value)
    assert str(tmp_path / "model.pt") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def whole(raw, path):
    torch.save(raw, path)
    return path.read_bytes()


def compressed(raw, path):
    torch.save(raw, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(path.with_suffix(".zip"), "w") as other:
        for entry in archive.infolist():
            other.writestr(entry.filename, archive.read(entry), zipfile.ZIP_DEFLATED)
    return path.with_suffix(".zip").read_bytes()


def program(raw, path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    return path.read_bytes()


def hollow(raw, path):
    """An archive whose tensors' bytes are fewer than its pickle says."""
    torch.save(raw, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(path.with_suffix(".zip"), "w") as other:
        for entry in archive.infolist():
            data = archive.read(entry)
            other.writestr(entry.filename, data[:4] if "/data/" in entry.filename else data)
    return path.with_suffix(".zip").read_bytes()


def flipped(raw, path):
    """One bit of one weight is another."""
    data = bytearray(whole(raw, path))
    data[len(data) // 2] ^= 1
    return bytes(data)


FILES = {
    "empty": (lambda raw, path: b"", "not a file that torch.save wrote"),
    "text": (lambda raw, path: b"hello\n", "not a file that torch.save wrote"),
    "a plain pickle": (lambda raw, path: pickle.dumps(raw), "not a file that torch.save wrote"),
    "cut short": (
        lambda raw, path: whole(raw, path)[:-100_000],
        "not a file that torch.save wrote",
    ),
    "hollow": (hollow, "not a file that torch.save wrote, or damaged"),
    "one bit": (flipped, r"is damaged: '.*/data/0' has another checksum"),
    "compressed": (compressed, "it is compressed"),
    "a program": (program, "is a TorchScript program, not a state dict"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("kind", FILES)
def test_other_files_get_one_line(raw, tmp_path, kind):
    make, message = FILES[kind]
    data = make(raw, tmp_path / "made")
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(ArtifactError, match=message):
        original.read(tmp_path / "model.pt", "x")


def test_size_is_bounded(raw, tmp_path, monkeypatch):
    torch.save(raw, tmp_path / "model.pt")
    monkeypatch.setattr(huggingface, "LARGEST_FILE", 1 << 20)
    with pytest.raises(ArtifactError, match="plain file of at most"):
        original.read(tmp_path / "model.pt", "x")
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ArtifactError, match=r"plain file of at most|No such file"):
            original.read(place, "x")


@settings(max_examples=10, deadline=None)
@given(at=st.integers(0, 1 << 30), with_=st.binary(min_size=1, max_size=40))
def test_damage_is_refused_or_harmless(tmp_path_factory, at, with_):
    path = tmp_path_factory.mktemp("damage") / "model.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at : at + len(with_)] = with_
    path.write_bytes(data)
    with pytest.raises(ArtifactError):
        original.read(path, "x")


@pytest.mark.parametrize("heads", [3, 64, 100])
def test_heads_that_cannot_be(raw, tmp_path, heads):
    torch.save(raw, tmp_path / "model.pt")
    with pytest.raises(UsageError, match=f"{heads} heads do not divide"):
        original.read(tmp_path / "model.pt", "x", heads)


def test_heads_are_another_space(raw, truth, tmp_path):
    torch.save(raw, tmp_path / "model.pt")
    assert original.read(tmp_path / "model.pt", "small", 4).fingerprint != truth.fingerprint


@pytest.mark.slow
def test_what_the_command_refuses(command, raw, tmp_path):
    def refusal(*arguments):
        done = command("importing", *arguments, cwd=tmp_path)
        lines = done.stderr.decode().splitlines()
        assert len(lines) == 1, done.stderr
        assert done.stdout == b""
        return done.returncode, lines[0]

    torch.save(raw, tmp_path / "model.pt")
    torch.save({"x": Evil(tmp_path / "made")}, tmp_path / "evil.pt")
    status, line = refusal("evil.pt")
    assert (status, "holds more than tensors (posix.mkdir)" in line) == (5, True)
    status, line = refusal("model.pt", "--name", "../up")
    assert (status, "could not be exported" in line) == (2, True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    assert refusal("model.pt", "--out", "full")[0] == 7
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "evil.pt", "full"}

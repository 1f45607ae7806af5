"""Small safetensors files, against the safetensors package, and everything that is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.common import tensors
from asterisk.common.errors import ArtifactError


def build(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(shape=(1,), offsets=(0, 4), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def read(path, data):
    path.write_bytes(data)
    return tensors.read(path, largest=1 << 20)


def test_what_we_write_safetensors_reads(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    arrays = {"b": np.arange(6, dtype="f4").reshape(2, 3), "a": np.ones(1, "f4")}
    tensors.write(tmp_path / "file", arrays, {"who": "ä"})
    with safetensors.safe_open(tmp_path / "file", "np") as file:
        assert file.metadata() == {"who": "ä"}
        assert set(file.keys()) == {"a", "b"}
        assert all(np.array_equal(file.get_tensor(name), arrays[name]) for name in arrays)


def test_what_safetensors_writes_we_read(tmp_path):
    writer = pytest.importorskip("safetensors.numpy")
    arrays = {
        "wide": np.random.default_rng(0).standard_normal((3, 5)).astype("f4"),
        "half": np.random.default_rng(1).standard_normal(7).astype("f2"),
        "none": np.empty((0, 4), "f4"),
        "one": np.array(2, "f4"),
    }
    writer.save_file(arrays, tmp_path / "file", metadata={"format": "np"})
    found = tensors.read(tmp_path / "file", largest=1 << 20)
    assert found.metadata == {"format": "np"}
    assert set(found.arrays) == set(arrays)
    for name, array in arrays.items():
        assert found.arrays[name].dtype == np.float32
        assert found.arrays[name].shape == array.shape
        assert np.array_equal(found.arrays[name], array)


def test_bfloat16_and_float64_are_read_and_whole_numbers_left_out(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    values = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    stored = {
        "b": values.to(torch.bfloat16),
        "d": values.double(),
        "i": torch.arange(5),
        "u": torch.zeros(3, dtype=torch.uint8),
    }
    save_file(stored, tmp_path / "file")
    found = tensors.read(tmp_path / "file", largest=1 << 20).arrays
    assert set(found) == {"b", "d"}
    for name, array in found.items():
        assert np.array_equal(array, stored[name].float().numpy())


FOUR = b"\0" * 4
BAD = {
    "empty": b"",
    "short": b"\0" * 7,
    "length beyond the file": (1 << 62).to_bytes(8, "little") + b"{}",
    "not JSON": build(b"{"),
    "deep": build(b"[" * 9_999),
    "a list": build([]),
    "a name twice": build(b'{"a":1,"a":1}'),
    "metadata": build({"__metadata__": {"a": 1}}),
    "metadata list": build({"__metadata__": []}),
    "entry": build({"a": 1}),
    "fields": build({"a": {**entry(), "more": 1}}, FOUR),
    "dtype": build({"a": entry(dtype="F8_E4M3")}, FOUR),
    "dtype kind": build({"a": entry(dtype=[])}, FOUR),
    "negative": build({"a": entry(shape=[-1])}, FOUR),
    "true": build({"a": entry(shape=[True])}, FOUR),
    "float": build({"a": entry(shape=[1.0])}, FOUR),
    "huge": build({"a": entry(shape=[1 << 39, 1 << 39])}, FOUR),
    "nine axes": build({"a": entry(shape=[1] * 9)}, FOUR),
    "beyond": build({"a": entry((2,), (0, 8))}, FOUR),
    "backwards": build({"a": entry((0,), (4, 0))}, FOUR),
    "gap": build({"a": entry((1,), (4, 8))}, FOUR * 2),
    "overlap": build({"a": entry(), "b": entry()}, FOUR),
    "left over": build({"a": entry()}, FOUR + b"\0"),
    "shape": build({"a": entry((2,), (0, 4))}, FOUR),
    "NaN": build({"a": entry()}, np.array([np.nan], "<f4").tobytes()),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_such_file(tmp_path, data):
    with pytest.raises(ArtifactError, match="file") as failure:
        read(tmp_path / "file", data)
    assert "\n" not in str(failure.value)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "none", tmp_path / "nul\0"):
        with pytest.raises(ArtifactError):
            tensors.read(path, largest=100)
    (tmp_path / "large").write_bytes(build({}) + b" " * 100)
    with pytest.raises(ArtifactError, match="at most 100 bytes"):
        tensors.read(tmp_path / "large", largest=100)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_any_damage_is_told_or_harmless(tmp_path_factory, data):
    good = bytearray(build({"a": entry((2,), (0, 8)), "__metadata__": {"k": "v"}}, FOUR * 2))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    good = good[: data.draw(st.integers(0, len(good)))]
    path = tmp_path_factory.getbasetemp() / "damaged"
    try:
        found = read(path, bytes(good))
    except ArtifactError:
        return
    assert all(np.isfinite(array).all() for array in found.arrays.values())

"""The table is refused unless it is whole, and is what the originals make."""

from __future__ import annotations

import hashlib
import random
import struct
import sys
import zlib

import pytest

from asterisk.errors import ArtifactError
from asterisk.tokenizer import BUILTIN, Tokenizer
from asterisk.tokenizer.build import ENCODER_SHA256, MERGES_SHA256, build, main
from asterisk.tokenizer.perfect import place

from .originals import original_encoder, original_merges

GOOD = BUILTIN.read_bytes()


def _refused(path) -> str:
    with pytest.raises(ArtifactError) as caught:
        Tokenizer.open(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("size", [0, 1, 7, 8, 12, 51, 52, 53, 1000, len(GOOD) // 2, len(GOOD) - 1])
def test_truncated(tmp_path, size):
    path = tmp_path / "table.bin"
    path.write_bytes(GOOD[:size])
    _refused(path)


def test_altered_anywhere(tmp_path):
    path = tmp_path / "table.bin"
    chance = random.Random(7)
    for place_ in [*range(60), *(chance.randrange(len(GOOD)) for _ in range(60)), len(GOOD) - 1]:
        bad = bytearray(GOOD)
        bad[place_] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        _refused(path)


def test_lengthened(tmp_path):
    path = tmp_path / "table.bin"
    path.write_bytes(GOOD + b"\0")
    _refused(path)


@pytest.mark.parametrize("section", range(10))
@pytest.mark.parametrize("length", [0, 1, 2**32 - 1])
def test_sealed_with_a_wrong_length(tmp_path, section, length):
    bad = bytearray(GOOD)
    struct.pack_into("<I", bad, 12 + 4 * section, length)
    _refused(_sealed(tmp_path, bad))


@pytest.mark.parametrize("at", [0, 1])
def test_sealed_with_an_index_that_leads_outside(tmp_path, at):
    lengths = struct.unpack_from("<10I", GOOD, 12)
    widths = [4, 4, 4, 2, 2, 2, 2, 2, 1, 1]
    slots = [52 + sum(n * w for n, w in zip(lengths[:i], widths, strict=False)) for i in (5, 7)]
    bad = bytearray(GOOD)
    struct.pack_into("<H", bad, slots[at], 0xFFFF)
    assert "contradicts" in _refused(_sealed(tmp_path, bad))


def _sealed(folder, table: bytearray):
    """Write a table whose checksum is right although the table is not."""
    struct.pack_into("<I", table, 8, zlib.crc32(table[12:]))
    path = folder / "table.bin"
    path.write_bytes(table)
    return path


def test_missing_or_a_folder(tmp_path):
    _refused(tmp_path / "none.bin")
    _refused(tmp_path)


def test_big_endian_machines_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "byteorder", "big")
    assert "little-endian" in _refused(BUILTIN)


def test_it_holds_the_originals(ours):
    assert hashlib.sha256(original_encoder(ours)).hexdigest() == ENCODER_SHA256
    assert hashlib.sha256(original_merges(ours)).hexdigest() == MERGES_SHA256


@pytest.mark.slow
def test_building_again_gives_the_same_bytes(ours, tmp_path):
    encoder, merges, out = (tmp_path / name for name in ("encoder.json", "vocab.bpe", "out.bin"))
    encoder.write_bytes(original_encoder(ours))
    merges.write_bytes(original_merges(ours))
    main([str(encoder), str(merges), str(out)])
    assert out.read_bytes() == GOOD


def test_building_refuses_other_files(tmp_path):
    other = tmp_path / "other"
    other.write_text("{}")
    with pytest.raises(ArtifactError, match="SHA-256"):
        build(other, other, tmp_path / "out.bin")


@pytest.mark.parametrize("count", [1, 2, 50, 5000])
def test_every_key_has_its_place(count):
    chance = random.Random(count)
    values = {chance.getrandbits(32): i for i in range(count)}
    displacements, slots = place(values)
    for key, value in values.items():
        assert slots[(key + displacements[key % len(displacements)]) % len(slots)] == value

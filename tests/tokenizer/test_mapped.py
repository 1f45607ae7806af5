"""A tokenizer file is refused unless it is whole, and the built-in one is what it says."""

from __future__ import annotations

import hashlib
import random
import struct
import sys
import zlib

import pytest

from asterisk.common.errors import ArtifactError
from asterisk.tokenizer import BUILTIN, open_tokenizer
from asterisk.tokenizer.bpe import BPETable
from asterisk.tokenizer.build import perfect_hash, unicode_facts, wordpiece
from asterisk.tokenizer.folder import read_tokenizer
from asterisk.tokenizer.huggingface import bert_normalizer
from asterisk.tokenizer.wordpiece import WordPieceTable

from .originals import original_encoder, original_merges

ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"

VOCAB = ["[UNK]", "[CLS]", "[SEP]", "a", "##b", "\u0301"]
WORDPIECE = wordpiece(
    {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {token: i for i, token in enumerate(VOCAB)},
    },
    [bert_normalizer({})],
    size=len(VOCAB),
    prefix=[1],
    suffix=[2],
    pad=None,
)
FILES = {
    "bpe": (BUILTIN.read_bytes(), BPETable.sections),
    "wordpiece": (WORDPIECE, WordPieceTable.sections),
}
WIDTHS = {"I": 4, "H": 2, "B": 1}
SECTIONS = [(kind, name) for kind, (_, sections) in FILES.items() for name in sections]


@pytest.fixture
def refused(tmp_path):
    """Say why a file with this content is refused."""

    def message(data: bytes) -> str:
        path = tmp_path / "tokenizer.bin"
        path.write_bytes(data)
        with pytest.raises(ArtifactError) as caught:
            open_tokenizer(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


@pytest.mark.parametrize("kind", FILES)
def test_truncated(refused, kind):
    good = FILES[kind][0]
    for size in [0, 1, 7, 8, 12, 51, 52, 53, 1000, len(good) // 2, len(good) - 1]:
        refused(good[:size])


@pytest.mark.parametrize("kind", FILES)
def test_altered_anywhere(refused, kind):
    good, chance = FILES[kind][0], random.Random(7)
    places = [*range(70), *(chance.randrange(len(good)) for _ in range(60)), len(good) - 1]
    for place_ in places:
        bad = bytearray(good)
        bad[place_] ^= 1 << chance.randrange(8)
        refused(bytes(bad))


@pytest.mark.parametrize("kind", FILES)
def test_lengthened(refused, kind):
    refused(FILES[kind][0] + b"\0")


@pytest.mark.parametrize(("kind", "section"), SECTIONS)
@pytest.mark.parametrize("length", [0, 1, 2**32 - 1])
def test_sealed_with_a_wrong_length(refused, kind, section, length):
    good, sections = FILES[kind]
    bad = bytearray(good)
    at = 12 + 4 * list(sections).index(section)
    struct.pack_into("<I", bad, at, length)
    if bad != good:
        refused(_sealed(bad))


@pytest.mark.parametrize(
    ("kind", "section"),
    [
        *(("bpe", name) for name in ("pair_slots", "word_slots", "facts")),
        *(("wordpiece", name) for name in ("buckets", "ids", "offsets", "prefix", "to_ends")),
        *(("wordpiece", name) for name in ("from_points", "combining", "runs")),
    ],
)
def test_sealed_with_an_index_that_leads_outside(refused, kind, section):
    good, sections = FILES[kind]
    at = 12 + 4 * len(sections)
    for name, letter in sections.items():
        if name == section:
            break
        [length] = struct.unpack_from("<I", good, 12 + 4 * list(sections).index(name))
        at += length * WIDTHS[letter]
    bad = bytearray(good)
    last = 4 if section == "facts" else 0  # the first fact is no index
    struct.pack_into(f"<{letter}", bad, at + last, 256 ** WIDTHS[letter] - 1)
    assert "contradicts" in refused(_sealed(bad))


def _sealed(table: bytearray) -> bytes:
    """Return a table whose checksum is right although the table is not."""
    struct.pack_into("<I", table, 8, zlib.crc32(table[12:]))
    return bytes(table)


def test_missing_or_a_folder(tmp_path):
    for path in (tmp_path / "none.bin", tmp_path):
        with pytest.raises(ArtifactError):
            open_tokenizer(path)


def test_big_endian_machines_are_refused(monkeypatch, refused):
    monkeypatch.setattr(sys, "byteorder", "big")
    assert "little-endian" in refused(BUILTIN.read_bytes())
    assert "little-endian" in refused(WORDPIECE)


def test_the_built_in_file_holds_the_originals(ours):
    assert hashlib.sha256(original_encoder(ours)).hexdigest() == ENCODER_SHA256
    assert hashlib.sha256(original_merges(ours)).hexdigest() == MERGES_SHA256


def test_building_the_built_in_file_again_gives_the_same_bytes(monkeypatch, shipped_model):
    monkeypatch.setattr("asterisk.tokenizer.source.GPT2_IDENTITY", "")  # so that it is built
    assert read_tokenizer(shipped_model, "bert").compile()[1] == BUILTIN.read_bytes()


@pytest.mark.slow
def test_what_the_library_knows_about_characters_has_not_changed():
    from .unicode_probe import probe

    assert probe() == unicode_facts()


@pytest.mark.parametrize("count", [1, 2, 50, 5000])
def test_every_key_has_a_slot_of_its_own(count):
    chance = random.Random(count)
    values = {chance.getrandbits(32): i for i in range(count)}
    displacements, slots = perfect_hash(values)
    for key, value in values.items():
        assert slots[(key + displacements[key % len(displacements)]) % len(slots)] == value

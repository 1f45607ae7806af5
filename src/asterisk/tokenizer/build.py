"""Developer tool: GPT-2's original ``encoder.json`` and ``vocab.bpe`` into one mapped table.

    python -m asterisk.tokenizer.build encoder.json vocab.bpe OUT

The same inputs and the same ``tokenizers`` release always give the same bytes. 0.23.3 made the
table in this package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import zlib
from array import array
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from asterisk.errors import ArtifactError
from asterisk.tokenizer.alphabet import BYTES
from asterisk.tokenizer.merge import Merger
from asterisk.tokenizer.perfect import place
from asterisk.tokenizer.probe import class_runs
from asterisk.tokenizer.table import LONGEST, SPECIALS, open_table, pack

ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


def build(encoder: Path, merges: Path, out: Path) -> None:
    """Write the table of ``encoder`` and ``merges`` to ``out``.

    Raises ArtifactError unless both are OpenAI's originals, byte for byte.
    """
    ids: dict[str, int] = json.loads(_original(encoder, ENCODER_SHA256))
    lines = _original(merges, MERGES_SHA256).decode().splitlines()[1:]
    pairs = [ids[left] << 16 | ids[right] for left, right in (line.split(" ") for line in lines)]
    tokens = [bytes(BYTES[c] for c in token) for token in list(ids)[:-1]] + list(SPECIALS)
    if max(map(len, tokens)) != LONGEST:
        raise ArtifactError(f"the longest token is not of {LONGEST} bytes")
    starts = list(accumulate(map(len, tokens), initial=0))
    bases = starts[::256]
    displacements, slots = place({pair: rank for rank, pair in enumerate(pairs)})
    sections = {
        "pairs": _pack("I", pairs),
        "bases": _pack("I", bases),
        "classes": _pack("I", class_runs()),
        "offsets": _pack("H", [start - bases[i >> 8] for i, start in enumerate(starts)]),
        "pair_displacements": _pack("H", displacements),
        "pair_slots": _pack("H", slots),
        "word_displacements": _pack("H", [0]),
        "word_slots": _pack("H", [0]),
        "byte_tokens": bytes(tokens.index(bytes([b])) for b in range(256)),
        "text": b"".join(tokens),
    }
    out.write_bytes(pack(sections))
    displacements, slots = place(_whole_words(Merger(open_table(out)), tokens[: -len(SPECIALS)]))
    sections["word_displacements"] = _pack("H", displacements)
    sections["word_slots"] = _pack("H", slots)
    out.write_bytes(pack(sections))


def _whole_words(merge: Merger, tokens: Sequence[bytes]) -> dict[int, int]:
    """Return CRC-32 to token for every token that its own bytes merge into.

    Of two with one CRC-32 the later is left out, and found by merging like any other word.
    """
    words: dict[int, int] = {}
    for token, text in enumerate(tokens):
        if merge(text) == [token]:
            words.setdefault(zlib.crc32(text), token)
    return words


def _original(path: Path, sha256: str) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ArtifactError(f"{path}: is not OpenAI's original (SHA-256 differs)")
    return data


def _pack(kind: str, values: Sequence[int]) -> bytes:
    return array(kind, values).tobytes()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m asterisk.tokenizer.build", description=__doc__)
    for name in ("encoder", "merges", "out"):
        parser.add_argument(name, type=Path)
    build(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()

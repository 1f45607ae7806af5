"""Artifacts as an attacker would change them: every hash in the manifest fits the change.

Each mutant is what it is called and the bytes of the files that differ. The engine's files are
changed byte by byte and, by those who know the formats (`mutants_onnx`, `mutants_tflite`,
`mutants_gguf`), field by field.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

Files = dict[str, bytes]
Change = Callable[[Files, random.Random], tuple[str, Files]]
MANIFEST = "artifact.json"
HUGE = (
    *(0, 1, 2, 3, 7, 31, 33, 127, 128, 255, 256, 32_767, 65_535, 65_536, 1 << 20),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**33 + 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)


def mutants(folder: Path, seed: int, count: int) -> Iterator[tuple[str, Files]]:
    """Yield ``count`` mutants of the artifact in ``folder``."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = json.loads(files[MANIFEST])
    own = importlib.import_module(f"hardening.mutants_{manifest['format']}")
    aware: tuple[Change, ...] = own.CHANGES
    chance = random.Random(seed)
    for index in range(count):
        # Two in five by those who know the format, one in five to each of the others.
        kind = (aware, _BYTES, aware, _STRUCTURE, _OTHERS)[index % 5]
        label, changed = chance.choice(kind)(files, chance)
        yield f"{seed}.{index} {label}", _rehashed(files | changed, changed)


def write(folder: Path, original: Path, changed: Files) -> None:
    """Lay out a mutant: links to what is the same, new files for what is not."""
    folder.mkdir()
    for path in original.iterdir():
        if path.name not in changed:
            os.link(path, folder / path.name)
    for name, data in changed.items():
        (folder / name).write_bytes(data)


def _rehashed(files: Files, changed: Files) -> Files:
    try:
        manifest = json.loads(files[MANIFEST])
        for name in manifest["files"]:
            if name in changed:
                manifest["files"][name] = sha256(files[name]).hexdigest()
    except (ValueError, TypeError, KeyError):
        return changed
    return changed | {MANIFEST: json.dumps(manifest).encode()}


def engine_files(files: Files) -> list[str]:
    """Return the names of what the engine reads."""
    return [name for name in files if name.startswith(("model.", "weights."))]


def flipped(data: bytes, chance: random.Random, start: int, end: int) -> bytes:
    """Change 1 to 8 bytes between ``start`` and ``end``."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4, 8])):
        at = chance.randrange(start, end)
        kind = chance.randrange(4)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            changed[at] = chance.randrange(256)
        else:
            number = struct.pack("<Q", chance.choice(HUGE))[: chance.choice([2, 4, 8])]
            changed[at : at + len(number)] = number
    return bytes(changed[: len(data)])


def _flip_anywhere(files: Files, chance: random.Random) -> tuple[str, Files]:
    name = chance.choice(engine_files(files))
    data = files[name]
    return f"flip {name}", {name: flipped(data, chance, 0, len(data))}


def _flip_structure(files: Files, chance: random.Random) -> tuple[str, Files]:
    """Change bytes where a file keeps its structure: near its start or its end."""
    name = next(name for name in engine_files(files) if name.startswith("model."))
    data = files[name]
    size = min(len(data), 4_000)
    start, end = chance.choice([(0, 64), (0, size), (len(data) - size, len(data))])
    return f"flip {start}-{end} {name}", {name: flipped(data, chance, start, end)}


def _truncate(files: Files, chance: random.Random) -> tuple[str, Files]:
    name = chance.choice(engine_files(files))
    data = files[name]
    size = chance.choice([chance.randrange(len(data)), len(data) - chance.randrange(1, 4_096)])
    return f"truncate {name} to {size}", {name: data[: max(size, 0)]}


def _extend(files: Files, chance: random.Random) -> tuple[str, Files]:
    name = chance.choice(engine_files(files))
    tail = chance.choice([bytes(4096), chance.randbytes(100), files[name][:1_000]])
    return f"extend {name}", {name: files[name] + tail}


def _swap_ranges(files: Files, chance: random.Random) -> tuple[str, Files]:
    """Exchange two stretches of equal length, or copy one over the other."""
    name = chance.choice(engine_files(files))
    data = bytearray(files[name])
    size = min(chance.choice([4, 16, 256, 4_096, 65_536]), len(data) // 4)
    one, other = (chance.randrange(len(data) - size) for _ in range(2))
    a, b = data[one : one + size], data[other : other + size]
    data[one : one + size] = b
    if chance.random() < 0.5:
        data[other : other + size] = a
    return f"swap {size} bytes in {name}", {name: bytes(data)}


def _noise(files: Files, chance: random.Random) -> tuple[str, Files]:
    name = chance.choice(engine_files(files))
    data = bytearray(files[name])
    size = chance.choice([16, 1_024, 65_536])
    at = chance.randrange(max(1, len(data) - size))
    fill = chance.choice([bytes(size), b"\xff" * size, chance.randbytes(size)])
    data[at : at + size] = fill
    return f"fill {size} bytes in {name}", {name: bytes(data[: len(files[name])])}


def _manifest_number(files: Files, chance: random.Random) -> tuple[str, Files]:
    manifest = json.loads(files[MANIFEST])
    table = manifest[chance.choice(["model", "model", "model", "thresholds", "fidelity"])]
    key = chance.choice(sorted(table))
    wrong: list[Any] = [*HUGE, -1, -(2**63), 1e308, float("nan"), float("inf"), "1", None, True, []]
    wrong += [2 * table[key], table[key] // 2] if isinstance(table[key], (int, float)) else []
    table[key] = chance.choice(wrong)
    return f"manifest {key} = {table[key]!r}", {MANIFEST: json.dumps(manifest).encode()}


def _manifest_field(files: Files, chance: random.Random) -> tuple[str, Files]:
    manifest = json.loads(files[MANIFEST])
    key = chance.choice(["format", "entry", "schema", "name", "files", "compatible_with"])
    choices: list[Any] = [*manifest["files"], *("onnx", "tflite", "gguf", "torch"), "..", 2, None]
    choices += [{"../x": "0" * 64}, {}, ["x"], "/dev/zero", "a/b", "\ud800", {"\x00": "0" * 64}]
    manifest[key] = chance.choice(choices)
    return f"manifest {key} = {manifest[key]!r}"[:80], {MANIFEST: json.dumps(manifest).encode()}


def _manifest_bytes(files: Files, chance: random.Random) -> tuple[str, Files]:
    data = files[MANIFEST]
    return "flip manifest", {MANIFEST: flipped(data, chance, 0, len(data))}


def _tokenizer(files: Files, chance: random.Random) -> tuple[str, Files]:
    """Change the tokenizer's header or tables and mend its checksum."""
    data = files["tokenizer.bin"]
    end = chance.choice([52, 52, len(data)])
    changed = flipped(data, chance, 12, end)
    if chance.random() < 0.2:
        changed = changed[: chance.randrange(len(changed))]
    changed = changed[:8] + struct.pack("<I", zlib.crc32(changed[12:])) + changed[12:]
    return f"tokenizer up to {end}", {"tokenizer.bin": changed}


def _golden(files: Files, chance: random.Random) -> tuple[str, Files]:
    name = chance.choice(["golden.json", "golden.npy"])
    data = files[name]
    end = chance.choice([128, len(data)])
    changed = flipped(data, chance, 0, min(end, len(data)))
    if chance.random() < 0.3:
        changed = data[: chance.randrange(len(data))]
    return f"change {name}", {name: changed}


_BYTES: tuple[Change, ...] = (_flip_anywhere, _truncate, _extend, _swap_ranges, _noise)
_STRUCTURE: tuple[Change, ...] = (_flip_structure,)
_OTHERS: tuple[Change, ...] = (
    *(_manifest_number, _manifest_number, _manifest_field, _manifest_bytes),
    *(_tokenizer, _tokenizer, _golden),
)

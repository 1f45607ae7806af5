"""Changes to a file by someone who knows GGUF's header."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from hardening.mutants import HUGE, Change, Files, flipped

GRAPH = "model.gguf"
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


@dataclass
class Place:
    """Where a number of the header stands, and what it is."""

    kind: str
    at: int
    size: int


class Header:
    """The places of all numbers in a sound header, and where tensors are described and lie."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.places: list[Place] = []
        self.strings: list[tuple[int, int]] = []
        self.tensors: list[tuple[int, int]] = []  # where its offset stands, the offset
        self.number("magic", 4)
        self.number("version", 4)
        tensors, keys = self.number("tensors", 8), self.number("keys", 8)
        self.entries = []
        for _ in range(keys):
            start = self.at
            self.string()
            self.value(self.number("kind", 4))
            self.entries.append((start, self.at))
        self.start = self.at
        for _ in range(tensors):
            start = self.at
            self.string()
            for _ in range(self.number("rank", 4)):
                self.number("size", 8)
            self.number("type", 4)
            place = self.at
            self.tensors.append((place, self.number("offset", 8)))
            self.entries.append((start, self.at))
        self.end = self.at

    def number(self, kind: str, size: int) -> int:
        self.places.append(Place(kind, self.at, size))
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "little")

    def string(self, keep: bool = True) -> None:
        length = int.from_bytes(self.data[self.at : self.at + 8], "little")
        if keep:
            self.places.append(Place("length", self.at, 8))
            self.strings.append((self.at + 8, length))
        self.at += 8 + length

    def value(self, kind: int) -> None:
        if kind == 8:
            self.string()
        elif kind == 9:
            kind = self.number("array kind", 4)
            for index in range(self.number("array length", 8)):
                if kind == 8:
                    self.string(keep=index in (0, 1, 1000, 50_000))
                else:
                    self.at += SIZES[kind]
        else:
            self.number("value", SIZES[kind])


_headers: dict[int, Header] = {}


def _header(files: Files) -> Header:
    data = files[GRAPH]
    if id(data) not in _headers:
        _headers[id(data)] = Header(data)
    return _headers[id(data)]


def _numbers(files: Files, chance: random.Random) -> tuple[str, Files]:
    header, data = _header(files), bytearray(files[GRAPH])
    kinds = sorted({place.kind for place in header.places})
    told = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        kind = chance.choice(kinds)
        place = chance.choice([p for p in header.places if p.kind == kind])
        old = int.from_bytes(data[place.at : place.at + place.size], "little")
        new = chance.choice([*HUGE, old + 1, old - 1, old * 2, old // 2]) % (1 << 8 * place.size)
        data[place.at : place.at + place.size] = new.to_bytes(place.size, "little")
        told.append(f"{kind} {old}->{new}")
    return ", ".join(told), {GRAPH: bytes(data)}


def _strings(files: Files, chance: random.Random) -> tuple[str, Files]:
    header, data = _header(files), bytearray(files[GRAPH])
    at, length = chance.choice([s for s in header.strings if s[1]])
    old = bytes(data[at : at + length])
    kind = chance.choice(["flip", "nul", "not utf-8", "other"])
    if kind == "flip":
        data[at : at + length] = flipped(old, chance, 0, length)
    elif kind == "other":
        start, size = chance.choice(header.strings)
        data[at : at + length] = old.replace(old, bytes(data[start : start + size]))[:length].ljust(
            length, b"x"
        )
    else:
        data[at + chance.randrange(length)] = 0 if kind == "nul" else 0xFF
    return f"string {kind} {old[:30]!r}", {GRAPH: bytes(data)}


def _repeat_or_drop(files: Files, chance: random.Random) -> tuple[str, Files]:
    """Say a key or tensor twice, or not at all, and count accordingly."""
    header, data = _header(files), files[GRAPH]
    index = chance.randrange(len(header.entries))
    start, end = header.entries[index]
    count = 16 if start < header.start else 8
    (before,) = struct.unpack_from("<Q", data, count)
    twice = chance.random() < 0.5
    entry = data[start:end]
    changed = data[:start] + (entry * 2 if twice else b"") + data[end : header.end]
    change = struct.pack("<Q", before + (1 if twice else -1))
    changed = changed[:count] + change + changed[count + 8 :]
    changed += bytes(-len(changed) % 32)
    start = header.end + -header.end % 32
    return f"{'repeat' if twice else 'drop'} entry {index}", {GRAPH: changed + data[start:]}


def _offsets(files: Files, chance: random.Random) -> tuple[str, Files]:
    """Exchange two tensors' places, or lay one over another."""
    header, data = _header(files), bytearray(files[GRAPH])
    (one, first), (other, second) = (chance.choice(header.tensors) for _ in range(2))
    data[one : one + 8] = struct.pack("<Q", second)
    if chance.random() < 0.5:
        data[other : other + 8] = struct.pack("<Q", first)
    return "offsets", {GRAPH: bytes(data)}


def _data(files: Files, chance: random.Random) -> tuple[str, Files]:
    """Put what is no number into a tensor."""
    header, data = _header(files), bytearray(files[GRAPH])
    start = header.end + -header.end % 32 + chance.choice(header.tensors)[1]
    wrong = chance.choice([b"\xff" * 64, b"\x00\x7c" * 17, b"\x00\x00\x80\x7f" * 8, b"\0" * 64])
    data[start : start + len(wrong)] = wrong
    return "not a number", {GRAPH: bytes(data)}


def _flip_header(files: Files, chance: random.Random) -> tuple[str, Files]:
    header, data = _header(files), files[GRAPH]
    start, end = chance.choice([(0, 800), (header.start, header.end), (0, header.end)])
    return "flip header", {GRAPH: flipped(data, chance, start, end)}


CHANGES: tuple[Change, ...] = (
    *(_numbers, _numbers, _numbers, _strings, _repeat_or_drop, _offsets, _data),
    *(_flip_header, _flip_header),
)

"""What every tokenizer can do, and the mapped files that two kinds of them read in place.

A mapped file is a header (magic, CRC-32 of all that follows it, the length of each section in
items) and then the sections, little endian, widest items first so that every one is aligned.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import sys
import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import ClassVar, Self, TypeAlias

from asterisk.common.errors import ArtifactError, UsageError

# A surrogate pair, which is one character, or a lone surrogate.
SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")

U32: TypeAlias = memoryview
U16: TypeAlias = memoryview
U8: TypeAlias = memoryview
_LETTERS = {"U32": "I", "U16": "H", "U8": "B"}  # of `struct`


class Tokenizer(ABC):
    """Text to token ids. Safe in several threads. Pickles as its path, or whole without one."""

    vocab_size: int
    pad_id: int | None
    prefix: tuple[int, ...]  # special tokens before a text, such as [CLS] or <s>
    suffix: tuple[int, ...]  # and after it

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        """Read the file in ``data``; ArtifactError if it is not sound."""
        self._data, self._path = data, path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Map the file at ``path``; raises what the constructor raises."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise ArtifactError(f"{path}: cannot be mapped: {error}") from error
        return cls(data, path)

    def __reduce__(self) -> tuple[object, ...]:
        if self._path is None:
            return type(self), (bytes(self._data),)
        return type(self).open, (self._path,)

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """Return the ids of ``text`` without special tokens, or the first ``limit`` of them.

        A special token's name in a text is plain text, a lone surrogate U+FFFD. ``limit``, of 0 or
        more, bounds time and memory, whatever the length of ``text``.
        """
        if limit is None:
            return self._all(text)
        if limit < 0:
            raise UsageError(f"the limit must be 0 or more, not {limit}")
        return self._first(text, limit)

    @abstractmethod
    def words(self, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield pieces of ``text``, each with its ids; joined, the pieces are ``text``."""

    def with_special_tokens(self, ids: Sequence[int]) -> list[int]:
        """Return ``ids`` between the special tokens that the model wants around a text."""
        return [*self.prefix, *ids, *self.suffix]

    @abstractmethod
    def _all(self, text: str) -> list[int]:
        """Return the ids of ``text``."""

    @abstractmethod
    def _first(self, text: str, limit: int) -> list[int]:
        """Return the first ``limit`` ids of ``text``, or all of them if there are fewer."""


class MappedTable(ABC):
    """The sections of a mapped file: an attribute each, a read-only view of unsigned integers.

    A subclass sets ``magic`` and declares its sections as ``name: U32``, ``U16`` or ``U8``, in the
    order of the file.
    """

    magic: ClassVar[bytes]  # 8 bytes
    sections: ClassVar[Mapping[str, str]]  # name to the letter that `struct` has for its items

    def __init_subclass__(cls) -> None:
        cls.sections = {name: _LETTERS[kind] for name, kind in cls.__annotations__.items()}

    def __init__(self, data: bytes | mmap.mmap, path: Path | None = None) -> None:
        """Check ``data``, so that no later read can leave a section.

        ArtifactError for anything that is not a sound table, and on a big-endian machine.
        """
        self.data, self.path = data, path
        header, view = struct.Struct(f"<8sI{len(self.sections)}I"), memoryview(data)
        if sys.byteorder != "little":
            raise self._error("tokenizer tables need a little-endian machine")
        if len(view) < header.size or view[:8] != self.magic:
            raise self._error("is not a tokenizer table")
        _, checksum, *lengths = header.unpack_from(view)
        if zlib.crc32(view[12:]) != checksum:
            raise self._error("tokenizer table is truncated or altered")
        sizes = map(lambda n, kind: n * struct.calcsize(kind), lengths, self.sections.values())
        ends = list(accumulate(sizes, initial=header.size))
        if ends[-1] != len(view):
            raise self._error("tokenizer table is not as long as its header says")
        for (name, kind), (start, end) in zip(self.sections.items(), pairwise(ends), strict=True):
            setattr(self, name, view[start:end].cast(kind))  # type: ignore[call-overload]
        if not self.consistent():
            raise self._error("tokenizer table contradicts itself")

    def _error(self, message: str) -> ArtifactError:
        return ArtifactError(f"{self.path or 'the tokenizer'}: {message}")

    @abstractmethod
    def consistent(self) -> bool:
        """Whether every index that the file holds stays inside the section it points into."""

    @classmethod
    def pack(cls, sections: Mapping[str, Iterable[int]]) -> bytes:
        """Return the file that holds ``sections``, each under its name."""
        arrays = [array(kind, list(sections[name])) for name, kind in cls.sections.items()]
        body = struct.pack(f"<{len(arrays)}I", *map(len, arrays))
        body += b"".join(section.tobytes() for section in arrays)
        return cls.magic + struct.pack("<I", zlib.crc32(body)) + body


def joined_surrogates(text: str) -> str:
    """Return ``text`` with every surrogate pair as its character, lone surrogates as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def utf8(text: str) -> bytes:
    """Return ``text`` in UTF-8, surrogates read as ``joined_surrogates`` does."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return joined_surrogates(text).encode()

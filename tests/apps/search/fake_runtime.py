"""A runtime that needs no engine, for tests of the store: a text's vector is drawn by its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from asterisk.apps.search import Index
from asterisk.apps.search.store import Blocks
from asterisk.runtimes.runtime import Runtime
from asterisk.sources.document import Document, make_document
from asterisk.tokenizer import gpt2

SIZE = 32


class FakeRuntime(Runtime):
    """A runtime without an engine or prompts; counts the texts that it has embedded."""

    def __repr__(self) -> str:
        return "FakeRuntime()"

    def __init__(
        self,
        size: int = SIZE,
        fingerprint: str = "drawn",
        *,
        compatible_with: tuple[str, ...] = (),
        longest: int = 512,
    ) -> None:
        self.tokenizer = gpt2()
        self.fingerprint = fingerprint
        self.compatible_with = compatible_with
        self.prompts = {}
        self.default_prompt_name = self.similarity = None
        self.longest = longest
        self.format = "drawn"
        self.config = SimpleNamespace(embedding_size=size, normalize=True)
        self.embedded: list[str] = []

    def encode(self, texts, *, prompt_name=None):
        assert prompt_name is None
        if isinstance(texts, str):
            return self.vector(texts)
        self.embedded += texts
        rows = [self.vector(text) for text in texts]
        return np.array(rows, "f4").reshape(len(texts), self.config.embedding_size)

    def vector(self, text: str):
        seed = int.from_bytes(
            hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "little"
        )
        row = np.random.default_rng(seed).normal(size=self.config.embedding_size)
        return (row / np.linalg.norm(row)).astype("f4")


def create_index(path: Path, runtime: FakeRuntime, precision: str = "int8") -> Index:
    """Make an index for a `FakeRuntime`, which has no folder."""
    return Index.create(path, path.parent / "drawn", precision=precision, runtime=runtime)


def documents(count: int, source: str = "/texts", words: int = 6) -> list[Document]:
    """Give short texts, all different."""
    vocabulary = json.dumps([f"w{i}" for i in range(50)])
    names = json.loads(vocabulary)
    found = []
    for number in range(count):
        draw = np.random.default_rng(number)
        chosen = [names[i] for i in draw.integers(0, len(names), words)]
        found.append(make_document(source, str(number), "", f"text {number}: {' '.join(chosen)}."))
    return [document for document in found if document is not None]


def contents(index: Index) -> list[tuple]:
    """Everything an index holds, whatever the numbers: to compare two indexes."""
    held = {
        row: vector.tobytes()
        for ids, block in index.vectors()
        for row, vector in zip(ids.tolist(), block, strict=True)
    }
    rows = index.connection.execute(
        "SELECT s.path, d.key, d.title, hex(d.digest), d.text, p.start, p.end, p.id FROM passages "
        "AS p JOIN documents AS d ON d.id = p.document JOIN sources AS s ON s.id = d.source"
    ).fetchall()
    assert len(rows) == len(held)
    return sorted((*row[:-1], held[row[-1]]) for row in rows)


def add_rows(blocks: Blocks, ids: Sequence[int], rows: np.ndarray) -> None:
    """Add passages with nothing but vectors."""
    first = blocks.append(rows)
    blocks.connection.executemany(
        "INSERT INTO passages VALUES (?, 0, 0, 0, ?)",
        [(row, first + place) for place, row in enumerate(ids)],
    )


def remove_rows(blocks: Blocks, ids: Sequence[int]) -> None:
    """Remove passages and their vectors."""
    run = blocks.connection.execute
    query = "DELETE FROM passages WHERE id = ? RETURNING slot"
    blocks.delete([slot for row in ids for (slot,) in run(query, (row,)).fetchall()])


def check_whole(index: Index) -> None:
    """Assert that the tables of an index agree with one another."""
    run = index.connection.execute
    assert run("PRAGMA integrity_check").fetchall() == [("ok",)]
    passages = {row for (row,) in run("SELECT id FROM passages")}
    assert passages == {row for ids, _ in index.vectors() for row in ids.tolist()}
    assert passages == {row for (row,) in run("SELECT passage FROM vectors")}
    slots = [slot for (slot,) in run("SELECT slot FROM passages ORDER BY slot")]
    assert slots == list(range(len(passages)))
    index.blocks.check()
    assert passages == {row for (row,) in run("SELECT id FROM words_docsize")}
    expected = {
        row
        for first, count in run("SELECT first, count FROM documents")
        for row in range(first, first + count)
    }
    assert passages == expected
    owners = run("SELECT count(*) FROM passages WHERE document NOT IN (SELECT id FROM documents)")
    assert owners.fetchone() == (0,)
    sources = run("SELECT count(*) FROM documents WHERE source NOT IN (SELECT id FROM sources)")
    assert sources.fetchone() == (0,)
    held = dict(run("SELECT passage, vector FROM vectors"))
    for ids, block in index.vectors():
        for row, vector in zip(ids.tolist(), block, strict=True):
            stored = np.frombuffer(held[row], index.blocks.dtype).astype("f4")
            np.testing.assert_allclose(stored / np.linalg.norm(stored), vector, atol=1e-6)


__all__ = [
    "SIZE",
    "FakeRuntime",
    "add_rows",
    "check_whole",
    "contents",
    "create_index",
    "documents",
    "remove_rows",
]

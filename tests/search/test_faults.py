"""Files that are no index, or a damaged or hostile one, and places that cannot be written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asterisk.errors import AsteriskError, InputError, OutputError, one_line
from asterisk.search import Index, words
from asterisk.search.schema import VERSION
from search.standing_in import Drawn, check_whole, documents, fresh


@pytest.fixture(scope="module")
def runtime():
    return Drawn()


@pytest.fixture
def path(tmp_path, runtime):
    """A sound index of 60 texts."""
    with fresh(tmp_path / "index.db", runtime) as index:
        index.update(documents(60), runtime)
    return tmp_path / "index.db"


def _refused(path: Path, runtime: Drawn, match: str) -> None:
    """Assert that neither reading nor writing takes ``path``, each in one line."""
    for opening in (Index.open, lambda it: fresh(it, runtime)):
        with pytest.raises(AsteriskError, match=match) as caught:
            opening(path).close()
        assert one_line(caught.value) == str(caught.value)


def test_files_that_are_no_index_are_refused_and_left_alone(tmp_path, runtime):
    text = tmp_path / "notes.txt"
    text.write_text("some notes of mine\n" * 500)
    _refused(text, runtime, "not a search index")
    assert text.read_text().startswith("some notes")
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine(a)")
    connection.close()
    before = other.read_bytes()
    _refused(other, runtime, "belongs to another program")
    assert other.read_bytes() == before
    _refused(tmp_path, runtime, "not a file")
    os.mkfifo(tmp_path / "fifo")
    _refused(tmp_path / "fifo", runtime, "not a file")
    with pytest.raises(InputError, match="does not exist"):
        Index.open(tmp_path / "none.db")
    with pytest.raises(OutputError, match="no such folder"):
        fresh(tmp_path / "none" / "index.db", runtime)
    (tmp_path / "empty.db").touch()
    with pytest.raises(InputError, match="is empty"):
        Index.open(tmp_path / "empty.db")
    fresh(tmp_path / "empty.db", runtime).close()


@pytest.mark.parametrize(
    ("version", "told"), [(VERSION + 1, "newer"), (1, "earlier version: index again into a new")]
)
def test_another_schema_is_refused_and_left_alone(path, runtime, version, told):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()
    before = path.read_bytes()
    _refused(path, runtime, told)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


HOSTILE = [
    "CREATE TRIGGER t AFTER INSERT ON documents BEGIN DELETE FROM passages; END",
    "CREATE VIEW v AS SELECT 1",
    "DROP VIEW vectors",
    "DROP VIEW vectors; CREATE VIEW vectors(passage, vector) AS SELECT 1, x'00'",
    "DROP VIEW vectors; CREATE TABLE vectors(passage, vector)",
    "CREATE TABLE extra(a)",
    "CREATE INDEX i ON documents(title)",
    "ALTER TABLE documents RENAME TO gone",
    "ALTER TABLE documents ADD COLUMN more DEFAULT 7",
    "DROP TABLE passages",
]
DAMAGE = [
    "DELETE FROM meta WHERE key = 'dimension'",
    "UPDATE meta SET value = '-1' WHERE key = 'dimension'",
    "UPDATE meta SET value = '31' WHERE key = 'dimension'",
    "UPDATE meta SET value = '[[[' WHERE key = 'model'",
    "UPDATE meta SET value = '7' WHERE key = 'artifact'",
    "UPDATE meta SET value = '\"float64\"' WHERE key = 'precision'",
    "UPDATE blocks SET vectors = x'00'",
    "UPDATE blocks SET vectors = 'text'",
    "UPDATE blocks SET vectors = zeroblob(50000000)",
    "UPDATE blocks SET id = 7",
    "UPDATE blocks SET id = -1",
    "INSERT INTO blocks SELECT 1, vectors FROM blocks",
    "DELETE FROM blocks",
    "UPDATE passages SET slot = 1 << 60 WHERE slot = 59",
    "UPDATE passages SET slot = -1 WHERE slot = 0",
    "UPDATE passages SET slot = 'x' WHERE slot = 0",
    "DELETE FROM passages WHERE slot = 5",
]


@pytest.mark.parametrize("statement", HOSTILE + DAMAGE)
def test_a_file_with_other_contents_is_refused(path, runtime, statement):
    connection = sqlite3.connect(path)
    connection.executescript(statement)
    connection.close()
    _refused(path, runtime, "damaged|not as an index is made")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM documents",
        "UPDATE documents SET text = x'ff', title = 7",
        "UPDATE passages SET start = -5, end = 1 << 60",
        "UPDATE passages SET document = 'x'",
        "UPDATE words_data SET block = x'00010203'",
        "DELETE FROM words_data",
        "UPDATE sources SET path = x'fffe'",
        "UPDATE documents SET tags = '[[', date = 7",
        "UPDATE documents SET tags = '[1]'",
    ],
)
def test_wrong_rows_give_an_error_or_hits_and_nothing_else(path, runtime, statement):
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    for mode in ("words", "vectors", "hybrid"):
        try:
            with Index.open(path) as index:
                index.search("text w1 w2 3", 5, runtime, mode)
        except AsteriskError as failure:
            assert one_line(failure) == str(failure)  # noqa: PT017 - it may as well succeed


def test_any_damaged_byte_gives_an_error_or_hits(tmp_path_factory, runtime):
    sound = tmp_path_factory.mktemp("sound") / "index.db"
    with fresh(sound, runtime) as index:
        index.update(documents(60), runtime)
    whole = sound.read_bytes()

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=20), st.integers(0, 255))
    @example([6_367], 128)
    def check(places, value):
        bad = bytearray(whole)
        for place in places:
            # Most of the file is empty slots: every other place is in the first pages.
            bad[place if place % 2 else place % 20_000] = value
        path = sound.with_name("bad.db")
        path.write_bytes(bad)
        try:
            with Index.open(path) as index:
                index.search("text w1 w2 3", 5, runtime)
        except AsteriskError as failure:
            assert one_line(failure) == str(failure)  # noqa: PT017 - it may as well succeed

    check()


def test_a_cut_file_is_damaged(path, runtime):
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(InputError, match="damaged"), Index.open(path) as index:
        index.search("text 3", 5, runtime)


def test_a_full_disk_is_one_line_and_the_index_stays_whole(path, runtime):
    with fresh(path, runtime) as index:
        (pages,) = index.connection.execute("PRAGMA page_count").fetchone()
        index.connection.execute(f"PRAGMA max_page_count={pages + 60}")
        with pytest.raises(OutputError, match="no space left"):
            index.update(documents(4_000), runtime)
        check_whole(index)
        held = index.documents
        assert 60 <= held < 4_000
    with fresh(path, runtime) as index:
        index.update(documents(held + 10), runtime)
        check_whole(index)
        assert index.documents == held + 10


def test_a_real_full_file_system_is_one_line(tmp_path, runtime):
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    path = tmp_path / "index.db"
    try:
        with fresh(path, runtime) as index:
            with pytest.raises(OutputError, match="cannot write"):
                index.update(documents(4_000), runtime)
            check_whole(index)
        with Index.open(path) as index:
            check_whole(index)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_cannot_be_written_is_one_line(path, runtime):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    path.parent.chmod(0o555)
    try:
        with pytest.raises(OutputError):
            fresh(path, runtime)
        with Index.open(path) as index:  # reading needs no file beside it
            assert index.search("text 3", 5, runtime)
    finally:
        path.parent.chmod(0o755)


def test_a_build_without_fts5_searches_by_vectors(path, runtime, monkeypatch):
    monkeypatch.setattr(
        words, "VOCABULARY", "CREATE VIRTUAL TABLE temp.vocabulary USING absent5(a)"
    )
    with Index.open(path) as index:
        assert not index.words.usable
        found = index.search("text 3", 5, runtime, "hybrid")
        assert [hit.key for hit in found] == [
            hit.key for hit in index.search("text 3", 5, runtime, "vectors")
        ]
        with pytest.raises(AsteriskError, match="FTS5"):
            index.search("text 3", 5, runtime, "words")
    with pytest.raises(InputError, match="FTS5"):
        fresh(path, runtime)


def test_an_index_made_without_fts5_has_no_words(tmp_path, runtime, monkeypatch):
    from asterisk.search import schema

    monkeypatch.setattr(schema, "WORDS", "CREATE VIRTUAL TABLE words USING fts5_absent(text)")
    path = tmp_path / "index.db"
    with fresh(path, runtime) as index:
        index.update(documents(600), runtime)
        index.update(documents(300), runtime)
    monkeypatch.undo()
    with fresh(path, runtime) as index:
        assert index.words is None
        index.update(documents(400), runtime)
        assert len(index.search("text 3", 500, runtime)) == 400


def test_values_that_are_not_finite_are_nobodys_neighbours(tmp_path, runtime):
    path = tmp_path / "index.db"
    with fresh(path, runtime, "float32") as index:
        index.update(documents(20), runtime)
        (blob,) = index.connection.execute("SELECT vectors FROM blocks").fetchone()
        rows = np.frombuffer(blob, "<f4").copy().reshape(-1, 32)
        rows[0], rows[1] = np.nan, np.inf
        index.connection.execute("UPDATE blocks SET vectors = ?", (rows.tobytes(),))
        hits = index.search("text 3", 20, runtime, "vectors")
        assert {hits[-1].key, hits[-2].key} == {"0", "1"}
        assert all(-1 <= hit.score <= 1.001 for hit in hits)

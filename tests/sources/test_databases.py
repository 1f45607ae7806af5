from __future__ import annotations

import random
from pathlib import Path

import pytest

from asterisk.common.errors import AsteriskError, InputError
from asterisk.sources import Database, Document, Options, Report, documents, scan
from sources.helpers import contents

sqlite3 = pytest.importorskip("sqlite3")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
        INSERT INTO notes VALUES (3, 'Tea', 'Steep it.'), (5, NULL, 'No title'), (9, 'Blob', x'00'),
                                 (11, 'Number', 42);
        CREATE VIEW recent AS SELECT * FROM notes WHERE id < 5;
        """
    )
    connection.close()
    return path


def rows(path: Path, query: str, **options: object) -> tuple[list[Document], list[str]]:
    lines: list[str] = []
    report = Report(lambda line: lines.append(line.replace(f"{path.parent}/", "")))
    chosen = Options(databases=(Database(path, query),), **options)  # type: ignore[arg-type]
    return list(documents([], chosen, report)), lines


def test_rows_are_documents(notes: Path) -> None:
    found, lines = rows(notes, "SELECT id, title, body FROM notes ORDER BY id")
    assert contents(found) == [
        ("3", "Tea", "Steep it."),
        ("5", "", "No title"),
        ("11", "Number", "42"),
    ]
    assert lines == ["notes.db, row 3: its text is binary"]
    assert {it.source for it in found} == {str(notes)}
    found, _ = rows(notes, "SELECT body AS Text FROM recent")
    assert contents(found) == [("1", "", "Steep it.")]
    found, _ = rows(notes, "SELECT id, title FROM recent", field="title")
    assert contents(found) == [("3", "Tea", "Tea")]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("DELETE FROM notes", "not authorized; it may read and nothing else"),
        ("UPDATE notes SET body = ''", "not authorized; it may read and nothing else"),
        ("UPDATE sqlite_master SET name = 'x'", "may not be modified"),
        ("DROP TABLE notes", "not authorized; it may read and nothing else"),
        ("ATTACH '/tmp/other.db' AS o", "not authorized; it may read and nothing else"),
        ("PRAGMA query_only = 0", "not authorized; it may read and nothing else"),
        ("CREATE TEMP TABLE x(y)", "not authorized; it may read and nothing else"),
        ("BEGIN IMMEDIATE", "not authorized; it may read and nothing else"),
        ("VACUUM INTO '/tmp/copy.db'", "not authorized|read"),
        ("SELECT load_extension('x') AS text", "load_extension"),
        ("SELECT body FROM notes; DELETE FROM notes", "one statement"),
        ("SELEKT", "syntax error"),
        ("SELECT body FROM absent", "no such table"),
        ("SELECT body FROM notes WHERE id = ?", "[Bb]indings"),
        ("SELECT id, title FROM notes", "no column text or body or content among: id, title"),
        ("", "no columns"),
        ("SELECT '\0'", "--query"),
    ],
)
def test_queries_that_cannot_be_meant(notes: Path, query: str, reason: str) -> None:
    before = notes.read_bytes()
    with pytest.raises(InputError, match=reason):
        rows(notes, query)
    assert notes.read_bytes() == before


@pytest.mark.timeout(30)
def test_a_query_without_an_end(notes: Path) -> None:
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
    lines = ["notes.db: the query took over 0.3 s"]
    assert rows(notes, f"{endless} SELECT count(*) AS text FROM c", query_seconds=0.3) == (
        [],
        lines,
    )
    assert rows(notes, f"{endless} SELECT x AS text FROM c", query_seconds=0.3) == ([], lines)


def test_no_lock_outlives_the_query(notes: Path) -> None:
    chosen = Options(databases=(Database(notes, "SELECT body FROM notes"),))
    reading = documents([], chosen)
    next(reading)
    with sqlite3.connect(notes, timeout=0) as writer:
        writer.execute("INSERT INTO notes VALUES (20, 't', 'b')")
    assert len(list(reading)) == 2


def test_what_is_written_ahead_is_read(notes: Path) -> None:
    with sqlite3.connect(notes) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("INSERT INTO notes VALUES (20, 'Ahead', 'of the rest')")
        writer.commit()
        found, _ = rows(notes, "SELECT title, body FROM notes WHERE id = 20")
        assert found[0].text == "of the rest"
    writer.close()


def test_a_locked_database_is_named(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asterisk.sources.records.BUSY", 0.05)
    writer = sqlite3.connect(notes, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    assert rows(notes, "SELECT body FROM notes") == ([], ["notes.db: SQLite: database is locked"])
    writer.close()


def test_a_full_text_table_can_be_searched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as writer:
        try:
            writer.execute("CREATE VIRTUAL TABLE words USING fts5(title, body)")
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no FTS5")
        writer.execute("INSERT INTO words VALUES ('T', 'bees and honey')")
    writer.close()
    found, lines = rows(path, "SELECT * FROM words WHERE words MATCH 'honey'")
    assert (contents(found), lines) == ([("1", "T", "bees and honey")], [])


def test_names_and_other_files(notes: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a ?#%41\udce9.db"
    odd.write_bytes(notes.read_bytes())
    assert len(rows(odd, "SELECT body FROM notes")[0]) == 3
    other = tmp_path / "text.db"
    other.write_text("not a database")
    assert rows(other, "SELECT 1 AS text") == ([], ["text.db: not a SQLite database"])
    with pytest.raises(InputError, match="No such file"):
        rows(tmp_path / "none.db", "SELECT 1 AS text")
    assert not (tmp_path / "none.db").exists()
    assert rows(tmp_path, "SELECT 1")[1] == [f"{tmp_path.name}: a folder, not a file"]


def test_a_named_database_is_no_binary_file(notes: Path) -> None:
    lines: list[str] = []
    chosen = Options(databases=(Database(notes, "SELECT body FROM notes"),))
    files = list(scan([notes.parent], chosen, Report(lines.append)))
    assert [file.database is not None for file in files] == [True]
    assert not lines


def test_damaged_databases_give_one_line(notes: Path) -> None:
    whole = notes.read_bytes()
    rng = random.Random(7)
    outcomes = set()
    for _ in range(80):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 40)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        notes.write_bytes(bytes(damaged[: rng.choice([len(damaged), rng.randrange(100, 9000)])]))
        try:
            found, lines = rows(notes, "SELECT id, title, body FROM notes")
            outcomes.add((bool(found), bool(lines)))
        except AsteriskError as failure:
            outcomes.add(str(failure)[:8])
    assert (False, True) in outcomes
    assert (True, True) in outcomes


def test_a_crafted_view_runs_nothing(notes: Path) -> None:
    with sqlite3.connect(notes) as writer:
        writer.execute("CREATE VIEW text AS SELECT load_extension('evil') AS text")
    writer.close()
    with pytest.raises(InputError, match=r"load_extension|unsafe|not authorized"):
        rows(notes, "SELECT text FROM text")

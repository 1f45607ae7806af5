"""Files that are no index, or a damaged or hostile one, and places that cannot be written."""

from __future__ import annotations

import gzip
import os
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apps.search.fake_runtime import FakeRuntime, check_whole, contents, create_index, documents
from asterisk.apps.search import Index, database, query
from asterisk.common.errors import AsteriskError, InputError, OutputError, one_line
from asterisk.sources import Database, Options, Report


@pytest.fixture(scope="module")
def runtime():
    return FakeRuntime()


@pytest.fixture
def path(tmp_path, runtime):
    """A sound index of 60 texts."""
    with create_index(tmp_path / "index.db", runtime) as index:
        index.update(documents(60), runtime)
    return tmp_path / "index.db"


def _refused(path: Path, runtime: FakeRuntime, match: str) -> None:
    """Assert that neither reading nor writing takes ``path``, each in one line."""
    for opening in (Index.open, lambda it: create_index(it, runtime)):
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
        create_index(tmp_path / "none" / "index.db", runtime)
    (tmp_path / "empty.db").touch()
    with pytest.raises(InputError, match="is empty"):
        Index.open(tmp_path / "empty.db")
    create_index(tmp_path / "empty.db", runtime).close()


@pytest.mark.parametrize(
    ("version", "reason"),
    [(database.VERSION + 1, "newer"), (1, "earlier version: index again into a new")],
)
def test_another_schema_is_refused_and_left_alone(path, runtime, version, reason):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()
    before = path.read_bytes()
    _refused(path, runtime, reason)
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
    with create_index(sound, runtime) as index:
        index.update(documents(60), runtime)
    whole = sound.read_bytes()

    @settings(max_examples=40, deadline=None)
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
    with create_index(path, runtime) as index:
        (pages,) = index.connection.execute("PRAGMA page_count").fetchone()
        index.connection.execute(f"PRAGMA max_page_count={pages + 60}")
        with pytest.raises(OutputError, match="no space left"):
            index.update(documents(2_500), runtime)
        check_whole(index)
        held = index.documents
        assert 60 <= held < 2_500
    with create_index(path, runtime) as index:
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
        with create_index(path, runtime) as index:
            with pytest.raises(OutputError, match="cannot write"):
                index.update(documents(2_500), runtime)
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
            create_index(path, runtime)
        with Index.open(path) as index:  # reading needs no file beside it
            assert index.search("text 3", 5, runtime)
    finally:
        path.parent.chmod(0o755)


def test_a_build_without_fts5_searches_by_vectors(path, runtime, monkeypatch):
    monkeypatch.setattr(
        query, "VOCABULARY", "CREATE VIRTUAL TABLE temp.vocabulary USING absent5(a)"
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
        create_index(path, runtime)


def test_an_index_made_without_fts5_has_no_words(tmp_path, runtime, monkeypatch):
    monkeypatch.setattr(database, "WORDS", "CREATE VIRTUAL TABLE words USING fts5_absent(text)")
    path = tmp_path / "index.db"
    with create_index(path, runtime) as index:
        index.update(documents(600), runtime)
        index.update(documents(300), runtime)
    monkeypatch.undo()
    with create_index(path, runtime) as index:
        assert index.words is None
        index.update(documents(400), runtime)
        assert len(index.search("text 3", 500, runtime)) == 400


def test_values_that_are_not_finite_are_nobodys_neighbours(tmp_path, runtime):
    path = tmp_path / "index.db"
    with create_index(path, runtime, "float32") as index:
        index.update(documents(20), runtime)
        (blob,) = index.connection.execute("SELECT vectors FROM blocks").fetchone()
        rows = np.frombuffer(blob, "<f4").copy().reshape(-1, 32)
        rows[0], rows[1] = np.nan, np.inf
        index.connection.execute("UPDATE blocks SET vectors = ?", (rows.tobytes(),))
        hits = index.search("text 3", 20, runtime, "vectors")
        assert {hits[-1].key, hits[-2].key} == {"0", "1"}
        assert all(-1 <= hit.score <= 1.001 for hit in hits)


TWO = "<rss><channel>{}</channel></rss>".format(
    "".join(f"<item><guid>{n}</guid><title>entry {n}</title></item>" for n in range(2))
)
PAGE = "<!DOCTYPE html><html><title>404 Not Found</title><body>Not Found</body></html>"
GOOD = {
    "feed.xml": TWO,
    "feed": TWO,
    "feed.json": (
        '{"version":"https://jsonfeed.org/version/1","items":['
        '{"id":"1","content_text":"one"},{"id":"2","content_text":"two"}]}'
    ),
    "feed.xml.gz": gzip.compress(TWO.encode()),
    "a.jsonl": '{"id":"1","text":"one"}\n{"id":"2","text":"two"}\n',
    "a.csv": "id,text\n1,one\n2,two\n",
    "a.tsv": "id\ttext\n1\tone\n2\ttwo\n",
    "note.txt": "what I think",
    "note.md": "# On bees\n\nThey fly.",
    "page.html": "<!DOCTYPE html><title>Bees</title><p>They fly.",
    "lines.gz": gzip.compress(b"what I think"),
}
BAD = {
    "an error page": PAGE,
    "an error page in XHTML": f"<?xml version='1.0'?>\n{PAGE}",
    "an empty file": "",
    "blanks": " \n\n",
    "a JSON error": '{"error": {"code": 404, "message": "Not Found"}}',
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "a program": b"\x7fELF\x02\x01\x01\0\0\0",
    "an archive": b"PK\x03\x04\x14\0",
    "gzip that is cut": gzip.compress(bytes(range(256)) * 9)[:40],
    "an error in XML": "<Error><Code>AccessDenied</Code></Error>",
    "an error in plain text": "503 Service Unavailable\n",
}
# What cannot be distinguished from a text or page that was rewritten.
TEXTS = ("note.txt", "note.md", "page.html", "lines.gz")
ALIKE = {
    "an error page": ("page.html",),
    "an error page in XHTML": ("page.html",),
    "an error in XML": TEXTS,
    "an error in plain text": TEXTS,
}


def _indexed(index, path, runtime, **options):
    """Return what an update of a file did, and its lines."""
    lines: list[str] = []
    changes = index.update_files([path], runtime, None, Report(lines.append), **options)
    return changes, [line.replace(f"{path.parent}/", "") for line in lines]


@pytest.mark.parametrize("name", GOOD)
def test_what_takes_a_files_place_takes_nothing_from_the_index(tmp_path, runtime, name):
    file, good = tmp_path / name, GOOD[name]
    good = good if isinstance(good, bytes) else good.encode()
    file.write_bytes(good)
    with create_index(tmp_path / "index.db", runtime) as index:
        held = _indexed(index, file, runtime)[0].added
        assert held >= 1
        before = contents(index)
        for what, bad in BAD.items():
            if name in ALIKE.get(what, ()):
                continue
            file.write_bytes(bad if isinstance(bad, bytes) else bad.encode())
            for _ in range(2):
                changes, lines = _indexed(index, file, runtime)
                assert contents(index) == before, what
                assert (changes.kept, changes.removed) == (held, 0)
                kept = "1 document of it is" if held == 1 else "2 documents of it are"
                assert f"{kept} kept (--prune removes" in lines[-1]
                assert lines[-1].startswith(f"{name}: ")
        file.write_bytes(good)
        changes, lines = _indexed(index, file, runtime)
        assert (changes.unchanged, changes.kept, lines) == (held, 0, [])
        file.write_bytes(b"")
        changes, _ = _indexed(index, file, runtime, prune=True)
        assert (changes.removed, changes.kept, index.documents) == (held, 0, 0)
        check_whole(index)


def test_the_line_says_what_it_is_now(tmp_path, runtime):
    file = tmp_path / "feed.xml"
    kept = "2 documents of it are kept (--prune removes them)"
    with create_index(tmp_path / "index.db", runtime) as index:
        file.write_text(TWO)
        _indexed(index, file, runtime)
        for text, reason in (
            (PAGE, "an HTML page, in spite of its name"),
            ("", "empty, or no markup"),
            ("<rss><channel></channel></rss>", "no documents in it"),
        ):
            file.write_text(text)
            assert _indexed(index, file, runtime)[1] == [f"feed.xml: {reason}; {kept}"]
        file.write_text(TWO[: TWO.index("<title>entry 1")])
        assert _indexed(index, file, runtime)[1] == [
            "feed.xml: cut off: its root element does not end (entries before that: 1); "
            "1 document of it is kept (--prune removes it)"
        ]
        note = tmp_path / "note.txt"
        note.write_text("what I think")
        _indexed(index, note, runtime)
        note.write_text(PAGE)
        assert _indexed(index, note, runtime)[1] == [
            "note.txt: now an HTML page; 1 document of it is kept (--prune removes it)"
        ]
        assert _indexed(index, note, runtime, prune=True)[0].changed == 1
        assert _indexed(index, note, runtime)[1] == []


@pytest.mark.parametrize("name", ["feed.xml", "a.jsonl", "a.csv", "feed.xml.gz"])
def test_a_file_that_is_cut_anywhere_takes_nothing_from_the_index(tmp_path, runtime, name):
    file, good = tmp_path / name, GOOD[name]
    good = good if isinstance(good, bytes) else good.encode()
    with create_index(tmp_path / "index.db", runtime) as index:
        for end in range(0, len(good) - 1, 13):
            file.write_bytes(good)
            _indexed(index, file, runtime)
            file.write_bytes(good[:end])
            changes, _ = _indexed(index, file, runtime)
            whole_records = good[:end].endswith(b"\n") or good[:end].endswith((b",one", b",tw"))
            if not whole_records or name.startswith("feed"):
                assert (changes.removed, changes.changed) == (0, 0), good[:end]


def test_what_the_user_does_is_done(tmp_path, runtime):
    """Entries that are gone from a whole file, and files that are gone, leave."""
    feed, note = tmp_path / "feed.xml", tmp_path / "note.txt"
    feed.write_text(TWO)
    note.write_text("what I think")
    with create_index(tmp_path / "index.db", runtime) as index:
        assert index.update_files([tmp_path], runtime).added == 3
        feed.write_text(TWO.replace("<guid>1", "<guid>2"))
        changes = index.update_files([tmp_path], runtime)
        assert (changes.added, changes.removed, changes.kept) == (1, 1, 0)
        note.unlink()
        changes = index.update_files([tmp_path], runtime)
        assert (changes.removed, changes.kept, index.documents) == (1, 0, 2)
        # By another option it is another kind, and no error page.
        changes = index.update_files([tmp_path], runtime, Options(kind="text"))
        assert (changes.added, changes.removed) == (1, 2)


def test_a_query_without_rows_keeps_what_it_gave(tmp_path, runtime):
    database = tmp_path / "app.db"
    owner = sqlite3.connect(database, isolation_level=None)
    owner.execute("CREATE TABLE notes(body)")
    owner.execute("INSERT INTO notes VALUES ('one'), ('two')")
    asked = Options(databases=(Database(database, "SELECT body FROM notes"),))
    with create_index(tmp_path / "index.db", runtime) as index:
        assert index.update_files([], runtime, asked).added == 2
        owner.execute("DELETE FROM notes")
        assert index.update_files([], runtime, asked).kept == 2
        assert index.update_files([], runtime, asked, prune=True).removed == 2
    owner.close()

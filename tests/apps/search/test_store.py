"""The file: what is written is there, all of it together, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.search.fake_runtime import (
    FakeRuntime,
    add_rows,
    check_whole,
    contents,
    create_index,
    documents,
    remove_rows,
)
from asterisk.apps.search import Index
from asterisk.apps.search.database import SLOTS, create_tables
from asterisk.apps.search.passages import passages
from asterisk.apps.search.store import Blocks
from asterisk.common.errors import InputError, OutputError, UsageError
from asterisk.sources import Database, Options, Report
from asterisk.sources.document import make_document

TESTS = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runtime():
    return FakeRuntime()


def test_an_update_adds_changes_and_removes_and_embeds_only_what_is_new(tmp_path, runtime):
    path = tmp_path / "index.db"
    many = documents(1_300)
    with create_index(path, runtime) as index:
        changes = index.update(many, runtime)
        assert (changes.added, changes.passages) == (1_300, 1_300)
        check_whole(index)
    other = make_document("/texts", "7", "A title", "something else entirely.")
    fewer = [other if one.key == "7" else one for one in many[:900]]
    again = FakeRuntime()
    with create_index(path, again) as index:
        changes = index.update(fewer, again)
        assert (changes.added, changes.changed, changes.removed) == (0, 1, 400)
        assert changes.unchanged == 899
        assert again.embedded == ["A title\nsomething else entirely."]
        check_whole(index)
        held = contents(index)
    with create_index(tmp_path / "other.db", again) as index:
        index.update(fewer, again)
        assert contents(index) == held
        assert index.documents == index.passages == 900


def test_a_folder_out_of_reach_keeps_its_documents(tmp_path, runtime, monkeypatch):
    texts = tmp_path / "texts"
    for name in ("kept/a.txt", "kept/deeper/b.txt", "gone/c.txt"):
        (texts / name).parent.mkdir(parents=True, exist_ok=True)
        (texts / name).write_text(f"what {name} says")
    with create_index(tmp_path / "index.db", runtime) as index:
        assert index.update_files([texts], runtime).added == 3
        shutil.rmtree(texts / "gone")
        scandir = os.scandir

        def refusing(folder):
            if os.fspath(folder).endswith("kept"):
                raise PermissionError(13, "Permission denied", folder)
            return scandir(folder)

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", refusing)
            assert index.update_files([texts], runtime).removed == 1
        assert index.documents == 2
        changes = index.update_files([texts], runtime)
        assert (changes.added, changes.removed) == (0, 0)


def test_what_is_never_read_keeps_nothing(tmp_path, runtime):
    texts = tmp_path / "texts"
    (texts / "sub").mkdir(parents=True)
    for name in ("a.txt", "b.txt"):
        (texts / name).write_text(f"what {name} says")
    (texts / "link").symlink_to("sub")
    os.mkfifo(texts / "pipe")
    with create_index(tmp_path / "index.db", runtime) as index:
        assert index.update_files([texts], runtime).added == 2
        (texts / "b.txt").unlink()
        assert index.update_files([texts], runtime).removed == 1


def test_a_path_that_is_gone_can_be_named(tmp_path, runtime):
    texts, lines = tmp_path / "texts", []
    texts.mkdir()
    for name in ("a.txt", "b.txt"):
        (texts / name).write_text(f"what {name} says")
    with create_index(tmp_path / "index.db", runtime) as index:
        index.update_files([texts], runtime)
        (texts / "a.txt").unlink()
        assert index.update_files([texts / "a.txt"], runtime).removed == 1
        shutil.rmtree(texts)
        report = Report(lines.append, strict=False)
        assert index.update_files([texts], runtime, report=report).kept == 1
        assert lines == [f"{texts}: not there; 1 document of it is kept (--prune removes them)"]
        assert index.documents == 1  # a disk that is not mounted takes nothing along
        assert index.update_files([texts], runtime, prune=True).removed == 1
        with pytest.raises(InputError, match="No such file"):
            index.update_files([texts], runtime)
        assert index.documents == index.sources == 0


def test_a_fault_that_may_pass_removes_nothing(tmp_path, runtime, monkeypatch):
    monkeypatch.setattr("asterisk.sources.records.BUSY", 0.1)
    database, feed = tmp_path / "app.db", tmp_path / "feed.xml"
    owner = sqlite3.connect(database, isolation_level=None)
    owner.execute("CREATE TABLE notes(body)")
    owner.executemany("INSERT INTO notes VALUES (?)", [(f"note {n}",) for n in range(20)])
    entries = "".join(f"<item><guid>{n}</guid><title>entry {n}</title></item>" for n in range(50))
    whole = f"<rss><channel>{entries}</channel></rss>"
    feed.write_text(whole)
    asked = Options(databases=(Database(database, "SELECT body FROM notes"),))
    with create_index(tmp_path / "index.db", runtime) as index:
        assert index.update_files([feed], runtime, asked).added == 70
        feed.write_text(whole[: len(whole) // 2])
        owner.execute("DELETE FROM notes WHERE body = 'note 3'")
        owner.execute("BEGIN EXCLUSIVE")
        lines: list[str] = []
        assert index.update_files([feed], runtime, asked, Report(lines.append)).removed == 0
        assert [any(what in line for line in lines) for what in ("locked", "cut off")] == [True] * 2
        owner.execute("COMMIT")
        # The folder's own walk does not read the database, and takes nothing of it.
        index.update_files([tmp_path], runtime)
        assert index.documents == 70
        feed.write_text(whole)
        assert index.update_files([feed], runtime, asked).removed == 1
        feed.write_bytes(b"\0binary")
        assert index.update_files([feed], runtime).kept == 50
        assert index.update_files([feed], runtime, prune=True).removed == 50


def test_random_updates_end_as_one_update_would(tmp_path_factory, runtime):
    every = documents(40)

    @settings(max_examples=5, deadline=None)
    @given(st.lists(st.sets(st.integers(0, 39)), min_size=1, max_size=4), st.integers(0, 3))
    def check(rounds, seed):
        folder = tmp_path_factory.mktemp("random")
        order = np.random.default_rng(seed)
        with create_index(folder / "a.db", runtime) as index:
            for chosen in rounds:
                index.update([every[i] for i in order.permutation(sorted(chosen))], runtime)
                check_whole(index)
            held = contents(index)
        last = [every[i] for i in sorted(rounds[-1])]
        with create_index(folder / "b.db", runtime) as index:
            index.update(last, runtime)
            assert contents(index) == held

    check()


def test_a_hit_and_a_passage_carry_what_is_known_of_their_document(tmp_path, runtime):
    about = {"date": "2024-05-01", "author": "Ada", "tags": ["a, b", "日本"]}
    one = make_document("/a", "k", "A title", "some words of it", **about)
    with create_index(tmp_path / "index.db", runtime) as index:
        index.update([one, *documents(3)], runtime)
        (hit,) = index.search("some words of it", 1, runtime, "words")
        assert (hit.date, hit.author, hit.tags) == (one.date, one.author, one.tags)
        every = [index.passage(row)[0] for ids, _ in index.vectors() for row in ids]
        assert one in every


def test_two_documents_of_one_key_are_refused(tmp_path, runtime):
    one, two = (
        make_document("/a", "k", "", "one text"),
        make_document("/a", "k", "", "another text"),
    )
    with create_index(tmp_path / "index.db", runtime) as index:
        with pytest.raises(InputError, match="two documents"):
            index.update([one, two], runtime)
        index.update([one], runtime)
        with pytest.raises(InputError, match="two documents"):
            index.update([one, one], runtime)
        check_whole(index)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 1_500)), min_size=1, max_size=6),
    st.integers(0, 2**32),
    st.sampled_from(["int8", "float32"]),
)
@settings(max_examples=10, deadline=None)
def test_blocks_hold_what_a_dictionary_would(steps, seed, precision):
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create_tables(connection)
    blocks, draw, model, last = Blocks(connection, 8, precision), np.random.default_rng(seed), {}, 0
    for adds, count in steps:
        if adds:
            ids = list(range(last + 1, last + count + 1))
            last += count
            rows = draw.normal(size=(count, 8)).astype("f4")
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            add_rows(blocks, ids, rows)
            model.update(zip(ids, rows, strict=True))
        else:
            gone = draw.permutation(list(model))[:count].tolist()
            remove_rows(blocks, gone)
            for row in gone:
                del model[row]
        held = {
            i: row
            for ids, block in blocks.read()
            for i, row in zip(ids.tolist(), block, strict=True)
        }
        assert held.keys() == model.keys()
        for row, vector in model.items():
            assert held[row] @ vector > (0.999 if precision == "int8" else 0.999999)
        blocks.check()
        assert connection.execute("SELECT count(*) FROM blocks").fetchone() == (
            -(-len(model) // SLOTS),
        )
    connection.close()


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path, runtime):
    path = tmp_path / "index.db"
    with create_index(path, runtime) as writer:
        writer.update(documents(10), runtime)
        with pytest.raises(OutputError, match="being written by another process"):
            create_index(path, runtime)
        writer.connection.execute("BEGIN IMMEDIATE")
        with Index.open(path) as reader:
            assert reader.documents == 10
            assert len(reader.search("text w1", 3, runtime)) == 3
        writer.connection.execute("ROLLBACK")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["index.db"]
    create_index(path, runtime).close()


def test_a_query_sees_one_state_while_a_writer_goes_on(tmp_path, runtime):
    path = tmp_path / "index.db"
    with create_index(path, runtime) as writer:
        writer.update(documents(50), runtime)
        with Index.open(path) as reader:
            before = reader.search("text 3", 50, runtime, "vectors")
            writer.update(documents(20), runtime)
            after = reader.search("text 3", 50, runtime, "vectors")
    assert (len(before), len(after)) == (50, 20)


def test_reading_changes_nothing(tmp_path, runtime):
    path = tmp_path / "index.db"
    with create_index(path, runtime) as index:
        index.update(documents(30), runtime)
    before = path.read_bytes()
    path.chmod(0o444)
    with Index.open(path) as index:
        index.search("text", 5, runtime)
        assert [entry.name for entry in tmp_path.iterdir()] == ["index.db"]
        with pytest.raises(sqlite3.OperationalError):
            index.connection.execute("DELETE FROM documents")
    assert path.read_bytes() == before


def test_another_precision_or_space_is_refused(tmp_path, runtime):
    path = tmp_path / "index.db"
    create_index(path, runtime).close()
    with pytest.raises(UsageError, match="holds int8 vectors, not float32"):
        create_index(path, runtime, "float32")
    stranger = FakeRuntime(fingerprint="another")
    with pytest.raises(InputError, match="vectors of another model"):
        create_index(path, stranger)
    with Index.open(path) as index:
        with pytest.raises(InputError, match="--artifact"):
            index.search("text", 5, stranger)
        student = FakeRuntime(fingerprint="another", compatible_with=("drawn",))
        assert index.search("text", 5, student) == []
        with pytest.raises(InputError, match="vectors of 32 dimensions, the model gives 64"):
            index.search("text", 5, FakeRuntime(64))
        with pytest.raises(InputError, match="vectors of another model"):
            index.search(
                "text", 5, FakeRuntime(fingerprint="another", compatible_with=("a third",))
            )


KILLED = """
import sys, time
from pathlib import Path
from apps.search.fake_runtime import FakeRuntime, documents, create_index
import asterisk.apps.search.update as update
update.BATCH = 16
runtime = FakeRuntime()
path = Path(sys.argv[1])
with create_index(path, runtime) as index:
    print("begun", flush=True)
    index.update(documents(int(sys.argv[2])), runtime, lambda _: print("batch", flush=True))
    print("done", flush=True)
"""


def _started(path: Path, count: int) -> subprocess.Popen:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(TESTS), *sys.path]))
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


@pytest.mark.slow
def test_killed_at_any_moment_it_is_whole_and_goes_on(tmp_path, runtime):
    path, count = tmp_path / "index.db", 600
    draw = np.random.default_rng(int(time.time()))
    halves = 0
    for trial in range(4):
        child = _started(path, count)
        assert child.stdout is not None
        # Some in their first moments, while the file is made.
        for _ in range(0 if trial < 2 else int(draw.integers(1, 25))):
            child.stdout.readline()
        time.sleep(draw.uniform(0.1, 0.4) if trial < 2 else draw.uniform(0, 0.02))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        if not path.exists():
            continue
        if path.stat().st_size or path.with_name(path.name + "-wal").exists():
            with create_index(path, runtime) as index:
                check_whole(index)
                halves += 0 < index.documents < count
                if index.documents == count:
                    index.update([], runtime)
    assert halves
    with create_index(path, runtime) as index:
        held = index.documents
        changes = index.update(documents(count), runtime)
        assert changes.added == count - held
        check_whole(index)
        resumed = contents(index)
    with create_index(tmp_path / "straight.db", runtime) as index:
        index.update(documents(count), runtime)
        assert contents(index) == resumed


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, runtime):
    path, every = tmp_path / "index.db", documents(1_300)

    def stopping():
        yield from every[:1_200]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), create_index(path, runtime) as index:
        index.update(stopping(), runtime)
    again = FakeRuntime()
    with create_index(path, again) as index:
        held = index.documents
        assert 512 <= held < 1_200
        check_whole(index)
        index.update(every, again)
        assert len(again.embedded) == 1_300 - held
        check_whole(index)


def test_an_engine_that_fails_leaves_the_index_whole(tmp_path, runtime):
    class Failing(FakeRuntime):
        def encode(self, texts, **options):
            if any("1234" in text for text in texts):
                raise OSError("gone")
            return super().encode(texts, **options)

    with create_index(tmp_path / "index.db", runtime) as index:
        with pytest.raises(OSError, match="gone"):
            index.update(documents(1_600), Failing())
        check_whole(index)
        assert 0 < index.documents < 1_600


def test_an_interrupt_does_not_wait_for_a_long_document(tmp_path):
    class Counting(FakeRuntime):
        def encode(self, texts, **options):
            time.sleep(0.05)
            return super().encode(texts, **options)

    text = " ".join(f"Sentence {i} says a little about nothing." for i in range(10_000))
    runtime = Counting()

    with create_index(tmp_path / "index.db", runtime) as index:
        cut = len(passages(text, runtime.tokenizer))
        assert cut > 1_024
        with pytest.raises(KeyboardInterrupt):
            index.update(interrupted_at_once(make_document("/long", "", "", text)), runtime)
        assert len(runtime.embedded) < cut
        check_whole(index)


def interrupted_at_once(document):
    yield document
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("a.csv", "text,id\nglaciers melt,1\n", "502 Bad Gateway\n"),
        ("a.txt", "glaciers melt", '{"error": "x"}'),
        ("a.txt", "glaciers melt", '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'),
        ("a.md", "glaciers melt", "<h1>404 Not Found</h1>"),
        ("a.md", "glaciers melt", "<center><h1>502 Bad Gateway</h1></center>"),
        ("a.html", "<p>glaciers melt</p>", '<?xml version="1.0"?><Error>no</Error>'),
    ],
)
def test_an_error_is_kept_out_and_what_the_name_says_comes_back(tmp_path, runtime, name, good, bad):
    file = tmp_path / name

    def text(content, **options):
        file.write_text(content)
        index.update_files([file], runtime, **options)
        return [row for (row,) in index.connection.execute("SELECT text FROM documents")]

    with create_index(tmp_path / "index.db", runtime) as index:
        assert text(good) == ["glaciers melt"]
        for _ in range(2):
            assert text(bad) == ["glaciers melt"]
        text(bad, prune=True)
        assert text(good) == ["glaciers melt"]  # whatever stood there before
    with create_index(tmp_path / "other.db", runtime) as index:
        text(bad)
        assert text(good) == ["glaciers melt"]

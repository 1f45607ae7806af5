"""`asterisk-search` as a person runs it, on a real artifact and real files."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import asterisk
from asterisk.apps.search import Hit, Index
from asterisk.cli.search import format_hit, main, read_queries
from asterisk.common import texts
from asterisk.common.errors import InputError
from asterisk.sources.document import make_document


@pytest.fixture(scope="module")
def artifact(prompted) -> Path:
    return prompted


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Some of the texts that ship, a file each, and a table."""
    root = tmp_path_factory.mktemp("texts")
    every = [text.text for text in texts.load()]
    for number, text in enumerate(every[:40]):
        (root / f"{number}.txt").write_text(text, "utf-8")
    lines = [json.dumps({"id": str(i), "text": text}) for i, text in enumerate(every[40:140])]
    (root / "more.jsonl").write_text("\n".join(lines), "utf-8")
    (root / "binary.txt").write_bytes(b"\x00\x01\x02" * 100)
    for path in root.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


@pytest.fixture(scope="module")
def database(artifact, folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("index") / "texts.db"
    done = _search("index", folder, "--db", path, "--artifact", artifact, "--threads", 2)
    assert done.returncode == 0, done.stderr
    assert "binary.txt" in done.stderr
    assert "140 added" in done.stderr
    assert "1 skipped" in done.stderr
    return path


def _search(*args: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asterisk.cli.search", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


def _run(capsys, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which is quicker."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    capsys.readouterr()
    try:
        status = main(list(map(str, arguments)))
    except SystemExit as leaving:
        status = int(str(leaving.code))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())


def test_a_query_finds_its_own_text_first(database, capsys):
    every = [text.text for text in texts.load()]
    done = _run(capsys, "query", every[7][:300], "--db", database, "-k", 3, "--json")
    assert done.returncode == 0, done.stderr
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(hits) == 3
    assert hits[0]["source"].endswith("7.txt")
    assert set(hits[0]) == set(Hit.__dataclass_fields__)
    assert hits[0]["score"] >= hits[1]["score"] >= hits[2]["score"]
    done = _run(capsys, "query", every[50][:300], "--db", database, "--mode", "vectors")
    assert done.returncode == 0
    assert "more.jsonl  [10]" in done.stdout.split("\n 2.")[0]


def test_words_need_no_engine(database, artifact):
    code = (
        "import sys; from asterisk.cli.search import main; "
        "status = main(sys.argv[1:]); "
        "assert not {'ai_edge_litert', 'onnxruntime', 'torch'} & set(sys.modules); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "query", "water", "--db", database, "--mode", "words"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "water" in done.stdout.lower()


def test_only_what_changed_is_read_again_and_what_disappeared_leaves(
    artifact, folder, tmp_path, capsys, monkeypatch
):
    path, place = tmp_path / "index.db", tmp_path / "texts"
    place.mkdir()
    for name in ("1.txt", "2.txt", "3.txt"):
        (place / name).write_bytes((folder / name).read_bytes())
        os.utime(place / name, (1_700_000_000, 1_700_000_000))
    # A change of the inode itself is younger than any clock tells apart.
    monkeypatch.setattr(sys.modules["asterisk.sources.scan"], "UNSETTLED", 0)
    _run(capsys, "index", place, "--db", path, "--artifact", artifact)
    done = _run(capsys, "index", place, "--db", path)
    assert "3 unchanged; 3 documents" in done.stderr
    connection = sqlite3.connect(path)
    stamps = [stamp for (stamp,) in connection.execute("SELECT stamp FROM sources")]
    connection.close()
    assert len(stamps) == 3
    assert all(stamps)
    (place / "1.txt").write_text("Now about something else.")
    (place / "2.txt").unlink()
    done = _run(capsys, "index", place, "--db", path)
    assert "1 changed, 1 removed, 1 unchanged; 2 documents" in done.stderr
    other = tmp_path / "elsewhere.txt"
    other.write_text("What lies elsewhere stays beside it.")
    done = _run(capsys, "index", other, "--db", path)
    assert "1 added; 3 documents" in done.stderr
    # An index among its own texts is none of them.
    done = _run(capsys, "index", tmp_path, "--db", path)
    assert done.returncode == 0
    assert "index.db:" not in done.stderr


def test_info_shows_what_it_was_made_with(database, artifact, capsys):
    done = _run(capsys, "info", "--db", database, "--json")
    info = json.loads(done.stdout)
    assert (info["documents"], info["sources"]) == (140, 42 - 1)
    assert info["artifact"] == str(artifact)
    assert info["precision"] == "int8"
    assert info["passages"] >= 140
    assert "fingerprint" in _run(capsys, "info", "--db", database).stdout


def test_a_prompt_answers_until_the_input_ends(database):
    done = _search("query", "--db", database, "-k", 1, "--json", input='water\n\n"(\n\nlight\n')
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_an_error_does_not_end_the_prompt(monkeypatch, capsys):
    lines = iter(["bad", "good"])

    def ask(_):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    asked = []

    def answer(query):
        asked.append(query)
        if query == "bad":
            raise InputError("no\nsense")

    monkeypatch.setattr("builtins.input", ask)
    read_queries(answer)
    assert asked == ["bad", "good"]
    assert capsys.readouterr().err == "asterisk-search: no sense\n"


ASCII = {
    "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "",  # tox sets it
}  # fmt: skip


@pytest.mark.parametrize("locale", [ASCII, {"PYTHONIOENCODING": "latin-1"}])
def test_any_title_is_printed_and_any_path_opened_in_any_locale(artifact, tmp_path, locale):
    place = tmp_path / "Größe"
    options = {"env": os.environ | locale, "encoding": "latin-1"}
    place.mkdir()
    done = _search("index", tmp_path, "--db", place / "日.db", "--artifact", artifact, **options)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    document = make_document(
        "/texts", "7", "日本語", "sugar", date="2024-05-01T10:00:00Z", tags=["花"]
    )
    with asterisk.load(artifact) as runtime, Index.create(place / "日.db") as index:
        index.update([document], runtime)
    asked = "query", "日本語", "--db", place / "日.db"
    done = _search(*asked, "--mode", "words", **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" 1. \\u65e5\\u672c\\u8a9e  2024-05-01  (")
    (hit,) = map(json.loads, _search(*asked, "--json", **options).stdout.splitlines())
    assert (hit["date"], hit["author"], hit["tags"]) == ("2024-05-01T10:00:00Z", "", ["花"])
    for arguments in (("info", "--db", place / "日.db"), ("query", "a", "--db", place / "ä.db")):
        done = _search(*arguments, **options)
        assert "Traceback" not in done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)


def test_escapes_never_reach_the_terminal():
    hit = Hit(1, "\x1b]0;title\x07", 0.5, "snippet", "/a\x1b[2J", "k\x9b", 0.25)
    assert format_hit(1, hit).replace("\n", "").isprintable()


def test_mistakes_are_one_line(database, artifact, folder, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("some text")
    for arguments, status, reason in (
        (("query", "a", "--db", tmp_path / "none.db"), 4, "asterisk-search index"),
        (("query", "a", "--db", tmp_path / "text.txt"), 4, "not a search index"),
        (("query", "a", "--db", tmp_path), 4, "not a file"),
        (("query", "a", "--db", database, "--artifact", folder), 5, "artifact"),
        (("query", " ", "--db", database), 4, "empty query"),
        (("query", "a", "--db", database, "-k", "0"), 2, "not a positive number"),
        (("index", folder, "--db", tmp_path / "new.db"), 2, "which artifact"),
        (("index", folder, "--db", tmp_path / "a" / "b.db", "--artifact", artifact), 7, "folder"),
        (("index", "--db", database), 2, "which files"),
        (("index", tmp_path / "none", "--db", database), 4, "cannot read"),
        (("index", folder, "--db", database, "--precision", "float32"), 2, "holds int8"),
        (("nothing",), 2, "invalid choice"),
        ((), 2, "required"),
    ):
        done = _run(capsys, *arguments)
        lines = done.stderr.splitlines()
        assert (done.returncode, len(lines)) == (status, 1), (arguments, lines)
        assert reason in lines[0]
    assert not (tmp_path / "new.db").exists()


def test_another_models_artifact_is_refused_in_one_line(database, artifact, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    for file in artifact.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((other / "artifact.json").read_text())
    space = manifest["fingerprint"]
    manifest |= {"fingerprint": "0" * 64, "compatible_with": []}
    (other / "artifact.json").write_text(json.dumps(manifest))
    done = _run(capsys, "query", "water", "--db", database, "--artifact", other)
    assert done.returncode == 4
    assert "vectors of another model" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    manifest["compatible_with"] = [space]
    (other / "artifact.json").write_text(json.dumps(manifest))
    done = _run(capsys, "query", "water", "--db", database, "--artifact", other)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_interrupt_is_130_and_the_index_goes_on(artifact, tmp_path):
    lines = tmp_path / "many.jsonl"
    every = [text.text[:400] for text in texts.load()]
    lines.write_text(
        "\n".join(json.dumps(f"{i} {every[i % len(every)]}") for i in range(12_000)), "utf-8"
    )
    path = tmp_path / "index.db"
    command = [sys.executable, "-m", "asterisk.cli.search", "index", lines, "--db", path]
    child = subprocess.Popen(
        [*map(str, command), "--artifact", str(artifact)], stderr=subprocess.PIPE, text=True
    )
    while not _documents(path):
        time.sleep(0.05)
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=60)
    assert child.returncode == 130
    assert complaint == "asterisk-search index: interrupted\n"
    held = _documents(path)
    assert 0 < held < 12_000
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["index.db", "many.jsonl"]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def _documents(path: Path) -> int:
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return connection.execute("SELECT count(*) FROM documents").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return 0

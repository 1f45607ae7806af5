"""What servers really send, through the commands that people type."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from sources.helpers import SAMPLES
from sources.test_feeds import CASES

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def artifact(artifact_of: Callable[[str, str], Path]) -> Path:
    pytest.importorskip("ai_edge_litert")
    return artifact_of("tflite", "int8")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(command: str, *args: object) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        status = import_module(f"asterisk.cli.{command}").main([*map(str, args)])
        return subprocess.CompletedProcess(args, status, *capsys.readouterr())

    return run


def texts_of(database: Path) -> list[str]:
    connection = sqlite3.connect(database)
    texts = [text for (text,) in connection.execute("SELECT text FROM documents ORDER BY id")]
    connection.close()
    return texts


def test_search_indexes_what_servers_send(run: Run, artifact: Path, tmp_path: Path) -> None:
    files = [SAMPLES / "cases" / name for name in CASES]
    done = run("search", "index", *files, "--db", tmp_path / "a.db", "--artifact", artifact)
    assert done.returncode == 0, done.stderr
    expected = [text for texts, _ in CASES.values() for text in texts]
    assert [text.replace("\xa0", " ") for text in texts_of(tmp_path / "a.db")] == expected
    for name, (_, line) in CASES.items():
        reported = [it for it in done.stderr.splitlines() if f"/{name}: " in it]
        assert [it.partition(": ")[2] for it in reported] == ([line] if line else [])


def test_dedup_reads_what_servers_send(run: Run, artifact: Path) -> None:
    files = [SAMPLES / "cases" / name for name in CASES]
    done = run("dedup", *files, "--artifact", artifact, "--threshold", 1)
    assert done.returncode == 0, done.stderr
    expected = sum(len(texts) for texts, _ in CASES.values())
    assert done.stdout.startswith(f"{expected} texts: ")


def test_an_error_page_twice_in_a_row_takes_nothing(
    run: Run, artifact: Path, tmp_path: Path
) -> None:
    feed, database = tmp_path / "feed.xml", tmp_path / "a.db"
    feed.write_bytes((SAMPLES / "cases" / "rss091-doctype.xml").read_bytes())
    done = run("search", "index", feed, "--db", database, "--artifact", artifact)
    assert "2 added" in done.stderr
    before = texts_of(database)
    for text, reason in (
        ("<html><h1>503</h1></html>", "an HTML page, in spite of its name"),
        ("", "empty, or no markup"),
    ):
        feed.write_text(text)
        done = run("search", "index", feed, "--db", database)
        assert (done.returncode, texts_of(database)) == (0, before)
        fault, summary = done.stderr.splitlines()
        assert fault == f"{feed}: {reason}; 2 documents of it are kept (--prune removes them)"
        assert summary.endswith(f"2 kept; 1 skipped; 2 documents in {database}")
    done = run("search", "index", feed, "--db", database, "--prune")
    assert "2 removed" in done.stderr
    assert not texts_of(database)

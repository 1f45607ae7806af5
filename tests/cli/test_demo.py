"""The demonstration, run once as a person runs it, and what it says."""

from __future__ import annotations

import re

import pytest
from conftest import SHIPPED

from asterisk.apps.search.query import terms
from asterisk.artifact import open_artifact
from asterisk.bench import prepare
from asterisk.bench.prepare import default_artifact
from asterisk.cli.demo import BY_MEANING, BY_WORDS, QUERIES
from asterisk.common import files, texts
from asterisk.common.errors import EngineError
from asterisk.common.terminal import printable


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """A folder for artifacts, and what was reported while the default one was exported to it."""
    folder, reported = tmp_path_factory.mktemp("demo") / "artifacts", []
    default_artifact(folder, reported.append)
    return folder, reported


@pytest.fixture(scope="module")
def done(artifacts, tmp_path_factory):
    """The command, finished."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "asterisk.cli.demo", "--interactive"]
    return subprocess.run(
        [*command, "--artifacts", str(artifacts[0])],
        input=b"are dogs allowed melon\n\x1b\n",
        capture_output=True,
        check=False,
        cwd=tmp_path_factory.mktemp("elsewhere"),
    )


@pytest.fixture(scope="module")
def out(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def shown(out: str, label: str) -> dict[str, str]:
    """What stands after ``label`` for each query."""
    return dict(zip(QUERIES, re.findall(f"^{label}(.*)$", out, re.MULTILINE), strict=True))


def test_one_command_shows_it_all(out, tmp_path):
    assert re.search(r"Indexed 984 texts in [\d.]+ s", out)
    assert out.count("? ") >= len(QUERIES)
    assert re.search(r"median [\d.]+ ms, p95 [\d.]+ ms \(\d+ queries, one thread\)", out)
    assert re.search(r"PSS \d+ MB", out)
    assert "can dogs eat watermelon" in out
    assert "\x1b" not in out


def test_what_is_said_of_words_is_true(out):
    by_meaning = shown(out, BY_MEANING)
    without = 0
    for query, line in by_meaning.items():
        snippet = re.split(r"…?  \(", line)[0].removeprefix("…").strip()
        whole = next(it.text for it in texts.load() if snippet in printable(it.text))
        common = set(terms(query)) & set(terms(whole))
        assert ("no word in common" in line) == (not common)
        without += not common
    assert without >= 5


def test_meaning_finds_what_words_do_not(out):
    by_meaning, by_words = shown(out, BY_MEANING), shown(out, BY_WORDS)
    for query, expected in (
        ("sick child fever", "infectious"),
        ("earn pay lowest allowed", "minimum wage"),
    ):
        assert expected in by_meaning[query]
        assert "no word in common" in by_meaning[query]
        assert expected not in by_words[query]
    # The other way round: a name that the model cannot know.
    assert "USEITI" in by_words["USEITI"]


def test_near_duplicates_and_sorting(out):
    # Two pairs of release notes read alike and are of different releases.
    assert ": 1 cluster in" in out
    assert "What Python version can I use with Django?" in out
    assert len(re.findall(r"^ +\* ", out, re.MULTILINE)) == 1
    right, largest = map(int, re.search(r"(\d+)% right \(always the largest: (\d+)%", out).groups())
    assert right > 60 > largest


def test_an_artifact_is_exported_once(artifacts):
    folder, reported = artifacts
    name = f"{files.SHIPPED}-{prepare.FORMAT}-{prepare.RECIPE}"
    assert open_artifact(folder / name).manifest.format == prepare.FORMAT
    assert len(reported) == 1
    assert default_artifact(folder, reported.append) == folder / name
    assert len(reported) == 1


def test_an_export_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "shipped_checkpoint", lambda: SHIPPED)
    for answer in ({"refused": "no disk", "status": 7}, {"rows": [], "failed": {"tflite": "why"}}):
        monkeypatch.setattr(prepare, "ask", lambda *_, answer=answer, **__: answer)
        with pytest.raises(EngineError, match=r"could not be exported: (no disk|why)"):
            default_artifact(tmp_path, lambda _: None)


def test_bad_arguments_are_one_line(command, tmp_path):
    done = command("demo", tmp_path)
    assert done.returncode == 5
    assert done.stderr.decode().splitlines() == [
        f"asterisk-demo: {tmp_path} is neither an artifact nor a checkpoint"
    ]
    assert command("demo", "--threads", "0").returncode == 2

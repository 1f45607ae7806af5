"""The demonstration, run as a person runs it."""

from __future__ import annotations

import re
import shutil

import pytest
from conftest import SHIPPED

import asterisk
from asterisk.apps.search import Index
from asterisk.apps.search.words import terms
from asterisk.artifact import open_artifact
from asterisk.bench import prepare as finding
from asterisk.cli import demo_show as show
from asterisk.common import default_paths as places
from asterisk.common import texts
from asterisk.common.errors import EngineError


@pytest.fixture(scope="module")
def shown(artifact, tmp_path_factory):
    """An index of the texts that ship, with the runtime that made it."""
    place = tmp_path_factory.mktemp("demo") / "demo.db"
    with (
        asterisk.load(artifact) as runtime,
        Index.create(place, artifact, runtime=runtime) as index,
    ):
        lines = list(show.indexing(index, runtime, texts.load()))
        yield index, runtime, lines


def test_one_command_shows_it_all(artifact, command, tmp_path):
    done = command("demo", artifact, "--interactive", input=b"are dogs allowed melon\n\x1b\n")
    out = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert re.search(r"Indexed 984 texts in [\d.]+ s", out)
    assert out.count("? ") >= len(show.QUERIES)
    assert "no word in common" in out
    assert re.search(r"median [\d.]+ ms, p95 [\d.]+ ms \(\d+ queries, one thread\)", out)
    assert re.search(r"PSS \d+ MB", out)
    assert re.search(r": 1 cluster in", out)
    assert "can dogs eat watermelon" in out
    assert "\x1b" not in out
    assert not list(tmp_path.iterdir())


def test_what_is_said_of_words_is_true(shown):
    index, runtime, _ = shown
    by_id = {text.id: text.text for text in texts.load()}
    lines = list(show.asking(index, runtime, texts.load()))
    told = [line for line in lines if line.startswith(show.BY_MEANING)]
    assert len(told) == len(show.QUERIES)
    without = 0
    for query, line in zip(show.QUERIES, told, strict=True):
        (hit,) = index.search(query, 1, runtime, "vectors")
        common = set(terms(query)) & set(terms(by_id[hit.key]))
        assert ("no word in common" in line) == (not common)
        without += not common
    assert without >= 5


def test_meaning_finds_what_words_do_not(shown):
    index, runtime, _ = shown
    for query, expected in (
        ("sick child fever", "infectious"),
        ("earn pay lowest allowed", "minimum wage"),
        ("undo a mistake", "accidentally deleted"),
    ):
        (best,) = index.search(query, 1, runtime, "vectors")
        assert expected in best.snippet
        assert best.key not in {hit.key for hit in index.search(query, 100, None, "words")}
    # The other way round: a name that the model cannot know.
    assert "USEITI" in index.search("USEITI", 1, None, "words")[0].snippet


def test_near_duplicates_and_sorting(shown):
    _, runtime, _ = shown
    head, *lines = show.near_duplicates(runtime, texts.load())
    # Two pairs of release notes read alike and are of different releases.
    assert ": 1 cluster in" in head
    assert any("What Python version can I use with Django?" in line for line in lines)
    assert sum(line.strip().startswith("*") for line in lines) == 1
    (told,) = show.sorting(runtime, texts.load())
    right, usual = (int(share) for share in re.findall(r"(\d+)%", told))
    assert right > 60 > usual


def test_times_and_memory(shown):
    index, runtime, lines = shown
    questions = [text for text in texts.load() if text.kind == "question"][:20]
    found = show.timing(index, runtime, questions)
    assert len(found.samples) == 20
    assert min(found.samples) > 10_000  # ns
    assert found.memory["pss"] is None or found.memory["pss"] > 10_000_000
    assert len(lines) == 1
    assert any("20 queries" in line for line in show.summary(found, index.path))


def test_an_artifact_that_is_there_is_not_exported_again(artifact, tmp_path, monkeypatch):
    name = f"{places.SHIPPED}-{finding.FORMAT}-{finding.RECIPE}"
    shutil.copytree(artifact, tmp_path / name)
    monkeypatch.setattr(finding, "ask", lambda *_, **__: pytest.fail("it exports"))
    assert finding.default_artifact(tmp_path, lambda _: None) == tmp_path / name


@pytest.mark.slow
def test_an_artifact_that_is_missing_is_exported(tmp_path):
    told: list[str] = []
    found = finding.default_artifact(tmp_path / "artifacts", told.append)
    assert found == tmp_path / "artifacts" / f"{places.SHIPPED}-{finding.FORMAT}-{finding.RECIPE}"
    assert open_artifact(found).manifest.format == finding.FORMAT
    assert len(told) == 1


def test_an_export_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "shipped_checkpoint", lambda: SHIPPED)
    for answer in ({"refused": "no disk", "status": 7}, {"rows": [], "failed": {"tflite": "why"}}):
        monkeypatch.setattr(finding, "ask", lambda *_, answer=answer, **__: answer)
        with pytest.raises(EngineError, match=r"could not be exported: (no disk|why)"):
            finding.default_artifact(tmp_path, lambda _: None)


def test_bad_arguments_are_one_line(command, tmp_path):
    done = command("demo", tmp_path)
    assert done.returncode == 5
    assert done.stderr.decode().splitlines() == [
        f"asterisk-demo: {tmp_path} is neither an artifact nor a checkpoint"
    ]
    assert command("demo", "--threads", "0").returncode == 2

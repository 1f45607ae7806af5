"""Models beside one another: the value, its page, and a run from folders to figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from asterisk.bench.plan import QUICK
from asterisk.bench.runner import Request
from benchmarks import quality
from benchmarks.models import METRICS, Comparison, Entry, main, measure_models, page, plot

TRUTH = {"STS-B": 80.0, "retrieval": 50.0, "classification": 40.0}
PLUGIN = """
import numpy as np

def open(folder, threads):
    assert (folder.name, threads) == ("sets", 1)
    return Encoder()

class Encoder:
    def encode(self, texts):
        one = isinstance(texts, str)
        rows = [[len(text), text.count("a"), 1.0] for text in ([texts] if one else texts)]
        return np.array(rows, "f4")[0 if one else slice(None)]
"""


@pytest.fixture
def run() -> Comparison:
    ms = {"20": 0.25, "128": 1.5}
    return Comparison(
        {"argv": ["m.md"], "effort": {"processes": 3}, "data": ["eval"]} | {"split": "test"},
        {
            **{"cpu": "a processor", "cores": 4, "system": "Linux", "architecture": "x86_64"},
            **{"python": "3.11.7", "packages": {}},
        },
        [],
        "the teacher",
        TRUTH,
        [
            Entry("slow", "LiteRT", "int8", 24_000_000, 384, 50_000_000, {"20": 1.4}, TRUTH),
            Entry(
                *("small", "LiteRT", "int8", 16_000_000, 256, 30_000_000, ms),
                {"STS-B": 72.0, "retrieval": 45.0, "classification": 38.0},
            ),
            Entry("peer", "peer", "static", 8_000_000, 256),
        ],
        {"other gguf": "no engine"},
    )


def test_a_share_is_the_mean_over_the_metrics():
    entry = Entry("m", "t", "r", 1, 3, quality={"STS-B": 72.0, "retrieval": 50.0})
    assert entry.share(TRUTH) is None
    entry.quality["classification"] = 20.0
    assert entry.share(TRUTH) == pytest.approx((0.9 + 1 + 0.5) / 3)
    assert entry.share({}) is None


def test_the_page_says_what_was_measured(run):
    text = page(run)
    rows = [[c.strip() for c in row.split("|")[1:-1]] for row in text.split("\n") if row[:1] == "|"]
    heading, _, *rows = rows
    small, slow, peer = (dict(zip(heading, row, strict=True)) for row in rows)
    assert (small["model"], slow["model"], peer["model"]) == ("small", "slow", "peer")
    assert (small["STS-B"], small["of the teacher"]) == ("72.0 (90.0%)", "91.7%")
    assert (small["20 tokens, ms"], small["128 tokens, ms"], slow["128 tokens, ms"]) == (
        *("0.250", "1.50"),
        "-",
    )
    assert (peer["retrieval"], peer["PSS, MB"], peer["of the teacher"]) == ("-", "-", "-")
    assert "python -m benchmarks.models m.md" in text
    assert all(len(cell.strip()) >= 3 for cell in text.split("\n|")[2].strip("|\n ").split("|"))
    run.settings["data"] = []
    assert "Spearman" not in page(run)
    assert "- other gguf: no engine" in text
    assert Comparison.from_json(run.to_json()) == run
    with pytest.raises(ValueError, match="schema 9"):
        Comparison.from_json(json.dumps({"schema": 9}))


def test_the_plot_is_a_picture(run):
    pytest.importorskip("matplotlib")
    assert plot(run)[:8] == b"\x89PNG\r\n\x1a\n"
    assert plot(replace(run, entries=run.entries[2:])) is None


@pytest.fixture
def sets(tmp_path) -> Path:
    """Three small sets, one for each metric."""
    folder = tmp_path / "sets"
    words = ["a", "bb", "aaa", "banana", "cc cc", "a b a b", "ddd", "aaaa aaaa"]
    (folder / "stsb").mkdir(parents=True)
    pairs = [f"{n % 5}.5\t{one}\t{two}" for n, one in enumerate(words) for two in words[n:]]
    (folder / "stsb" / "test.tsv").write_text("\n".join(pairs) + "\n")
    (folder / "letters").mkdir()
    lines = "".join(f"{'a' in word:d}\t{word}\n" for word in words * 2)
    for part in ("train", "test"):
        (folder / "letters" / f"{part}.tsv").write_text(lines)
    (folder / "ret_words").mkdir()
    for name in ("queries", "corpus"):
        text = "".join(f"{name[0]}{n}\t{word}\n" for n, word in enumerate(words))
        (folder / "ret_words" / f"{name}.tsv").write_text(text)
    found = "".join(f"q{n}\tc{n}\t1\n" for n in range(len(words)))
    (folder / "ret_words" / "qrels.tsv").write_text(found)
    return folder


def test_a_peer_is_evaluated_through_what_the_worker_opens(sets, tmp_path, monkeypatch):
    (tmp_path / "graded_peer.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"path": str(sets), "opener": "graded_peer:open", "data": [str(sets)], "split": "test"}
    answer = quality._attempt(spec | {"metrics": METRICS})
    assert answer.keys() == {"quality", "dimensions"}, answer
    assert answer["dimensions"] == 3
    assert answer["quality"].keys() == set(METRICS)
    # Texts of one length and as many letters are one vector: found are 8 of 8 but for ties.
    assert answer["quality"]["retrieval"] > 80
    assert answer["quality"]["classification"] > 60
    assert quality._attempt(spec)["quality"].keys() == {"Spearman", "nDCG@10"}
    assert "error" in quality._attempt(spec | {"opener": "graded_peer:absent"})


@pytest.mark.slow
def test_from_folders_to_figures(toy_folder, artifact_of, sets, tmp_path):
    request = Request(
        ("tflite",),
        (),
        *(toy_folder, artifact_of("tflite", "int8").parent, tmp_path / "w"),
        (1,),
        replace(QUICK, processes=1, calls=5, seconds=0.01, warm_seconds=0.0),
        *(1, 180.0),
    )
    said: list[str] = []
    run = measure_models(request, {"toy": toy_folder}, [sets], "test", said.append)
    assert not run.failed, run.failed
    (entry,) = run.entries
    assert (entry.model, entry.title, entry.recipe) == ("toy", "LiteRT", "int8")
    assert entry.pss
    assert entry.ms["20"] > 0
    assert entry.quality.keys() == run.truth.keys() == set(METRICS)
    assert entry.share(run.truth) > 0


def test_wrong_arguments_are_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "m.txt")]) == 2
    assert main([str(tmp_path / "m.md"), "--runtime", "torch"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2

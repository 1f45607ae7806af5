"""The front over all recipes, and the page of a recorded run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asterisk.bench import prepare
from asterisk.bench.pareto import Pareto, Recipe, dominates, mark
from asterisk.bench.pareto_page import command, page, plot
from asterisk.bench.plan import Row
from asterisk.cli.bench import main
from asterisk.common.errors import FidelityError, MissingExtra
from asterisk.exporters import Recipe as RecipeOf

few = st.sampled_from([1, 2, 3])  # few values, so that many are equal
mean = st.sampled_from([0.99, 0.999, 1.0])
recipes = st.builds(
    lambda size, pss, short, long, cosine: Recipe(
        *("onnx", "ONNX Runtime", "r", size, pss),
        {"8": 0.1, "20": short, "128": long},
        {"cosine_mean": cosine},
    ),
    *(few, few | st.none(), few, few, mean),
)


@given(st.lists(recipes, max_size=12))
def test_nothing_on_the_front_is_dominated_and_everything_off_it_is(some):
    mark(some)
    known = [it for it in some if it.pss is not None]
    for it in known:
        beaten = any(dominates(other.costs(), it.costs()) for other in known)
        assert it.front is not beaten
        # By one that is on the front itself, for domination ends somewhere.
        assert it.front or any(o.front and dominates(o.costs(), it.costs()) for o in known)
    assert not any(it.front for it in some if it.pss is None)
    assert any(it.front for it in known) or not known


@given(recipes, recipes, recipes)
def test_domination_is_an_order(one, two, three):
    a, b, c = ((it.costs() or (9.0,) * 5) for it in (one, two, three))
    assert not dominates(a, a)
    assert not (dominates(a, b) and dominates(b, a))
    assert not (dominates(a, b) and dominates(b, c)) or dominates(a, c)


def test_better_means_smaller_faster_and_nearer():
    base = Recipe("a", "A", "r", 10, 10, {"20": 1.0, "128": 5.0}, {"cosine_mean": 0.99})
    for better in (
        replace(base, size=9),
        replace(base, pss=9),
        replace(base, ms={"20": 0.9, "128": 5.0}),
        replace(base, ms={"20": 1.0, "128": 4.9}),
        replace(base, fidelity={"cosine_mean": 0.999}),
    ):
        mark(pair := [replace(base), better])
        assert [it.front for it in pair] == [False, True]
    mark(equal := [replace(base), replace(base)])
    assert all(it.front for it in equal)


@pytest.fixture
def run() -> Pareto:
    """A run as it may end: a front, a row that is off it, one without a process's answer."""
    ms = {"8": 0.1, "20": 0.2, "128": 1.1}
    gate = {"cosine_mean": 0.9995, "cosine_min": 0.9988, "overlap_at_10": 0.978}
    near = {"cosine_mean": 1.0, "cosine_min": 1.0, "overlap_at_10": 1.0}
    scores = {"Spearman": 78.123, "nDCG@10": 61.5}
    some = [
        Recipe("onnx", "ONNX Runtime", "fp32", 60_900_000, 90_000_000, {**ms, "20": 0.4}, near),
        Recipe("onnx", "ONNX Runtime", "int8", 16_500_000, 41_000_000, ms, gate, scores),
        Recipe("onnx", "ONNX Runtime", "slow", 16_600_000, 42_000_000, ms, gate),
        Recipe("gguf", "llama.cpp", "q8_0", 20_000_000, None, {}, gate),
    ]
    mark(some)
    effort = {"processes": 3}
    argv = ["--pareto", "docs/pareto.md", "--data", "/home/somebody/eval"]
    return Pareto(
        {"name": "asterisk-256", "fingerprint": "0123456789abcdef"},
        {"argv": argv, "seed": 1, "effort": effort, "data": ["eval"], "split": "test"},
        {
            **{"cpu": "a processor", "cores": 4, "system": "Linux", "architecture": "x86_64"},
            **{"python": "3.11.7", "packages": {"onnxruntime": "1.31.1"}},
        },
        ["the machine was busy"],
        some,
        {"gguf-q4": "cosine_mean 0.90000 is below the recipe's 0.95"},
    )


def test_the_page_says_what_was_measured(run):
    text = page(run)
    rows = [[c.strip() for c in row.split("|")[1:-1]] for row in text.split("\n") if row[:1] == "|"]
    heading, _, *rows = rows
    table = [dict(zip(heading, row, strict=True)) for row in rows]
    assert [row["recipe"] for row in table] == ["int8", "slow", "q8_0", "fp32"]
    int8, slow, q8, fp32 = table
    assert (int8["front"], slow["front"], q8["front"], fp32["front"]) == ("yes", "", "", "yes")
    assert (int8["size, MB"], int8["PSS, MB"]) == ("16.5", "41.0")
    assert (int8["20 tokens, ms"], int8["128 tokens, ms"]) == ("0.200", "1.10")
    assert (int8["cosine mean"], int8["min"]) == ("0.99950", "0.9988")
    assert (int8["STS-B Spearman"], int8["retrieval nDCG@10"]) == ("78.12", "61.50")
    assert q8["PSS, MB"] == q8["20 tokens, ms"] == q8["STS-B Spearman"] == "-"
    assert "- gguf-q4: cosine_mean 0.90000 is below the recipe's 0.95" in text
    assert "- the machine was busy" in text
    assert "test split" in text


def test_the_page_names_its_command_without_the_writers_folders(run):
    assert command(run.settings["argv"]) == "asterisk-bench --pareto docs/pareto.md --data eval"
    assert command(run.settings["argv"]) in page(run)
    assert "/home" not in page(run)


def test_without_data_nothing_is_said_of_quality(run):
    run.settings["data"] = []
    assert "Spearman is STS-B" not in page(run)


def test_the_json_comes_back_as_it_was(run):
    assert Pareto.from_json(run.to_json()) == run
    with pytest.raises(ValueError, match="schema 9"):
        Pareto.from_json(json.dumps({"schema": 9}))


def test_the_plot_is_a_picture(run):
    pytest.importorskip("matplotlib")
    assert plot(run)[:8] == b"\x89PNG\r\n\x1a\n"
    assert plot(replace(run, recipes=run.recipes[3:])) is None
    assert "![size against time, fidelity as colour](pareto.png)" in page(run, "pareto.png")


def test_wrong_arguments_are_one_line(tmp_path, capsys):
    page_of = ["--pareto", str(tmp_path / "p.md")]
    assert main(["--data", str(tmp_path)]) == 2
    assert main(["--pareto", str(tmp_path / "p.txt")]) == 2
    assert main([*page_of, "--data", str(tmp_path / "none")]) == 4
    assert main([*page_of, "--runtime", "torch"]) == 2
    assert main([*page_of, "--runtime", "peers"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 5
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_a_line_and_the_rest_goes_on(monkeypatch, capsys):
    class Exporter:
        recipes = tuple(RecipeOf(name, "") for name in ("good", "poor"))

    def exporter(name):
        if name == "absent":
            raise MissingExtra("engine", "export")
        return Exporter()

    def make(recipe):
        if recipe == "poor":
            raise FidelityError("cosine_mean 0.90000 is below the recipe's 0.998")
        return Row("strange", "Strange", recipe, "m:f", "p", (), (), 1)

    monkeypatch.setattr(prepare.exporting, "exporter", exporter)
    prepared = prepare.Prepared()
    for name in ("absent", "strange"):
        prepare._attempt_each(prepared, name, make)
    assert [(row.name, row.recipe) for row in prepared.rows] == [("strange-good", "good")]
    assert prepared.failed.keys() == {"absent", "strange-poor"}
    assert "asterisk-edge[export]" in prepared.failed["absent"]
    assert "below the recipe's" in prepared.failed["strange-poor"]


@pytest.mark.slow
def test_from_a_checkpoint_to_a_page(toy_folder, tmp_path, command):
    """Every recipe of a format, with sets to evaluate on; an export that fails is a line."""
    sts = tmp_path / "eval" / "stsb"
    sts.mkdir(parents=True)
    pairs = [(n % 5, f"a text on subject {n}", f"a text on subject {n + n % 5}") for n in range(30)]
    lines = "".join(f"{score}.5\t{one}\t{two}\n" for score, one, two in pairs)
    (sts / "test.tsv").write_text(lines)
    # What cannot be replaced stops the export of that recipe alone.
    blocked = tmp_path / "a" / "toy-onnx-fp32"
    blocked.mkdir(parents=True)
    (blocked / "mine.txt").write_text("kept")
    arguments = [toy_folder, "--artifacts", tmp_path / "a", "--runtime", "onnx"]
    arguments += ["--pareto", tmp_path / "p" / "pareto.md", "--data", tmp_path / "eval"]
    done = command("bench", *arguments, "--processes", 1, "--seed", 3)
    assert done.returncode == 0, done.stderr.decode()
    text = (tmp_path / "p" / "pareto.md").read_text("utf-8")
    assert done.stdout.decode() == text
    run = Pareto.from_json((tmp_path / "p" / "pareto.json").read_text("utf-8"))
    assert {it.recipe for it in run.recipes} == {"int8", "int8-emb4"}
    assert list(run.failed) == ["onnx-fp32"]
    assert "holds something else" in run.failed["onnx-fp32"]
    assert (blocked / "mine.txt").read_text() == "kept"
    for it in run.recipes:
        assert it.costs() is not None
        assert set(it.quality) == {"Spearman"}
    sizes = {it.recipe: it.size for it in run.recipes}
    assert sizes["int8-emb4"] < sizes["int8"]
    assert any(it.front for it in run.recipes)

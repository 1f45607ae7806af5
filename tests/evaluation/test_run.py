"""A whole evaluation with toy models: columns, retention, intervals, JSON, table, command."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.cli import evaluate as command
from asterisk.common.errors import InputError, MissingExtra, UsageError
from asterisk.evaluation import run
from asterisk.evaluation.report import Report, markdown
from asterisk.evaluation.run import Request, evaluate

from .conftest import toy, write_retrieval


@pytest.fixture
def opened(monkeypatch):
    """Models by name: good, twin (the same), poor, teacher; with a projection, but the teacher."""
    models = {
        "good": toy("good", size=16),
        "twin": toy("twin", size=16),
        "poor": toy("poor", size=16, noise=6.0),
        "teacher": toy("teacher", size=32),
    }
    for name in ("good", "poor"):
        models[name].projection = np.eye(16, 32, dtype="f4")
    monkeypatch.setattr(run, "open_model", lambda name, **_: models[name])
    return models


def request(data, *models, **more) -> Request:
    return Request(
        **{
            "models": models,
            "data": data if isinstance(data, list) else [data],
            "resamples": 100,
            **more,
        }
    )


def by_task(report: Report) -> dict:
    return {(row.task, row.metric): row.cells for row in report.rows}


def test_every_kind_of_set_and_average(data, opened):
    report = evaluate(request(data, "good", "twin", "poor", "tfidf", teacher="teacher"))
    labels = [column.label for column in report.columns]
    assert labels == ["good", "twin", "poor", "tfidf", "teacher"]
    found = by_task(report)
    assert set(found) == {
        ("sts", "Spearman"),
        ("para", "average precision"),
        ("topics", "probe"),
        ("topics", "kNN"),
        ("groups", "V-measure"),
        *(
            (task, metric)
            for task in ("ret_toy", "ret_toy, asymmetric")
            for metric in ("nDCG@10", "recall@10", "recall@100")
        ),
    }
    for cells in found.values():
        if "twin" in cells:
            assert cells["twin"].score == cells["good"].score
            assert cells["twin"].difference.value == 0
            assert not cells["twin"].difference.significant
    assert found["topics", "kNN"]["poor"].difference.high < 0
    assert found["sts", "Spearman"]["teacher"].retention == 100
    assert set(found["ret_toy, asymmetric", "nDCG@10"]) == {"good", "poor"}
    groups = {row.group: row for row in report.averages}
    assert set(groups) == {
        "STS",
        "classification, probe",
        "classification, kNN",
        "clustering",
        "retrieval",
        "retrieval, asymmetric",
    }
    mean = np.mean([found["sts", "Spearman"]["good"].score,
                    found["para", "average precision"]["good"].score])  # fmt: skip
    assert groups["STS"].cells["good"].score == pytest.approx(mean)
    # The averages' symmetric half is found although only one of them is asymmetric.
    assert groups["retrieval, asymmetric"].cells["good"].asymmetric is not None


def test_each_text_is_encoded_once(data, opened):
    evaluate(request(data, "good", dim=(16, 8), precision=("float32", "binary")))
    calls = opened["good"].calls
    assert len(calls) == len(set(calls)) > 300


def test_dimensions_and_precisions_are_columns(data, opened):
    report = evaluate(
        request(data, "good", "teacher", sets=["sts"], dim=(16, 4), teacher="teacher",
                precision=("float32", "int8", "binary"))
    )  # fmt: skip
    assert [column.label for column in report.columns] == [
        *("good 16d", "good 16d int8", "good 16d binary"),
        *("good 4d", "good 4d int8", "good 4d binary"),
        "teacher",
    ]
    cells = report.rows[0].cells
    assert cells["good 16d int8"].score == pytest.approx(cells["good 16d"].score, abs=3)
    assert cells["good 4d"].score != cells["good 16d"].score
    with pytest.raises(UsageError, match="--dim 17: good has 16 dimensions"):
        evaluate(request(data, "good", dim=(17,)))


def test_json_comes_back_and_the_table_is_made_of_it(data, opened):
    report = evaluate(request(data, "good", "poor", teacher="teacher", split="test"))
    text = report.to_json()
    again = Report.from_json(text)
    assert again == report
    assert markdown(again) == markdown(report)
    table = markdown(report)
    assert "**classification, kNN, average**" in table
    assert "Retention, per cent of teacher" in table
    assert "minus symmetric" in table
    assert "]*" in table
    row = next(line for line in table.splitlines() if line.startswith("| groups"))
    assert row.count("|") == 3 + 3 + 1  # task, metric, n and three models


def test_dev_skips_what_has_none_and_says_so(data, opened, tmp_path):
    more = tmp_path / "more"
    write_retrieval(more / "ret_own_dev", np.random.default_rng(0))
    report = evaluate(request([data, more], "good", split="dev"))
    assert {row.task for row in report.rows} == {"sts", "para", "topics", "ret_own_dev"}
    assert report.notes == ["groups has no dev split", "ret_toy is a test set"]
    assert "- ret_toy is a test set" in markdown(report)
    with pytest.raises(InputError, match="ret_toy is a test set"):
        evaluate(request(data, "good", split="dev", sets=["ret_toy"]))


def test_what_cannot_be_meant(data, opened):
    with pytest.raises(UsageError, match="baseline nobody is none of: good"):
        evaluate(request(data, "good", baseline="nobody"))
    with pytest.raises(UsageError, match="cannot be a teacher"):
        evaluate(request(data, "good", teacher="tfidf"))
    opened["good"].projection = np.eye(16, 99, dtype="f4")
    with pytest.raises(InputError, match="a teacher of 99 dimensions, teacher has 32"):
        evaluate(request(data, "good", teacher="teacher"))


# --- the command


def call(capsys, *argv) -> tuple[int, str, str]:
    try:
        status = command.main([str(word) for word in argv])
    except SystemExit as left:
        status = left.code
    told = capsys.readouterr()
    return status, told.out, told.err


def test_the_command_prints_writes_and_prints_again(data, opened, tmp_path, capsys):
    out = tmp_path / "results.json"
    status, table, _ = call(
        capsys, "good", "poor", "--data", data, "--sets", "sts,groups", "--baseline", "poor",
        "--resamples", 50, "--out", out,
    )  # fmt: skip
    assert status == 0
    values = json.loads(out.read_text())
    assert values["schema"] == 1
    assert values["settings"]["baseline"] == "poor"
    assert [path.name for path in tmp_path.glob("*.json*")] == ["results.json"]
    assert call(capsys, "--render", out) == (0, table, "")


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        ([], 2),
        (["good"], 2),
        (["good", "--data", "DATA", "--sets", "none"], 2),
        (["good", "--data", "DATA", "--sets", ","], 2),
        (["good", "--data", "DATA", "--split", "train"], 2),
        (["good", "--data", "DATA", "--precision", "int4"], 2),
        (["good", "--data", "DATA", "--dim", "0"], 2),
        (["good", "--data", "DATA", "--dim", "64,x"], 2),
        (["good", "--data", "DATA", "--seed", "-1"], 2),
        (["good", "--data", "DATA", "--baseline", "other"], 2),
        (["good", "--data", "missing"], 4),
        (["good", "--data", "DATA", "--out", "missing/results.json"], 7),
        (["good", "--data", "DATA", "--out", "DATA"], 7),
        (["--render", "missing.json"], 4),
        (["--render", "DATA/ret_toy/corpus.tsv"], 4),
        (["--render", "x", "--mteb", "y"], 2),
        (["--make-long", "out"], 2),
        (["--make-long", "out", "--data", "DATA", "--split", "dev", "--sets", "x"], 4),
        (["--make-dev", "out"], 2),
        (["--make-dev", "out", "--corpus", "DATA"], 4),
    ],
)
@pytest.mark.usefixtures("opened")
def test_bad_input_is_one_line_and_leaves_nothing(argv, status, data, capsys, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    with contextlib.chdir(tmp_path):
        done, out, told = call(capsys, *(word.replace("DATA", str(data)) for word in argv))
    lines = [line for line in told.splitlines() if line.startswith("asterisk-eval:")]
    assert (done, out, len(lines)) == (status, "", 1), told
    assert "Traceback" not in told
    assert sorted(tmp_path.rglob("*")) == before


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(max_size=8), max_size=4))
def test_any_arguments_are_read_or_refused(words):
    status = 0
    try:
        command.parser().parse_intermixed_args(words)
    except SystemExit as left:
        status = left.code
    assert status in {0, 2}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "columns": [1], "rows": []}'],
)
def test_a_damaged_report_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011
        Report.from_json(text)


def test_a_missing_extra_is_named(data, opened, monkeypatch):
    def require(module, extra):
        raise MissingExtra(module.split(".")[0], extra)

    monkeypatch.setattr("asterisk.evaluation.tasks.require", require)
    with pytest.raises(MissingExtra, match=r"asterisk-edge\[eval\]"):
        evaluate(request(data, "good", sets=["sts"]))

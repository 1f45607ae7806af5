"""JSON lines and tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sources.helpers import contents, found, written


def test_json_lines(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "a.jsonl",
        '\ufeff{"text": "one", "title": "T", "id": 7}\n"two"\n\n{"body": "three", "id": true}\n'
        '{"text": 5}\nnot json\n[1]\n{"text": "four", "id": "7"}\n'
        + "[" * 100_000
        + "\n"
        + "9" * 5000
        + '\n{"text": "five", "id": '
        + "9" * 4000
        + "}\n",
    )
    documents, lines = found(path)
    assert contents(documents)[:4] == [
        ("7", "T", "one"),
        ("2", "", "two"),
        ("4", "", "three"),
        ("7 (4)", "", "four"),
    ]
    none = "neither a string nor an object with a string in 'text' or 'body' or 'content'"
    assert lines == [
        f"a.jsonl, line 5: {none}",
        "a.jsonl, line 6: not JSON",
        f"a.jsonl, line 7: {none}",
        "a.jsonl, line 9: not JSON",
        "a.jsonl, line 10: not JSON",
    ]


def test_json_members_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.ndjson", '{"t": "x", "h": "H", "k": "K", "text": "no"}\n')
    documents, _ = found(path, field="t", title_field="h", id_field="k")
    assert contents(documents) == [("K", "H", "x")]
    assert "'u'" in found(path, field="u")[1][0]


def test_tsv(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.tsv", 'ID\tTitle\tText\n1\tA\tsays "no\n\n2\tB\n3\tC\tx\ty\n4\t\t"z"\r\n'
    )
    documents, lines = found(path)
    assert contents(documents) == [("1", "A", 'says "no'), ("4", "", '"z"')]
    assert lines == [
        "a.tsv, line 4: 2 columns where the first line has 3",
        "a.tsv, line 5: 4 columns where the first line has 3",
    ]


def test_columns_by_number_and_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", "2\t1\tone\n1\t0\ttwo\n")
    assert contents(found(path, field="3", id_field="1")[0]) == [("2", "", "one"), ("1", "", "two")]
    assert [it.text for it in found(path, field="1")[0]] == ["2", "1"]
    assert [it.text for it in found(path, field="3", header=True)[0]] == ["two"]
    none = "no column text or body or content among: 2, 1, one (--field takes a name or a number)"
    assert found(path)[1] == [f"a.tsv: {none}"]
    assert found(path, field="4")[0] == []
    other = written(tmp_path, "b.tsv", "\x1b[31m\tred\n")
    assert r"among: \x1b[31m, red" in found(other)[1][0]
    assert found(path, field="one", title_field="absent")[1] == ["a.tsv: no column absent"]


def test_a_table_of_one_column(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", "first\nsecond\n")
    assert [it.text for it in found(path)[0]] == ["first", "second"]
    path = written(tmp_path, "b.tsv", "text\nsecond\n")
    assert [it.text for it in found(path)[0]] == ["second"]


def test_semicolons(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'id;text\n1;"a;b, c"\n')
    assert contents(found(path)[0]) == [("1", "", "a;b, c")]


def test_a_field_beyond_the_limit_and_an_open_quote(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'text\n"' + "x" * 500 + '"\nnext\n"open\nto the end\n')
    before = csv.field_size_limit()
    documents, lines = found(path, longest_text=100)
    assert csv.field_size_limit() == before
    assert [it.text for it in documents] == ["next"]
    assert lines == [
        "a.csv, line 2: not CSV (field larger than field limit (100))",
        "a.csv: a quote that opens in line 4 does not end: cut off?",
    ]
    assert len(found(written(tmp_path, "b.csv", "text\n" + "y" * 200_000))[0][0].text) == 200_000


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(cells, cells, cells), max_size=8))
def test_csv_as_the_csv_module_reads_it(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([("title", "text", "other"), *rows])
    documents, lines = found(written(tmp_path, "a.csv", out.getvalue()))
    said = [(" ".join(title.split()), text.strip()) for title, text, _ in rows]
    wanted = [(title, text or title) for title, text in said if title or text]
    assert [(it.title, it.text) for it in documents] == wanted
    assert len(lines) == len(rows) - len(wanted)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.jsonl", '"one"\n"two', "line 2 is not JSON and has no line end: cut off?"),
        (
            "a.tsv",
            "id\ttext\n1\tone\n2",
            "line 3 has 1 column where the first line has 2, and no line end: cut off?",
        ),
        (
            "a.csv",
            "id,text\n1,one\n2",
            "line 3 has 1 column where the first line has 2, and no line end: cut off?",
        ),
        ("b.csv", 'id,text\n1,one\n2,"two', "a quote that opens in line 3 does not end: cut off?"),
    ],
)
def test_records_that_are_cut_off(tmp_path: Path, name: str, text: str, line: str) -> None:
    documents, lines = found(written(tmp_path, name, text))
    assert [it.text for it in documents] == ["one"]
    assert lines == [f"{name}: {line}"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.csv"])
def test_an_error_page_is_no_table(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, "<!DOCTYPE html>\n<html><title>404</title></html>\n")
    assert found(path) == ([], [f"{name}: an HTML page, in spite of its name"])


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_an_empty_table_has_nothing(tmp_path: Path, name: str) -> None:
    assert found(written(tmp_path, name, "")) == ([], [])

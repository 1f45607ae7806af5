"""The CSV, read back with the standard library's reader."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from asterisk.bench.columns import fields
from asterisk.bench.report import csv_text
from asterisk.bench.results import Report
from bench.reports import full, odd


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
    assert headings == [value.heading for field in fields(full()) for value in field.values]
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


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(odd())
def test_odd_reports_have_a_line_a_row(report):
    found = lines(report)
    assert len(found) == len(report.rows)
    assert all(None not in line and None not in line.values() for line in found)

"""A report as CSV (RFC 4180): a line a row, every figure as the JSON has it, units in the heading.

Samples are left to the JSON.
"""

from __future__ import annotations

import csv
import io

from asterisk.bench.cells import Number
from asterisk.bench.fields import fields
from asterisk.bench.results import Report

_FORMULAS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def csv_text(report: Report) -> str:
    """Return the lines of ``report``; an empty cell is a figure that is not there."""
    values = [(field.group, value) for field in fields(report) for value in field.values]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_safe(value.heading) for _, value in values])
    for row in report.rows:
        held = (
            value.read(row) if not group or group.holds(row) else None for group, value in values
        )
        writer.writerow([_safe(figure) for figure in held])
    return text.getvalue()


def _safe(value: Number | str | None) -> Number | str | None:
    """Put a quote before what a spreadsheet would carry out as a formula."""
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULAS):
        return "'" + value
    return value

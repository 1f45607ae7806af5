"""What a run writes: the JSON, and everything that is rendered from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asterisk.bench.charts import NAMES, charts
from asterisk.bench.csv_table import csv_text
from asterisk.bench.html_page import html_page
from asterisk.bench.render import markdown
from asterisk.bench.results import Report
from asterisk.common.errors import OutputError
from asterisk.common.files import replacing_file

STEM = "latest"


def renderings(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file that is made from ``report``, the JSON first.

    MissingExtra at the page, once all text is out, without jinja2 or matplotlib.
    """
    yield f"{STEM}.json", report.to_json()
    yield f"{STEM}.md", markdown(report)
    yield f"{STEM}.csv", csv_text(report)
    pictures = charts(report)
    yield f"{STEM}.html", html_page(report, pictures)
    for picture in pictures:
        yield f"{picture.name}.svg", picture.file()


def write(report: Report, out: Path) -> None:
    """Write all of them into ``out``, each whole or not at all; OutputError if one cannot be.

    A page or picture of an earlier run that this one has not is removed, since it would be taken
    for this one's.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise OutputError(f"cannot write {out}: {failure.strerror or failure}") from failure
    stale = {f"{STEM}.html", *(f"{name}.svg" for name in (*NAMES, "jitter"))}
    try:
        for name, text in renderings(report):
            with replacing_file(out / name) as staging:
                # A name may hold half of a surrogate pair, which no file can.
                staging.write_bytes(text.encode("utf-8", "replace"))
            stale.discard(name)
    finally:
        for name in stale:
            (out / name).unlink(missing_ok=True)

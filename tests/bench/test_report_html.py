"""The HTML page: well formed, complete in itself, and with nothing of a report's own markup."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings

from asterisk.bench.charts import charts
from asterisk.bench.columns import fields
from asterisk.bench.report import csv_text, html_page, markdown
from bench.reports import HOSTILE, full, odd

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

VOID = {"meta", "br", "hr", "img", "link", "input", "base", "area", "col", "embed", "source"}
LOADS = {"link", "img", "iframe", "object", "embed", "base", "image", "audio", "video"}
REFERS = {"src", "href", "srcset", "action", "data", "poster", "style", "ping"}


class Page(HTMLParser):
    """Takes a page apart; fails on an element that is not closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.inside.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.inside[tag][-1] += data


def is_closed(page: Page) -> None:
    """Assert that nothing in ``page`` could load or run anything but its own script."""
    scripts = [attrs for tag, attrs in page.tags if tag == "script"]
    assert scripts == [{}]
    for tag, attrs in page.tags:
        assert tag not in LOADS
        assert not any(name in REFERS or name.startswith("on") for name in attrs)
        assert (attrs.get("xlink:href") or "#").startswith("#")
    assert not re.search(r"url\(|@import|https?:", "".join(page.inside["style"]))


def test_it_is_well_formed_and_needs_nothing_else(report):
    text = html_page(report, charts(report))
    is_closed(Page(text))
    assert set(re.findall(r"https?:[^\"]*", text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_the_policy_forbids_loading_and_names_its_own_style_and_script(report):
    page = Page(html_page(report))
    (policy,) = (a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (body,) = page.inside[tag]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_names_are_text():
    text = html_page(full())
    page = Page(text)
    is_closed(page)
    assert HOSTILE in page.inside["th"]
    assert "alert(" not in "".join(page.inside["script"])
    assert any(HOSTILE in item for item in page.inside["li"])


def test_every_field_is_a_column_and_explained():
    page = Page(html_page(full()))
    for field in fields(full()):
        assert field.heading in page.inside["th"]
        assert field.heading in page.inside["dt"]
        assert field.about in page.inside["dd"]


def test_every_picture_is_in_it():
    pictures = charts(full())
    page = Page(html_page(full(), pictures))
    assert len(page.inside["figure"]) == len(pictures) == 5
    assert [picture.note for picture in pictures] == page.inside["figcaption"]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_a_browser_shows_it_sorts_it_and_complains_of_nothing(tmp_path):
    """Chromium reports what the policy stops and what the script throws."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium here")
    text = html_page(full(), charts(full()))
    (tmp_path / "page.html").write_text(text, "utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0")
    found = subprocess.run(
        [chromium, *options, f"--user-data-dir={tmp_path}/profile", "--dump-dom",
         (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in found.stderr
    assert '<button type="button">' in found.stdout


def test_what_means_nothing_is_struck_out_with_the_reason():
    report = full()
    page = Page(html_page(report))
    reasons = {attrs.get("title") for tag, attrs in page.tags if tag == "s"}
    assert reasons == {"cosine_min 0.9000 is below 0.985", "it was throttled"}
    assert "0.069 / 0.074 / 0.088" in page.inside["s"]
    assert any("it was throttled" in line for line in page.inside["li"])
    assert any("SIGSEGV" in line for line in page.inside["li"])


def test_columns_that_say_the_same_are_told_once(report):
    for row in report.rows:
        row.size = 5_000_000
    page = Page(html_page(report))
    assert "model, MB" not in page.inside["th"]
    assert any("In every row: model, MB 5.0." in words for words in page.inside["p"])


def test_a_column_sorts_by_its_figure_not_by_its_text(report):
    page = Page(html_page(report))
    values = {attrs.get("data-value") for _, attrs in page.tags}
    assert "314200000" in values  # PSS of 314.2 MB
    assert "0.205" in values


def test_machines_of_other_targets_are_told():
    page = Page(html_page(full()))
    assert "Raspberry Pi 5" in page.inside["td"]
    assert any("it is hot" in line for line in page.inside["li"])


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(odd())
def test_odd_reports_have_tables_lines_and_a_page_too(report):
    text = markdown(report)
    text.encode("utf-8")
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(line) for line in block.splitlines()}) == 1
    lines = list(csv.DictReader(io.StringIO(csv_text(report), newline="")))
    assert len(lines) == len(report.rows)
    assert all(None not in line and None not in line.values() for line in lines)
    page = Page(html_page(report))
    is_closed(page)
    assert not any("nan" in text or "inf" in text for text in page.inside.get("td", []))

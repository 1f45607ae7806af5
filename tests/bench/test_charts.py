"""The pictures: what a reader finds in them, and that no report breaks them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from xml.etree import ElementTree as ET

import pytest

from asterisk.bench.charts import DARK, NAMES, Picture, charts
from asterisk.bench.statistics import summarise
from bench.reports import HOSTILE, full

pytest.importorskip("matplotlib")
SVG = "{http://www.w3.org/2000/svg}"


@cache
def of_full() -> list[Picture]:
    return charts(full())


def drawn(report) -> dict[str, ET.Element]:
    return {picture.name: ET.fromstring(picture.file()) for picture in charts(report)}


def texts(root: ET.Element) -> list[str]:
    return ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]


def place(root: ET.Element, words: str) -> tuple[float, float]:
    """Return where ``words`` stand: a name is beside its mark, far from those of other rows."""
    (node,) = (node for node in root.iter(f"{SVG}text") if node.text == words)
    return float(node.get("x", "")), float(node.get("y", ""))


def test_a_full_report_has_every_picture_and_each_is_a_file_of_its_own():
    pictures = of_full()
    assert tuple(picture.name for picture in pictures) == NAMES
    for picture in pictures:
        root = ET.fromstring(picture.file())
        assert root.get("width") == "520"
        assert picture.note in root.get("aria-label", "")
        assert "nan" not in " ".join(node.get("d", "") for node in root.iter())


def test_nothing_is_loaded_and_nothing_needs_an_inline_style():
    for picture in of_full():
        assert set(re.findall(r"https?://[^\"]+", picture.file())) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }
        assert "@import" not in picture.file()
        for node in ET.fromstring(picture.svg).iter():
            assert node.tag != f"{SVG}style"
            assert "style" not in node.attrib
            assert all(value.startswith("#") for name, value in node.items() if "href" in name)


def test_every_colour_has_another_one_on_a_dark_page():
    for picture in of_full():
        style = picture.file().partition("prefers-color-scheme:dark")[2]
        for colour in re.findall(r'(?:fill|stroke)="(#\w+)"', picture.svg):
            assert f'[fill="{colour}"]{{fill:{DARK[colour]}}}' in style


def test_the_same_report_gives_the_same_bytes():
    assert charts(full()) == of_full()


def test_no_two_pictures_share_an_id():
    found = [name for it in of_full() for name in re.findall(r' id="([^"]+)"', it.svg)]
    assert len(found) == len(set(found)) > 0


def test_every_row_is_named_in_every_picture_that_shows_it(report):
    for row in report.rows:
        row.samples_ns = {n: [[int(it.p50 * 1e6)] * 3] * 2 for n, it in row.latency.items()}
    pictures = drawn(report)
    for row in report.rows:
        name = f"{row.title} {row.recipe}"
        known = any(read["pss"] for read in row.memory.values())
        assert (name in texts(pictures["memory"])) == known
        assert (name in texts(pictures["latency"])) == bool(row.latency)


def test_faster_is_lower_and_smaller_is_further_left(report):
    del report.rows[-1]
    picture = next(it for it in charts(report) if it.name == "latency-memory")
    names = ("LiteRT int8", "ONNX Runtime int8", "PyTorch fp32")
    fastest, middle, slowest = (place(ET.fromstring(picture.svg), name) for name in names)
    assert fastest[0] < middle[0] < slowest[0]
    assert fastest[1] > middle[1] > slowest[1]
    assert "1 row is not shown for want of a figure" in picture.note


def test_what_means_nothing_is_struck_out(report):
    (node,) = (
        node
        for node in drawn(report)["latency-memory"].iter(f"{SVG}text")
        if node.text == "LiteRT int8"
    )
    style = charts(report)[0].file()
    assert f'text[fill="{node.get("fill")}"]{{text-decoration:line-through' in style


def test_figures_are_told_as_text_and_emulated_rows_apart():
    pictures = {it.name: ET.fromstring(it.file()) for it in of_full()}
    told = texts(pictures["throughput"])
    assert {"1,890", "2,176"} <= set(told)
    assert not any("emu" in text for text in told)
    told = texts(pictures["instructions"])
    assert {"1.5", "3.25", "22"} <= set(told)
    assert not any("PyTorch" in text for text in told)


def test_a_phase_that_is_not_known_has_no_bar_and_phases_are_in_order(report):
    row = report.rows[1]
    sizes = {"start": 9, "import": 40, "load": None, "first": 45, "batch": 60, "long": 50}
    row.memory = {phase: {"pss": size and size * 10**6} for phase, size in sizes.items()}
    report.rows = [row, replace(row, memory={"load": {"pss": 5 * 10**6}})]
    told = texts(drawn(report)["memory"])
    phases = [text for text in told if text in (*sizes, "steady")]
    assert phases == ["start", "import", "load", "first", "long", "batch"]
    assert {"9", "40", "45", "50", "60", "-"} <= set(told)


def test_a_slow_process_is_told_from_the_others(report):
    row = report.rows[1]
    row.samples_ns = {"20": [[200_000] * 50, [600_000] * 50, [200_000] * 50]}
    row.latency = {"20": summarise(row.samples_ns["20"])}
    report.rows = [row]
    root = drawn(report)["latency"]
    dots = {float(node.get("x", "")) for node in root.iter(f"{SVG}use") if node.get("fill")}
    assert max(dots) - min(dots) > 100


def test_names_are_text():
    pictures = of_full()
    assert not any("<script" in picture.file() for picture in pictures)
    assert any(HOSTILE in text for text in texts(ET.fromstring(pictures[-1].svg)))


def test_a_long_name_is_cut_and_a_formula_is_none(report):
    report.rows[0].title, report.rows[1].title = "name" * 100, r"$\frac$ _x_"
    for name in ("latency", "memory"):
        told = texts(drawn(report)[name])
        assert any(text.startswith("namename") and text.endswith("\u2026") for text in told)
        assert any(text.startswith(r"$\frac$ _x_") for text in told)
        assert max(map(len, told)) < 80


def test_a_report_without_figures_has_no_picture(report):
    report.rows = []
    assert charts(report) == []


def test_many_rows_are_drawn_up_to_a_bound(report, monkeypatch):
    monkeypatch.setattr("asterisk.bench.charts.MOST_ROWS", 3)
    report.rows = [replace(report.rows[0], title=f"row {n}") for n in range(1_000)]
    told = [text for text in texts(drawn(report)["memory"]) if text.startswith("row")]
    assert told == ["row 0 fp32", "row 1 fp32", "row 2 fp32"]

"""The pictures: what stands where, and that nothing collides or breaks out."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from asterisk.bench.charts import NAMES, charts, distributions, jitter, lanes, phases, tradeoff
from asterisk.bench.charts.parts import spread
from asterisk.bench.charts.scale import fit
from asterisk.bench.summary import summarise
from asterisk.bench.svg import Drawing, escape, shorten, width_of
from bench.reports import full, odd

SVG = "{http://www.w3.org/2000/svg}"
MARKS = ("circle", "rect", "polygon")


def parse(drawing: Drawing) -> ET.Element:
    return ET.fromstring(drawing.svg(alone=True))


def texts(root: ET.Element) -> list[str]:
    return [node.text or "" for node in root.iter(f"{SVG}text")]


def marks(root: ET.Element) -> dict[str, tuple[float, float]]:
    """Return the middle of each mark of the trade-off by the name in its tip."""
    found = {}
    for node in root:
        tip = node.find(f"{SVG}title")
        if tip is None or "mark" not in node.get("class", "") or ":" not in (tip.text or ""):
            continue
        if node.tag == f"{SVG}circle":
            place = float(node.get("cx", 0)), float(node.get("cy", 0))
        else:
            corners = [tuple(map(float, p.split(","))) for p in node.get("points", "").split()]
            xs, ys = zip(*corners, strict=True)
            place = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
        found[(tip.text or "").split(":")[0]] = place
    return found


def test_a_full_report_has_every_picture_and_each_is_xml_of_its_own():
    drawn = charts(full())
    assert tuple(drawing.name for drawing in drawn) == NAMES
    for drawing in drawn:
        text = drawing.svg(alone=True)
        root = ET.fromstring(text)
        assert root.get("viewBox") == f"0 0 520 {drawing.height:g}"
        assert "prefers-color-scheme:dark" in text
        assert text.count("http") == 1  # the namespace
        assert "url(" not in text
        assert "nan" not in text
        assert "inf" not in re.sub(
            r"<text.*?</text>|<title>.*?</title>|aria-label=\".*?\"", "", text
        )


def test_faster_is_lower_and_smaller_is_further_left(report):
    drawing = tradeoff.draw(report)
    places = marks(parse(drawing))
    assert places["LiteRT int8"][0] < places["ONNX Runtime int8"][0] < places["PyTorch fp32"][0]
    assert places["LiteRT int8"][1] > places["ONNX Runtime int8"][1] > places["PyTorch fp32"][1]
    assert "llama.cpp q8_0" not in places
    assert "1 row is not shown for want of a figure" in drawing.note


def test_fidelity_is_told_by_shape_and_what_falls_below_is_crossed_out(report):
    grades = {row.name: tradeoff.grade(row) for row in report.rows}
    assert grades == {"torch": 0, "onnx": 0, "tflite": 2, "gguf": 4, "original": 4}
    root = parse(tradeoff.draw(report))
    assert sum(node.get("class") == "cross" for node in root) == 2
    (name,) = (node for node in root.iter(f"{SVG}text") if "struck" in node.get("class", ""))
    assert name.text == "LiteRT int8"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(60, 500), st.floats(70, 365)), min_size=1, max_size=7))
@example([(228.0, 70.015625), (446.0, 76.0)])
@example([(60.0, 87.0), (60.0, 128.0), (135.0, 86.0), (97.0, 71.0)])
def test_names_of_points_keep_apart(places):
    points = [
        tradeoff.Point(full_row, x, y) for (x, y), full_row in zip(places, SEVEN, strict=False)
    ]
    apart = all(math.dist(one, other) > 40 for n, one in enumerate(places) for other in places[:n])
    assume(apart)
    boxes = tradeoff.place(points, SEVEN_REPORT)
    for n, box in enumerate(boxes):
        assert tradeoff.LEFT <= box[0] < box[2] <= tradeoff.RIGHT
        assert tradeoff.TOP <= box[1] < box[3] <= tradeoff.BOTTOM
        assert all(tradeoff._overlap(box, other) == 0 for other in boxes[:n])


SEVEN_REPORT = full()
SEVEN = [replace(row, target="local") for row in SEVEN_REPORT.rows[:7]]
SEVEN_REPORT.rows = SEVEN


def test_a_distribution_is_thick_where_calls_are_frequent(report):
    often, rare = [1_000_000] * 90, [4_000_000] * 10
    row = report.rows[1]
    row.samples_ns = {"20": [often + rare]}
    row.latency = {"20": summarise(row.samples_ns["20"])}
    report.rows = [row]
    root = parse(distributions.draw(report))
    (path,) = (node for node in root.iter(f"{SVG}path") if "area" in node.get("class", ""))
    corners = [tuple(map(float, p.split(","))) for p in path.get("d", "")[1:-1].split(" L")]
    upper = corners[: len(corners) // 2]
    middle = sum(y for _, y in corners) / len(corners)
    thick = [middle - y for _, y in upper]
    third = len(thick) // 3
    assert max(thick[:third]) == pytest.approx(distributions.HALF, abs=0.2)
    assert max(thick[third:-third]) < 1
    assert 0.5 < max(thick[-third:]) < distributions.HALF / 2
    assert "1.00" in texts(root)


def test_a_slow_process_stands_higher(report):
    row = report.rows[1]
    row.samples_ns["20"] = [[200_000] * 50, [600_000] * 50, [200_000] * 50]
    row.latency["20"] = summarise(row.samples_ns["20"])
    report.rows = [row]
    root = parse(jitter.draw(report))
    lines = [
        node.get("d", "") for node in root.iter(f"{SVG}path") if "thin" in node.get("class", "")
    ]
    heights = [{p.split(",")[1] for p in line[1:].split(" L")} for line in lines]
    assert [len(height) for height in heights] == [1, 1, 1]
    first, second, third = (float(height.pop()) for height in heights)
    assert second < first == third
    assert "3 x" in texts(root)


def test_memory_steps_up_by_phase_and_breaks_where_nothing_is_known(report):
    row = report.rows[1]
    sizes = {"start": 9, "import": 40, "load": None, "first": 45, "batch": 60, "long": 50}
    row.memory = {phase: {"pss": size and size * 10**6} for phase, size in sizes.items()}
    report.rows = [row]
    drawing = phases.draw(report)
    root = parse(drawing)
    (path,) = (node for node in root.iter(f"{SVG}path"))
    ys = [float(p.split(",")[1]) for p in re.split("[ML]", path.get("d", "")) if p]
    levels = ys[::2]
    assert ys[1::2] == levels  # level through each phase
    assert len(levels) == 5
    assert levels == sorted(levels, reverse=True)  # long comes before batch
    assert path.get("d", "").count("M") == 2
    assert "loading" in drawing.note
    assert "steady" not in drawing.note


def test_throughput_and_instructions_are_told_as_figures_too():
    report = full()
    told = texts(parse(lanes.throughput(report)))
    assert "1,890 / 2,176" in told
    assert not any("emu" in text for text in told)
    told = texts(parse(lanes.instructions(report)))
    assert "1.5 / 3.25 / 22" in told
    assert not any("PyTorch" in text for text in told)


def test_names_are_escaped():
    for drawing in charts(full()):
        assert "<script" not in drawing.svg(alone=True)
    assert (
        escape("\x00\x1b\ud800<'\"&\U0001f600")
        == "\ufffd\ufffd\ufffd&lt;&#x27;&quot;&amp;\U0001f600"
    )
    told = texts(parse(lanes.instructions(full())))
    assert any(text.startswith('<script>alert("x")</script>&') for text in told)


def test_a_report_without_figures_has_no_picture(report):
    report.rows = []
    assert charts(report) == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(odd())
def test_odd_reports_are_drawn_within_their_frame(report):
    for drawing in charts(report):
        root = parse(drawing)
        for node in root.iter():
            for name in ("x", "x1", "x2", "cx"):
                assert -1 <= float(node.get(name, 0)) <= drawing.width
            for name in ("y", "y1", "y2", "cy"):
                assert -1 <= float(node.get(name, 0)) <= drawing.height
            for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", node.get("d", "")):
                assert -1 <= float(x) <= drawing.width
                assert -1 <= float(y) <= drawing.height


@given(st.lists(st.floats(1e-8, 1e17), min_size=1, max_size=9), st.booleans())
def test_a_scale_keeps_order_and_has_few_round_ticks(values, zero):
    scale = fit(values, 0.0, 400.0, zero=zero)
    places = [scale(value) for value in sorted(values)]
    assert places == sorted(places)
    assert -1e-6 <= places[0] <= places[-1] <= 400 + 1e-6
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 12
    assert all(scale.low <= tick <= scale.high * (1 + 1e-9) for tick in ticks)
    assert scale.log == (max(values) / min(values) > 6)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_spread_labels_stand_apart_within_bounds(places):
    moved = spread(places, 16, 0, 300)
    ordered = sorted(moved)
    assert ordered[0] >= -1e-6
    assert ordered[-1] <= 300 + 1e-6
    assert all(b - a >= 16 - 1e-6 for a, b in pairwise(ordered))
    order = sorted(range(len(places)), key=places.__getitem__)
    assert [moved[n] for n in order] == ordered


def test_a_long_name_is_cut_to_its_room():
    short = shorten("an engine with a very long name indeed", 100)
    assert short.endswith("\u2026")
    assert width_of(short) <= 100
    assert shorten("short", 100) == "short"
    assert width_of("\u6f22\u5b57") > width_of("ab")

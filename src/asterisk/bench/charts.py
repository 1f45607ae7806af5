"""The pictures of a report, drawn by matplotlib, as SVG that follows a light or a dark page.

matplotlib's inline styles become attributes, which no security policy forbids and which one rule a
colour overrides on a dark page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unicodedata import east_asian_width
from xml.etree import ElementTree as ET

from asterisk.bench.columns import MB, is_emulated, ms, threads_of
from asterisk.bench.plan import STEADY
from asterisk.bench.results import Report, RowResult
from asterisk.bench.statistics import NS_PER_MS
from asterisk.common.plugins import require
from asterisk.common.terminal import printable

NAMES = ("latency-memory", "latency", "memory", "throughput", "instructions")
WIDTH, EDGE, LEFT, RIGHT = 520, 12, 52, 460  # pixels of a picture, its margin, and of its axes
MOST_ROWS = 40  # of a picture
PAGE, INK, MUTE, GRID, AXIS = "#ffffff", "#1b1f24", "#57606a", "#e3e6ea", "#8c959f"
VOID = "#57606b"  # of names and figures that mean nothing
# Okabe and Ito's colours, told apart under the common colour blindnesses, darkened or lightened
# until each stands at least 3:1 out of its page.
SERIES = ("#0072b2", "#c24e00", "#00835f", "#b04f8c", "#8f6a00", "#2f8fce", "#5b4bb5", "#5f6b76")
GRADES = ("#0b4f8a", "#1f8fa8", "#b07800", "#c0392b", "#6e7781")
GRADED = (0.9999, 0.999, 0.99)  # mean cosine to FP32
DARK = dict(zip(
    (PAGE, INK, MUTE, GRID, AXIS, VOID, *SERIES, *GRADES),
    ("#15191f", "#e6e9ee", "#a3adb8", "#2b323b", "#6b7682", "#a3adb8",
     "#5ab4f0", "#ff9a5c", "#35c79b", "#eba0cf", "#f0c74a", "#a4d8f7", "#b3a6ff", "#aeb8c2",
     "#7cc0ff", "#4fd6c9", "#f2c14e", "#ff8a80", "#a3adb8"),
    strict=True,
))  # fmt: skip
STYLE = (
    ".chart text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
    f"paint-order:stroke;stroke:{PAGE};stroke-width:3px}}"
    f"@media (prefers-color-scheme:dark){{.chart text{{stroke:{DARK[PAGE]}}}"
    # Without .chart, which is not around the marks that matplotlib's <use> repeats.
    + "".join(f'[fill="{c}"]{{fill:{d}}}[stroke="{c}"]{{stroke:{d}}}'
              for c, d in DARK.items())
    # The stroke around the letters would cover the line through them.
    + f'}}.chart text[fill="{VOID}"]{{text-decoration:line-through;stroke:none}}'
)  # fmt: skip
PHASES = ("start", "import", "load", "first", "steady", "long", "batch")
MEMORY = (
    "PSS after each phase: the start of Python, importing the engine, loading, the first vector, "
    "200 calls (steady), one text of 512 tokens (long), a batch of 32 texts of 128 tokens."
)
LATENCY = (
    "As thick as calls are frequent, without the fastest and slowest 0.5 %; the line is the "
    "median, also at the right in ms; the bar below it its 95 % interval, and the dots the "
    "medians of processes."
)


class Picture(NamedTuple):
    """An SVG with its name and what it shows; the page around it has to have `STYLE`."""

    name: str
    note: str
    svg: str

    def file(self) -> str:
        """Return the picture as a file of its own."""
        return self.svg.replace(">", f"><style>{STYLE}</style>", 1)


def charts(report: Report) -> list[Picture]:
    """Return every picture for which ``report`` has figures; MissingExtra without matplotlib."""
    rows = [row for row in report.rows if not is_emulated(report, row)]
    emulated = [row for row in report.rows if is_emulated(report, row)]
    pss = [{phase: (it.get("pss") or 0) / MB for phase, it in row.memory.items()} for row in rows]
    found = {phase for each in pss for phase, value in each.items() if _usable(value)}
    phases = [*(phase for phase in PHASES if phase in found), *sorted(found.difference(PHASES))]
    counted = sorted({tokens for row in emulated for tokens in row.instructions}, key=int)
    throughput = [(row, row.throughput) for row in rows]
    instructions = [(row, row.instructions) for row in emulated]
    drawn = (
        _tradeoff(report, rows),
        _latency(report, rows),
        _bars(report, ("memory", "Memory by phase, PSS in MB", MEMORY),
              {phase: printable(phase)[:12] for phase in phases}, zip(rows, pss, strict=True)),
        _bars(report, ("throughput", "Throughput by threads, texts/s",
                       "Texts a second of a list of mixed lengths."),
              {n: f"{n} thread{'' if n == '1' else 's'}" for n in threads_of(report)}, throughput),
        _bars(report, ("instructions", "Instructions an encode, million",
                       "Counted under emulation; these are no times."),
              {tokens: f"{tokens} tokens" for tokens in counted}, instructions),
    )  # fmt: skip
    return [picture for picture in drawn if picture]


@contextmanager
def canvas(width: float, height: float, **options: Any) -> Iterator[Any]:
    """Give an empty figure in the style of all pictures; MissingExtra without matplotlib."""
    figure = require("matplotlib.figure", "bench").Figure
    styles = ["default", str(Path(__file__).with_name("templates") / "chart.mplstyle")]
    with require("matplotlib.style", "bench").context(styles), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's font has what this one lacks
        yield figure(figsize=(width / 72, height / 72), dpi=72, **options)


def _picture(figure: Any, name: str, title: str, note: str) -> Picture:
    """Return what is drawn on ``figure``; the same bytes for the same drawing."""
    figure.text(EDGE / WIDTH, 1 - 24 / (72 * figure.get_figheight()), title, size=15, weight="bold")
    out, nothing = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with require("matplotlib", "bench").rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata=nothing)
    ET.register_namespace("", "http://www.w3.org/2000/svg")
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(out.getvalue())  # noqa: S314
    root.remove(root[0])  # rules that would hold for all of a page
    for node in root.iter():
        style = node.attrib.pop("style", "")
        node.attrib |= dict(part.split(": ", 1) for part in style.split("; ") if part)
        node.attrib.pop("font-family", None)
        if node.tag.endswith("}g"):
            node.attrib.pop("id", None)  # the same in every picture
        for key in {"d", "x", "y", "transform"} & node.attrib.keys():
            rounded = re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.1f}", node.attrib[key])
            node.set(key, rounded.replace("\n", ""))
        node.tail = None
    root.attrib |= {"class": "chart", "role": "img", "aria-label": f"{title}. {note}"}
    root.attrib |= {side: root.attrib[side].removesuffix("pt") for side in ("width", "height")}
    return Picture(name, note, ET.tostring(root, "unicode") + "\n")


def _usable(value: float | None) -> bool:
    """Return whether ``value`` can be drawn: there, finite, above nought and not beyond reason."""
    return value is not None and 1e-9 < value < 1e18  # False for NaN too


def _compact(value: float, _place: object = None) -> str:
    return f"{value:,.0f}" if 1000 <= value < 1e7 else f"{value:.3g}"


def _name(report: Report, row: RowResult, room: float = WIDTH - 2 * EDGE) -> str:
    """Return what tells ``row`` from the others, cut to ``room`` pixels."""
    text = f"{row.title} {row.recipe}"
    if row.target != "local" and len({row.target for row in report.rows}) > 1:
        text += " @ " + re.sub(
            r"^ssh://(?:[^@/]*@)?([^:/.]+).*$", r"\1", row.target, flags=re.DOTALL
        )
    # XML has no place for control characters, nor UTF-8 for halves of pairs.
    text = printable(text.encode("utf-8", "replace").decode())
    for number, sign in enumerate(text):
        room -= 12.6 if east_asian_width(sign) in "WF" else 7.2
        if room < 0:
            return f"{text[:number]}\u2026"
    return text


def _look(row: RowResult) -> tuple[str, float]:
    """Return the colour of a row's words, and how far its marks show."""
    return (VOID, 0.4) if row.below or row.invalid else (INK, 1.0)


def _scale(axis: Any, values: Sequence[float]) -> None:
    """Fit ``axis`` to ``values``, by their logarithms where one is six times another."""
    from matplotlib import ticker

    low, high = max(1e-9, min(values)), max(1e-9, *values)
    log, name, ratio = high > 6 * low, axis.axis_name, high / low
    margin = ratio**0.06 if log else (high - low) * 0.12 or high * 0.3
    ends = (low / margin, high * margin) if log else (max(0, low - margin), high + margin)
    axis.axes.set(**{f"{name}scale": "log" if log else "linear", f"{name}lim": ends})
    subs = (1, 2, 5) if ratio < 300 else (1, 3) if ratio < 1e4 else (1,)
    ticks = ticker.LogLocator(10, subs, numticks=8) if log else ticker.MaxNLocator(6)
    axis.set_major_locator(ticks)
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(_compact)


@contextmanager
def _rows(report: Report, rows: Sequence[RowResult], high: float, **share: Any) -> Iterator[Any]:
    """Give a figure and axes ``high`` pixels high for each row, one below the other, and named."""
    top, bottom, between = 34, 44, 28
    tall = top + bottom + (high + between) * len(rows)
    layout = {"left": LEFT / WIDTH, "right": RIGHT / WIDTH, "hspace": between / high}
    layout |= {"top": 1 - (top + between) / tall, "bottom": bottom / tall}
    with canvas(WIDTH, tall) as figure:
        share |= {"sharex": True, "squeeze": False}
        every = figure.subplots(len(rows), gridspec_kw=layout, **share)[:, 0]
        for axes, row in zip(every, rows, strict=True):
            style = {"size": 12, "weight": "bold", "color": _look(row)[0]}
            left = (EDGE - LEFT) / (RIGHT - LEFT)
            axes.set_title(_name(report, row), loc="left", x=left, pad=7, **style)
            axes.spines["left"].set_visible(False)
        yield figure, every


def _tradeoff(report: Report, rows: Sequence[RowResult]) -> Picture | None:
    """Draw p50 against PSS, fidelity as colour and shape; None where no row has both."""
    buckets = report.settings["buckets"]
    tokens = str(STEADY if STEADY in buckets or not buckets else buckets[len(buckets) // 2])
    shown = [
        (row, pss / MB, row.latency[tokens].p50)
        for row in rows
        if tokens in row.latency
        and _usable(pss := row.memory.get("steady", {}).get("pss") or 0)
        and _usable(row.latency[tokens].p50)
    ][:MOST_ROWS]
    if not shown:
        return None
    note = f"p50 of one text of {tokens} tokens over PSS after 200 calls; lower left is better."
    if without := len(rows) - len(shown):
        note += f" {without} row{'s are' if without > 1 else ' is'} not shown for want of a figure."
    with canvas(WIDTH, 452) as figure:
        axes = figure.add_axes((58 / WIDTH, 82 / 452, (WIDTH - 74) / WIDTH, 316 / 452))
        _scale(axes.xaxis, [x for _, x, _ in shown])
        _scale(axes.yaxis, [y for _, _, y in shown])
        axes.set_xlabel("PSS, MB")
        label, left = f"p50 at {tokens} tokens, ms", (EDGE - 58) / (WIDTH - 74)
        axes.set_title(label, loc="left", x=left, size=12, color=MUTE)
        looks = [
            {"color": colour, "mfc": inside, "marker": mark, "ms": 9, "mew": 2, "ls": ""}
            for colour, inside, mark in zip(GRADES, (*GRADES[:4], PAGE), "os^Do", strict=True)
        ]
        named = (*(f"\u2265 {least:g}" for least in GRADED), f"< {GRADED[-1]:g}", "not known")
        for look, words in zip(looks, named, strict=True):
            axes.plot([], [], label=words, **look)
        for row, x, y in shown:
            cosine = (row.fidelity or {}).get("cosine_mean")
            grade = 4 if cosine is None else sum(cosine < least for least in GRADED)
            axes.plot(x, y, zorder=3, **looks[grade])
            if row.below or row.invalid:
                axes.plot(x, y, "x", color=INK, ms=17, mew=2, zorder=4)
        _label(axes, [((x, y), _name(report, row, 240), _look(row)[0]) for row, x, y in shown])
        figure.legend(loc="lower left", bbox_to_anchor=(0.1, 0.02), ncols=5)
        about = "Mean cosine to FP32; crossed out: below thresholds or void"
        figure.text(58 / WIDTH, 30 / 452, about, color=MUTE, size=11)
        return _picture(figure, "latency-memory", "Latency against memory", note)


def _label(axes: Any, points: Sequence[tuple[tuple[float, float], str, str]]) -> None:
    """Name each of ``points``, near it and clear of the frame, other points and names."""
    from matplotlib.transforms import Bbox

    frame, pixels = axes.get_window_extent(), [axes.transData.transform(at) for at, _, _ in points]
    taken = [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in pixels]
    arrow = {"arrowstyle": "-", "color": AXIS, "shrinkA": 0, "shrinkB": 8}
    for (at, words, colour), (x, y) in zip(points, pixels, strict=True):
        text = axes.text(*at, words)
        wide, costs = text.get_window_extent().width, {}
        text.remove()
        for away in (12, 22, 36, 54, 76, 104, 140, 190):
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
                left = dx * away - wide * (1 - dx) / 2
                box = Bbox.from_bounds(x + left, y + dy * away - 8, wide, 16)
                out = not (frame.contains(*box.min) and frame.contains(*box.max))
                costs[left, dy * away] = box.count_overlaps(taken) + 9 * out, away, box
        offset = min(costs, key=lambda offset: costs[offset][0])
        away, box = costs[offset][1:]
        taken.append(box)
        axes.annotate(words, at, offset, textcoords="offset pixels", va="center", color=colour,
                      arrowprops=arrow if away > 12 else None, zorder=5)  # fmt: skip


def _latency(report: Report, rows: Sequence[RowResult]) -> Picture | None:
    """Draw a shape as thick as calls are frequent, and the median, for each row and length."""
    buckets = [str(tokens) for tokens in report.settings["buckets"]]
    shown = [row for row in rows if row.latency.keys() & set(buckets)][:MOST_ROWS]
    if not shown:
        return None
    import numpy as np

    inner = {}
    for n, row in enumerate(shown):
        for tokens in (tokens for tokens in buckets if tokens in row.latency):
            calls = np.array([*chain(*row.samples_ns.get(tokens, ()))]) / NS_PER_MS
            calls = calls if calls.size else np.array([row.latency[tokens].p50])
            calls.sort()
            cut = calls.size // 200  # the fastest and the slowest 0.5 %
            inner[n, tokens] = calls[cut : calls.size - cut]
    with _rows(report, shown, 20 * len(buckets)) as (figure, every):
        ends = [end for calls in inner.values() for end in (calls.min(), calls.max())]
        _scale(every[0].xaxis, ends)
        every[-1].set_xlabel("ms a call")
        low, high = every[0].get_xlim()
        edges = (np.geomspace if every[0].get_xscale() == "log" else np.linspace)(low, high, 205)
        for (n, tokens), calls in inner.items():
            axes, row, y = every[n], shown[n], buckets.index(tokens)
            axes.set(ylim=(len(buckets) - 0.4, -0.6), yticks=range(len(buckets)))
            axes.set_yticklabels(buckets)
            axes.grid(visible=False, axis="y")
            counts = np.histogram(calls, edges)[0]
            counts = np.convolve(counts, (0.06, 0.24, 0.4, 0.24, 0.06), "same")
            # At least a hair's breadth between the ends, so that a lone slow call is still seen.
            inside = (edges[1:] >= calls.min()) & (edges[:-1] <= calls.max())
            thick = np.maximum(0.03, 0.45 * counts / max(1e-9, counts.max()))
            look, it = {"color": SERIES[y % len(SERIES)]}, row.latency[tokens]
            axes.fill_between(edges[:-1], y - thick, y + thick, inside, lw=0,
                              alpha=0.55 * _look(row)[1], **look)  # fmt: skip
            axes.plot([it.p50] * 2, [y - 0.45, y + 0.45], lw=2, **look)
            axes.plot([it.low, it.high], [y + 0.45] * 2, lw=2, **look)
            medians = [median(each) / NS_PER_MS for each in row.samples_ns.get(tokens, ()) if each]
            axes.plot(medians, [y + 0.45] * len(medians), "o", ms=4, mew=0, **look)
            beside = {"va": "center", "transform": axes.get_yaxis_transform()}
            axes.text(1.02, y, ms(it.p50), color=_look(row)[0], **beside)
        return _picture(figure, "latency", "Latency of single calls by tokens", LATENCY)


def _bars(
    report: Report,
    titles: tuple[str, str, str],
    series: Mapping[str, str],
    figures: Iterable[tuple[RowResult, Mapping[str, float]]],
) -> Picture | None:
    """Draw a bar with its figure for each of ``series``, keys and labels; None without figures."""
    shown = []
    for row, values in figures:
        line = [value if _usable(value := values.get(key)) and value else 0 for key in series]
        shown += [(row, line)] if any(line) else []
    shown = shown[:MOST_ROWS]
    if not shown:
        return None
    with _rows(report, [row for row, _ in shown], 56, sharey=True) as (figure, every):
        every[0].set(yticks=[], ylim=(0, 1.4 * max(max(line) for _, line in shown)))
        every[0].set_xticks(range(len(series)), series.values())
        for axes, (row, line) in zip(every, shown, strict=True):
            look = {"color": (SERIES * len(series))[: len(series)], "alpha": _look(row)[1]}
            bars = axes.bar(range(len(series)), line, 0.6, **look)
            axes.bar_label(bars, [_compact(value) if value else "-" for value in line],
                           padding=2, size=11, color=MUTE)  # fmt: skip
            axes.grid(visible=False)
        return _picture(figure, *titles)

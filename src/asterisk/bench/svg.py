"""Drawing SVG by hand: elements, escaped text, colours for a light and a dark page.

Standard library only. Styles are plain rules per theme, without variables, since what shows an SVG
outside a browser often knows none.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WIDTH = 520.0
SERIES = 8
GRADES = 5
_ADVANCE = 0.57  # of the font size: the mean character of common sans-serif fonts, generously

# Okabe and Ito's colours, told apart under the common colour blindnesses, darkened or lightened
# until each stands at least 3:1 out of its page.
_LIGHT = {
    "bg": "#ffffff",
    "ink": "#1b1f24",
    "mute": "#57606a",
    "grid": "#e3e6ea",
    "axis": "#8c959f",
    "series": (
        *("#0072b2", "#c24e00", "#00835f", "#b04f8c"),
        *("#8f6a00", "#2f8fce", "#5b4bb5", "#5f6b76"),
    ),
    "grades": ("#0b4f8a", "#1f8fa8", "#b07800", "#c0392b", "#6e7781"),
}
_DARK = {
    "bg": "#15191f",
    "ink": "#e6e9ee",
    "mute": "#a3adb8",
    "grid": "#2b323b",
    "axis": "#6b7682",
    "series": (
        *("#5ab4f0", "#ff9a5c", "#35c79b", "#eba0cf"),
        *("#f0c74a", "#a4d8f7", "#b3a6ff", "#aeb8c2"),
    ),
    "grades": ("#7cc0ff", "#4fd6c9", "#f2c14e", "#ff8a80", "#a3adb8"),
}
_DASHES = ("none", "6 3", "2 2", "8 3 2 3", "none", "6 3", "2 2", "8 3 2 3")


def _rules(theme: Mapping[str, Sequence[str]]) -> str:
    rules = [
        f".chart .bg{{fill:{theme['bg']}}}",
        f".chart text{{fill:{theme['ink']}}}",
        f".chart .halo{{stroke:{theme['bg']}}}",
        f".chart .mute{{fill:{theme['mute']}}}",
        f".chart .grid{{stroke:{theme['grid']}}}",
        f".chart .axis{{stroke:{theme['axis']}}}",
        f".chart .cross{{stroke:{theme['ink']}}}",
        *(
            f".chart .f{n}{{fill:{c}}}.chart .l{n}{{stroke:{c}}}"
            for n, c in enumerate(theme["series"])
        ),
        *(f".chart .q{n}{{fill:{c};stroke:{c}}}" for n, c in enumerate(theme["grades"])),
        f".chart .q{GRADES - 1}{{fill:{theme['bg']}}}",
    ]
    return "".join(rules)


STYLE = (
    ".chart text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    ".chart .title{font-size:15px;font-weight:600}.chart .small{font-size:11px}"
    ".chart .name{font-weight:600}.chart .end{text-anchor:end}.chart .middle{text-anchor:middle}"
    ".chart .struck{text-decoration:line-through}.chart .void{opacity:.45}"
    ".chart .halo{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}"
    ".chart .grid,.chart .axis{stroke-width:1}.chart .cross{stroke-width:2}"
    ".chart .line{fill:none;stroke-width:2;stroke-linejoin:round}.chart .thin{stroke-width:1}"
    ".chart .area{opacity:.55}.chart .mark{stroke-width:2}"
    + "".join(f".chart .d{n}{{stroke-dasharray:{dash}}}" for n, dash in enumerate(_DASHES))
    + _rules(_LIGHT)
    + f"@media (prefers-color-scheme:dark){{{_rules(_DARK)}}}"
    # A halo would be drawn over the letters by the line through them.
    ".chart .struck{stroke:none}"
)


@dataclass(slots=True)
class Drawing:
    """A picture under construction; coordinates in pixels from the top left.

    ``title`` and ``note`` say what it shows: the one is drawn, the other stands beside it.
    """

    name: str
    title: str
    note: str
    height: float
    width: float = WIDTH
    parts: list[str] = field(default_factory=list)

    def add(self, tag: str, classes: str = "", tip: str = "", **attributes: float | str) -> None:
        """Draw an element; ``tip`` is shown by the browser when pointed at."""
        inside = f"<title>{escape(tip)}</title>" if tip else ""
        self.parts.append(_element(tag, classes, attributes, inside))

    def text(
        self, x: float, y: float, words: str, classes: str = "", room: float | None = None
    ) -> None:
        """Write ``words`` from ``x`` on the line ``y``, cut to ``room`` pixels."""
        shown = words if room is None else shorten(words, room)
        tip = f"<title>{escape(words)}</title>" if shown != words else ""
        self.parts.append(_element("text", classes, {"x": x, "y": y}, escape(shown) + tip))

    def line(self, x1: float, y1: float, x2: float, y2: float, classes: str) -> None:
        """Draw a straight line."""
        self.add("line", classes, x1=x1, y1=y1, x2=x2, y2=y2)

    def svg(self, *, alone: bool) -> str:
        """Return the picture; ``alone`` with its own styles and namespace, for a file."""
        style = f"<style>{STYLE}</style>" if alone else ""
        space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
        size = f' width="{number(self.width)}" height="{number(self.height)}"' if alone else ""
        box = f"0 0 {number(self.width)} {number(self.height)}"
        back = _element("rect", "bg", {"width": self.width, "height": self.height}, "")
        head = _element("text", "title", {"x": 12, "y": 24}, escape(self.title))
        body = "\n".join([back, head, *self.parts])
        return (
            f'<svg{space} class="chart" viewBox="{box}"{size} role="img" '
            f'aria-label="{escape(f"{self.title}. {self.note}")}">{style}\n{body}\n</svg>\n'
        )


def _element(tag: str, classes: str, attributes: Mapping[str, float | str], inside: str) -> str:
    named = {"class": classes, **attributes} if classes else attributes
    told = "".join(
        f' {name}="{escape(value) if isinstance(value, str) else number(value)}"'
        for name, value in named.items()
    )
    return f"<{tag}{told}>{inside}</{tag}>" if inside else f"<{tag}{told}/>"


def number(value: float) -> str:
    """Return a coordinate with one decimal, none where it is whole."""
    return f"{value:.1f}".removesuffix(".0")


def escape(text: str) -> str:
    """Return ``text`` fit for the inside of an element or attribute of HTML and XML.

    Characters that XML 1.0 does not allow (section 2.2) become the replacement character.
    """
    allowed = "".join(
        c if c in "\t\n\r" or "\x20" <= c < "\ud800" or "\ue000" <= c < "\ufffe" or c > "\uffff"
        else "\ufffd"
        for c in text
    )  # fmt: skip
    return html.escape(allowed)


def width_of(text: str, size: float = 12) -> float:
    """Estimate the pixels that ``text`` takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return (len(text) * _ADVANCE + wide * (1.05 - _ADVANCE)) * size


def shorten(text: str, room: float, size: float = 12) -> str:
    """Return as much of ``text`` as fits into ``room`` pixels, with an ellipsis if it is cut."""
    text = " ".join(text.split())
    if width_of(text, size) <= room:
        return text
    while text and width_of(text + "\u2026", size) > room:
        text = text[:-1]
    return text.rstrip() + "\u2026"

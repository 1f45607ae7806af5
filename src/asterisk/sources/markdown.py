"""Markdown to text: what a reader of the rendered page would read, a paragraph a block.

Works a line at a time with patterns that cannot run away; what CommonMark would see differently in
rare nestings costs a stray character, not a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from asterisk.sources.decoding import text_of
from asterisk.sources.markup import page, unescaped
from asterisk.sources.opening import Opened, Piece

FRONT_MATTER = 400  # lines at most
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)$")
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]+(.*))?$")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*$")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_DEFINITION = re.compile(r" {0,3}\[[^\[\]]{1,200}\]:[ \t]*\S+")
_QUOTE = re.compile(r"(?: {0,3}> ?)+")
_ITEM = re.compile(r"[ \t]*(?:[-+*]|\d{1,9}[.)])[ \t]+(?:\[[ xX]\][ \t]+)?")
_CODE = re.compile(r"(`[^`]*`)")
_TARGET = r"\((?:[^()\"<>]|\([^()]{0,500}\)|<[^<>]{0,2000}>|\"[^\"]{0,500}\"){0,2000}\)"
_IMAGE = re.compile(r"!\[([^\[\]]{0,2000})\](?:" + _TARGET + r"|\[[^\[\]]{0,200}\])")
_LINK = re.compile(r"\[([^\[\]]{0,2000})\](?:" + _TARGET + r"|\[[^\[\]]{0,200}\])")
_ADDRESS = re.compile(r"<((?:https?://|mailto:)[^\s<>]{1,2000})>")
_EMPHASIS = re.compile(
    r"(?<![\w\\])[*_]{1,3}(?=\S)|(?<=[^\s\\])[*_]{1,3}(?!\w)|\*\*(?=\S)|(?<=\S)\*\*|~~"
)
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_TITLE = re.compile(r"""title\s*[:=]\s*(?:"([^"]*)"|'([^']*)'|(.*))""", re.IGNORECASE)
_HTML = re.compile(r"</?[a-zA-Z][^<>]{0,2000}>")
_NO_HTML = re.compile(r"<(?!/?[a-zA-Z][^<>]{0,2000}>)")
_TABLE_RULE = set("-|: \t")


def read_markdown(file: Opened) -> Iterator[Piece]:
    """Yield the file as one document, titled by its front matter or first heading."""
    title, text = reduced(text_of(file))
    yield Piece("", "", title, text)


def reduced(source: str) -> tuple[str, str]:
    """Return title and text; a heading that opens the text and is the title is not repeated."""
    lines = source.split("\n")
    title, start = _front_matter(lines)
    blocks = _Blocks()
    for line in lines[start:]:
        blocks.line(line.rstrip())
    blocks.end()
    first = blocks.first_heading
    if not title and first is not None:
        title = blocks.out[first]
        if first == 0:
            del blocks.out[0]
    return title, "\n\n".join(blocks.out)


def _front_matter(lines: list[str]) -> tuple[str, int]:
    """Return the title that stands between two ``---`` or ``+++``, and the line after them."""
    fence = lines[0].rstrip()
    if fence not in {"---", "+++"}:
        return "", 0
    title = ""
    for number, line in enumerate(lines[1:FRONT_MATTER], 1):
        if line.rstrip() in {fence, "..."}:
            return title, number + 1
        match = _TITLE.match(line)
        if match and not title:
            title = (match.group(1) or match.group(2) or match.group(3) or "").strip()
    return "", 0


class _Blocks:
    """Gathers lines into blocks of text."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.first_heading: int | None = None
        self.paragraph: list[str] = []
        self.fence = ""
        self.code: list[str] = []
        self.comment = False

    def line(self, line: str) -> None:
        if self.fence:
            self.fenced(line)
            return
        if self.comment:
            line = self.uncommented(line)
        if "<!--" in line:
            before, _, rest = line.partition("<!--")
            self.comment = True
            line = before + self.uncommented(rest)
        line = _QUOTE.sub("", line, count=1) if line.lstrip().startswith(">") else line
        opening = _FENCE.match(line)
        if opening:
            self.end()
            self.fence = opening.group(1)
        elif not line.strip():
            self.end()
        else:
            self.text(line)

    def uncommented(self, line: str) -> str:
        """Return what follows comments that end in ``line``."""
        kept = []
        while True:
            if self.comment:
                _, end, line = line.partition("-->")
                if not end:
                    break
                self.comment = False
            before, start, line = line.partition("<!--")
            kept.append(before)
            if not start:
                break
            self.comment = True
        return "".join(kept)

    def fenced(self, line: str) -> None:
        stripped = line.strip()
        if stripped.startswith(self.fence) and not stripped.strip(self.fence[0]):
            self.fence = ""
            self.end()
        else:
            self.code.append(line)

    def text(self, line: str) -> None:
        heading = _HEADING.match(line)
        if heading:
            self.end()
            self.heading((heading.group(1) or "").rstrip("#").strip())
        elif self.paragraph and _UNDERLINE.match(line):
            whole, self.paragraph = " ".join(self.paragraph), []
            self.heading(whole)
        elif _RULE.match(line):
            self.end()
        elif self.says_nothing(line):
            pass
        elif line.count("|") > 1 and line.strip().startswith("|"):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            self.paragraph.append("\n" + ", ".join(cell for cell in cells if cell))
        elif item := _ITEM.match(line):
            self.paragraph.append("\n" + line[item.end() :])
        else:
            self.paragraph.append(line.strip())

    def says_nothing(self, line: str) -> bool:
        """Tell whether a line is a table's rule or a link's definition."""
        if self.paragraph:
            return {"-", "|"} <= set(line) <= _TABLE_RULE
        return bool(_DEFINITION.match(line))

    def heading(self, text: str) -> None:
        text = inline(text).strip()
        if text:
            if self.first_heading is None:
                self.first_heading = len(self.out)
            self.out.append(text)

    def end(self) -> None:
        """Close what is open."""
        if self.code:
            self.out.append("\n".join(self.code).strip("\n"))
        if self.paragraph:
            text = inline(" ".join(self.paragraph).replace(" \n", "\n").strip())
            if text.strip():
                self.out.append(text.strip())
        self.code, self.paragraph = [], []


def inline(text: str) -> str:
    """Return ``text`` without marks of code, images, links, emphasis, escapes and HTML."""
    parts = _CODE.split(text.replace("\0", "\ufffd"))
    code = iter(parts[1::2])  # out of the way: it may stand within a link's text
    return re.sub("\0", lambda _: next(code, "")[1:-1].strip(), _prose("\0".join(parts[::2])))


def _prose(text: str) -> str:
    text = _ADDRESS.sub(r"\1", text)
    if "[" in text:
        text = _LINK.sub(r"\1", _IMAGE.sub(r"\1", text))
    text = _ESCAPE.sub(r"\1", _EMPHASIS.sub("", text))
    if _HTML.search(text):
        return _tagless(text)
    return unescaped(text)


def _tagless(text: str) -> str:
    """Return what inline HTML says, with the line ends and outer spaces of ``text``."""
    start = text[: len(text) - len(text.lstrip(" "))]
    end = text[len(text.rstrip(" ")) :]
    lines = [page(_NO_HTML.sub("&lt;", line)).text for line in text.split("\n")]
    return start + "\n".join(lines) + end

"""Markdown, Obsidian's too, to text: markdown-it renders it, and `page` reads the HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, partial
from html import escape
from typing import Any

from asterisk.common.plugins import require
from asterisk.sources.files import OpenFile, Piece
from asterisk.sources.html import iso_date, page

FRONT_MATTER = 400  # lines at most
DEEPEST = 50  # of elements within each other; markdown-it leaves out what is nested deeper
_KEY = re.compile(r"([A-Za-z][\w-]*)\s*[:=]\s*(.*)")
_FRONT = re.compile(r"\s*$|\s+\S|[\w\"'. -]+?\s*[:=]|- |[#\[\]{}]")  # a line of front matter
_TAGS = ("tags", "tag", "keywords", "categories")
_FILE = re.compile(
    r"\.(?:avif|bmp|gif|jpe?g|m4a|mov|mp[34]|og[gv]|pdf|png|svg|wav|webm|webp)$", re.I
)
_SIZE = re.compile(r"(?:^|\|)\d+(?:x\d+)?$")
_TAG = re.compile(r"(?<![^\s(])#([\w/-]*[^\W\d][\w/-]*)")
_DEFINITION = re.compile(r"(^|[ \t]*\n)\[\^([^\[\]\s]{1,200})\]:[ \t]*")
_BLOCK_ID = re.compile(r"(?:^|[ \t]+|\n)\^[A-Za-z0-9-]+[ \t]*\Z")
_BOX = re.compile(r"\A\[[^\[\]\n]\](?:[ \t]+|$)")
_CALLOUT = re.compile(r"\[![^\[\]\n]{1,100}\][+-]?[ \t]*([^\n]*)\n?")
_INLINE = {  # each stops at its own mark, so that no search is made twice
    "wikilink": re.compile(r"(!?)\[\[([^\[\]\n|]{0,500})(?:\|([^\[\]\n]{0,500}))?\]\]"),
    "footnote": re.compile(r"\[\^([^\[\]\s]{1,200})\]"),
    "comment": re.compile(r"%%[^%]*(?:%[^%]+)*%%"),
    "math": re.compile(r"\$\$[^$]{1,5000}\$\$|\$(?=[^\s$])[^$\n]{1,1000}(?<=\S)\$(?!\d)"),
    "highlight": re.compile(r"==(?=[^\s=])(?:[^=]|=(?!=)){1,5000}(?<=[^\s=])==(?!=)"),
}


def read_markdown(file: OpenFile) -> Iterator[Piece]:
    """Yield the file as one document, titled by its front matter or first heading."""
    yield parse(file.text())


def parse(source: str) -> Piece:
    """Return what Markdown says; a title that opens the text as a heading is not repeated."""
    given, source = _front_matter(source)
    markdown = _parser()
    env: dict[str, Any] = {"footnotes": set()}

    def text_of(tokens: list[Any]) -> str:
        return page(markdown.renderer.render(tokens, markdown.options, env)).text

    tokens = markdown.parse(source, env)
    tags = [tag.lstrip("#") for key in _TAGS for tag in given.get(key, ())]
    for child in (child for token in tokens for child in token.children or ()):
        if child.type == "text":
            tags += _TAG.findall(child.content)
        elif child.type == "image" and child.children:  # ![alt|100](image.png)
            child.children[-1].content = _SIZE.sub("", child.children[-1].content)
    title = " ".join(given.get("title", ()))
    heading = next((at for at, it in enumerate(tokens) if it.type == "heading_open"), None)
    if heading is not None and not title:
        title = text_of(tokens[heading : heading + 3])
        if heading == 0:
            del tokens[:3]
    too_deep = any(token.level >= DEEPEST - 1 for token in tokens)  # to be meant
    text = source.strip() if too_deep else text_of(tokens)
    authors = given.get("author", ()) or given.get("authors", ())
    date = iso_date("".join(given.get("date", ())[:1]))
    return Piece("", "", title, text, date, ", ".join(authors), tuple(dict.fromkeys(tags)))


def _front_matter(source: str) -> tuple[dict[str, list[str]], str]:
    """Return the values between two ``---`` or ``+++``, by key as lists, and what follows."""
    lines = source.split("\n", FRONT_MATTER)
    ends = {"---": ("---", "..."), "+++": ("+++",)}.get(lines[0].rstrip(), ())
    end = next((at for at, it in enumerate(lines) if at and it.rstrip() in ends), 0)
    # A rule is written as a fence is: prose between two of them is text.
    if not all(map(_FRONT.match, lines[1:end])) or not any(map(_KEY.match, lines[1:end])):
        return {}, source
    found: dict[str, list[str]] = {}
    key = ""
    for line in lines[1:end]:
        if line.startswith("["):  # a table of TOML
            break
        if match := _KEY.match(line):
            key, value = match[1].lower(), match[2].strip()
            value = "" if value[:1] in {">", "|"} else value  # what follows is not read
            listed = value.startswith("[") or key in _TAGS
            found[key] = value.strip("[]").split(",") if listed else [value]
        elif key and line.lstrip().startswith("- "):
            found[key].append(line.lstrip()[2:])
    for values in found.values():
        plain = (it.strip().strip("\"'").strip().replace("''", "'") for it in values)
        values[:] = filter(None, plain)
    return found, "\n".join(lines[end + 1 :])


@cache
def _parser() -> Any:
    """Return a parser of CommonMark with tables, ~~struck~~ and what Obsidian adds."""
    markdown = require("markdown_it", "markdown").MarkdownIt("commonmark", {"maxNesting": DEEPEST})
    reference = require("markdown_it.rules_block", "markdown").reference
    markdown.enable(["table", "strikethrough"])

    def definition(state: Any, line: int, *more: Any) -> bool:  # of a link, but of no footnote
        return not _line(state, line).startswith("[^") and bool(reference(state, line, *more))

    markdown.block.ruler.at("reference", definition)
    markdown.block.ruler.before("fence", "comment", _block_comment, {"alt": ["paragraph"]})
    markdown.core.ruler.before("inline", "marks", _without_marks)
    for name in _INLINE:
        markdown.inline.ruler.before("link", name, partial(_inline, name))
    markdown.renderer.rules["html_inline"] = lambda tokens, at, *_: _html(tokens[at].content)
    markdown.renderer.rules["html_block"] = lambda tokens, at, *_: (
        f"<pre>{_html(tokens[at].content)}</pre>"
    )
    return markdown


def _line(state: Any, line: int) -> str:
    return str(state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]])


def _block_comment(state: Any, start: int, end: int, silent: bool) -> bool:
    """Pass over lines from one that begins with ``%%`` to the next one that has it."""
    first = _line(state, start)
    if not first.startswith("%%") or "%%" in first[2:] or state.env.get("open"):
        return False
    close = state.src.find("%%", state.eMarks[start])
    state.env["open"] = close < 0  # not searched for again
    line = start + 1
    while line < end and state.eMarks[line] < close:
        line += 1
    if close < 0 or line >= end:
        return False
    if not silent:
        state.line = line
        state.bMarks[line], state.tShift[line], state.sCount[line] = close + 2, 0, state.blkIndent
        if not _line(state, line).strip():
            state.line += 1
    return True


def _without_marks(state: Any) -> None:
    """Take what stands at a block's beginning or end only: callouts, boxes, ids, footnotes."""
    for at, token in enumerate(state.tokens):
        if token.type != "inline":
            continue
        container = state.tokens[at - 2].type if at > 1 else ""
        text = _BLOCK_ID.sub("", token.content)
        if container == "list_item_open":
            text = _BOX.sub("", text)
        elif container == "blockquote_open" and (callout := _CALLOUT.match(text)):
            title = f"{callout[1]}  \n" if callout[1] else ""
            text = title + text[callout.end() :]
        if "[^" in text:
            state.env["footnotes"].update(it[2] for it in _DEFINITION.finditer(text))
            text = _DEFINITION.sub(lambda it: "  \n" if it[1] else "", text)
        token.content = text


def _inline(name: str, state: Any, silent: bool) -> bool:
    """Take what Obsidian writes within a line; its text goes on as text."""
    found = _INLINE[name].match(state.src, state.pos, state.posMax)
    if found is None or (name == "footnote" and found[1] not in state.env["footnotes"]):
        return False
    if not silent:
        if name == "wikilink":
            state.pending += _link_text(*found.groups(""))
        elif name == "math":
            state.pending += found[0]
        elif name == "highlight":
            outer, state.posMax, state.pos = state.posMax, found.end() - 2, found.start() + 2
            state.md.inline.tokenize(state)
            state.posMax = outer
    state.pos = found.end()
    return True


def _link_text(embedded: str, target: str, label: str) -> str:
    """Return what Obsidian shows of ``[[target|label]]``; ``embedded`` is "!" before it."""
    if embedded and (_FILE.search(target.partition("#")[0]) or _SIZE.match(label)):
        return "" if _SIZE.match(label) else label
    parts = (it.strip("\\ ") for it in target.split("#"))
    return label or " ".join(it for it in parts if it and not it.startswith("^"))


def _html(source: str) -> str:
    return "<br>" if source[:3].lower() == "<br" else escape(page(source).text)

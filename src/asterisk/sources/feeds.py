"""RSS 2.0 and 1.0 and Atom: a document an entry.

Feeds are untrusted. A DOCTYPE is refused before the parser sees it, so that no entity but XML's
five exists and nothing outside the file is ever named; depth, sizes and counts are bounded.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from xml.parsers import expat

from asterisk.sources.decoding import declared, known, marked
from asterisk.sources.document import Unreadable
from asterisk.sources.entries import Entries
from asterisk.sources.opening import Opened, Piece

CHUNK = 64 << 10  # bytes
LONGEST_TAG = 1 << 20  # bytes; a tag or comment is one token to expat
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:+-]{1,40})""")
_PROLOG = re.compile(r"(?:\s|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)


def read_feed(file: Opened) -> Iterator[Piece]:
    """Yield the entries; those before a fault, if there is one, which is then raised."""
    entries = Entries(file.skip, file.options.longest_text)
    parser = _parser(entries)
    quiet = 0
    start = True
    try:
        for text in _decoded(file):
            if start:
                _check_prolog(text)
            entries.alive, start = False, False
            parser.Parse(text.encode("utf-8", "replace"), False)
            quiet = 0 if entries.alive else quiet + len(text)
            if quiet > LONGEST_TAG:
                raise Unreadable(f"a tag or comment longer than {LONGEST_TAG >> 20} MB")
            yield from entries.taken()
        parser.Parse(b"", True)
    except expat.ExpatError as failure:
        yield from entries.taken()
        told = expat.ErrorString(failure.code)
        told = f"broken at line {failure.lineno}: {told}{_kept(entries)}"
        raise Unreadable(told, passing=True) from None  # it may still be on its way here
    except Unreadable as failure:
        yield from entries.taken()
        raise Unreadable(f"{failure}{_kept(entries)}", passing=failure.passing) from None
    yield from entries.taken()


def _kept(entries: Entries) -> str:
    return f" (entries before that: {entries.complete:,})" if entries.complete else ""


def _check_prolog(text: str) -> None:
    """Raise Unreadable for a DOCTYPE: the parser would go on with a chunk that a handler stops."""
    match = _PROLOG.match(text)
    rest = text[match.end() if match else 0 :]
    if rest.startswith("<!") and not rest.startswith("<!--"):
        raise Unreadable("a document type declaration, which feeds must not have")
    if len(rest) < 2 or rest.startswith(("<!--", "<?")):
        raise Unreadable(f"no element within its first {CHUNK >> 10} kB")


def _parser(entries: Entries) -> expat.XMLParserType:
    parser = expat.ParserCreate("UTF-8", " ")  # over what the file declares: it is decoded here
    parser.buffer_text = True
    parser.StartElementHandler = entries.start
    parser.EndElementHandler = entries.end
    parser.CharacterDataHandler = entries.characters
    parser.CommentHandler = entries.other
    parser.StartNamespaceDeclHandler = entries.namespace
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    return parser


def _refuse(*_: object) -> int:
    raise Unreadable("a document type or entity declaration, which feeds must not have")


def _decoded(file: Opened) -> Iterator[str]:
    """Yield the file's text in pieces; what comes before a byte that cannot be is yielded too."""
    mark = marked(file.head)
    encoding = mark[0] if mark else declared(_ENCODING, file.head)
    if encoding is None:
        encoding = "utf-8" if not file.options.encoding or _is_utf8(file) else file.options.encoding
    decoder = codecs.getincrementaldecoder(known(encoding) or "utf-8")()
    done = 0
    with file.stream() as stream:
        if mark:
            stream.read(mark[1])
        while True:
            chunk = stream.read(CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as failure:
                before = failure.object[: failure.start].decode(encoding, "ignore")
                yield before if done else before.lstrip()
                at = f"near byte {done + failure.start + 1:,}; see --encoding"
                raise Unreadable(f"not {encoding.upper()} ({at})") from None
            if not done:
                text = text.lstrip()  # XML allows nothing before its declaration
            if text or not done:
                yield text
            done += len(chunk)
            if not chunk:
                return


def _is_utf8(file: Opened) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with file.stream() as stream:
            while chunk := stream.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True

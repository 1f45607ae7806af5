"""The words of a text and their places, by FTS5's own tokenizer.

Which code points are letters, which marks are dropped and what a capital becomes differ between
FTS5's tables, Unicode and Python, so FTS5 is asked: the text is written to a table in memory and
read back as words, in about 0.05 ms.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Collection

TOKENIZER = 'tokenize="unicode61 remove_diacritics 2"'  # of the index's table of words too
_WORD = re.compile(r"[^\W_]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MARKED = re.compile("\1([^\1\2]*)\2")
_local = threading.local()  # a connection is for one thread


def tokens(text: str) -> list[str]:
    """Return all words of ``text`` in order, folded: what FTS5 would put into the index.

    Where this SQLite has no FTS5, and so no index of words, its words in lower case.
    """
    connection = _connection()
    if connection is None:
        return _WORD.findall(text.lower())
    connection.execute("BEGIN")
    try:
        connection.execute("INSERT INTO texts(text) VALUES (?)", (_bound(text),))
        rows = connection.execute("SELECT term FROM vocabulary ORDER BY doc, offset").fetchall()
        return [term for (term,) in rows]
    finally:
        connection.execute("ROLLBACK")


def places(text: str, wanted: Collection[str]) -> list[tuple[int, str]]:
    """Return where a wanted folded word begins in ``text``, with that word, in order.

    ``text`` holds neither U+0001 nor U+0002.
    """
    connection = _connection()
    if connection is None:
        lowered = ((match.start(), match[0].lower()) for match in _WORD.finditer(text))
        return [(start, word) for start, word in lowered if word in wanted]
    if not (found := [term for term in dict.fromkeys(tokens(text)) if term in wanted]):
        return []
    connection.execute("BEGIN")
    try:
        connection.execute("INSERT INTO texts(text) VALUES (?)", (_bound(text),))
        (marked,) = connection.execute(
            "SELECT highlight(texts, 0, char(1), char(2)) FROM texts WHERE texts MATCH ?",
            (question(found),),
        ).fetchone()
    finally:
        connection.execute("ROLLBACK")
    spans = [(match.start(), match[1]) for match in _MARKED.finditer(marked)]
    folded = {word: (tokens(word) or [word])[0] for word in {word for _, word in spans}}
    # Two marks stand before each place for every earlier one.
    return [(start - 2 * i, folded[word]) for i, (start, word) in enumerate(spans)]


def question(found: Collection[str]) -> str:
    """Return words as an FTS5 expression that matches any of them, each a quoted string."""
    return " OR ".join('"' + term.replace('"', '""') + '"' for term in found)


def _bound(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _connection() -> sqlite3.Connection | None:
    """Return this thread's tables in memory; None where this SQLite has no FTS5."""
    if not hasattr(_local, "connection"):
        connection = sqlite3.connect(":memory:", isolation_level=None)
        # A word is cut after 32 KiB, perhaps inside of a character.
        connection.text_factory = lambda data: data.decode(errors="replace")
        try:
            connection.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, {TOKENIZER})")
            connection.execute("CREATE VIRTUAL TABLE vocabulary USING fts5vocab(texts, instance)")
        except sqlite3.OperationalError:
            connection.close()
            _local.connection = None
        else:
            _local.connection = connection
    found: sqlite3.Connection | None = _local.connection
    return found

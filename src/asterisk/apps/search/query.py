"""One query: its words, two rankings of documents by their best passages, and hits.

Words are asked of FTS5's own tokenizer, by a table in memory, in about 0.05 ms: which code points
are letters, which marks are dropped and what a capital becomes differ from Unicode and Python.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from asterisk.apps.search.database import TOKENIZER
from asterisk.apps.search.store import DAMAGED, Floats, read_document, state_of
from asterisk.common.errors import InputError, UsageError, integer, one_of
from asterisk.common.terminal import printable

if TYPE_CHECKING:
    from asterisk.apps.search.index import Index
    from asterisk.runtimes.runtime import Runtime

MODES = ("hybrid", "vectors", "words")
DEPTH = 60  # documents of each ranking that are fused
RRF_K = 60
IDS_TOGETHER = 500  # of a statement
MOST_TERMS = 16  # of a query, the rarest
MOST_READ = 1_000  # words of a query that are looked up at all
MOST_ROWS = 8_000  # rows that BM25 is computed for: a bound on time, reached by common words only
WIDTH = 220  # characters of a snippet
LONGEST = 20_000  # characters looked at: a passage of 128 tokens is rarely beyond 1,000
VOCABULARY = "CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, 'words', 'row')"
_WORD = re.compile(r"[^\W_]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MARKED = re.compile("\1([^\1\2]*)\2")
_local = threading.local()  # a connection is for one thread
Best = Callable[[int], Iterable[tuple[int, float]]]
Ranked = dict[int, tuple[int, float]]  # document -> its best passage and that one's score


@dataclass(frozen=True, slots=True)
class Hit:
    """One document, by its best passage."""

    document: int  # its number in the index
    title: str
    # The hits' order, highest first: a cosine in mode "vectors", BM25 in mode "words", the
    # reciprocal rank fusion in mode "hybrid".
    score: float
    snippet: str
    source: str  # this, the key and what follows are as in `asterisk.sources.Document`
    key: str
    similarity: float | None = None  # the passage's cosine; None where only words found it
    start: int = 0  # of the passage in the document's text, in characters
    end: int = 0
    date: str = ""
    author: str = ""
    tags: tuple[str, ...] = ()


def run_query(  # noqa: PLR0917
    index: Index, text: str, k: int, runtime: Runtime | None, mode: str, prompt_name: str | None
) -> list[Hit]:
    """Check the arguments and return the ``k`` best hits; see `Index.search`."""
    if not isinstance(text, str):
        raise UsageError(f"a query must be a string, not {type(text).__name__}")
    one_of("mode", mode, MODES)
    k = integer("k", k, 1)
    if not text.strip():
        raise InputError("an empty query finds nothing")
    words = index.words if index.words is not None and index.words.usable else None
    if mode == "words" and words is None:
        raise UsageError("there are no words: SQLite is built without FTS5; use --mode vectors")
    if mode != "words":
        if runtime is None:
            raise UsageError(f"mode {mode} needs a runtime")
        index.check(runtime, runtime.config.embedding_size)
    text = text.replace("\0", " ")
    connection = index.connection
    depth = k if mode != "hybrid" else max(k, DEPTH)
    nearest: Ranked = {}
    worded: Ranked = {}
    connection.execute("BEGIN")  # one state of the file for everything that follows
    try:
        if runtime is not None and mode != "words":
            scores = index.blocks.scan(runtime.encode_query(text, prompt_name=prompt_name))
            nearest = _rank(connection, "slot", lambda count: top(scores, count), depth)
        if words is not None and mode != "vectors":
            worded = _rank(connection, "id", lambda count: words.search(text, count), depth)
        if mode == "hybrid":
            ranking = fuse([list(nearest), list(worded)])
        else:
            ranking = [(document, score) for document, (_, score) in (nearest | worded).items()]
        wanted = frozenset(terms(text))
        hits = []
        for number, score in ranking[:k]:
            passage, similarity = nearest.get(number) or (worded[number][0], None)
            found = read_document(connection, passage)
            if found is None:
                raise InputError(DAMAGED)
            it, start, end = found
            part = snippet(it.text[start:end], wanted)
            where = it.source, it.key, similarity, start, end
            hits.append(Hit(number, it.title, score, part, *where, it.date, it.author, it.tags))
        return hits
    finally:
        connection.execute("ROLLBACK")


def _rank(connection: sqlite3.Connection, column: str, best: Best, depth: int) -> Ranked:
    """Return ``depth`` documents, best first, by the ``best`` passages: (id or slot, score)."""
    count = depth + depth // 4
    while True:
        scores = dict(best(count))
        wanted = iter(scores)
        owners: dict[int, tuple[int, int]] = {}
        while part := list(islice(wanted, IDS_TOGETHER)):
            marks = ",".join("?" * len(part))
            query = f"SELECT {column}, id, document FROM passages WHERE {column} IN ({marks})"  # noqa: S608
            owners |= {row: (id, document) for row, id, document in connection.execute(query, part)}
        ranked: Ranked = {}
        for row in filter(owners.__contains__, scores):
            passage, document = owners[row]
            ranked.setdefault(document, (passage, scores[row]))
        if len(ranked) >= depth or len(scores) < count:
            return dict(islice(ranked.items(), depth))
        count *= 4


def top(scores: Floats, count: int) -> list[tuple[int, float]]:
    """Return the ``count`` best (slot, score), best first, the smaller slot first among equals."""
    slots = np.arange(len(scores))
    if count < len(scores):
        slots = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    order = slots[np.lexsort((slots, -scores[slots]))][:count]
    return list(zip(order.tolist(), scores[order].tolist(), strict=True))


def fuse(rankings: Iterable[Sequence[int]]) -> list[tuple[int, float]]:
    """Return (item, score) of all ``rankings``, best first: reciprocal rank fusion.

    A score is the sum of 1 / (60 + rank) over the rankings (Cormack, Clarke and Büttcher, SIGIR
    2009). Among equals the one that an earlier ranking has first is first.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (RRF_K + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


class Words:
    """The FTS5 table of one connection; ``usable`` is False where the build has none."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._passages = 0
        self._frequencies: dict[str, int] = {}  # while the file stays as it is
        self._state: tuple[int, int] | None = None
        try:
            connection.execute(VOCABULARY)
            connection.execute("SELECT term FROM temp.vocabulary LIMIT 1").fetchone()
            self.usable = True
        except sqlite3.OperationalError as failure:
            if "no such module" not in str(failure) and "no such fts5 table" not in str(failure):
                raise
            self.usable = False

    def search(self, text: str, count: int) -> list[tuple[int, float]]:
        """Return the ``count`` best (passage, BM25), best first, of passages with any word."""
        chosen = self.choose(text)
        if not chosen:
            return []
        # FTS5's own rank is the smaller the better. The inner limit bounds the time.
        rows = self.connection.execute(
            "SELECT rowid, score FROM (SELECT rowid, bm25(words) AS score FROM words "
            "WHERE words MATCH ? LIMIT ?) ORDER BY score, rowid LIMIT ?",
            (any_of(chosen), MOST_ROWS, count),
        )
        return [(passage, -score) for passage, score in rows]

    def choose(self, text: str) -> list[str]:
        """Return the words to look for: the rarest, while their rows together stay few.

        A word in every fifth passage distinguishes little and is left out beside a rarer one.
        """
        run, state = self.connection.execute, state_of(self.connection)
        if state != self._state or len(self._frequencies) > 10_000:
            self._state, self._frequencies = state, {}
            (self._passages,) = run("SELECT count(*) FROM passages").fetchone()
        found = terms(text)
        for term in found:
            if term not in self._frequencies:
                row = run("SELECT doc FROM temp.vocabulary WHERE term = ?", (term,)).fetchone()
                self._frequencies[term] = row[0] if row else 0
        counted = sorted((self._frequencies[term], term) for term in found)
        chosen: list[str] = []
        rows = 0
        for count, term in [pair for pair in counted if pair[0]][:MOST_TERMS]:
            rows += count
            common = rows > MOST_ROWS or 5 * count > max(self._passages, 50)
            if chosen and common:
                break
            chosen.append(term)
        return chosen


def any_of(words: Collection[str]) -> str:
    """Return an FTS5 expression that matches any of ``words``, each a quoted string."""
    return " OR ".join('"' + word.replace('"', '""') + '"' for word in words)


def terms(text: str) -> list[str]:
    """Return the different words of ``text`` in order, cut and folded as the index does it.

    Composed, and as it is or decomposed where that gives other words: FTS5 takes "й" for a letter,
    and "и" with a breve for "и", so a text is found however it and the query are spelt.
    """
    forms = [text]
    if not text.isascii():
        forms = [unicodedata.normalize("NFC", text), text, unicodedata.normalize("NFD", text)]
    words = dict.fromkeys(word for form in dict.fromkeys(forms) for word in tokens(form))
    return list(words)[:MOST_READ]


def tokens(text: str) -> list[str]:
    """Return all words of ``text`` in order, folded as in the index; without FTS5 in lower case."""
    rows = _fts5(text, "SELECT term FROM vocabulary ORDER BY doc, offset")
    return _WORD.findall(text.lower()) if rows is None else [term for (term,) in rows]


def positions(text: str, wanted: Collection[str]) -> list[tuple[int, str]]:
    """Return where a wanted folded word begins in ``text``, which has no U+0001 or U+0002."""
    found = [term for term in dict.fromkeys(tokens(text)) if term in wanted]
    if not found:
        return []
    query = "SELECT highlight(texts, 0, char(1), char(2)) FROM texts WHERE texts MATCH ?"
    rows = _fts5(text, query, any_of(found))
    if rows is None:
        lowered = ((match.start(), match[0].lower()) for match in _WORD.finditer(text))
        return [(start, word) for start, word in lowered if word in wanted]
    spans = [(match.start(), match[1]) for match in _MARKED.finditer(rows[0][0])]
    folded = {word: (tokens(word) or [word])[0] for word in {word for _, word in spans}}
    # Every earlier word has two marks around it.
    return [(start - 2 * i, folded[word]) for i, (start, word) in enumerate(spans)]


def _fts5(text: str, query: str, *parameters: str) -> list[tuple[str, ...]] | None:
    """Run a query over tables in memory that hold ``text``; None where SQLite has no FTS5."""
    if not hasattr(_local, "connection"):
        _local.connection = connection = sqlite3.connect(":memory:", isolation_level=None)
        # A word is cut after 32 KiB, perhaps inside of a character.
        connection.text_factory = lambda data: data.decode(errors="replace")
        try:
            connection.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, {TOKENIZER})")
            connection.execute("CREATE VIRTUAL TABLE vocabulary USING fts5vocab(texts, instance)")
        except sqlite3.OperationalError:
            connection.close()
            _local.connection = None
    if _local.connection is None:
        return None
    run = _local.connection.execute
    run("BEGIN")
    try:
        run("INSERT INTO texts(text) VALUES (?)", (_SURROGATE.sub("\ufffd", text),))
        rows: list[tuple[str, ...]] = run(query, parameters).fetchall()
        return rows
    finally:
        run("ROLLBACK")


def snippet(text: str, terms: Collection[str], width: int = WIDTH) -> str:
    """Return about ``width`` characters of ``text``, on one line and fit for a terminal.

    The window with the most different ``terms`` (folded words), longer ones counting more.
    """
    clean = printable(text[:LONGEST])
    if len(clean) <= width:
        return clean
    begin = _best_window(positions(clean, frozenset(terms)), width * 3 // 4)
    start = max(0, min(begin - width // 8, len(clean) - width))
    end = start + width
    if start:  # from a word's beginning
        start = clean.find(" ", start, start + width // 4) + 1 or start
    if end < len(clean):
        end = max(clean.rfind(" ", end - width // 4, end), 0) or end
    part = clean[start:end].strip()
    return f"{'… ' if start else ''}{part}{' …' if end < len(clean) else ''}"


def _best_window(found: list[tuple[int, str]], width: int) -> int:
    """Return where the best window begins; the first among equals, 0 without any word."""

    def worth(number: int) -> int:
        following = found[number : number + width]  # each has a character at least
        inside = {term for start, term in following if start - following[0][0] <= width}
        return sum(1 + len(term) for term in inside)

    return found[max(range(len(found)), key=worth)][0] if found else 0

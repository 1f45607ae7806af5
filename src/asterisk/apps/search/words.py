"""The words' side of a search: a person's text as a question to FTS5, never as its syntax."""

from __future__ import annotations

import sqlite3
import unicodedata

from asterisk.apps.search.terms import question, tokens

MOST_TERMS = 16  # of a query, the rarest
MOST_READ = 1_000  # words of a query that are looked up at all
MOST_ROWS = 8_000  # rows that BM25 is computed for: a bound on time, reached by common words only
VOCABULARY = "CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, 'words', 'row')"


def terms(text: str) -> list[str]:
    """Return the different words of ``text`` in order, cut and folded as the index does it.

    Composed, and also as it stands or decomposed where that gives other words: FTS5 takes "й" for
    a letter, and "и" with a breve for "и", so a text is found however it and the query are spelt.
    """
    if text.isascii():
        return list(dict.fromkeys(tokens(text)))[:MOST_READ]
    forms = unicodedata.normalize("NFC", text), text, unicodedata.normalize("NFD", text)
    found = dict.fromkeys(term for form in dict.fromkeys(forms) for term in tokens(form))
    return list(found)[:MOST_READ]


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

    def chosen(self, text: str) -> list[str]:
        """Return the words to look for: the rarest, while their rows together stay few.

        A word that stands nowhere costs nothing and finds nothing; a word in every fifth passage
        tells little apart and is left out beside a rarer one.
        """
        self._refresh()
        counted = sorted((self._frequency(term), term) for term in terms(text))
        counted = [(count, term) for count, term in counted if count][:MOST_TERMS]
        kept: list[str] = []
        rows = 0
        for count, term in counted:
            rows += count
            common = rows > MOST_ROWS or 5 * count > max(self._passages, 50)
            if kept and common:
                break
            kept.append(term)
        return kept

    def _refresh(self) -> None:
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        state = version, self.connection.total_changes
        if state != self._state:
            self._state, self._frequencies = state, {}
            (self._passages,) = self.connection.execute("SELECT count(*) FROM passages").fetchone()

    def _frequency(self, term: str) -> int:
        known = self._frequencies.get(term)
        if known is None:
            row = self.connection.execute(
                "SELECT doc FROM temp.vocabulary WHERE term = ?", (term,)
            ).fetchone()
            known = self._frequencies[term] = row[0] if row else 0
            if len(self._frequencies) > 10_000:
                self._frequencies.clear()
        return known

    def search(self, text: str, count: int) -> list[tuple[int, float]]:
        """Return the ``count`` best (passage, BM25), best first, of passages with any word."""
        found = self.chosen(text)
        if not found:
            return []
        # FTS5's own rank is the smaller the better. The inner limit bounds the time.
        rows = self.connection.execute(
            "SELECT rowid, score FROM (SELECT rowid, bm25(words) AS score FROM words "
            "WHERE words MATCH ? LIMIT ?) ORDER BY score, rowid LIMIT ?",
            (question(found), MOST_ROWS, count),
        )
        return [(passage, -score) for passage, score in rows]

"""Search: texts in one SQLite file, found by meaning, by words, or by both.

>>> from asterisk.apps.search import Index
>>> index = Index.open("notes.db")  # doctest: +SKIP
>>> with asterisk.load(index.artifact) as runtime:  # doctest: +SKIP
...     hits = index.search("how plants make sugar", 10, runtime)
"""

from __future__ import annotations

from asterisk.apps.search.index import Index
from asterisk.apps.search.passages import Passage, passages
from asterisk.apps.search.query import Hit

__all__ = ["Hit", "Index", "Passage", "passages"]

"""Search: texts in one SQLite file, found by meaning, by words, or by both."""

from __future__ import annotations

from asterisk.apps.search.index import Index
from asterisk.apps.search.passages import Passage, passages
from asterisk.apps.search.query import Hit

__all__ = ["Hit", "Index", "Passage", "passages"]

"""The first tokens of a text from as little of it as decides them.

A word's first tokens can depend on bytes far to the right, so no fixed margin is safe. What is
certain rests on two facts about merging the lowest rank first:

1. Where tokens of an encoding meet, both sides are the encodings of their own bytes, because no
   merge crossed that place.
2. Two encodings stand side by side unchanged exactly if the two tokens that meet there, merged
   alone, stay those two tokens: up to a first crossing merge each side runs as it would alone.

Let a word begin with ``data`` and let no token be longer than M bytes. Some token then ends at one
of the last M places of ``data``. If, whichever of these it is, a boundary well before them holds,
then the tokens up to that boundary are the word's, whatever follows.
"""

from __future__ import annotations

from itertools import accumulate

from asterisk.tokenizer.bpe_table import Table
from asterisk.tokenizer.merge import Merger

_GAP = 32  # bytes between the boundary and the last M places; more makes a retry rarer


class Prefix:
    """Finds the tokens that every word with a given beginning shares."""

    __slots__ = ("_merge", "_table")

    def __init__(self, table: Table, merge: Merger) -> None:
        self._table = table
        self._merge = merge

    def certain(self, data: bytes, want: int) -> list[int]:
        """Return at least ``want`` tokens that open every word beginning with ``data``, or none."""
        first = len(data) - self._table.longest + 1  # the earliest of the last places
        tokens = self._merge(data)
        ends = list(accumulate(len(self._table.token_bytes(t)) for t in tokens))
        kept = sum(end <= first - _GAP for end in ends)
        if kept < max(want, 1):
            return []
        boundary = ends[kept - 1]
        followers = {self._merge(data[boundary:end])[0] for end in range(first, len(data) + 1)}
        left = tokens[kept - 1]
        return tokens[:kept] if all(self._stand(left, right) for right in followers) else []

    def _stand(self, left: int, right: int) -> bool:
        """Whether two tokens side by side stay the two."""
        text = self._table.token_bytes(left) + self._table.token_bytes(right)
        return self._merge(text) == [left, right]

"""Byte-pair merging: the lowest-ranked pair first, the leftmost of equals, until none is left."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import pairwise

from asterisk.tokenizer.bpe_table import Table

_FIRST = 256  # the token of merge 0
_NONE = 1 << 16  # above every rank
_SHORT = 24  # bytes up to which a scan for the best pair beats a heap


class Merger:
    """Merges the bytes of one word into tokens."""

    __slots__ = ("_byte_tokens", "_displacements", "_pairs", "_slots")

    def __init__(self, table: Table) -> None:
        self._byte_tokens = bytes(table.byte_tokens)
        self._pairs = table.pairs
        self._displacements = table.pair_displacements
        self._slots = table.pair_slots

    def __call__(self, word: bytes) -> list[int]:
        """Return the tokens of ``word``, which are its own whatever stands beside it."""
        tokens = list(word.translate(self._byte_tokens))
        return self._scan(tokens) if len(tokens) <= _SHORT else self._heap(tokens)

    def _ranks(self, tokens: list[int]) -> list[int]:
        """Return the rank of each token with its right neighbour, or _NONE; the last has none."""
        pairs, displacements, slots = self._pairs, self._displacements, self._slots
        buckets, size = len(displacements), len(slots)
        ranks = []
        for left, right in pairwise(tokens):
            key = left << 16 | right
            rank = slots[(key + displacements[key % buckets]) % size]
            ranks.append(rank if pairs[rank] == key else _NONE)
        ranks.append(_NONE)
        return ranks

    def _scan(self, tokens: list[int]) -> list[int]:
        """Merge in O(n²), which for most words is the quickest."""
        pairs, displacements, slots = self._pairs, self._displacements, self._slots
        buckets, size = len(displacements), len(slots)
        ranks = self._ranks(tokens)
        while (best := min(ranks)) != _NONE:
            i = ranks.index(best)
            del tokens[i], ranks[i]
            tokens[i] = token = best + _FIRST
            if i + 1 < len(tokens):
                key = token << 16 | tokens[i + 1]
                rank = slots[(key + displacements[key % buckets]) % size]
                ranks[i] = rank if pairs[rank] == key else _NONE
            if i:
                key = tokens[i - 1] << 16 | token
                rank = slots[(key + displacements[key % buckets]) % size]
                ranks[i - 1] = rank if pairs[rank] == key else _NONE
        return tokens

    def _heap(self, tokens: list[int]) -> list[int]:
        """Merge in O(n log n): a heap of rank and place over a linked list of tokens."""
        pairs, displacements, slots = self._pairs, self._displacements, self._slots
        buckets, size = len(displacements), len(slots)
        count = len(tokens)
        shift = count.bit_length()
        mask = (1 << shift) - 1
        before = list(range(-1, count - 1))
        after = list(range(1, count + 1))
        heap = [r << shift | i for i, r in enumerate(self._ranks(tokens)) if r != _NONE]
        heapify(heap)
        while heap:
            entry = heappop(heap)
            i, rank = entry & mask, entry >> shift
            right = after[i]
            # An entry is stale once either of its two tokens has been merged into another; a
            # swallowed token is -1, which no pair contains.
            if right == count or tokens[i] << 16 | tokens[right] != pairs[rank]:
                continue
            tokens[i], tokens[right] = rank + _FIRST, -1
            after[i] = beyond = after[right]
            if beyond != count:
                before[beyond] = i
            for left in (before[i], i):
                if left >= 0 and after[left] != count:
                    key = tokens[left] << 16 | tokens[after[left]]
                    rank = slots[(key + displacements[key % buckets]) % size]
                    if pairs[rank] == key:
                        heappush(heap, rank << shift | left)
        return [token for token in tokens if token >= 0]

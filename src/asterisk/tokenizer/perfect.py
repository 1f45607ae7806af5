"""Perfect hashing by displacement, for the build: every key gets a slot of its own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count


def place(values: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Return displacements and slots: ``slots[(k + displacements[k % B]) % S]`` is k's value.

    Keys and values are integers from 0. S is the least prime that leaves one slot in a hundred
    free, B the least prime over a quarter of S that works; nothing is drawn by chance, so one
    mapping always gives one result. Slots that no key owns hold 0.
    """
    size = _prime(len(values) + len(values) // 100 + 1)
    for buckets in filter(_is_prime, count(size // 4 + 1)):
        placed = _try(values, buckets, size)
        if placed:
            return placed
    raise AssertionError("unreachable: there are always more primes")


def _try(values: Mapping[int, int], buckets: int, size: int) -> tuple[list[int], list[int]] | None:
    groups: list[list[int]] = [[] for _ in range(buckets)]
    for key in values:
        groups[key % buckets].append(key)
    every = (1 << size) - 1
    free = every
    displacements, slots = [0] * buckets, [0] * size
    # The fullest buckets choose first, while there is room; a lone key fits any free slot.
    for bucket in sorted(range(buckets), key=lambda b: (-len(groups[b]), b)):
        keys = sorted(groups[bucket])
        homes = [key % size for key in keys]
        if len(set(homes)) < len(homes):
            return None
        fits = every if homes else 0
        for home in homes:  # bit d is set where slot (home + d) % size is free
            fits &= free >> home | free << (size - home) & every
        if homes and not fits:
            return None
        if homes:
            displacement = (fits & -fits).bit_length() - 1
            displacements[bucket] = displacement
            for key, home in zip(keys, homes, strict=True):
                slot = (home + displacement) % size
                slots[slot] = values[key]
                free &= ~(1 << slot)
    return displacements, slots


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def _prime(least: int) -> int:
    return next(filter(_is_prime, count(least)))

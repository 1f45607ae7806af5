"""When measuring stops, by a clock that is not the machine's."""

from __future__ import annotations

import pytest

from asterisk.bench.worker import parts, samples, warm

SECOND = 1_000_000_000


class Ticking:
    """A clock that moves only when something is called."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost = 0, int(cost * SECOND)
        self.seen: list[str] = []

    def __call__(self) -> int:
        return self.now

    def call(self, item: str) -> None:
        self.seen.append(item)
        self.now += self.cost


def effort(**changed):
    plain = {"calls": 10, "seconds": 1.0, "most_seconds": 5.0, "cap": 50, "warm_calls": 1}
    return plain | changed


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (0.5, 10),  # both calls and seconds
        (0.05, 20),  # seconds, calls long reached
        (1.0, 5),  # at most that long
        (0.001, 50),  # the cap
    ],
)
def test_stops_as_told(cost, expected):
    clock = Ticking(cost)
    taken = samples(clock.call, ["a", "b", "c"], effort(), clock)
    assert taken == [int(cost * SECOND)] * expected
    assert clock.seen[:4] == ["a", "b", "c", "a"]


def test_warming_makes_the_calls_it_is_told():
    seen: list[str] = []
    warm(seen.append, ["a", "b"], 5, 0.0)
    assert seen == ["a", "b", "a", "b", "a"]


def test_parts_are_measured_where_there_are_any():
    class Whole:
        def encode(self, text):
            return text

    class Split(Whole):
        def tokenize(self, text):
            return [1]

        def embed_ids(self, ids):
            return ids

    spec = {"effort": effort(cap=7), "buckets": {"8": ["a"], "128": ["b", "c"]}}
    assert parts(Whole(), spec) == {}
    found = parts(Split(), spec)
    assert list(found) == ["8", "128"]
    assert {
        (part, len(samples)) for taken in found.values() for part, samples in taken.items()
    } == {("tokenize", 7), ("embed_ids", 7)}

"""The order of measurement."""

from __future__ import annotations

from collections import Counter

from asterisk.bench.plan import Cell, Row, cells

ROWS = ["a", "b", "c"]


def test_the_same_seed_gives_the_same_order_and_another_another():
    assert cells(ROWS, (1, 2), 3, 7) == cells(ROWS, (1, 2), 3, 7)
    assert cells(ROWS, (1, 2), 3, 7) != cells(ROWS, (1, 2), 3, 8)


def test_every_round_has_every_cell_once_and_memory_comes_first():
    planned = cells(ROWS, (1, 2), 3, 1)
    assert [cell.kind for cell in planned[:3]] == ["memory"] * 3
    rounds = [planned[3 + 6 * n : 9 + 6 * n] for n in range(3)]
    assert len(planned) == 21
    for number, some in enumerate(rounds):
        assert {cell.repetition for cell in some} == {number}
        assert Counter((cell.row, cell.threads) for cell in some) == Counter(
            (row, threads) for row in ROWS for threads in (1, 2)
        )
    assert len({tuple((cell.row, cell.threads) for cell in some) for some in rounds}) > 1


def test_memory_is_read_in_as_many_processes_as_asked_for():
    planned = cells(ROWS, (1,), 1, 1, weighings=9)
    memory = [(cell.row, cell.repetition) for cell in planned[:27]]
    assert Counter(memory) == Counter((row, number) for row in ROWS for number in range(9))
    assert {cell.kind for cell in planned[:27]} == {"memory"}
    assert len(planned) == 30


def test_latency_is_measured_at_the_fewest_threads_only():
    kinds = {cell.threads: cell.kind for cell in cells(ROWS, (4, 2), 1, 1)[3:]}
    assert kinds == {2: "latency", 4: "throughput"}


def test_a_row_survives_json():
    row = Row("a", "A", "r", "m:f", "p", ("x",), ("y",), 1, thresholds={"cosine_min": 0.9})
    from dataclasses import asdict

    assert Row.from_dict(asdict(row)) == row
    assert str(Cell("a", "latency", 1, 0)) == "a latency, 1 thread, process 1"

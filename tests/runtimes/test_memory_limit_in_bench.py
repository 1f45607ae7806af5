"""A memory limit in the benchmark: it reaches the workers, and the report says what it did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asterisk.bench import collect, plan, process
from asterisk.bench.comparison import differences
from asterisk.bench.plan import QUICK, Cell, Row
from asterisk.bench.results import Report, RowResult
from asterisk.bench.runner import Request, Work
from asterisk.cli.bench import parser
from asterisk.common.errors import UsageError

MB = 1 << 20
RECORDED = Path(__file__).parents[1] / "bench" / "recorded.json"


def row(name: str, path: object = "", *, peer: bool = False) -> Row:
    return Row(name, name, "int8", "asterisk:load", str(path), (), (), 0, peer=peer)


def spec(folder: Path, one: Row, limit: int | None) -> dict:
    nowhere = (folder, folder, folder)
    request = Request((), (), *nowhere, (1,), QUICK, 1, 60.0, max_memory=limit)
    words = " ".join(["word"] * 20)
    prepared = {"buckets": {"20": [words]}, "mixed": [words] * 64, "long": words * 40, "texts": []}
    work = Work(folder, {one.name: one}, prepared, request)
    return work.spec(Cell(one.name, "memory", 2, 1))


def test_formats_are_opened_with_the_limit_and_others_without(tmp_path):
    assert spec(tmp_path, row("onnx"), 128 * MB)["max_memory"] == 128 * MB
    assert "max_memory" not in spec(tmp_path, row("onnx"), None)
    assert "max_memory" not in spec(tmp_path, row("torch"), 128 * MB)
    assert "max_memory" not in spec(tmp_path, row("minilm", peer=True), 128 * MB)


@pytest.mark.slow
def test_a_worker_keeps_to_the_limit_and_tells_what_it_cost(artifact_of, tmp_path):
    one = row("tflite", artifact_of("tflite", "int8"))
    asked = spec(tmp_path, one, 68 * MB)
    answer = process.ask("asterisk.bench.worker", asked, 60.0)
    assert "1 thread instead of 2" in answer["lessened"]
    peak = answer["memory"]["batch"]["peak"]
    assert 30 * MB < peak < 68 * MB
    result = collect.collect(one, [(Cell("tflite", "memory", 2, 0), answer)], 64)
    assert collect.memory_warnings([one], [result], 68 * MB) == [
        f"tflite, 2 threads: {answer['lessened']}"
    ]
    (_, over) = collect.memory_warnings([one], [result], peak - MB)
    assert "is over the memory limit" in over
    with pytest.raises(process.CellError, match=r"LimitTooLow: .* is not enough"):
        process.ask("asterisk.bench.worker", asked | {"max_memory": 20 * MB}, 60.0)


def test_rows_that_know_no_limit_are_named():
    rows = [row("torch"), row("minilm", peer=True), row("onnx")]
    results = [RowResult(one.name, one.name, "int8", one.peer, 0) for one in rows]
    told = collect.memory_warnings(rows, results, MB)
    assert [line.split(":")[0] for line in told] == ["torch", "minilm"]


def test_runs_under_different_limits_say_so_when_compared():
    old = Report.from_json(RECORDED.read_text("utf-8"))
    new = replace(old, settings=old.settings | {"max_memory": 128 * MB})
    assert not differences(old, old)
    assert not differences(new, new)
    (line,) = differences(old, new)
    assert "the memory limit was none, is 134217728" in line


def test_the_limit_may_stand_in_a_plan(tmp_path):
    assert parser().parse_args(["--max-memory", "128M"]).max_memory == 128 * MB
    assert plan.check({"max-memory": "128M"}) == {"max_memory": 128 * MB}
    with pytest.raises(UsageError, match="is no amount of memory"):
        plan.check({"max-memory": "lots"})

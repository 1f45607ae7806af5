"""Sets of every layout, and one clear line for anything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asterisk.common.errors import AsteriskError, InputError, UnknownName, UsageError
from asterisk.evaluation import sets
from asterisk.evaluation.sets import Labelled, Pairs, Retrieval

from .conftest import write, write_retrieval


def test_the_kind_is_read_from_the_files(data):
    found = {path.name: sets.load(path, "test").sets for path in sets.folders([data])}
    assert {name: type(some[0]) for name, some in found.items()} == {
        "groups": Labelled,
        "para": Pairs,
        "ret_toy": Retrieval,
        "sts": Pairs,
        "topics": Labelled,
    }
    assert found["sts"][0].graded
    assert not found["para"][0].graded
    assert not found["groups"][0].train
    assert [len(found[name][0]) for name in ("sts", "topics", "ret_toy")] == [50, 50, 40]


def test_without_a_dev_file_a_fixed_tenth_leaves_train(data):
    (dev,) = sets.load(data / "topics", "dev").sets
    assert 10 < len(dev) < 60
    assert len(dev) + len(dev.train) == 300
    assert not set(dev.texts) & set(dev.train)
    (again,) = sets.load(data / "topics", "dev").sets
    assert again == dev
    (test,) = sets.load(data / "topics", "test").sets
    assert len(test.train) == 300  # the test split is judged with all of train
    (sts,) = sets.load(data / "sts", "dev").sets
    assert len(sts) == 40


def test_test_only_sets_are_noted_on_dev(data):
    assert sets.load(data / "groups", "dev").notes == ["groups has no dev split"]
    assert sets.load(data / "ret_toy", "dev").notes == ["ret_toy is a test set"]


def test_retrieval_dev_sets_are_called_so(tmp_path):
    for folder in (tmp_path / "ret_x_dev", tmp_path / "dev" / "ret_x"):
        write_retrieval(folder, np.random.default_rng(0))
        assert sets.load(folder, "dev").sets
        assert sets.load(folder, "test").notes == [f"{folder.name} is a dev set"]


def test_variants_of_queries(data):
    folder = data / "ret_toy"
    write(folder / "queries_summary.tsv", [("s0", "a cat"), ("s1", "nobody judged this")])
    write(folder / "qrels_summary.tsv", [("s0", "d3", 2), ("s1", "d3", 0)])
    one, other = sets.load(folder, "test").sets
    assert (one.name, other.name) == ("ret_toy", "ret_toy:summary")
    assert other.queries == ["a cat"]
    assert other.relevant == [{3: 2.0}]


def test_sets_are_chosen_by_name(data, tmp_path):
    assert [path.name for path in sets.folders([data], ["sts"])] == ["sts"]
    with pytest.raises(UnknownName, match="no set named 'none'"):
        sets.folders([data], ["none"])
    write(tmp_path / "more" / "sts" / "test.tsv", [(1, "a", "b")])
    with pytest.raises(UsageError, match="two sets are named sts"):
        sets.folders([data, tmp_path / "more"])
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        with pytest.raises(InputError):
            sets.folders([tmp_path / folder])


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"readme.txt": "x"}, "unknown layout"),
        ({"test.tsv": "a\n"}, "1 columns"),
        ({"test.tsv": "1\ta\tb\tc\n"}, "4 columns"),
        ({"test.tsv": "one\ta\tb\n"}, "first column is no number"),
        ({"test.tsv": "1\ta\tb\n2\ta\n"}, "line 2"),
        ({"test.tsv": "1\ta\t \n"}, "line 1"),
        ({"test.tsv": "x\ty\n\nx\ty\n"}, "line 2"),
        ({"corpus.tsv": "d0\ta\n"}, "without queries.tsv"),
        ({"corpus.tsv": "d0\ta\n", "queries.tsv": "q0\ta\n"}, "without qrels.tsv"),
        (
            {"corpus.tsv": "d0\ta\nd0\tb\n", "queries.tsv": "q0\ta\n", "qrels.tsv": "q0\td0\t1\n"},
            "occurs twice",
        ),
        (
            {"corpus.tsv": "d0\ta\n", "queries.tsv": "q0\ta\n", "qrels.tsv": "q0\td7\t1\n"},
            "is no judgement",
        ),
        (
            {"corpus.tsv": "d0\ta\n", "queries.tsv": "q0\ta\n", "qrels.tsv": "q0\td0\t0\n"},
            "no query has",
        ),
    ],
)
def test_unknown_layouts_and_damaged_lines(tmp_path, files, told):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(InputError, match=told):
        sets.load(folder, "test")


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path, raw):
    folder = tmp_path / "any"
    folder.mkdir(exist_ok=True)
    (folder / "test.tsv").write_bytes(raw)
    try:
        found = sets.load(folder, "test")
    except AsteriskError:
        return
    assert len(found.sets[0]) > 0

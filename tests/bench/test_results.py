"""Reports that somebody else wrote, and the command that compares them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from asterisk.bench import results
from asterisk.bench.results import Report, read
from asterisk.cli.bench import main
from asterisk.common.errors import InputError

RECORDED = Path(__file__).with_name("recorded.json")


def test_what_was_written_is_read_again(report):
    assert asdict(read(RECORDED)) == asdict(report)


def put(values, *path):
    """Return the recorded report with the last of ``path`` in the place of what is there."""
    found = values
    for key in path[:-2]:
        found = found[key]
    found[path[-2]] = path[-1]
    return json.dumps(values)


@pytest.mark.parametrize(
    "path",
    [
        ("schema", 1),
        ("rows", 3),
        ("rows", 0, "name", 7),
        ("rows", 0, "size", "large"),
        ("rows", 0, "size", True),
        ("rows", 0, "samples_ns", "8", [["1"]]),
        ("rows", 0, "samples_ns", {"8": [{}]}),
        ("rows", 0, "samples_ns", "8", [[10**400]]),
        ("rows", 0, "latency", "8", {"p50": 1.0}),
        ("rows", 0, "fidelity", {"cosine_mean": "1"}),
        ("rows", 0, "fidelity", {"cosine_mean": float("nan")}),
        ("rows", 0, "weighings", [{"steady": 3}]),
        ("rows", 0, "__class__", {}),
        ("surprise", 1),
        ("targets", {"local": []}),
        ("machine", []),
        ("machine", {"cores": float("inf")}),
    ],
)
def test_another_shape_is_one_line(tmp_path, path):
    file = tmp_path / "old.json"
    file.write_text(put(json.loads(RECORDED.read_text("utf-8")), *path), "utf-8")
    with pytest.raises(InputError) as refused:
        read(file)
    told = str(refused.value)
    assert "is not a report of asterisk-bench" in told
    assert "\n" not in told
    assert len(told) < 400


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"schema": 2}', b'{"schema": 1e999}'],
)
def test_what_is_no_report_is_one_line(tmp_path, data):
    file = tmp_path / "old.json"
    file.write_bytes(data)
    with pytest.raises(InputError, match="is not a report of asterisk-bench"):
        read(file)


def test_a_large_number_written_short_is_refused(tmp_path):
    file = tmp_path / "old.json"
    file.write_text(RECORDED.read_text("utf-8").replace("31000000", "1e999", 1), "utf-8")
    with pytest.raises(InputError, match="is not a report"):
        read(file)


def test_no_more_is_read_than_a_report_can_have(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "MAX_BYTES", RECORDED.stat().st_size)
    read(RECORDED)
    file = tmp_path / "old.json"
    file.write_bytes(RECORDED.read_bytes() + b" ")
    with pytest.raises(InputError, match="is larger than"):
        read(file)


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, told in (("pipe", "not a file"), ("", "not a file"), ("none", "No such file")):
        with pytest.raises(InputError, match=told):
            read(tmp_path / path)


@pytest.fixture
def saved(report, tmp_path):
    """Write the recorded report, changed, under a name."""

    def save(file: str, **changed: object) -> Path:
        copy = Report.from_json(report.to_json())
        for attribute, value in changed.items():
            setattr(copy.rows[1], attribute, value)
        path = tmp_path / file
        path.write_text(copy.to_json(), "utf-8")
        return path

    return save


@pytest.fixture
def compared(capsys):
    """Run the command; return its status and what it printed."""

    def run(*arguments):
        status = main([*map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def test_the_command_tells_a_regression_by_its_status(saved, compared):
    old, new = saved("old.json"), saved("new.json", size=99_000_000)
    limits = ("--fail-on", "size:1%,p50:5%")
    status, out, error = compared("--compare", old, "--with", new, *limits)
    assert status == 9
    assert "**regression**" in out
    assert "inconclusive: fewer than 9 processes" in out
    assert error == "asterisk-bench: worse than allowed: onnx size MB\n"
    for arguments in ((old, "--with", old, "--fail-on", "size:1%"), (old, "--with", new)):
        status, out, error = compared("--compare", *arguments)
        assert (status, error) == (0, "")
    assert "regression" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--with", "OLD"), (2, "--with needs --compare")),
        (("--fail-on", "p50:5%"), (2, "--fail-on needs --compare")),
        (("--force",), (2, "--force needs --compare")),
        (("--compare", "OLD", "--fail-on", "p50:fast"), (2, "--fail-on p50 takes a percentage")),
        (("--compare", "none.json"), (4, "none.json: No such file")),
        (("--compare", "OLD", "--with", "none.json"), (4, "none.json: No such file")),
        (("--compare", "OLD", "--out", "results"), (2, "cpu was some CPU, is")),
    ],
)
def test_a_comparison_that_cannot_be_made_is_one_line(
    saved, compared, tmp_path, arguments, expected
):
    """The last of them before anything is measured: it would take minutes."""
    old = saved("old.json")
    places = {"OLD": old, "none.json": tmp_path / "none.json", "results": tmp_path / "results"}
    status, out, error = compared(*(places.get(argument, argument) for argument in arguments))
    assert status == expected[0]
    assert expected[1] in error
    assert error.count("\n") == 1
    assert out == ""


def test_what_a_terminal_would_obey_is_not_repeated(saved, compared):
    old = saved("old.json", name="\x1b[2J| <b>evil\nname")
    status, out, _ = compared("--compare", old, "--with", old)
    assert status == 0
    assert "\x1b" not in out
    assert r"?[2J\| &lt;b>evil name" in out

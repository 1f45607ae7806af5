"""What a run writes, and writing it again from its JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from asterisk.bench import report as report_module
from asterisk.bench.report import renderings, write
from asterisk.bench.results import MAX_BYTES, Report
from asterisk.cli.bench import main
from asterisk.common.errors import OutputError
from bench.reports import full, recorded

ALL = {
    *("latest.json", "latest.md", "latest.csv", "latest.html"),
    *("latency-memory.svg", "latency.svg", "memory.svg"),
    *("throughput.svg", "instructions.svg"),
}


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def damaged(**changed) -> str:
    values = json.loads(recorded().to_json())
    for path, value in changed.items():
        at = values
        *parts, last = path.split("__")
        for part in parts:
            at = at[int(part) if isinstance(at, list) else part]
        at[last] = value
    return json.dumps(values)


def test_everything_is_written_and_the_json_first(tmp_path):
    assert next(iter(renderings(full())))[0] == "latest.json"
    write(full(), tmp_path / "new" / "folder")
    assert names(tmp_path / "new" / "folder") == ALL


def test_a_picture_of_an_earlier_run_does_not_stay(tmp_path):
    write(full(), tmp_path)
    (tmp_path / "own.svg").write_text("mine", "utf-8")
    report = full()
    report.rows = [row for row in report.rows if not row.instructions]
    write(report, tmp_path)
    assert names(tmp_path) == ALL - {"instructions.svg"} | {"own.svg"}


def test_what_is_measured_is_kept_where_a_rendering_fails(tmp_path, monkeypatch):
    def fail(report, pictures):
        raise ZeroDivisionError

    monkeypatch.setattr(report_module, "html_page", fail)
    with pytest.raises(ZeroDivisionError):
        write(full(), tmp_path)
    assert Report.from_json((tmp_path / "latest.json").read_text("utf-8")) == full()


TEXT = {"latest.json", "latest.md", "latest.csv"}


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_figures_need_no_picture_and_what_lacks_is_one_line(tmp_path, monkeypatch, capsys, package):
    write(full(), tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    again = ["--render", str(tmp_path / "latest.json"), "--out", str(tmp_path)]
    assert main(again) == 3
    assert names(tmp_path) == TEXT  # no page of an earlier run either
    error = capsys.readouterr().err
    assert package in error
    assert "asterisk-edge[bench]" in error
    assert error.count("\n") == 1


def test_text_is_rendered_without_either(python):
    code = """
import json, sys
from asterisk.bench.report import renderings
from asterisk.bench.results import Report
texts = renderings(Report.from_json(open(sys.argv[1]).read()))
names = [next(texts)[0] for _ in range(3)]
print(json.dumps([names, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    done = python(code, str(Path(__file__).with_name("recorded.json")))
    assert done.returncode == 0, done.stderr
    found, modules = json.loads(done.stdout)
    assert set(found) == TEXT
    assert not {"matplotlib", "jinja2", "scipy", "numpy"} & set(modules)


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        write(full(), tmp_path / "file" / "out")


def test_rendering_again_gives_the_same_files(tmp_path, capsys):
    write(full(), tmp_path / "one")
    arguments = ["--render", str(tmp_path / "one" / "latest.json"), "--out", str(tmp_path / "two")]
    assert main(arguments) == 0
    for name in ALL:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert capsys.readouterr().out == (tmp_path / "one" / "latest.md").read_text("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        '{"schema": 1}',
        '{"schema": 2}',
        "[" * 100_000,
        '{"schema": 2, "rows": ' + "9" * 5_000 + "}",
        damaged(rows__0__size="large"),
        damaged(rows__0__size=float("nan")),
        damaged(rows__0__latency__8__p50=float("inf")),
        damaged(rows__0__latency={"eight": {}}),
        damaged(rows__0__throughput={"many": 1.0}),
        damaged(rows__0__throughput={"\u00b2": 1.0}),
        damaged(rows__0__memory__steady__pss=[1]),
        damaged(rows__0__installed={}),
        damaged(rows__0__colour="red"),
        damaged(settings__buckets="8"),
        damaged(settings__effort={}),
        damaged(settings={}),
        damaged(machine__packages=["numpy"]),
        damaged(machine__cpu=5),
        damaged(machine__ram_bytes="much"),
        damaged(checkpoint={}),
        damaged(targets={"pi": {"warnings": 5}}),
        damaged(targets={"pi": {"machine": "pi"}}),
        damaged(rows=[json.loads(recorded().to_json())["rows"][0]] * 1_001),
    ],
)
def test_what_is_no_report_is_one_line_and_nothing_is_written(tmp_path, capsys, text):
    path = tmp_path / "old.json"
    path.write_text(text, "utf-8")
    assert main(["--render", str(path), "--out", str(tmp_path / "out")]) == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 500 + len(str(path))
    assert not (tmp_path / "out").exists()


def test_a_huge_file_is_refused_unread(tmp_path, capsys):
    path = tmp_path / "old.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert main(["--render", str(path), "--out", str(tmp_path / "out")]) == 4
    assert "MiB" in capsys.readouterr().err


def test_rendering_and_comparing_are_two_things(capsys):
    assert main(["--render", "some.json", "--compare", "some.json"]) == 2
    assert "--render" in capsys.readouterr().err


@pytest.mark.parametrize("study", ["pareto", "models"])
def test_a_study_is_refused_with_its_own_command(capsys, study):
    assert main([f"--{study}", "page.md", "--data", "eval"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"python -m benchmarks.{study} PAGE")

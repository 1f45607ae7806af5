"""`asterisk`, the one command that knows the others."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from asterisk.cli.main import GROUPS, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def asterisk(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code or 0, *capsys.readouterr()

    return call


def test_every_command_that_is_installed_is_listed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    listed = {f"asterisk-{name}" for group in GROUPS.values() for name in group}
    assert listed | {"asterisk"} == set(scripts)


def test_alone_it_lists_the_commands_in_groups(asterisk):
    status, out, _ = asterisk()
    assert status == 0
    for title, group in GROUPS.items():
        assert f"\n{title}:\n" in out
        for name in group:
            assert f"\n  {name} " in out


@pytest.mark.parametrize("name", [name for group in GROUPS.values() for name in group])
def test_a_command_runs_by_its_name(asterisk, name):
    status, out, _ = asterisk(name, "--help")
    assert status == 0
    assert out.startswith(f"usage: asterisk-{name}")


def test_another_name_is_one_line():
    line = [sys.executable, "-m", "asterisk", "exprot"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "invalid choice: 'exprot'" in done.stderr

"""`asterisk`, the one command that knows the others."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from asterisk.cli.main import GROUPS

ROOT = Path(__file__).resolve().parents[2]


def asterisk(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "asterisk", *arguments], capture_output=True, text=True, check=False
    )


def test_every_command_that_is_installed_is_listed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    listed = {f"asterisk-{name}" for group in GROUPS.values() for name in group}
    assert listed | {"asterisk"} == set(scripts)


def test_alone_it_lists_the_commands_in_groups():
    done = asterisk()
    assert done.returncode == 0, done.stderr
    for title, group in GROUPS.items():
        assert f"\n{title}:\n" in done.stdout
        for name in group:
            assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", [name for group in GROUPS.values() for name in group])
def test_a_command_runs_by_its_name(name):
    done = asterisk(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: asterisk-{name}")


def test_another_name_is_one_line():
    done = asterisk("exprot")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "invalid choice: 'exprot'" in done.stderr

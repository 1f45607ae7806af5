"""The commands in a bundle's ``bin``: shell scripts that start the board's own Python."""

from __future__ import annotations

import importlib
from pathlib import Path

from asterisk.deploy.boards import Board

COMMANDS = ("embed", "verify", "search", "dedup", "demo", "serve", "bench")
WITHOUT_DEFAULTS = ("bench",)  # it measures what it is told to
_START = """#!/bin/sh
# Made by asterisk-bundle. ASTERISK_PYTHON names another interpreter of Python {python}, and what is
# to be found before the bundle's own packages stands in ASTERISK_PYTHONPATH.
here=$(dirname -- "$(readlink -f -- "$0")")
here=${{here%/bin}}
first="${{ASTERISK_PYTHONPATH:+$ASTERISK_PYTHONPATH:}}$here/site"
export PYTHONPATH="$first${{PYTHONPATH:+:$PYTHONPATH}}"
# What is installed stays as it was verified.
export PYTHONDONTWRITEBYTECODE="${{PYTHONDONTWRITEBYTECODE-1}}"
if [ -d "$here/lib" ]; then
  export LD_LIBRARY_PATH="$here/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
fi
python=${{ASTERISK_PYTHON:-$(command -v python{python} || command -v python3 || echo python3)}}
exec "$python" -P -s{words} "$@"
"""


def write(folder: Path, python: str, board: Board) -> None:
    """Write ``python`` and a launcher for each command of this package that devices have."""
    folder.mkdir()
    _write(folder / "python", python, "")
    for command in COMMANDS:
        module = f"asterisk.cli.{command}"
        try:
            known = importlib.import_module(module).parser()._option_string_actions
        except ModuleNotFoundError:
            continue
        words = f" -m {module}"
        if command not in WITHOUT_DEFAULTS:
            if "--threads" in known:
                words += f" --threads {board.threads}"
            if "--max-memory" in known and board.max_memory is not None:
                words += f" --max-memory {board.max_memory}"
        _write(folder / f"asterisk-{command}", python, words)


def _write(path: Path, python: str, words: str) -> None:
    path.write_text(_START.format(python=python, words=words), "utf-8")
    path.chmod(0o755)

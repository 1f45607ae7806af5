"""Every module can be imported first, alone: a circular import shows in one order only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import asterisk

ROOT = Path(asterisk.__file__).parent
CODE = """
import importlib, os, sys
for name in sys.argv[1:]:
    if (child := os.fork()) == 0:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] == "asterisk":
                raise
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name)
"""


def test_every_module_can_be_imported_first():
    paths = [path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py")]
    names = [".".join(("asterisk", *path.parts)) for path in paths if path.name != "__main__"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *sorted(name.removesuffix(".__init__") for name in names)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "", done.stderr[-2000:]

"""A report written down once, and rows whose worker misbehaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from asterisk.bench.plan import Row
from asterisk.bench.results import Report

ROWS = """
import numpy as np, os, time

class Encoder:
    def encode(self, texts):
        return np.ones(4, "f4") if isinstance(texts, str) else np.ones((len(texts), 4), "f4")

def good(path, threads):
    print("an engine that talks")
    os.write(1, b"and one that does it in C\\n")
    return Encoder()

def refuse(path, threads):
    raise ValueError("two\\nlines")

def crash(path, threads):
    os.abort()

def leave(path, threads):
    print("its last words", flush=True)
    os._exit(3)

def hang(path, threads):
    time.sleep(60)

def rubbish(path, threads):
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"rubbish\\n")
        except OSError:
            pass
    return Encoder()
"""


@pytest.fixture
def report() -> Report:
    """A report as some earlier run left it."""
    return Report.from_json(Path(__file__).with_name("recorded.json").read_text("utf-8"))


@pytest.fixture
def row_of(tmp_path, monkeypatch):
    """Make a row from the name of one of the functions above."""
    (tmp_path / "some_rows.py").write_text(ROWS, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(name: str) -> Row:
        return Row(name, name, "none", f"some_rows:{name}", str(tmp_path), (), (), 0)

    return make

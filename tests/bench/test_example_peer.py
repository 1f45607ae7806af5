"""A peer of somebody else's, built and installed as pip does, measured by the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, install_example

pytestmark = pytest.mark.slow
EXAMPLE = ROOT / "examples" / "asterisk-peer"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example, installed into a folder of its own from a copy of its source."""
    return install_example(EXAMPLE, tmp_path_factory.mktemp("example-peer"))


def test_it_stands_in_the_table_like_any_other(installed, toy_folder, tmp_path):
    def bench(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "asterisk.cli.bench", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env={**os.environ, "PYTHONPATH": str(installed)},
        )

    assert "trigrams" in bench("--help").stdout
    options = [toy_folder, "--out", tmp_path / "o", "--processes", 1]
    done = bench("--runtime", "trigrams", "--threads", 1, *options)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "o" / "latest.json").read_text("utf-8"))["rows"]
    assert (row["name"], row["peer"], row["model"]) == ("trigrams", True, "hashed trigrams")
    assert row["size"] == pytest.approx((1 << 14) * 256 * 2, rel=1e-3)
    assert set(row["parts_ms"]) == {"8", "20", "128"}
    assert row["fidelity"]["cosine_min"] > 0.9999
    assert row["fidelity"]["cosine_mean"] < 1
    assert row["stability"] == pytest.approx(1)
    assert set(row["memory"]) == {"start", "import", "load", "first", "steady", "long", "batch"}
    assert "hashed trigrams" in done.stdout

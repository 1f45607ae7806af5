"""Memory grows with the rows, never with their pairs."""

from __future__ import annotations

import json

import pytest

CODE = """
import json, os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np
from asterisk.bench.worker import snapshot
from asterisk.apps.dedup.clustering import clusters
from asterisk.apps.dedup.spool import Rows
from asterisk.apps.dedup.vectors import Vectors

count, dim = int(sys.argv[1]), int(sys.argv[2])
draw, rows = np.random.default_rng(0), Rows(np.int8, 1 << 20)
for _ in range(count // 2_000):
    one = draw.integers(-127, 128, (1_000, dim), np.int8)
    one[:, 0] = 127
    rows.append(one)
    rows.append(np.clip(one.astype(int) + draw.integers(-3, 4, one.shape), -127, 127))
before = snapshot()["peak"]
found = clusters(Vectors(rows.finish(dim), rows.release), 0.97, threads=2)
near = sum(len(cluster.members) == 2 for cluster in found)
print(json.dumps({"near": near, "before": before, "peak": snapshot()["peak"]}))
"""


@pytest.mark.parametrize(
    ("count", "dim", "most"),
    [
        (30_000, 64, 150),
        pytest.param(200_000, 64, 250, marks=pytest.mark.campaign),
        pytest.param(1_000_000, 64, 600, marks=pytest.mark.campaign),
    ],
)
def test_random_rows_with_a_twin_each(python, count, dim, most):
    done = python(CODE, count, dim)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["peak"] < most << 20
    assert told["near"] > 0.98 * count / 2

"""Hostile texts through one runtime, in a process that may die of them.

``python texts_child.py ARTIFACT SEED COUNT SAMPLE.npz`` prints one JSON line of counts and keeps
every 50th vector beside its text's ids. It fails on the first text that is neither embedded nor
refused as it should be.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import asterisk
from asterisk.common.errors import InputError
from hardening.hostile import texts

BATCH, EVERY = 64, 50


def main(folder: str, seed: int, count: int, sample: str) -> None:
    told = {"texts": 0, "embedded": 0, "refused": 0}
    ids: list[list[int]] = []
    vectors = []
    stream = texts(seed, count)
    with asterisk.load(folder) as runtime:
        while some := list(islice(stream, BATCH)):
            told["texts"] += len(some)
            full = [text for text in some if text]
            for _ in range(len(some) - len(full)):
                try:
                    runtime.encode("")
                except InputError:
                    told["refused"] += 1
            together = runtime.encode(full)
            assert together.dtype == np.float32
            assert together.shape == (len(full), runtime.config.embedding_size)
            assert np.isfinite(together).all()
            assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-5
            for index in reversed(range(len(full))):
                alone = runtime.encode(full[index])
                assert np.array_equal(alone, together[index]), ascii(full[index][:200])
            for index in range(told["embedded"] % EVERY, len(full), EVERY):
                ids.append(runtime.tokenize(full[index]))
                vectors.append(together[index])
            told["embedded"] += len(full)
        told["truncated"] = runtime.truncated
    lengths = np.array([len(one) for one in ids])
    np.savez(sample, ids=np.concatenate(ids), lengths=lengths, vectors=np.stack(vectors))
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

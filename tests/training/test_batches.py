"""The order of batches: whole, repeatable, bounded, and behind a teacher at work."""

from __future__ import annotations

import shutil
import threading
import time
from itertools import islice

import numpy as np
import pytest

from asterisk.common.errors import ArtifactError
from asterisk.training import batches
from asterisk.training.batches import Targets, plan, plan_pairs
from training.toy import texts, write_shard, write_targets


@pytest.fixture
def small(tmp_path, monkeypatch):
    """300 texts in shards of 64."""
    monkeypatch.setattr(batches, "SHARD", 64)
    some = texts(300, 0)
    write_targets(tmp_path / "targets", some, some[:20], shard=64)
    projection = np.load(tmp_path / "targets" / "projection.npy")
    return tmp_path / "targets" / "train", projection


def epochs(targets, count):
    found, seen = [], 0
    for batch in plan(targets, 64, seed=3):
        found.append(batch)
        seen += len(batch)
        if seen >= count * len(targets):
            return found
    return found


@pytest.mark.parametrize("count", [300, 290, 64, 40])
def test_every_text_once_an_epoch(small, count):
    targets = Targets(small[0], count, small[1])
    found = epochs(targets, 2)
    seen = np.concatenate(found)
    assert sorted(seen[:count]) == sorted(seen[count:]) == list(range(count))
    lengths = targets.all_lengths()
    for batch in found:
        assert len(batch) * lengths[batch].max() <= max(64, lengths[batch].max())
    assert found == epochs(Targets(small[0], count, small[1]), 2)


def test_the_first_epoch_takes_shards_as_they_come(small):
    seen = np.concatenate(epochs(Targets(small[0], 300, small[1]), 1))
    assert [n // 64 for n in seen] == sorted(n // 64 for n in seen)


def test_shards_come_again(small):
    targets = Targets(small[0], 300, small[1])
    seen = []
    for batch in islice(plan(targets, 64, seed=3, replay=2), 400):
        if not seen or seen[-1] != batch[0] // 64:
            seen.append(batch[0] // 64)
    assert seen[:11] == [0, 1, 2, 0, 3, 1, 0, 4, 2, 1, 0]


def test_a_batch_is_what_the_shards_hold(small):
    targets = Targets(small[0], 300, small[1])
    batch = targets.gather([70, 3, 299])
    shard = targets.shard(1)
    begin, end = shard.ends[5], shard.ends[6]
    assert batch.ids[0][batch.mask[0]].tolist() == shard.ids[begin:end].tolist()
    expected = shard.tokens[begin:end] * shard.scales[begin:end, None]
    assert np.allclose(batch.tokens[0][batch.mask[0]], expected)
    assert np.allclose(batch.sentences[0], targets.sentences(1)[6], atol=1e-6)
    assert not batch.tokens[~batch.mask].any()
    assert not batch.asked[~batch.mask].any()


def test_pairs_stay_together_and_are_all_met():
    pairs = np.stack([np.arange(40), np.arange(40) + 100], axis=1)
    found = list(islice(plan_pairs(pairs, 8, seed=1), 5))
    assert all(
        second == first + 100 for b in found for first, second in zip(b[:8], b[8:], strict=True)
    )
    assert sorted(first for batch in found for first in batch[:8]) == list(range(40))
    assert found == list(islice(plan_pairs(pairs, 8, seed=1), 5))


def test_a_shard_that_is_missing_or_short(small):
    with pytest.raises(ArtifactError, match="too few texts"):
        Targets(small[0], 310, small[1]).all_lengths()
    shutil.rmtree(small[0] / "shard-00004")
    with pytest.raises(ArtifactError, match="asterisk-teacher"):
        Targets(small[0], 300, small[1]).all_lengths()


def test_a_teacher_at_work_is_followed(small):
    folder, projection = small
    late = folder / "shard-00004"
    shutil.rmtree(late)

    def teach():
        time.sleep(0.2)
        write_shard(folder / ".part", texts(44, 9), projection)
        (folder / ".part").rename(late)

    thread = threading.Thread(target=teach)
    thread.start()
    targets = Targets(folder, 300, projection, patience=30)
    assert len(targets.all_lengths()) == 300
    thread.join()

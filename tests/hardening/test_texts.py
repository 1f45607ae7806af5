"""Whatever the text: one right vector or one error, in bounded memory, from any thread or fork."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from conftest import SHIPPED, thresholds_of
from hypothesis import given, settings

import asterisk
from asterisk.common.errors import InputError
from asterisk.model.checkpoint import load as load_checkpoint
from asterisk.runtimes.torch import reference
from hardening import hostile
from hardening.campaign import texts as texts_campaign
from hardening.conftest import RECIPES

every = pytest.mark.parametrize("name", sorted(RECIPES))
# kB. Not a leak's rate: a rare long text can leave the heap one step of 3 MB larger.
GROWTH = 5_000


@pytest.fixture(scope="module")
def truth():
    return reference(load_checkpoint(SHIPPED))


@pytest.fixture(scope="module")
def shipped_artifact(tmp_path_factory):
    """Export the shipped checkpoint once a format, when first asked for."""
    from asterisk.exporters.export import export

    root = tmp_path_factory.mktemp("shipped")

    def get(name):
        if not (root / name).exists():
            export(load_checkpoint(SHIPPED), name, RECIPES[name], root / name)
        return root / name

    return get


def check(name, artifact, truth, *, count, seed, timeout):
    told, sample = texts_campaign(artifact, seed, count, timeout)
    assert told["texts"] == count
    assert told["embedded"] + told["refused"] == count
    assert told["refused"] < count / 10  # the empty ones
    assert told["truncated"] > 0
    least = thresholds_of(name, RECIPES[name]).cosine_min
    cosines = [
        row @ vector / np.sqrt((row @ row) * (vector @ vector))
        for ids, row in sample
        for vector in (truth.embed_ids(ids),)
    ]
    assert min(cosines) >= least
    assert len(cosines) > count // 60


@every
def test_two_thousand_hostile_texts(shipped_artifact, truth, name):
    check(name, shipped_artifact(name), truth, count=2_000, seed=1, timeout=120)


@every
@pytest.mark.campaign
@pytest.mark.timeout(3_000)
def test_a_hundred_thousand_hostile_texts(shipped_artifact, truth, name):
    check(name, shipped_artifact(name), truth, count=100_000, seed=2, timeout=2_900)


@every
@settings(max_examples=150, deadline=None)
@given(text=hostile.any_text())
def test_any_string(runtime_of, name, text):
    runtime = runtime_of(name)
    if not text:
        with pytest.raises(InputError):
            runtime.encode(text)
        return
    vector = runtime.encode(text)
    assert np.isfinite(vector).all()
    assert abs(np.linalg.norm(vector) - 1) < 1e-5
    assert np.array_equal(runtime.encode(["before", text, "after"])[1], vector)


@pytest.fixture(scope="module")
def runtime_of(small_artifact):
    opened = {}

    def get(name):
        if name not in opened:
            opened[name] = asterisk.load(small_artifact(name))
        return opened[name]

    return get


@every
def test_eight_threads_on_eight_lanes_and_on_one(small_artifact, name):
    some = [text for text in hostile.texts(3, 250, longest=3_000) if text]
    with asterisk.load(small_artifact(name)) as runtime:
        expected = runtime.encode(some)
    for lanes in (1, 8):
        with asterisk.load(small_artifact(name), threads=lanes) as runtime:
            wrong = []

            def work(offset, runtime=runtime, wrong=wrong):
                for index in range(len(some)):
                    at = (index * 7 + offset * 30) % len(some)
                    if not np.array_equal(runtime.encode(some[at]), expected[at]):
                        wrong.append(at)

            threads = [threading.Thread(target=work, args=(offset,)) for offset in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not wrong
            assert np.array_equal(runtime.encode(some), expected)


@every
def test_forks(child, small_artifact, name):
    told = child("forks_child.py", small_artifact(name), timeout=500)
    busy = told.pop("busy")
    answers = {*itertools.chain(told.pop("idle")), *told.values()}
    assert answers == {"right"}
    # Idle lanes go along; a runtime that was wholly in use says so at once.
    assert set(busy) <= {"right", "refused"}
    assert "refused" in busy


@every
def test_memory_over_three_thousand_texts(child, small_artifact, name):
    told = child("memory_child.py", small_artifact(name), 3_000)
    before, after = told["own"]
    assert after - before < GROWTH, told


@every
@pytest.mark.campaign
@pytest.mark.timeout(3_000)
def test_memory_over_fifty_thousand_texts(child, shipped_artifact, name):
    told = child("memory_child.py", shipped_artifact(name), 50_000, timeout=2_900)
    before, after = told["own"]
    assert after - before < GROWTH, told
    assert told["truncated"] > 1_000

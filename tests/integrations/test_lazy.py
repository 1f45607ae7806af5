"""The runtime that opens itself: once, again after closing, and again in a child."""

from __future__ import annotations

import multiprocessing
import pickle
import threading

import numpy as np
import pytest

from asterisk import integrations as module
from asterisk.common.errors import ArtifactError, UsageError
from asterisk.integrations import LazyRuntime


def test_opened_once_by_many_threads_and_again_after_close(artifact, monkeypatch):
    opened = []
    real = module.load
    monkeypatch.setattr(module, "load", lambda *a, **k: opened.append(a) or real(*a, **k))
    lazy = LazyRuntime(artifact)
    assert lazy._runtime is None
    found: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: found.append(lazy.encode("a text"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len(found) == 6
    lazy.close()
    assert lazy._runtime is None
    np.testing.assert_array_equal(lazy.encode("a text"), found[0])
    assert len(opened) == 2
    lazy.close()
    lazy.close()


def test_pickled_compared_and_hashed_by_path(artifact):
    lazy = LazyRuntime(artifact, 2)
    lazy.encode("a text")
    again = pickle.loads(pickle.dumps(lazy))
    assert again._runtime is None
    assert again == lazy
    assert hash(again) == hash(lazy)
    assert again != LazyRuntime(artifact)
    assert again != str(artifact)
    lazy.close()


def test_nothing_is_opened_for_nothing(artifact):
    lazy = LazyRuntime(artifact)
    assert lazy.queries([]) == lazy.documents([]) == []
    assert lazy._runtime is None


def _in_child(lazy, channel):
    channel.send((lazy._runtime is not None, lazy.encode("a text")))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_child_opens_its_own_even_while_a_thread_holds_the_lock(artifact):
    lazy = LazyRuntime(artifact)
    expected = lazy.encode("a text")
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(lazy, there))
    with lazy._opening:  # as another thread would that is just opening it
        child.start()
    assert here.poll(60), "the child waits for a lock that nobody holds"
    was_open, found = here.recv()
    child.join(60)
    assert child.exitcode == 0
    assert not was_open
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(lazy.encode("a text"), expected)
    lazy.close()


def test_what_cannot_be_opened(tmp_path):
    for wrong in (None, 3, b"path"):
        with pytest.raises(UsageError, match="by its path"):
            LazyRuntime(wrong)
    for threads in (0, True, "2", 1_000):
        with pytest.raises(UsageError, match="threads must be"):
            LazyRuntime(tmp_path, threads)
    with pytest.raises(ArtifactError):
        LazyRuntime(tmp_path).encode("a text")

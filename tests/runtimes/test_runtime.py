"""One runtime for every engine: lists, sentence-transformers' arguments, repr and pickles."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asterisk
from asterisk.common.errors import ArtifactError, EngineError, InputError, UsageError
from asterisk.model.config import ModelConfig
from asterisk.runtimes.runtime import Runtime

SIZE = 4


class Words:
    """A tokenizer: one id a letter, nothing around a text."""

    prefix = suffix = ()

    def encode(self, text, limit):
        return [ord(letter) % 50 for letter in text[:limit]]


class Count:
    """An engine that gives the sum, the number and the first of its ids."""

    format = "count"

    def __init__(self):
        self.runs = 0
        self.threads = set()

    def run(self, ids):
        self.runs += 1
        self.threads.add(threading.get_ident())
        return np.array([sum(ids) + 1, len(ids), ids[0], 1], np.float32)

    def close(self):
        pass


def runtime(threads):
    config = ModelConfig(vocab_size=50, hidden_size=SIZE, num_layers=1, num_heads=1)
    return Runtime([Count() for _ in range(threads)], Words(), config, "f" * 64)


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=40), max_size=60), st.integers(1, 4))
def test_every_text_in_its_place(texts, threads):
    expected = [
        [sum(ids) + 1, len(ids), ids[0], 1]
        for text in texts
        for ids in (Words().encode(text, 512),)
    ]
    with runtime(threads) as it:
        vectors = it.encode(texts, normalize=False)
    assert vectors.shape == (len(texts), SIZE)
    assert vectors.tolist() == expected


def test_an_error_in_one_thread_ends_all():
    with runtime(3) as it:
        with pytest.raises(InputError, match="empty"):
            it.encode([*["longer"] * 10, "", *["longest"] * 10])
        with pytest.raises(UsageError, match="string"):
            it.encode(["a", 3])
        assert it.encode(["after it"]).shape == (1, SIZE)


def test_what_is_left_after_an_error_is_not_embedded():
    """An empty text is the shortest, so this one, which is refused as too long, comes first."""
    with runtime(2) as it:
        with pytest.raises(InputError, match="more than"):
            it.encode(["a" * 600, *["short"] * 5_000], on_long="error")
        assert sum(engine.runs for engine in it._engines) < 5_000


def test_arguments_of_sentence_transformers_are_taken(capsys):
    with runtime(2) as it:
        plain = it.encode(["some", "texts"])
        options = {"batch_size": 1, "show_progress_bar": False, "convert_to_numpy": True}
        for encode in (it.encode, it.encode_query, it.encode_document):
            assert np.array_equal(encode(["some", "texts"], **options), plain)
            assert np.array_equal(encode(["some", "texts"], convert_to_tensor=False), plain)
        for normalize_embeddings in (True, False):  # False: what the model does itself stays
            found = it.encode("some", normalize_embeddings=normalize_embeddings)
            assert np.linalg.norm(found) == pytest.approx(1)
        assert it.encode("some", normalize=False, normalize_embeddings=True)[3] < 1
        assert it.encode("some", normalize=False, normalize_embeddings=False)[3] == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"convert_to_numpy": False}, "convert_to_numpy=False: .*SentenceEncoder"),
        ({"convert_to_tensor": True}, "convert_to_tensor=True: .*SentenceEncoder"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"batch_size": "32"}, "batch_size must be 1 or more"),
    ],
)
def test_what_a_runtime_cannot_return_is_refused_by_name(options, complaint):
    with runtime(1) as it:
        for encode in (it.encode, it.encode_query, it.encode_document):
            with pytest.raises(UsageError, match=complaint):
                encode(["a text"], **options)


def test_a_progress_bar_goes_to_standard_error(monkeypatch):
    from asterisk.common import terminal

    bars = []

    class Shown(terminal.Bar):
        def __init__(self, total, unit):
            super().__init__(total, unit)
            bars.append((total, unit))

    monkeypatch.setattr(terminal, "Bar", Shown)
    with runtime(2) as it:
        it.encode(["some", "texts"], show_progress_bar=True)
        it.encode_query("one", show_progress=True)
        it.encode(["some", "texts"], show_progress_bar=None)
    assert bars == [(2, "texts"), (1, "texts")]


def test_what_is_opened_can_be_read_from_its_repr(artifact_of):
    folder = artifact_of("onnx", "int8")
    with asterisk.load(folder, threads=2) as it:
        assert repr(it) == (
            f"Runtime(path={str(folder)!r}, format='onnx', recipe='int8', "
            "embedding_size=256, max_length=512, threads=2)"
        )
    assert repr(runtime(1)).startswith("Runtime(name='', format='count', ")


def embed_elsewhere(it):
    """For a process of its own."""
    return repr(it), it.encode("a text")


LIMIT = 8 << 30  # more than this process has of other tests


def test_a_pickled_runtime_is_opened_again_with_the_same_options(artifact_of):
    folder = artifact_of("onnx", "int8")
    with asterisk.load(folder, threads=2, max_memory=LIMIT) as it:
        expected = it.encode("a text")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            shown, found = pool.apply(embed_elsewhere, (it,))
        assert shown == repr(it)
        assert np.array_equal(found, expected)
        with copy.deepcopy(it) as twin:
            assert (twin.max_memory, twin.budget.asked) == (LIMIT, 2)
            it.close()  # each has engines of its own
            assert np.array_equal(twin.encode("a text"), expected)
        with pickle.loads(pickle.dumps(it)) as again:
            assert np.array_equal(again.encode("a text"), expected)
        with pytest.raises(EngineError, match="closed"):
            it.encode("a text")


def test_a_pickle_knows_its_path_from_anywhere(artifact_of, tmp_path, monkeypatch):
    shutil.copytree(artifact_of("onnx", "int8"), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    with asterisk.load("model") as it:
        pickled = pickle.dumps(it)
    monkeypatch.chdir("/")
    pickle.loads(pickled).close()
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(ArtifactError, match=r"opens its model again, and .*model is gone"):
        pickle.loads(pickled)


def test_a_runtime_without_a_path_is_not_pickled():
    with pytest.raises(UsageError, match=r"no path to be pickled by: open it with asterisk\.load"):
        pickle.dumps(runtime(1))

"""The bag learns, and its folder gives anyone who opens it the same vectors."""

from __future__ import annotations

import numpy as np
import pytest

from asterisk.evaluation.models import open_model
from asterisk.tokenizer import gpt2
from asterisk.training import bag
from asterisk.training.bag import BagRecipe
from asterisk.training.batches import Targets, lowercase_twins
from training.toy import rows, texts, write_targets

MIXED = ["The River bank", "the river Bank", "a <|endoftext|> in plain text", "Zebra 🦓 x"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bag")
    write_targets(folder / "targets", texts(600, 0), texts(100, 1))
    projection = np.load(folder / "targets" / "projection.npy")
    tokenizer = gpt2()
    twins = lowercase_twins(tokenizer)
    train = Targets(folder / "targets" / "train", 600, projection, twins)
    held_out = Targets(folder / "targets" / "held-out", 100, projection, twins)
    cosines = []

    def report(stage, epoch, epochs, figures):
        cosines.append(figures["held_out_cosine"])

    found = bag.fit(rows(), train, held_out, BagRecipe(epochs=8, batch=64), report)
    bag.save(found, folder / "out", twins)
    return found, folder / "out", twins, cosines, train, held_out


def test_it_learns_and_keeps_its_best(made):
    found, _, _, cosines, _, _ = made
    assert found.cosine == max(cosines) > cosines[0]
    assert cosines[found.epochs] == found.cosine


def test_a_seed_gives_one_bag(made):
    _, _, _, _, train, held_out = made
    some = [bag.fit(rows(), train, held_out, BagRecipe(epochs=1, batch=64)).rows for _ in range(2)]
    assert np.array_equal(*some)


def test_sentence_transformers_reads_the_same_ids_and_vectors(made):
    from sentence_transformers import SentenceTransformer

    found, folder, twins, _, _, _ = made
    opened = SentenceTransformer(str(folder), device="cpu")
    tokenizer = gpt2()
    for text in MIXED:
        ids = tokenizer.encode(text)
        assert opened[0].preprocess([text])["input_ids"].tolist() == ids
        expected = found.rows[twins[ids]].mean(0)
        assert np.allclose(opened.encode(text), expected, atol=1e-5)
    assert np.array_equal(*opened.encode(MIXED[:2]))
    assert open_model(str(folder)).vectors(MIXED).shape == (4, found.rows.shape[1])


def test_sif_follows_its_formula():
    counts = np.array([90, 10])
    table = np.array([[1.0, 0.0], [0.0, 1.0]], "f4")
    centre = 0.9 * table[0] + 0.1 * table[1]
    expected = (table - centre) * np.array([[3e-4 / (3e-4 + 0.9)], [3e-4 / (3e-4 + 0.1)]])
    assert np.allclose(bag.sif(table, counts), expected)

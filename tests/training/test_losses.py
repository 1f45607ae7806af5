"""Each loss against its formula worked out elsewhere, and what recipes refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from asterisk.common.errors import UsageError
from asterisk.training import losses
from asterisk.training.batches import Batch
from asterisk.training.distributed import Processes
from asterisk.training.losses import Partners, Reading
from asterisk.training.recipe import PRESETS, TrainingRecipe

WEIGHTS = ("cosine_weight", "token_weight", "relation_weight", "contrast_weight")


@pytest.fixture
def batch():
    torch.manual_seed(0)
    mask = torch.arange(5)[None] < torch.tensor([5, 3, 1, 4])[:, None]
    asked = mask & (torch.rand(4, 5) < 0.7)
    sentences = torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    return Batch(torch.zeros(4, 5, dtype=torch.int64), mask, sentences, torch.randn(4, 5, 8), asked)


@pytest.fixture
def reading():
    torch.manual_seed(1)
    return Reading(torch.randn(4, 5, 8), 3 * torch.randn(4, 8))


def test_leaf_is_twice_the_cosine_loss(reading, batch):
    """Of unit vectors |a - b|² = 2 - 2 cos."""
    distance, cosine = losses.l2(reading, batch).value, losses.cosine(reading, batch).value
    assert torch.allclose(distance, 2 * cosine, atol=1e-6)


def test_token_loss(reading, batch):
    asked = batch.asked.numpy()
    ours, theirs = reading.tokens.numpy()[asked], batch.tokens.numpy()[asked]
    expected = np.square(ours - theirs).mean() / np.square(theirs).mean()
    assert losses.token(reading, batch).value.item() == pytest.approx(expected, rel=1e-5)


def test_token_loss_of_a_batch_without_targets(reading, batch):
    nothing = replace(batch, asked=torch.zeros_like(batch.asked))
    term = losses.token(reading, nothing)
    assert term.value.item() == term.counts.item() == 0


def test_infonce(reading):
    unit = reading.sentences.numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    scores = unit[:2] @ unit[2:].T / 0.05
    there = -np.diag(log_softmax(scores, axis=1)).mean()
    back = -np.diag(log_softmax(scores, axis=0)).mean()
    found = losses.infonce(reading, Processes(), 0.05).value.item()
    assert found == pytest.approx((there + back) / 2, rel=1e-4)


def test_relation(reading, batch):
    torch.manual_seed(2)
    bank = torch.nn.functional.normalize(torch.randn(6, 8), dim=-1)
    keys = torch.cat([batch.sentences, bank]).numpy()
    unit = reading.sentences.numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    others = ~np.eye(4, 10, dtype=bool)  # a text is not its own neighbour

    def over_others(vectors):
        return softmax((vectors @ keys.T / 0.1)[others].reshape(4, 9), axis=1)

    theirs, ours = over_others(batch.sentences.numpy()), over_others(unit)
    found = losses.relation(reading, batch, bank, Processes(), 0.1).value.item()
    assert found == pytest.approx(entropy(theirs, ours, axis=1).mean(), rel=1e-4)


def test_contrast(reading, batch):
    torch.manual_seed(3)
    bank = torch.nn.functional.normalize(torch.randn(6, 8), dim=-1)
    there = torch.nn.functional.normalize(torch.randn(2, 8), dim=-1)
    partners = Partners(torch.tensor([1, 3]), there)
    unit = reading.sentences.numpy()[[1, 3]]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    scores = unit @ torch.cat([there, bank]).numpy().T / 0.05
    expected = -np.diag(log_softmax(scores, axis=1)).sum() / 4  # of four texts two have partners
    found = losses.contrast(reading, batch, bank, partners, processes=Processes(), temperature=0.05)
    assert found.value.item() == pytest.approx(expected, rel=1e-4)


def test_contrast_without_partners_adds_nothing(reading, batch):
    nobody = Partners(torch.empty(0, dtype=torch.int64), torch.empty(0, 8))
    bank = torch.randn(6, 8)
    found = losses.contrast(reading, batch, bank, nobody, processes=Processes(), temperature=0.05)
    assert found.value.item() == 0


def test_presets_are_what_they_say():
    original = PRESETS["original"]
    assert (original.epochs, original.pairs, original.learning_rate) == (5, 32, 2e-4)
    assert (original.patience, original.validation, original.temperature) == (3, 0.1, 0.05)
    assert (original.cosine_weight, original.pair_weight, original.optimiser) == (0.5, 0.5, "adamw")
    assert PRESETS["leaf"].l2_weight
    assert not PRESETS["leaf"].token_weight
    assert not PRESETS["infonce"].cosine_weight
    assert PRESETS["asterisk"] == TrainingRecipe()


@given(
    done=st.floats(0, 1),
    warmup=st.floats(0, 0.5),
    decay=st.floats(0, 0.5),
)
@settings(max_examples=50)
def test_learning_rate_rises_stays_and_falls(done, warmup, decay):
    recipe = TrainingRecipe(warmup=warmup, decay=decay)
    share = recipe.share_of_peak(done)
    assert 0 < share <= 1
    if warmup <= done <= 1 - decay:
        assert share == pytest.approx(1)


def test_the_token_loss_is_cut_once_its_share_is_done():
    kept, cut = TrainingRecipe(), TrainingRecipe(token_until=0.8, relation_weight=0, decay=0.1)
    assert [kept.weights(done)["token"] for done in (0.0, 0.99, 1.0)] == [3.0] * 3
    assert [cut.weights(done)["token"] for done in (0.79, 0.8)] == [3.0, pytest.approx(0.3)]
    assert replace(cut, contrast_weight=0).settled == 0.8  # a longer run would cut it later


@pytest.mark.parametrize(
    "wrong",
    [
        {"passes": 0},
        {"temperature": 0.0},
        {"warmup": 1.0},
        {"amp": "fp8"},
        {"token_until": 0.0},
        {"optimiser": "sgd"},
        dict.fromkeys(WEIGHTS, 0.0),
        dict.fromkeys(WEIGHTS, 0.0) | {"pair_weight": 1.0, "patience": 1},
        {"learning_rate": float("nan")},
    ],
)
def test_choices_that_cannot_be_meant(wrong):
    with pytest.raises(UsageError):
        TrainingRecipe(**wrong)

"""The head: against PyTorch and scikit-learn, without them, and when its file is damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.apps.classify.head import Head, Layer
from asterisk.apps.classify.recipe import HeadRecipe
from asterisk.apps.classify.score import score
from asterisk.common import tensors
from asterisk.common.errors import ArtifactError, InputError, UsageError
from asterisk.evaluation.logistic_regression import _folded, _network, _standard, fit

SPACE = "a" * 64
LABELS = ("one", "three", "two")


def clusters(count=300, dim=16, seed=0):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((3, dim))
    kinds = random.integers(0, 3, count)
    rows = centres[kinds] + random.standard_normal((count, dim))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4")
    return rows, [LABELS[kind] for kind in kinds]


def some_head(hidden=5, dim=4):
    random = np.random.default_rng(0)
    shapes = [(hidden, dim), (3, hidden)] if hidden else [(3, dim)]
    layers = tuple(
        Layer(random.standard_normal(shape).astype("f4"), np.ones(shape[0], "f4"))
        for shape in shapes
    )
    return Head(LABELS, layers, SPACE)


@pytest.mark.parametrize("hidden", [0, 32])
def test_saved_logits_are_pytorchs(tmp_path, hidden):
    import torch

    rows, _ = clusters(1_000, 256)
    mean, scale = _standard(rows)
    torch.manual_seed(0)
    model = _network(256, 3, HeadRecipe(hidden=hidden)).eval()
    with torch.inference_mode():
        expected = model(torch.from_numpy((rows - mean) / scale)).numpy()
    Head(LABELS, _folded(model, mean, scale), SPACE).save(tmp_path / "head")
    found = Head.open(tmp_path / "head").logits(rows)
    assert np.abs(found - expected).max() < 1e-5


def test_a_linear_head_is_scikit_learns(tmp_path):
    linear_model = pytest.importorskip("sklearn.linear_model")
    rows, labels = clusters()
    model = linear_model.LogisticRegression().fit(rows, labels)
    layer = Layer(model.coef_.astype("f4"), model.intercept_.astype("f4"))
    Head(tuple(model.classes_), (layer,), SPACE).save(tmp_path / "head")
    head = Head.open(tmp_path / "head")
    assert np.abs(head.logits(rows) - model.decision_function(rows)).max() < 1e-5
    assert np.abs(head.probabilities(rows) - model.predict_proba(rows)).max() < 1e-5
    assert head.predict(rows) == list(model.predict(rows))


def test_scores_are_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    head, (rows, labels) = some_head(dim=16), clusters()
    labels[:5] = ["never seen"] * 5
    told, predicted = score(head, rows, labels), head.predict(rows)
    assert told.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert told.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert (told.texts, told.unknown) == (300, 5)
    with pytest.raises(InputError):
        score(head, rows[:0], [])


def test_training_learns_and_repeats_itself(tmp_path):
    linear_model = pytest.importorskip("sklearn.linear_model")
    (rows, labels), (others, truth) = clusters(), clusters(seed=1)
    recipe = HeadRecipe(hidden=64)
    heads = [fit(rows, labels, SPACE, recipe) for _ in range(2)]
    for number, head in enumerate(heads):
        head.save(tmp_path / str(number))
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    floor = linear_model.LogisticRegression().fit(rows, labels).score(others, truth)
    assert score(heads[0], others, truth).accuracy > floor - 0.03
    other = fit(rows, labels, SPACE, HeadRecipe(hidden=64, seed=1))
    assert not np.array_equal(other.layers[0].weight, heads[0].layers[0].weight)


def test_a_constant_dimension_is_no_trouble():
    rows, labels = clusters(60)
    rows[:, 3] = 0.25
    head = fit(rows, labels, SPACE, HeadRecipe(hidden=0, epochs=1))
    assert np.isfinite(head.logits(rows)).all()


@pytest.mark.parametrize("labels", [["one"] * 4, ["one", "two", "one"]])
def test_too_little_to_learn_from(labels):
    with pytest.raises(InputError):
        fit(clusters(4)[0], labels, SPACE)
    rows = clusters(4)[0]
    rows[0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        fit(rows, ["one", "two"] * 2, SPACE)


def test_numpy_is_enough(tmp_path, python):
    head = some_head()
    head.save(tmp_path / "head")
    done = python(
        """
import sys
for name in ("torch", "sklearn", "safetensors", "scipy", "transformers", "tokenizers"):
    sys.modules[name] = None
import json, numpy
from asterisk.apps.classify.head import Head
rows = numpy.eye(4, dtype=numpy.float32)
print(json.dumps(Head.open(sys.argv[1]).logits(rows).tolist()))
""",
        tmp_path / "head",
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(
        np.array(json.loads(done.stdout), "f4"), head.logits(np.eye(4, dtype="f4"))
    )


@pytest.mark.parametrize(
    "bad",
    [
        np.ones((2, 5), "f4"),
        np.ones(4, "f4"),
        np.ones((2, 4)),
        [[1.0] * 4],
        np.full((1, 4), np.nan, "f4"),
    ],
)
def test_vectors_that_do_not_fit(bad):
    with pytest.raises(UsageError, match="vectors"):
        some_head().logits(bad)


def test_no_vectors_have_no_logits():
    assert some_head().probabilities(np.empty((0, 4), "f4")).shape == (0, 3)


def test_weights_that_overflow():
    huge = Layer(np.full((3, 4), 3e38, "f4"), np.zeros(3, "f4"))
    with pytest.raises(ArtifactError, match="too large"):
        Head(LABELS, (huge,), SPACE).probabilities(np.ones((1, 4), "f4"))


def test_another_space():
    some_head().check(("b" * 64, SPACE), 4)  # of a student of that space
    with pytest.raises(ArtifactError, match="train a head for this model"):
        some_head().check(("b" * 64,), 4)
    with pytest.raises(ArtifactError, match="takes 4 dimensions, the model gives 3"):
        some_head().check((SPACE,), 3)


GOOD = {"format": "asterisk-head", "schema": "1", "fingerprint": SPACE, "labels": '["a", "b"]'}
W, B = np.ones((2, 3), "f4"), np.ones(2, "f4")
ARRAYS = {"layers.0.weight": W, "layers.0.bias": B}


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        ({}, {}),
        ({}, {"format": "other"}),
        ({}, {"schema": "2"}),
        ({}, {"fingerprint": ""}),
        ({}, {"fingerprint": "x\ny"}),
        ({}, {"labels": "["}),
        ({}, {"labels": "{}"}),
        ({}, {"labels": '["a", 1]'}),
        ({}, {"labels": '["a", "a"]'}),
        ({}, {"labels": '["a", "b\\tc"]'}),
        ({}, {"labels": '["a", ""]'}),
        ({}, {"labels": '["a", "b", "c"]'}),
        ({}, {"labels": '["a"]'}),
        ({"layers.0.bias": W}, {}),
        ({"layers.0.bias": np.ones(3, "f4")}, {}),
        ({"layers.0.bias": np.array(1, "f4")}, {}),
        ({"layers.0.weight": np.ones((2, 0), "f4")}, {}),
        ({"layers.0.weight": np.ones((2, 3, 1), "f4")}, {}),
        ({"more": B}, {}),
        ({"layers.1.weight": W, "layers.1.bias": B}, {}),
        ({"layers.2.weight": W, "layers.2.bias": B}, {}),
        ({f"layers.{n}.{x}": B for n in range(1, 9) for x in ("weight", "bias")}, {}),
    ],
)
def test_files_that_are_no_head(tmp_path, arrays, metadata):
    path = tmp_path / "head"
    if not arrays and not metadata:
        tensors.write(path, {}, GOOD)
    else:
        tensors.write(path, ARRAYS | arrays, GOOD | metadata)
    with pytest.raises(ArtifactError, match="head: ") as failure:
        Head.open(path)
    assert "\n" not in str(failure.value)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_any_damage_is_told_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged-head"
    some_head(2, 3).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        shares = Head.open(path).probabilities(np.ones((1, 3), "f4"))
    except (ArtifactError, UsageError):
        return
    assert np.isfinite(shares).all()


@pytest.mark.parametrize(
    "choices", [{"hidden": -1}, {"epochs": 0}, {"dropout": 1.0}, {"learning_rate": float("nan")}]
)
def test_recipes_that_cannot_be_meant(choices):
    with pytest.raises(UsageError, match=next(iter(choices))):
        HeadRecipe(**choices)

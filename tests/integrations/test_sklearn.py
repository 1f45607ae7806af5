"""The transformer in scikit-learn's own pipelines, searches and checks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import asterisk
from asterisk.common.errors import ArtifactError, UsageError

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from asterisk.integrations.sklearn import AsteriskVectorizer

FOOD = [
    "Simmer the soup with carrots and leeks.",
    "Fold the egg whites into the batter.",
    "The bread needs an hour to rise.",
    "Roast the peppers until they blister.",
    "A pinch of salt brings out the chocolate.",
    "Whisk oil and vinegar into a dressing.",
]
SPORT = [
    "The striker scored twice before half time.",
    "She won the marathon in a record time.",
    "The team lost on penalties in the final.",
    "A late try decided the rugby match.",
    "He served three aces in the last set.",
    "The cyclist broke away on the final climb.",
]
TEXTS, LABELS = [*FOOD, *SPORT], [0] * len(FOOD) + [1] * len(SPORT)


@pytest.fixture
def vectorizer(artifact):
    it = AsteriskVectorizer(str(artifact))
    yield it
    it.close()


def test_vectors_are_the_runtimes(vectorizer, artifact):
    with asterisk.load(artifact) as runtime:
        expected = runtime.encode(TEXTS)
        space = runtime.fingerprint
    for given in (TEXTS, tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), iter(TEXTS)):
        found = vectorizer.fit(TEXTS).transform(given)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    assert vectorizer.fingerprint_ == space
    assert vectorizer.fit_transform([]).shape == (0, 256)
    names = vectorizer.get_feature_names_out()
    assert (len(names), names[0], names[-1]) == (256, "asterisk0", "asterisk255")


def test_in_a_pipeline_and_a_search_over_dim(vectorizer):
    pipeline = make_pipeline(vectorizer, LogisticRegression(C=10))
    search = GridSearchCV(pipeline, {"asteriskvectorizer__dim": [8, 256]}, cv=3)
    search.fit(TEXTS, LABELS)
    assert set(search.cv_results_["param_asteriskvectorizer__dim"]) == {8, 256}
    sizes = search.best_estimator_[0].n_features_out_
    assert sizes == search.best_params_["asteriskvectorizer__dim"]
    asked = ["Stir the sauce until it thickens.", "The referee showed a red card."]
    assert search.predict(asked).tolist() == [0, 1]
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert again.predict(asked).tolist() == [0, 1]
    again[0].close()
    search.best_estimator_[0].close()


def test_pickles_copies_and_clones_carry_no_engine(vectorizer, artifact):
    expected = vectorizer.fit_transform(TEXTS)
    assert len(pickle.dumps(vectorizer)) < 1_000
    for again in (pickle.loads(pickle.dumps(vectorizer)), copy.deepcopy(vectorizer)):
        np.testing.assert_array_equal(again.transform(TEXTS), expected)
        again.close()
    fresh = clone(vectorizer)
    assert fresh.get_params() == {
        "artifact": str(artifact),
        "dim": None,
        "normalize": None,
        "prompt_name": None,
        "threads": 1,
    }
    with pytest.raises(NotFittedError):
        fresh.transform(TEXTS)


def test_parameters_may_change_until_fit(vectorizer):
    vectorizer.fit(TEXTS).set_params(dim=16, normalize=False, threads=2)
    found = vectorizer.fit_transform(TEXTS)
    assert found.shape == (len(TEXTS), 16)
    with asterisk.load(vectorizer.artifact) as runtime:
        np.testing.assert_array_equal(found, runtime.encode(TEXTS, dim=16, normalize=False))
    assert len(vectorizer.get_feature_names_out()) == 16
    vectorizer.set_output(transform="pandas")
    pytest.importorskip("pandas")
    assert list(vectorizer.transform(TEXTS[:2]).columns[:2]) == ["asterisk0", "asterisk1"]


def test_what_cannot_be_meant_is_refused(vectorizer, artifact, tmp_path):
    for given in ("one text", None, [["a"]], [1], np.zeros((2, 2))):
        with pytest.raises(UsageError, match="X must"):
            vectorizer.fit(given)
    for dim in (0, 257, "8", True):
        with pytest.raises(UsageError, match="dim must be"):
            AsteriskVectorizer(artifact, dim=dim).fit(TEXTS)
    for wrong in ("", tmp_path):
        with pytest.raises(ArtifactError):
            AsteriskVectorizer(wrong).fit(TEXTS)
    vectorizer.fit(TEXTS)
    vectorizer.fingerprint_ = "of another model"
    with pytest.raises(UsageError, match="another embedding space"):
        vectorizer.transform(TEXTS)


# Those that make no numbers of their own: text is all that this estimator takes, and for such
# `check_estimator` itself does nothing but clone.
CHECKS = (
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_set_params,
    estimator_checks.check_valid_tag_types,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_their_checks(vectorizer, check):
    check("AsteriskVectorizer", vectorizer)


def test_their_choice_of_checks(vectorizer):
    with pytest.warns(SkipTestWarning, match="Can't test estimator"):
        told = estimator_checks.check_estimator(vectorizer, on_skip=None, on_fail=None)
    assert {it["status"] for it in told} == {"passed"}


def test_a_prompt_by_its_name(prompted):
    with asterisk.load(prompted) as runtime:
        expected = runtime.encode(TEXTS, prompt_name="query")
    vectorizer = AsteriskVectorizer(str(prompted), prompt_name="query")
    np.testing.assert_array_equal(vectorizer.fit_transform(TEXTS), expected)
    assert clone(vectorizer).get_params()["prompt_name"] == "query"
    with pytest.raises(UsageError, match="no prompt 'none'"):
        vectorizer.set_params(prompt_name="none").fit(TEXTS)
    vectorizer.close()


def test_a_model_that_shares_the_space_goes_on(vectorizer):
    vectorizer.fit(TEXTS)
    runtime = vectorizer._lazy.runtime
    runtime.compatible_with = ("of its teacher",)
    vectorizer.fingerprint_ = "of its teacher"
    assert vectorizer.transform(TEXTS).shape == (12, 256)
    vectorizer.n_features_out_ = 384
    with pytest.raises(UsageError, match="other dimensions than at fit"):
        vectorizer.transform(TEXTS)

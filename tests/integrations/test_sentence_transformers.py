"""The encoder beside SentenceTransformer itself, of the checkpoint that the artifact is from."""

from __future__ import annotations

import inspect
import logging
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import SHIPPED

from asterisk.common.errors import InputError, MissingPackage, UsageError
from asterisk.integrations.sentence_transformers import SIMILARITIES, SentenceEncoder
from asterisk.model.checkpoint import save

torch = pytest.importorskip("torch")
st = pytest.importorskip("sentence_transformers")

CALLS = ("encode", "encode_query", "encode_document")


@pytest.fixture(scope="module")
def theirs():
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    yield st.SentenceTransformer(str(SHIPPED), device="cpu")
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def ours(artifact):
    with SentenceEncoder(artifact) as encoder:
        yield encoder


def alike(found, expected, least=0.99):
    """Whether two of anything that `encode` returns are of a kind, and point the same way."""
    assert type(found) is type(expected)
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            alike(one, other, least)
        return
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    a, b = (np.atleast_2d(np.asarray(side, np.float64)) for side in (found, expected))
    if a.size:
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() > least
        lengths = [np.linalg.norm(side, axis=1) for side in (a, b)]
        np.testing.assert_allclose(*lengths, rtol=0.02 if least >= 0.99 else 0.2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"truncate_dim": 64},
        {"truncate_dim": 64, "normalize_embeddings": True},
        {"truncate_dim": 4096},
        {"prompt": "query: "},
        {"precision": "ubinary"},
        {"precision": "binary"},
        {"precision": "uint8"},
        {"precision": "int8"},
    ],
    ids=str,
)
def test_shapes_types_and_directions_are_the_same(ours, theirs, some, options):
    # Bytes and bits move with the last bit of a float, so they are only roughly alike.
    least = {"ubinary": 0.9, "binary": 0.8, "uint8": 0.98, "int8": 0.98}
    bound = least.get(options.get("precision"), 0.99)
    for given in (some, [], some[0]):
        if given is not some[0] or not options.get("precision", "").endswith("int8"):
            alike(ours.encode(given, **options), theirs.encode(given, **options), bound)


@pytest.mark.parametrize("call", CALLS)
def test_kinds_of_lists_are_read_as_theirs(ours, theirs, some, call):
    expected = getattr(theirs, call)(some)
    for given in (some, tuple(some), np.array(some)):
        alike(getattr(ours, call)(given), expected)
    np.testing.assert_array_equal(getattr(ours, call)(some[:1])[0], ours.encode(some[0]))


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary", "float32", None])
def test_precisions_are_quantised_as_theirs(ours, some, precision):
    exact = ours.encode(some)
    expected = exact if precision is None else st.util.quantize_embeddings(exact, precision)
    found = ours.encode(some, precision=precision)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize("call", CALLS)
def test_every_argument_of_theirs_is_an_argument_here(call):
    there = inspect.signature(getattr(st.SentenceTransformer, call))
    here = inspect.signature(SentenceEncoder.encode)
    names = [name for name, it in there.parameters.items() if it.kind is not it.VAR_KEYWORD]
    mine = [name for name, it in here.parameters.items() if it.kind is it.POSITIONAL_OR_KEYWORD]
    assert mine == names, f"sentence-transformers {st.__version__} changed {call}"
    for name in names[2:]:
        assert here.parameters[name].default == there.parameters[name].default, name
    # The same call binds here, by place as well as by name.
    bound = inspect.signature(getattr(SentenceEncoder, call))
    bound.bind(None, *range(len(names) - 1))
    bound.bind(**dict.fromkeys(names))


def test_arguments_by_place_and_older_names(ours, some):
    expected = ours.encode("query: " + some[0], truncate_dim=32)
    placed = (None, "query: ", 8, False, "sentence_embedding", "float32", True, False, "cpu")
    for call in CALLS:
        found = getattr(ours, call)(some[0], *placed, False, 32)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(ours.encode(sentences=some), ours.encode(some))
    np.testing.assert_array_equal(ours.encode(some, device=torch.device("cpu")), ours.encode(some))


def test_prompts(artifact, theirs, some):
    prompts = {"query": "find: ", "passage": "text: "}
    with SentenceEncoder(artifact, prompts=prompts, default_prompt_name="passage") as encoder:
        plain = encoder.encode(some[0], prompt="")
        assert abs(float(plain @ theirs.encode(some[0]))) > 0.99
        for found, prefix in (
            (encoder.encode(some[0]), "text: "),
            (encoder.encode_query(some[0]), "find: "),
            (encoder.encode(some[0], prompt_name="query"), "find: "),
            (encoder.encode_document(some[0], prompt="x "), "x "),
        ):
            np.testing.assert_array_equal(found, encoder.encode(prefix + some[0], prompt=""))
            assert not np.array_equal(found, plain)
        with pytest.raises(UsageError, match="no prompt 'none'; there are: 'query'"):
            encoder.encode(some, prompt_name="none")
    with pytest.raises(UsageError, match="no prompt"):
        SentenceEncoder(artifact, default_prompt_name="none")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"default_prompt_name": "passage"},
        {"prompts": {"query": "find: "}},
        {"prompts": {"query": ""}},
        {"prompts": {"own": "own: "}, "default_prompt_name": "own"},
    ],
    ids=str,
)
def test_prompts_of_the_folder_and_those_given(prompted, prompted_folder, some, options):
    theirs = st.SentenceTransformer(str(prompted_folder), device="cpu", **options)
    some = some[:3]
    with SentenceEncoder(prompted, **options) as ours:
        assert ours.prompts == theirs.prompts
        assert ours.default_prompt_name == theirs.default_prompt_name
        for call in CALLS:
            for named in ({}, {"prompt_name": "passage"}, {"prompt": "x "}):
                found = getattr(ours, call)(some, **named)
                alike(found, getattr(theirs, call)(some, **named), 0.98)
        # A prompt is heard even where its name is given too, as theirs warns.
        both = {"prompt": "x ", "prompt_name": "query"}
        np.testing.assert_array_equal(ours.encode(some, **both), ours.encode(some, prompt="x "))


def test_prompts_are_attributes_that_can_be_changed(prompted, some):
    with SentenceEncoder(prompted) as encoder:
        encoder.prompts["own"] = "own: "
        encoder.default_prompt_name = "own"
        np.testing.assert_array_equal(encoder.encode(some), encoder.encode(some, prompt="own: "))
        encoder.default_prompt_name = None
        np.testing.assert_array_equal(encoder.encode(some), encoder.encode(some, prompt=""))
        again = pickle.loads(pickle.dumps(encoder))
        assert again.prompts == encoder.prompts


def test_the_similarity_and_the_lengths_of_the_folder(toy, tmp_path, some):
    save(replace(toy, config=replace(toy.config, normalize=False)), tmp_path / "dot")
    settings = tmp_path / "dot" / "config_sentence_transformers.json"
    settings.write_text('{"similarity_fn_name": "dot"}')
    theirs = st.SentenceTransformer(str(tmp_path / "dot"), device="cpu")
    with SentenceEncoder(tmp_path / "dot") as ours:
        assert ours.similarity_fn_name == theirs.similarity_fn_name == "dot"
        for options in ({}, {"normalize_embeddings": True}, {"truncate_dim": 8}):
            found, expected = ours.encode(some, **options), theirs.encode(some, **options)
            np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_are_theirs(artifact, theirs, ours, some, name):
    a, b = ours.encode(some), ours.encode(some[::-1])
    before = theirs.similarity_fn_name
    theirs.similarity_fn_name = ours.similarity_fn_name = name
    try:
        tensors = torch.from_numpy(a)
        for one, other in ((a, b), (a[0], b), (tensors, b), (list(tensors), list(b))):
            expected = theirs.similarity(one, other)
            found = ours.similarity(one, other)
            assert found.dtype == expected.dtype
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, atol=2e-3)
        np.testing.assert_allclose(
            ours.similarity_pairwise(a, b), theirs.similarity_pairwise(a, b), atol=2e-6
        )
    finally:
        theirs.similarity_fn_name = before
        ours.similarity_fn_name = "cosine"
    with pytest.raises(UsageError, match="one of cosine, dot, euclidean, manhattan"):
        ours.similarity_fn_name = "maxsim"


def test_what_models_are_asked_about_themselves(ours, theirs):
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension() == 256
    assert ours.get_sentence_embedding_dimension() == 256
    assert ours.max_seq_length == ours.get_max_seq_length() == theirs.max_seq_length
    assert ours.similarity_fn_name == theirs.similarity_fn_name
    assert ours.prompts == theirs.prompts
    assert ours.device == theirs.device
    with ours.truncate_embeddings(16), theirs.truncate_embeddings(16):
        assert ours.get_embedding_dimension() == theirs.get_embedding_dimension() == 16
        assert ours.encode("text").shape == theirs.encode("text").shape == (16,)
    assert ours.encode("text").shape == (256,)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"output_value": "token_embeddings"}, "sentence_embedding only"),
        ({"output_value": None}, "sentence_embedding only"),
        ({"device": "cuda"}, "not on cuda"),
        ({"device": ["cpu", "cpu"]}, "on the CPU"),
        ({"pool": {"processes": []}}, "no pool"),
        ({"precision": "int4"}, "precision is one of float32, int8"),
        ({"batch_size": 0}, "batch_size"),
        ({"truncate_dim": -1}, "truncate_dim"),
        ({"task": "clustering"}, "task is"),
        ({"sentences": ["again"]}, "once"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(ours, some, options, line):
    with pytest.raises(UsageError, match=line):
        ours.encode(some, **options)


def test_inputs_that_are_no_text(ours, some):
    for wrong in ([some, some], [{"text": "a"}], [None], [b"a"]):
        with pytest.raises(UsageError, match="inputs must be a string or a list of strings"):
            ours.encode(wrong)
    with pytest.raises(InputError, match="empty"):
        ours.encode("")
    with pytest.raises(UsageError, match="two or more"):
        ours.encode("a", precision="int8")
    with pytest.raises(TypeError):
        ours.encode(some, unknown=1)


def test_their_own_tools_run_on_it(ours, theirs, some):
    from sentence_transformers import util
    from sentence_transformers.sentence_transformer.evaluation import (
        BinaryClassificationEvaluator,
        EmbeddingSimilarityEvaluator,
        InformationRetrievalEvaluator,
    )

    def both(work):
        return work(ours), work(theirs)

    found, expected = both(
        lambda model: util.semantic_search(
            model.encode_query(some[:4], convert_to_tensor=True),
            model.encode_document(some, convert_to_tensor=True),
            top_k=3,
        )
    )
    for mine, their in zip(found, expected, strict=True):
        assert mine[0]["corpus_id"] == their[0]["corpus_id"]
    repeated = some[:6] + [text + "!" for text in some[:6]]
    found, expected = both(
        lambda model: util.community_detection(
            model.encode(repeated), threshold=0.9, min_community_size=2
        )
    )
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    assert len(found) == 6
    pairs = [*zip(some, some, strict=True), *zip(some, some[::-1], strict=True)]
    labels = [1] * len(some) + [0] * len(some)
    firsts, seconds = (list(side) for side in zip(*pairs, strict=True))
    for evaluator in (
        BinaryClassificationEvaluator(firsts, seconds, labels),
        EmbeddingSimilarityEvaluator(firsts, seconds, [float(label) for label in labels]),
        InformationRetrievalEvaluator(
            {str(place): text[:40] for place, text in enumerate(some)},
            {str(place): text for place, text in enumerate(some)},
            {str(place): {str(place)} for place in range(len(some))},
        ),
    ):
        found, expected = both(evaluator)
        assert found.keys() == expected.keys()
        main = evaluator.primary_metric
        assert found[main] == pytest.approx(expected[main], abs=0.05)
        assert found[main] > 0.5


def test_pickled_by_its_path(ours, some):
    again = pickle.loads(pickle.dumps(ours))
    assert len(pickle.dumps(ours)) < 1_000
    with again:
        np.testing.assert_array_equal(again.encode(some), ours.encode(some))


def test_without_pytorch(artifact, monkeypatch, python):
    code = """
import sys
sys.modules["torch"] = sys.modules["sentence_transformers"] = None
from asterisk.integrations.sentence_transformers import SentenceEncoder
encoder = SentenceEncoder(sys.argv[1])
vectors = encoder.encode(["a", "b"])
assert vectors.shape == (2, 256) and encoder.encode([]).shape == (0,), vectors.shape
assert encoder.device == "cpu"
try:
    encoder.similarity(vectors, vectors)
except Exception as failure:
    print(type(failure).__name__, failure)
"""
    done = python(code, artifact)
    assert done.stdout.startswith("MissingPackage torch is not installed"), done.stderr
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackage):
        SentenceEncoder(artifact).encode("a", convert_to_tensor=True)

"""Queries, documents and prompts, beside sentence-transformers on the same folders."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from conftest import SHIPPED

import asterisk
from asterisk.common.errors import UsageError
from asterisk.model.config import ROLES, prompt_name_of

TEXTS = [
    "how plants make sugar",
    "Photosynthesis turns carbon dioxide and water into sugar.",
    "The committee raised interest rates.",
]
SETTINGS = {
    "nothing": {},
    "E5": {"prompts": {"query": "query: ", "passage": "passage: "}},
    "a default": {
        "prompts": {"query": "query: ", "passage": "passage: "},
        "default_prompt_name": "passage",
    },
    "documents": {
        "prompts": {"document": "text: ", "passage": "passage: ", "clustering": "group: "},
        "default_prompt_name": "clustering",
    },
    "corpus": {
        "prompts": {"query": "q: ", "corpus": "c: ", "other": "o: "},
        "default_prompt_name": "other",
    },
    "nulls": {"prompts": {"query": None, "other": "other: "}},
}


@pytest.fixture(scope="module")
def folder_with(tmp_path_factory):
    def make(settings):
        folder = tmp_path_factory.mktemp("folders") / "model"
        shutil.copytree(SHIPPED, folder)
        if settings:
            path = folder / "config_sentence_transformers.json"
            path.write_text(json.dumps({"__version__": {}, **settings}))
        return folder

    return make


@pytest.mark.parametrize("name", SETTINGS)
def test_vectors_are_sentence_transformers(folder_with, name):
    st = pytest.importorskip("sentence_transformers")
    folder = folder_with(SETTINGS[name])
    theirs = st.SentenceTransformer(str(folder), device="cpu")
    with asterisk.load(folder) as ours:
        assert dict(ours.prompts) == theirs.prompts
        assert ours.default_prompt_name == theirs.default_prompt_name
        calls = [("encode", {}), ("encode_query", {}), ("encode_document", {})]
        calls += [("encode", {"prompt_name": prompt}) for prompt in ours.prompts]
        calls += [
            (call, {"prompt": "about: "}) for call in ("encode", "encode_query", "encode_document")
        ]
        calls += [(f"encode_{role}", {"prompt_name": "query"}) for role in ("query", "document")]
        for call, options in calls:
            found = getattr(ours, call)(TEXTS, **options)
            expected = getattr(theirs, call)(TEXTS, **options)
            assert (found * expected).sum(1).min() >= 0.99999, (call, options)
            one = getattr(ours, call)(TEXTS[0], **options)
            np.testing.assert_allclose(one, found[0], atol=1e-6)
        with pytest.raises(ValueError, match="none"):
            theirs.encode(TEXTS, prompt_name="none")
        for call in ("encode", "encode_query", "encode_document"):
            with pytest.raises(UsageError, match="the model has no prompt 'none'; there are: 'que"):
                getattr(ours, call)(TEXTS, prompt_name="none")


def test_a_prompt_counts_for_the_length(folder_with):
    folder = folder_with(SETTINGS["E5"])
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({**settings, "max_seq_length": 16})
    )
    with asterisk.load(folder) as runtime:
        cut = runtime.encode("word " * 50, prompt_name="query")
        assert runtime.truncated == 1
        assert np.array_equal(cut, runtime.encode(("query: " + "word " * 50)[:80]))


def test_every_format_carries_the_prompts(prompted, prompted_folder):
    with asterisk.load(prompted) as artifact, asterisk.load(prompted_folder) as checkpoint:
        assert artifact.prompts == checkpoint.prompts
        for call in ("encode", "encode_query", "encode_document"):
            found, expected = getattr(artifact, call)(TEXTS), getattr(checkpoint, call)(TEXTS)
            assert (found * expected).sum(1).min() > 0.98
        plain = artifact.encode(TEXTS)
        assert np.array_equal(artifact.encode_document(TEXTS), plain)
        assert np.array_equal(
            artifact.encode_query(TEXTS), artifact.encode(["query: " + text for text in TEXTS])
        )
        assert not np.array_equal(artifact.encode_query(TEXTS), plain)


def test_the_prompt_of_a_role():
    assert prompt_name_of("query", ["query", "document"]) == "query"
    assert prompt_name_of("document", ["passage", "document"]) == "document"
    assert prompt_name_of("document", ["corpus", "passage"]) == "passage"
    assert prompt_name_of("passage", ["document", "passage"]) == "passage"
    assert [prompt_name_of(role, ["other"]) for role in ROLES] == [None] * 3

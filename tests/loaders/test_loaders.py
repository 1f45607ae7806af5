"""What a hub folder's model card says how to open is pasted and run, in each loader itself."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
import urllib.error

import numpy as np
import pytest

from asterisk.exporters import thresholds
from asterisk.exporters.hub_folder import TEXTS

from .conftest import BATCH, MODELS, PROMPTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
FORMS = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}


class Pasted:
    """The piece of Python in a model card that names ``what``, run but for what needs the texts."""

    def __init__(self, hub, what, **changes):
        (code,) = (
            code for code in re.findall(r"```python\n(.*?)```", hub.card, re.S) if what in code
        )
        for old, new in changes.items():
            assert old in code
            code = code.replace(old, new)
        code = code.replace(TEXTS, "texts")
        lines = code.splitlines(keepends=True)
        first = next(i for i, line in enumerate(lines) if "texts" in line)
        self.names = {}
        exec("".join(lines[:first]), self.names)
        self._embedding = compile("".join(lines[first:]), "README.md", "exec")

    def __call__(self, texts):
        self.names["texts"] = texts
        exec(self._embedding, self.names)
        vectors = np.asarray(self.names["vectors"], np.float32)
        assert len(vectors) == len(texts)
        return vectors


def hold(hub, embed, limits, places=None):
    """Hold vectors to ``limits``: of texts one by one, and in batches of mixed lengths."""
    places = range(len(hub.some)) if places is None else places
    some = [hub.some[place] for place in places]
    alone = np.concatenate([embed([text]) for text in some])
    batches = [embed(some[at : at + BATCH]) for at in range(0, len(some), BATCH)]
    lengths = np.linalg.norm(alone, axis=1)
    if hub.checkpoint.config.normalize:
        assert np.abs(lengths - 1).max() < 1e-4
    for way, vectors in (("one by one", alone), ("in batches", np.concatenate(batches))):
        found = hub.fidelity(vectors, list(places))
        print(f"{way}: {found}")
        assert found.cosine_mean >= limits.cosine_mean, way
        assert found.cosine_min >= limits.cosine_min, way
        assert found.overlap_at_10 >= limits.overlap_at_10, way


@pytest.fixture(params=MODELS)
def hub(request, hub_of, monkeypatch):
    it = hub_of(request.param)
    monkeypatch.chdir(it.folder)
    return it


def limits_of(hub, form):
    return thresholds(form, hub.checkpoint.config.num_layers)


def sentence_transformers():
    return pytest.importorskip("sentence_transformers")


def test_sentence_transformers(hub):
    sentence_transformers()
    embed = Pasted(hub, 'SentenceTransformer(".")')
    hold(hub, embed, limits_of(hub, "fp32"))
    model = embed.names["model"]
    assert model.max_seq_length == hub.checkpoint.config.max_seq_length
    for name in ("encode_query", "encode_document"):
        theirs = getattr(model, name)(hub.some[:20])
        assert compare_rows(theirs, getattr(hub.runtime, name)(hub.some[:20])) >= 0.99999


def compare_rows(a, b):
    """Return the least cosine of two arrays' rows."""
    a, b = np.asarray(a, "f8"), np.asarray(b, "f8")
    return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min()


@pytest.mark.parametrize("form", FORMS)
def test_sentence_transformers_in_onnx_runtime(hub, form):
    sentence_transformers()
    pytest.importorskip("optimum.onnxruntime", exc_type=ImportError)
    embed = Pasted(hub, 'backend="onnx"', **{FORMS["int8"]: FORMS[form]})
    hold(hub, embed, limits_of(hub, form))
    theirs = embed.names["model"].encode_query(hub.some[:20])
    assert (
        compare_rows(theirs, hub.runtime.encode_query(hub.some[:20]))
        >= limits_of(hub, form).cosine_min
    )


@pytest.mark.parametrize("form", FORMS)
def test_fastembed(hub, form):
    fastembed = pytest.importorskip("fastembed", exc_type=ImportError)
    name = hub.checkpoint.name
    renamed = {f'"{name}"': f'"{name}-{form}"', FORMS["int8"]: FORMS[form]}
    embed = Pasted(hub, "add_custom_model", **renamed)
    assert isinstance(embed.names["model"], fastembed.TextEmbedding)
    hold(hub, embed, limits_of(hub, form))


@pytest.mark.parametrize("form", FORMS)
def test_fastembed_that_pools_by_itself(hub, form):
    """What the card warns of: told the pooling, it gives the model's vectors but for Dense maps."""
    fastembed = pytest.importorskip("fastembed", exc_type=ImportError)
    from fastembed.common.model_description import ModelSource, PoolingType

    config, name = hub.checkpoint.config, f"{hub.checkpoint.name}-{form}-states"
    fastembed.TextEmbedding.add_custom_model(
        name,
        pooling=PoolingType.CLS if config.pooling == "cls" else PoolingType.MEAN,
        normalization=config.normalize,
        sources=ModelSource(hf=name),
        dim=config.hidden_size,
        model_file=FORMS[form],
    )
    model = fastembed.TextEmbedding(name, specific_model_path=".")
    vectors = np.array(list(model.embed(hub.some)))
    if config.dense:
        assert vectors.shape[1] == config.hidden_size != config.embedding_size
        assert "drops the linear maps" in hub.card
    else:
        assert hub.fidelity(vectors).cosine_min >= limits_of(hub, form).cosine_min


def has_marks(text):
    return any(unicodedata.category(letter) in ("Mc", "Me") for letter in text)


def test_llama_server(hub):
    """llama.cpp's own server, as the package of our runtime carries it, over HTTP."""
    xllamacpp = pytest.importorskip("xllamacpp")
    if hub.checkpoint.config.dense:
        assert hub.status == 2
        assert "-Q8_0.gguf: llama.cpp's bert has no Dense maps" in hub.card
        assert not list(hub.folder.glob("*.gguf"))
        return
    assert hub.status == 0
    (command,) = re.findall(r"^llama-server .*$", hub.card, re.M)
    words = shlex.split(command)
    parameters = xllamacpp.CommonParams()
    parameters.verbosity = -1
    while words:
        match words:
            case ["llama-server", *words]:
                pass
            case ["--embedding", *words]:
                parameters.embedding = True
            case ["--model", value, *words]:
                parameters.model.path = value
            case ["--parallel", value, *words]:
                parameters.n_parallel = int(value)
            case ["--ctx-size", value, *words]:
                parameters.n_ctx = int(value)
            case ["--batch-size", value, *words]:
                parameters.n_batch = int(value)
            case ["--ubatch-size", value, *words]:
                parameters.n_ubatch = int(value)
            case _:
                pytest.fail(f"an option that is not known here: {words[0]}")
    parameters.port = 0
    parameters.cpuparams.n_threads = 1
    server = xllamacpp.Server(parameters)
    embed = Pasted(hub, "urlopen", **{"http://127.0.0.1:8080": server.listening_address})
    plain = [place for place in hub.short if not has_marks(hub.some[place])]
    assert len(plain) > 200
    hold(hub, embed, limits_of(hub, "q8_0"), plain)
    # The card says what llama.cpp takes for accents, and that token ids may be sent instead.
    others = sorted(set(hub.short) - set(plain))
    assert 0 < len(others) < 5
    as_ids = embed([hub.runtime.tokenize(hub.some[place]) for place in others])
    assert compare_rows(as_ids, hub.truth[others]) >= limits_of(hub, "q8_0").cosine_min
    with pytest.raises(urllib.error.HTTPError) as refused:
        embed(hub.some[-1:])
    assert "too large" in json.load(refused.value)["error"]["message"]
    del server


def test_litert(hub):
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("tokenizers")
    hold(hub, Pasted(hub, "ai_edge_litert"), limits_of(hub, "int8"))


def test_the_card_tells_the_prompts(hub):
    prompts = {name: text for name, text in hub.checkpoint.prompts.items() if text}
    assert prompts == (PROMPTS if hub.folder.name == "made-up-hub" else {})
    for name, text in prompts.items():
        assert f"`{text}` ({name})" in hub.card
    assert ("with a prompt" in hub.card) == bool(prompts)

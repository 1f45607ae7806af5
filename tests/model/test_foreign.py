"""Other people's folders give sentence-transformers' vectors, or are refused by name."""

from __future__ import annotations

import json
import shutil

import folders
import numpy as np
import pytest
from conftest import SHIPPED
from folders import cosines, edit

from asterisk.common.errors import ArtifactError
from asterisk.model.checkpoint import load
from asterisk.runtimes.torch import reference


@pytest.fixture(scope="module")
def some(lines):
    return [
        *lines[:6],
        "[CLS] and [SEP] and <s> are text",
        "Hokkaidō, naïve café, Größe, 漢字 and 😀",
        "  white   space\n",
        "x" * 300,
        "long " * 520,
        "",
    ]


def same_vectors(folder, some, **options):
    """Tell how near our PyTorch runtime comes to sentence-transformers on the same folder."""
    theirs = folders.truth(folder).encode(some, batch_size=8, **options)
    with reference(load(folder)) as ours:
        found = ours.encode(some, **options)
    assert np.abs(np.linalg.norm(found, axis=1) / np.linalg.norm(theirs, axis=1) - 1).max() < 1e-4
    return cosines(found, theirs).min()


SHAPES = {
    "plain BERT": lambda path: folders.bert(path / "a"),
    "bge (CLS)": lambda path: folders.sentence_transformer(
        folders.bert(path / "a"), path / "b", pooling="cls"
    ),
    "max": lambda path: folders.sentence_transformer(
        folders.bert(path / "a"), path / "b", pooling="max", normalize=False
    ),
    "root of the length": lambda path: folders.sentence_transformer(
        folders.bert(path / "a"), path / "b", pooling="mean_sqrt_len_tokens", normalize=False
    ),
    "LEAF (Dense)": lambda path: folders.sentence_transformer(
        folders.bert(path / "a"), path / "b", dense=((96, "identity"),)
    ),
    "two Dense": lambda path: folders.sentence_transformer(
        folders.bert(path / "a"), path / "b", dense=((80, "tanh"), (48, "identity"))
    ),
    "ReLU": lambda path: folders.bert(path / "a", hidden_act="relu"),
    "tanh GELU": lambda path: folders.bert(path / "a", hidden_act="gelu_new"),
    "DistilBERT": lambda path: folders.sentence_transformer(
        folders.distilbert(path / "a"), path / "b"
    ),
    "RoBERTa": lambda path: folders.sentence_transformer(folders.roberta(path / "a"), path / "b"),
    "multilingual e5": lambda path: folders.sentence_transformer(
        folders.multilingual(path / "a"), path / "b"
    ),
    "XLM-R": lambda path: folders.multilingual(path / "a", "xlm-roberta"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_gives_the_vectors_of_sentence_transformers(shape, tmp_path, some):
    assert same_vectors(SHAPES[shape](tmp_path), some) > 0.99999


def test_minilm_as_it_is_published_and_as_it_is_saved_again(tmp_path, some):
    from sentence_transformers import SentenceTransformer

    assert same_vectors(folders.minilm(), some) > 0.99999
    SentenceTransformer(str(folders.minilm()), device="cpu").save(str(tmp_path / "again"))
    assert same_vectors(tmp_path / "again", some) > 0.99999
    assert load(tmp_path / "again").fingerprint == load(folders.minilm()).fingerprint


def test_our_own_saved_by_sentence_transformers(tmp_path, some):
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(SHIPPED), device="cpu").save(str(tmp_path / "d"))
    assert load(tmp_path / "d").fingerprint == load(SHIPPED).fingerprint
    assert same_vectors(tmp_path / "d", some[:-1]) > 0.99999


def test_what_the_folder_says_of_pooling_and_length_is_done(tmp_path, some):
    shutil.copytree(SHIPPED, tmp_path / "cls")
    edit(
        tmp_path / "cls/1_Pooling/config.json",
        pooling_mode_cls_token=True,
        pooling_mode_mean_tokens=False,
    )
    assert same_vectors(tmp_path / "cls", some[:-1]) > 0.99999
    shutil.copytree(SHIPPED, tmp_path / "short")
    edit(tmp_path / "short/sentence_bert_config.json", max_seq_length=16)
    assert same_vectors(tmp_path / "short", some[:-1]) > 0.99999
    assert load(tmp_path / "short").config.max_seq_length == 16
    assert load(tmp_path / "short").fingerprint == load(SHIPPED).fingerprint


def test_a_short_length_keeps_the_special_tokens(tmp_path, some):
    folder = folders.sentence_transformer(folders.bert(tmp_path / "a"), tmp_path / "b")
    for length in (2, 3, 7):
        edit(folder / "sentence_bert_config.json", max_seq_length=length)
        assert same_vectors(folder, some) > 0.99999


def test_a_cased_tokenizer_and_lower_casing_before_it(tmp_path, some):
    folder = folders.sentence_transformer(folders.bert(tmp_path / "a"), tmp_path / "b")
    edit(folder / "tokenizer_config.json", do_lower_case=False)
    cased = load(folder)
    assert same_vectors(folder, some) > 0.99999
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    assert same_vectors(folder, some) > 0.99999
    assert load(folder).fingerprint != cased.fingerprint


def resaved(folder, weights, name="model.safetensors"):
    from safetensors.torch import save_file

    save_file(weights, folder / name, metadata={"format": "pt"})


def weights_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture
def stored(tmp_path):
    """A copy of our checkpoint and its tensors."""
    folder = tmp_path / "copy"
    shutil.copytree(SHIPPED, folder)
    return folder, weights_of(folder)


@pytest.mark.parametrize("form", ["float32", "bert.", "position_ids", "shards", "pickle", "heads"])
def test_one_model_in_its_forms_is_one_space(form, stored, some):
    import torch

    folder, weights = stored
    if form == "float32":
        weights = {name: value.float() for name, value in weights.items()}
    elif form == "bert.":
        weights = {f"bert.{name}": value for name, value in weights.items()}
    elif form == "position_ids":
        weights["embeddings.position_ids"] = torch.arange(512)[None]
    elif form == "heads":
        weights = {f"bert.{name}": value for name, value in weights.items()}
        weights["cls.predictions.bias"] = torch.zeros(5)
    if form == "pickle":
        (folder / "model.safetensors").unlink()
        torch.save(
            {**weights, "embeddings.position_ids": torch.arange(512)[None]},
            folder / "pytorch_model.bin",
        )
    elif form == "shards":
        (folder / "model.safetensors").unlink()
        places = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(sorted(weights))}
        for shard in set(places.values()):
            part = {name: weights[name] for name, place in places.items() if place == shard}
            resaved(folder, part, shard)
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        resaved(folder, weights)
    assert load(folder).fingerprint == load(SHIPPED).fingerprint


def test_bfloat16(stored, some):
    import torch

    folder, weights = stored
    resaved(folder, {name: value.to(torch.bfloat16) for name, value in weights.items()})
    with reference(load(folder)) as ours, reference(load(SHIPPED)) as whole:
        assert cosines(ours.encode(some[:-1]), whole.encode(some[:-1])).min() > 0.999


def test_links_into_the_same_repositorys_blobs(tmp_path, some):
    blobs = tmp_path / "models--org--name" / "blobs"
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    (snapshot / "1_Pooling").mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(SHIPPED.rglob("*.*"))):
        if path.is_file() and path.parent.name in (SHIPPED.name, "1_Pooling"):
            shutil.copy(path, blobs / str(number))
            place = snapshot / path.relative_to(SHIPPED)
            up = "../" * (len(place.relative_to(tmp_path).parts) - 2)
            place.symlink_to(f"{up}blobs/{number}")
    assert load(snapshot).fingerprint == load(SHIPPED).fingerprint


def test_a_mount_that_links_through_a_data_folder(tmp_path):
    mount = tmp_path / "mount"
    shutil.copytree(SHIPPED, mount / "..2026_01_01")
    (mount / "..data").symlink_to("..2026_01_01")
    for path in (mount / "..2026_01_01").iterdir():
        (mount / path.name).symlink_to(f"..data/{path.name}")
    assert load(mount).fingerprint == load(SHIPPED).fingerprint


@pytest.mark.parametrize("place", ["config.json", "model.safetensors", "1_Pooling"])
def test_a_link_out_of_the_folder_is_refused(place, tmp_path):
    folder, outside = tmp_path / "copy", tmp_path / "outside"
    shutil.copytree(SHIPPED, folder)
    (folder / place).rename(outside)
    (folder / place).symlink_to(outside)
    with pytest.raises(ArtifactError, match="leaves the folder"):
        load(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with everything in it: Dense, prompts, Normalize."""
    base = tmp_path_factory.mktemp("whole")
    return folders.sentence_transformer(
        folders.bert(base / "a"),
        base / "whole",
        dense=((96, "identity"),),
        prompts={"query": "q: "},
    )


def modules(folder, change):
    path = folder / "modules.json"
    listed = json.loads(path.read_text())
    change(listed)
    path.write_text(json.dumps(listed))


def shards(folder, change):
    """Store the weights in two shards, with what ``change`` does to the index."""
    weights = weights_of(folder)
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(sorted(weights))}
    for shard in set(places.values()):
        resaved(folder, {n: weights[n] for n, place in places.items() if place == shard}, shard)
    text = change(folder, places, weights)
    (folder / "model.safetensors.index.json").write_text(text or json.dumps({"weight_map": places}))


def _other_names(folder):
    weights = weights_of(folder)
    resaved(folder, {f"model.x.{name}": value for name, value in weights.items()})


def _whole_numbers(folder):
    import torch

    weights = weights_of(folder)
    name = "encoder.layer.0.attention.self.query.weight"
    resaved(folder, weights | {name: weights[name].to(torch.int8)})


def _missing_shard(folder, places, weights):
    (folder / "model-1.safetensors").unlink()


def _climbing_shard(folder, places, weights):
    places[min(places)] = "../model-0.safetensors"


def _twice_in_the_index(folder, places, weights):
    name = min(places)
    body = json.dumps(places)[1:-1]
    return '{"weight_map": {' + body + f', "{name}": "model-1.safetensors"' + "}}"


def _in_two_shards(folder, places, weights):
    name = next(n for n, place in places.items() if place == "model-1.safetensors")
    part = {n: weights[n] for n, place in places.items() if place == "model-0.safetensors"}
    resaved(folder, {**part, name: weights[name]}, "model-0.safetensors")


def _pickle_with_code(folder):
    import torch

    class Evil:
        def __reduce__(self):
            return print, ("run",)

    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Evil()}, folder / "pytorch_model.bin")


def _large_vocabulary(folder):
    with (folder / "tokenizer.json").open("wb") as file:
        file.truncate(2 << 30)  # sparse


def _tokenizer(**changes):
    def change(folder):
        edit(folder / "tokenizer.json", **changes)

    return change


def _one_token_less(folder):
    values = json.loads((folder / "tokenizer.json").read_text())
    vocab = values["model"]["vocab"]
    del vocab[max(vocab, key=vocab.get)]
    (folder / "tokenizer.json").write_text(json.dumps(values))


REFUSED = {
    "another architecture": (
        lambda f: edit(f / "config.json", model_type="mpnet"),
        "mpnet.*supported: bert",
    ),
    "ModernBERT": (lambda f: edit(f / "config.json", model_type="modernbert"), "modernbert"),
    "code of its own": (
        lambda f: edit(f / "config.json", auto_map={"AutoModel": "modeling.Model"}),
        "auto_map",
    ),
    "relative positions": (
        lambda f: edit(f / "config.json", position_embedding_type="relative_key"),
        "relative_key",
    ),
    "a decoder": (lambda f: edit(f / "config.json", is_decoder=True), "is_decoder"),
    "another activation": (lambda f: edit(f / "config.json", hidden_act="silu"), "silu"),
    "adapters": (lambda f: edit(f / "adapter_config.json", peft_type="LORA"), "adapter"),
    "a Router": (
        lambda f: modules(
            f, lambda m: m.insert(0, {"type": "sentence_transformers.models.Router", "path": ""})
        ),
        "Router.*there are Transformer",
    ),
    "an unknown module": (
        lambda f: modules(f, lambda m: m.append({"type": "other.Thing", "path": "9_Thing"})),
        "other.Thing",
    ),
    "no pooling": (lambda f: modules(f, lambda m: m.pop(1)), "Pooling"),
    "two poolings": (lambda f: modules(f, lambda m: m.insert(1, m[1])), "Pooling"),
    "Dense after Normalize": (
        lambda f: modules(f, lambda m: m.append(m[2])),
        "Dense after Normalize",
    ),
    "a module outside": (lambda f: modules(f, lambda m: m[1].update(path="../a")), "no folder"),
    "a module that is not there": (
        lambda f: modules(f, lambda m: m[1].update(path="7_Pooling")),
        "7_Pooling",
    ),
    "a weighted mean": (
        lambda f: edit(f / "1_Pooling/config.json", pooling_mode="weightedmean"),
        "weightedmean",
    ),
    "two poolings at once": (
        lambda f: edit(f / "1_Pooling/config.json", pooling_mode=["cls", "mean"]),
        "cls, mean",
    ),
    "prompts left out of the pooling": (
        lambda f: edit(f / "1_Pooling/config.json", include_prompt=False),
        "include_prompt",
    ),
    "an unknown option of a module": (
        lambda f: edit(f / "1_Pooling/config.json", colour="red"),
        "colour",
    ),
    "a Dense that does not fit": (
        lambda f: edit(f / "2_Dense/config.json", in_features=65),
        "in_features 65|shape",
    ),
    "a Dense of another activation": (
        lambda f: edit(
            f / "2_Dense/config.json",
            activation_function="torch.nn.modules.activation.GELU",
        ),
        "GELU",
    ),
    "a Dense with a residual": (
        lambda f: edit(f / "2_Dense/config.json", use_residual=True),
        "use_residual",
    ),
    "a cut of dimensions": (
        lambda f: edit(f / "config_sentence_transformers.json", truncate_dim=32),
        "truncate_dim",
    ),
    "a default prompt that is not there": (
        lambda f: edit(f / "config_sentence_transformers.json", default_prompt_name="x"),
        "no prompt",
    ),
    "more tokens than positions": (
        lambda f: edit(f / "sentence_bert_config.json", max_seq_length=513),
        "512 positions",
    ),
    "fewer layers than tensors": (
        lambda f: edit(f / "config.json", num_hidden_layers=2),
        "unexpected tensor .encoder.layer.2",
    ),
    "another width": (lambda f: edit(f / "config.json", hidden_size=128), "shape"),
    "another number of positions": (
        lambda f: edit(f / "config.json", max_position_embeddings=256),
        "512 rows",
    ),
    "another number of types": (lambda f: edit(f / "config.json", type_vocab_size=1), "type"),
    "no config.json": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "an epsilon in quotes": (
        lambda f: edit(f / "config.json", layer_norm_eps="1e-12"),
        "layer_norm_eps must be a number",
    ),
    "a Dense whose bias is a word": (
        lambda f: edit(f / "2_Dense/config.json", bias="x"),
        "bias must be true or false",
    ),
    "the weights of another model": (_other_names, "no embeddings.word_embeddings.weight"),
    "a weight in whole numbers": (_whole_numbers, "query.weight is missing or not of floats"),
    "a smaller vocabulary": (_one_token_less, "30,521 tokens"),
    "a larger vocabulary": (lambda f: edit(f / "config.json", vocab_size=30_000), "shape|tokens"),
    "an unknown normaliser": (
        _tokenizer(normalizer={"type": "Upside", "down": True}),
        "Upside",
    ),
    "two gigabytes of vocabulary": (_large_vocabulary, "bytes|GiB|MB|large"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
    "a shard that is missing": (lambda f: shards(f, _missing_shard), "model-1.*missing"),
    "a shard elsewhere": (lambda f: shards(f, _climbing_shard), r"\.\./model"),
    "a tensor twice in the index": (lambda f: shards(f, _twice_in_the_index), "twice"),
    "a tensor in two shards": (lambda f: shards(f, _in_two_shards), "two shards|does not say"),
    "a pickle that wants code": (_pickle_with_code, "more than tensors"),
    "a name twice in config.json": (
        lambda f: (f / "config.json").write_text(
            (f / "config.json").read_text().rstrip()[:-1] + ', "hidden_act": "relu"}'
        ),
        "twice",
    ),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_is_not_done_is_refused_by_name(wrong, whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    change, message = REFUSED[wrong]
    change(folder)
    with pytest.raises(ArtifactError, match=message) as caught:
        load(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_a_padding_that_stands_in_every_text(tmp_path):
    """Positions are counted from RoBERTa's padding, so it cannot be the first token as well."""
    folder = folders.roberta(tmp_path / "a")
    edit(folder / "config.json", pad_token_id=0, max_position_embeddings=513)
    weights = weights_of(folder)
    positions = "embeddings.position_embeddings.weight"
    resaved(folder, weights | {positions: weights[positions][1:].clone()})
    with pytest.raises(ArtifactError, match=r"pad_token_id 0, .* is a token around every text"):
        load(folder)


def test_the_command_refuses_in_one_line_and_writes_nothing(whole, tmp_path, command):
    shutil.copytree(whole, tmp_path / "copy")
    edit(tmp_path / "copy/config.json", model_type="mpnet")
    done = command("export", tmp_path / "copy", "--out", tmp_path / "out")
    assert done.returncode == 5
    assert len(done.stderr.decode().strip().splitlines()) == 1
    assert b"mpnet" in done.stderr
    assert not (tmp_path / "out").exists()

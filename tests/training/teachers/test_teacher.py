"""Teachers against sentence-transformers and transformers, and the folder of targets they fill."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil

import numpy as np
import pytest

from asterisk.cli import teacher as command
from asterisk.common import texts
from asterisk.common.errors import ArtifactError
from asterisk.tokenizer import gpt2
from asterisk.training.corpora.clean import Evaluated
from asterisk.training.corpora.corpus import Corpus, DataRecipe, prepare
from asterisk.training.corpora.sources import Source
from asterisk.training.teachers import targets
from asterisk.training.teachers.targets import Shard, shard_folder
from asterisk.training.teachers.teacher import EncoderTeacher, find

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
SOME = [text.text for text in texts.load()]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def cosines(a, b):
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return (a * b).sum(1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Give the folder of a tiny random model of an architecture, with a tokenizer of its kind."""

    @functools.cache
    def saved(kind):
        import tokenizers

        torch.manual_seed(0)
        names = ("[UNK]", "[PAD]", "[CLS]", "[SEP]")
        if kind == "roberta":
            names = ("<unk>", "<pad>", "<s>", "</s>")
            tokenizer = tokenizers.ByteLevelBPETokenizer()
            specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
            tokenizer.train_from_iterator(SOME[:200], vocab_size=600, special_tokens=specials)
            fast = tokenizer._tokenizer
            fast.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
            sizes = {"vocab_size": 600, "intermediate_size": 64, "max_position_embeddings": 66}
            model = transformers.RobertaModel(transformers.RobertaConfig(**sizes, **SIZES))
        else:
            packaged = find("all-MiniLM-L6-v2") / "tokenizer.json"
            fast = tokenizers.Tokenizer.from_file(str(packaged))
            fast.no_padding()
            if kind == "distilbert":
                config = transformers.DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=4)
                model = transformers.DistilBertModel(config)
            else:
                config = transformers.BertConfig(intermediate_size=64, **SIZES)
                model = transformers.BertModel(config)
        folder = tmp_path_factory.mktemp("tiny") / kind
        model.eval().save_pretrained(folder)
        tokens = ("unk_token", "pad_token", "cls_token", "sep_token")
        options = dict(zip(tokens, names, strict=True))
        wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, **options)
        wrapped.save_pretrained(folder)
        return folder

    return saved


@pytest.fixture(scope="module")
def dressed(tiny, tmp_path_factory):
    """Give a tiny model as sentence-transformers saves it, and what that library makes of it."""
    library = pytest.importorskip("sentence_transformers")

    @functools.cache
    def saved(kind, pooling):
        modules = library.sentence_transformer.modules
        parts = [
            modules.Transformer(str(tiny(kind)), max_seq_length=40),
            modules.Pooling(32, pooling),
        ]
        made = library.SentenceTransformer(modules=parts, device="cpu")
        folder = tmp_path_factory.mktemp("dressed") / f"{kind}-{pooling}"
        made.save(str(folder))
        return folder, made

    return saved


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_sentence_transformer_of_any_architecture(dressed, kind, pooling):
    folder, made = dressed(kind, pooling)
    some = [*SOME[:20], "word " * 100, "ÉCOLE Ünïcödé"]
    theirs = made.encode(some, convert_to_numpy=True, show_progress_bar=False)
    teacher = EncoderTeacher(folder, engine="torch", longest=None)
    assert (teacher.pooling, teacher.size, teacher.engine) == (pooling, 32, "torch")
    assert teacher.longest == 40
    ours = teacher.sentences(0, some)
    assert ours.dtype == np.float32
    assert np.allclose(ours, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-5)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)


def test_a_plain_folder_is_pooled_by_the_mean(tiny):
    folder = tiny("roberta")
    teacher = EncoderTeacher(folder)
    assert (teacher.engine, teacher.longest) == ("torch", 64)  # positions begin behind padding
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for seen, text in zip(teacher.read(SOME[:9]), SOME[:9], strict=True):
        batch = tokenizer(text, return_tensors="pt", truncation=True, max_length=64)
        with torch.inference_mode():
            states = model(**batch).last_hidden_state[0].numpy()
        assert np.allclose(seen.states, states, atol=1e-5)
        assert len(seen.spans) == len(states)


def test_lower_case_keeps_the_offsets(dressed, tmp_path):
    folder = shutil.copytree(dressed("roberta", "mean")[0], tmp_path / "cased")
    assert not EncoderTeacher(folder).uncased
    rewrite(folder / "sentence_bert_config.json", do_lower_case=True)
    teacher = EncoderTeacher(folder)
    assert teacher.uncased
    text = "SHOUTED İstanbul words"  # its second word is longer in lower case
    (loud, quiet) = teacher.read([text, text.lower()])
    assert np.allclose(loud.sentence, quiet.sentence, atol=1e-6)
    assert loud.spans.max() == len(text) < len(text.lower()) == quiet.spans.max()


def test_int8_keeps_the_vectors_of_the_packaged_teacher():
    folder = find("all-MiniLM-L6-v2")
    fast = EncoderTeacher(folder, threads=2)
    exact = EncoderTeacher(folder, engine="torch", longest=None)
    assert (fast.engine, fast.uncased, fast.longest, fast.size) == ("int8", True, 512, 384)
    assert exact.longest == 256
    found = cosines(fast.sentences(0, SOME[:12]), exact.sentences(0, SOME[:12]))
    assert found.mean() > 0.98
    assert found.min() > 0.95


def test_int8_reads_any_bert(tiny):
    folder = tiny("bert")
    fast, exact = EncoderTeacher(folder), EncoderTeacher(folder, engine="torch")
    assert (fast.engine, exact.engine) == ("int8", "torch")
    assert cosines(fast.sentences(0, SOME[:20]), exact.sentences(0, SOME[:20])).mean() > 0.98


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_bfloat16_is_near(tiny, kind):
    folder = tiny(kind)
    half, exact = EncoderTeacher(folder, engine="bf16"), EncoderTeacher(folder, engine="torch")
    assert half.engine == half.identity["engine"] == "bf16"
    found = cosines(half.sentences(0, SOME[:20]), exact.sentences(0, SOME[:20]))
    assert 0.999 < found.min() < found.max() <= 1.00001
    assert found.min() < 1 - 1e-7


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: rewrite(f / "1_Pooling/config.json", pooling_mode="max"), "pooling 'max'"),
        (lambda f: (f / "modules.json").write_text("{}"), "not a list of modules"),
        (lambda f: (f / "modules.json").write_text('[{"type": "x.Dense", "path": "d"}]'), "Dense"),
        (
            lambda f: (f / "modules.json").write_text(
                '[{"type": "sentence_transformers.models.Pooling", "path": "../x"}]'
            ),
            "is no folder of a module",
        ),
        (lambda f: (f / "config.json").write_text("nonsense"), "not JSON"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "cannot open"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot open"),
        (lambda f: rewrite(f / "config.json", model_type="nothing-known"), "cannot open"),
        (
            lambda f: rewrite(
                f / "config_sentence_transformers.json",
                prompts={"q": "query: "},
                default_prompt_name="q",
            ),
            "a prompt before every text",
        ),
    ],
)
def test_what_cannot_be_a_teacher_is_one_line(dressed, tmp_path, spoil, told):
    shutil.copytree(dressed("bert", "mean")[0], tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(ArtifactError, match=told):
        EncoderTeacher(tmp_path / "model")


def test_int8_is_not_for_everybody(tiny):
    with pytest.raises(ArtifactError, match="--engine torch"):
        EncoderTeacher(tiny("distilbert"), engine="int8")


# --- targets


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("corpora") / "corpus"
    recipe = DataRecipe(texts=200, joined=0, held_out=20)
    prepare([Source("s", lambda: ((t,) for t in SOME))], recipe, out, evaluated=Evaluated())
    return out


@pytest.fixture(scope="module")
def bert(tiny):
    return tiny("bert")


@pytest.fixture(scope="module")
def taught(corpus, bert, tmp_path_factory):
    """Targets of the whole corpus, by the command."""
    out = tmp_path_factory.mktemp("taught") / "targets"
    assert teach(corpus, "--teacher", bert, "--out", out) == 0
    return out


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(targets, "SHARD", 64)


def teach(*arguments):
    return command.main([*map(str, arguments), "--size", "16"])


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_interrupted_work_goes_on(corpus, bert, tmp_path, small_shards):
    cut = tmp_path / "cut"
    assert teach(corpus, "--teacher", bert, "--out", cut) == 0
    made = contents(cut)
    assert {f"train/shard-0000{n}/tokens.npy" for n in range(4)} <= set(made)
    shutil.rmtree(shard_folder(cut / "train", 1))
    shutil.rmtree(shard_folder(cut / "train", 3))
    kept = shard_folder(cut / "train", 2).stat().st_mtime_ns
    assert teach(corpus, "--teacher", bert, "--out", cut) == 0
    assert contents(cut) == made
    assert shard_folder(cut / "train", 2).stat().st_mtime_ns == kept


def test_what_a_shard_holds(corpus, bert, tmp_path):
    out = tmp_path / "targets"
    assert teach(corpus, "--teacher", bert, "--out", out, "--limit", 12) == 0
    shard, some = Shard.open(shard_folder(out / "train", 0)), Corpus.open(corpus)
    lengths = np.diff(shard.ends, prepend=0)
    tokenizer = gpt2()
    rotation = np.load(out / "projection.npy")
    teacher = EncoderTeacher(bert)
    assert rotation.shape == (16, 32)
    assert np.allclose(rotation @ rotation.T, np.eye(16), atol=1e-5)
    assert shard.tokens is not None
    assert (shard.tokens.dtype, shard.ids.dtype, shard.sentences.dtype) == ("i1", "u2", "f2")
    for index in (0, 7, 199):
        ids = tokenizer.encode(some[index])[:12]
        assert shard.ids[shard.ends[index] - lengths[index] : shard.ends[index]].tolist() == ids
        seen = teacher.read([some[index]])[0]
        assert np.allclose(shard.sentences[index], seen.sentence, atol=1e-3)
    told = json.loads((out / "targets.json").read_text())
    assert (told["teacher"], told["limit"], told["size"], told["tokens"]) == (
        str(bert),
        12,
        16,
        True,
    )
    assert told["texts"] == {"train": 200, "held-out": len(Corpus.open(corpus, "held-out"))}


def test_sentences_only_agree_with_the_rest(corpus, bert, taught, tmp_path):
    poor = tmp_path / "poor"
    assert teach(corpus, "--teacher", bert, "--out", poor, "--sentences-only") == 0
    a, b = (Shard.open(shard_folder(out / "train", 0)) for out in (taught, poor))
    assert b.tokens is None
    assert np.array_equal(a.ids, b.ids)
    assert np.array_equal(a.sentences, b.sentences)
    one, two = (np.load(out / "projection.npy") for out in (taught, poor))
    assert np.abs((one[:4] * two[:4]).sum(1)).min() > 0.99


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["--limit", 9], "limit (512, not 9)"),
        (["--sentences-only"], "another tokens"),
        (["--engine", "torch"], "engine int8, not engine torch"),
        (["--teacher-length", 7], "longest 512, not longest 7"),
    ],
)
def test_other_settings_are_refused(corpus, bert, taught, *, capsys, changed, told):
    before = contents(taught)
    capsys.readouterr()
    assert teach(corpus, "--teacher", bert, "--out", taught, *changed) == 5
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert contents(taught) == before


def test_shards_without_a_description_are_taken_over_if_they_fit(
    corpus, bert, taught, tiny, *, tmp_path, capsys
):
    out, made = shutil.copytree(taught, tmp_path / "targets"), contents(taught)
    (out / "targets.json").unlink()
    capsys.readouterr()
    assert teach(corpus, "--teacher", bert, "--out", out, "--limit", 9) == 5
    assert "another corpus, teacher or limit" in capsys.readouterr().err
    assert not (out / "targets.json").exists()
    assert teach(corpus, "--teacher", tiny("distilbert"), "--out", out) == 5
    assert teach(corpus, "--teacher", bert, "--out", out) == 0
    assert contents(out) == made


def test_bad_input_is_one_line(corpus, bert, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("")
    for status, told, *arguments in (
        (5, "run asterisk-data first", tmp_path, "--out", tmp_path / "o"),
        (5, "neither a model folder", corpus, "--out", tmp_path / "o", "--teacher", tmp_path),
        (7, "something else", corpus, "--out", tmp_path / "mine", "--teacher", bert),
        (2, "is not a folder", corpus, "--out", tmp_path / "mine" / "notes", "--teacher", bert),
        (2, "--model is needed", corpus, "--out", tmp_path / "o", "--teacher", "http://x/v1"),
        (2, "--model goes with", corpus, "--out", tmp_path / "o", "--model", "m"),
        (2, "--held-out-vectors goes", corpus, "--out", tmp_path / "o", "--held-out-vectors", "m"),
    ):
        assert teach(*arguments) == status, told
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1
    arguments = [str(corpus), "--out", str(tmp_path / "o"), "--teacher", str(bert)]
    assert command.main([*arguments, "--size", "33"]) == 4
    assert "--size 32 at most" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()

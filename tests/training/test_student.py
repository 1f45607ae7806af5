"""Students made of layers that there are: against transformers, and through the commands."""

from __future__ import annotations

import json
import resource
import shutil
from dataclasses import replace

import folders
import numpy as np
import pytest
import torch

from asterisk.cli import teacher as teacher_command
from asterisk.cli import train as train_command
from asterisk.common import texts
from asterisk.common.errors import ArtifactError, UsageError
from asterisk.model.checkpoint import load, save
from asterisk.model.encoder import of_checkpoint
from asterisk.training.batches import Targets, fit_axes
from asterisk.training.corpora.clean import Evaluated
from asterisk.training.corpora.corpus import Corpus, DataRecipe, prepare
from asterisk.training.corpora.sources import Source
from asterisk.training.distil import Distillation, read_curve
from asterisk.training.recipe import PRESETS
from asterisk.training.student import narrowed, with_layers
from asterisk.training.teachers.targets import Shard, shard_folder
from asterisk.training.teachers.teacher import CheckpointTeacher

transformers = pytest.importorskip("transformers")
SOME = [text.text for text in texts.load()]
BRIEF = ("--passes", "200", "--batch-tokens", "256", "--evaluate-every", "10")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A corpus, a teacher of three layers, and targets in its tokens by the command."""
    folder = tmp_path_factory.mktemp("from-teacher")
    recipe = DataRecipe(texts=300, joined=0, held_out=30)
    source = Source("wiki_sentences", lambda: ((text,) for text in SOME))
    prepare([source], recipe, folder / "corpus", evaluated=Evaluated())
    bare = folders.bert(folder / "bare", max_position_embeddings=64)
    folders.sentence_transformer(bare, folder / "teacher")
    (folder / "teacher" / "README.md").write_text("---\nlicense: apache-2.0\n---\nA teacher.\n")
    (folder / "teacher" / "LICENSE").write_text("Apache License\n")
    assert teach(folder, "--limit", "40") == 0
    return folder


def teach(folder, *options, teacher="teacher", out="targets"):
    line = [folder / "corpus", "--out", folder / out, "--teacher", folder / teacher]
    return teacher_command.main([*map(str, line), "--tokenizer", "teacher", *options])


def train(data, out, *options, targets="targets"):
    line = [data / "corpus", data / targets, "--out", out / "out", "--run", out / "run"]
    return train_command.main([*map(str, line), *BRIEF, *map(str, options)])


def cosine(ours, theirs):
    return torch.nn.functional.cosine_similarity(torch.as_tensor(ours), torch.as_tensor(theirs))


def test_targets_are_what_transformers_gives(data):
    shard, some = (
        Shard.open(shard_folder(data / "targets" / "train", 0)),
        Corpus.open(data / "corpus"),
    )
    model = transformers.AutoModel.from_pretrained(data / "bare").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(data / "teacher")
    cut = 0
    for index in range(0, 300, 29):
        batch = tokenizer(some[index], return_tensors="pt", truncation=True, max_length=40)
        start, end = (int(shard.ends[index - 1]) if index else 0), int(shard.ends[index])
        assert shard.ids[start:end].tolist() == batch["input_ids"][0].tolist()
        cut += end - start == 40
        with torch.inference_mode():
            states = model(**batch).last_hidden_state[0].numpy()
        held = shard.tokens[start:end] * shard.scales[start:end, None]
        assert np.square(held - states).sum() < 1e-3 * np.square(states).sum()  # bfloat16, 8 bits
        assert folders.cosines(shard.sentences[index][None], states.mean(0)[None]) > 0.999
    assert cut
    told = json.loads((data / "targets" / "targets.json").read_text())
    assert (told["tokenizer"], told["identity"]["longest"]) == ("teacher", 40)
    assert told["identity"]["fingerprint"] == load(data / "teacher").fingerprint


def test_a_wide_vocabulary_keeps_its_ids(tmp_path, data):
    folder = folders.multilingual(tmp_path / "wide")
    tokenizer = load(folder).tokenizer
    seen = CheckpointTeacher(folder).read(SOME[:3])
    for one, text in zip(seen, SOME[:3], strict=True):
        opened = tokenizer.open()
        assert one.ids.tolist() == opened.with_special_tokens(opened.encode(text))


def test_all_layers_are_the_teacher(data, tmp_path):
    """A student that takes all of it has nothing to learn: its curve begins at 1."""
    assert train(data, tmp_path, "--from-teacher", "--layers", "0,1,2", "--passes", "100") == 0
    first, *_, last = read_curve(tmp_path / "run" / "curve.csv")
    assert first["held_out_cosine"] > 0.9995
    assert last["held_out_cosine"] > 0.99
    student, teacher = load(tmp_path / "out"), load(data / "teacher")
    assert student.compatible_with == (teacher.fingerprint,)
    assert student.tokenizer.identity() == teacher.tokenizer.identity()
    assert student.teacher_projection is None
    assert student.config.max_seq_length == 40


def test_layers_are_those_that_were_named(data):
    """As transformers computes them with the other layers taken out."""
    teacher = load(data / "teacher")
    student = with_layers(teacher, (2, 0))
    theirs = transformers.AutoModel.from_pretrained(data / "bare").eval()
    theirs.encoder.layer = torch.nn.ModuleList([theirs.encoder.layer[2], theirs.encoder.layer[0]])
    ids = torch.randint(1_000, 30_000, (3, 17))
    with torch.inference_mode():
        ours = of_checkpoint(student).tokens(ids)
        assert torch.allclose(ours, theirs(ids).last_hidden_state, atol=1e-4)
    assert student.compatible_with == ()
    for layers, told in (((0, 3), "has 3 layers, 0 to 2"), ((1, 1), "twice")):
        with pytest.raises(UsageError, match=told):
            with_layers(teacher, layers)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert train(data, folder, "--from-teacher", "--layers", "0,2") == 0
    return folder


def test_two_layers_learn(trained, data):
    rows = read_curve(trained / "run" / "curve.csv")
    assert rows[-1]["held_out_cosine"] > rows[0]["held_out_cosine"] + 0.02
    card = (trained / "out" / "README.md").read_text()
    assert "layers 0 and 2" in card
    theirs = folders.truth(trained / "out").encode(SOME[:20])
    ours = CheckpointTeacher(trained / "out", engine="torch").sentences(0, SOME[:20])
    assert np.allclose(ours, theirs, atol=1e-5)


def test_a_run_that_is_cut_ends_in_the_same_bytes(trained, data, tmp_path, monkeypatch):
    """Killed behind its last save, in the middle of everything."""

    class Cut(Exception):
        pass

    advance = Distillation._advance

    def cut(self, indices, *, paired):
        if self.step == 6:
            self._save()
        if self.step == 12:
            raise Cut
        return advance(self, indices, paired=paired)

    with monkeypatch.context() as patched:
        patched.setattr(Distillation, "_advance", cut)
        with pytest.raises(Cut):
            train(data, tmp_path, "--from-teacher", "--layers", "0,2")
    assert train(data, tmp_path, "--from-teacher", "--layers", "0,2") == 0
    for name in ("model.safetensors", "config.json", "embedding_space.json"):
        assert (tmp_path / "out" / name).read_bytes() == (trained / "out" / name).read_bytes()
    assert load(tmp_path / "out").fingerprint == load(trained / "out").fingerprint


def test_one_goes_on_from_another(trained, data, tmp_path):
    assert train(data, tmp_path, "--from", trained / "out", "--passes", "9") == 0
    before, after = (read_curve(where / "run" / "curve.csv") for where in (trained, tmp_path))
    assert after[0]["held_out_cosine"] == pytest.approx(before[-1]["held_out_cosine"], abs=2e-3)
    assert load(tmp_path / "out").compatible_with == (load(data / "teacher").fingerprint,)
    assert "beginning as an earlier out." in (tmp_path / "out" / "README.md").read_text()


def test_a_narrower_student(trained, data, tmp_path):
    """Its projection brings the teacher's vectors to it, and it can be trained on."""
    assert train(data, tmp_path, "--from", trained / "out", "--width", "48") == 0
    student = load(tmp_path / "out")
    config = student.config
    assert (config.hidden_size, config.num_heads, config.intermediate_size) == (48, 3, 96)
    axes = student.teacher_projection
    assert axes.shape == (48, 64)
    assert np.allclose(axes @ axes.T, np.eye(48), atol=1e-3)
    assert student.compatible_with == ()
    vectors = CheckpointTeacher(data / "teacher", engine="torch").sentences(0, SOME[:50])
    ours = CheckpointTeacher(tmp_path / "out", engine="torch").sentences(0, SOME[:50])
    rows = read_curve(tmp_path / "run" / "curve.csv")
    assert cosine(ours, vectors @ axes.T).mean() == pytest.approx(
        rows[-1]["held_out_cosine"], abs=0.1
    )
    again = tmp_path / "again"
    assert train(data, again, "--from", tmp_path / "out", "--passes", "9") == 0
    assert read_curve(again / "run" / "curve.csv")[0]["held_out_cosine"] == pytest.approx(
        rows[-1]["held_out_cosine"], abs=2e-3
    )
    assert np.array_equal(load(again / "out").teacher_projection, axes)


def test_axes_keep_most_of_the_teacher(data):
    targets = Targets(data / "targets" / "train", 300, None, as_read=True)
    axes = fit_axes(targets, 48)
    sentences = targets.sentences(0)
    kept = np.linalg.norm(sentences @ axes.T, axis=1)
    _, _, best = np.linalg.svd(sentences, full_matrices=False)
    assert kept.mean() > np.linalg.norm(sentences @ best[:48].T, axis=1).mean() - 0.02


def test_narrowing_takes_the_strongest(data):
    """Heads and channels that write nothing are the first to go, and nothing changes."""
    teacher = load(data / "teacher")
    tensors = {name: value.copy() for name, value in teacher.tensors.items()}
    for layer in range(3):
        start = f"encoder.layer.{layer}."
        tensors[f"{start}attention.output.dense.weight"][:, 16:32] = 0
        tensors[f"{start}output.dense.weight"][:, ::2] = 0
    weaker = replace(teacher, tensors=tensors)
    narrow = narrowed(weaker, np.eye(64, dtype="f4")[:48], 64)
    for layer in range(3):
        start = f"encoder.layer.{layer}."
        kept = [*range(16), *range(32, 64)]
        value = tensors[f"{start}attention.self.value.weight"]
        assert np.array_equal(
            narrow.tensors[f"{start}attention.self.value.weight"], value[kept, :48]
        )
        inner = tensors[f"{start}intermediate.dense.bias"]
        assert np.array_equal(narrow.tensors[f"{start}intermediate.dense.bias"], inner[1::2])
    for axes, inner, told in (
        (np.eye(64, dtype="f4")[:40], 64, "no multiple of the head size, 16"),
        (np.eye(64, dtype="f4")[:48], 129, "there are 128"),
    ):
        with pytest.raises(UsageError, match=told):
            narrowed(teacher, axes, inner)


def test_a_teacher_of_another_width(data, tmp_path):
    """LEAF's shape: a Dense to the teacher's width, no projection, the teacher's own space."""
    bare = folders.bert(tmp_path / "bare", hidden_size=96, max_position_embeddings=64)
    folders.sentence_transformer(bare, tmp_path / "teacher")
    shutil.copytree(data / "corpus", tmp_path / "corpus")
    assert teach(tmp_path, "--limit", "40") == 0
    options = ("--layers", "0,1", "--passes", "400")
    assert train(tmp_path, tmp_path, "--from", data / "teacher", *options) == 0
    student = load(tmp_path / "out")
    assert (student.config.hidden_size, student.config.embedding_size) == (64, 96)
    assert student.compatible_with == (load(tmp_path / "teacher").fingerprint,)
    rows = read_curve(tmp_path / "run" / "curve.csv")
    assert rows[-1]["held_out_cosine"] > rows[0]["held_out_cosine"] + 0.1
    assert rows[-1]["token_loss"] < rows[1]["token_loss"]
    assert folders.truth(tmp_path / "out").encode(["one text"]).shape == (1, 96)


@pytest.mark.parametrize("pooling", ["cls", "max"])
def test_the_teacher_s_pooling_and_maps(data, tmp_path, pooling):
    folders.sentence_transformer(
        data / "bare", tmp_path / "teacher", pooling=pooling, dense=((24, "tanh"),)
    )
    shutil.copytree(data / "corpus", tmp_path / "corpus")
    assert teach(tmp_path, "--limit", "40", "--engine", "torch") == 0
    shard = Shard.open(shard_folder(tmp_path / "targets" / "train", 0))
    theirs = folders.truth(tmp_path / "teacher")
    theirs.max_seq_length = 40
    wanted = theirs.encode(Corpus.open(tmp_path / "corpus")[:20])
    assert np.allclose(shard.sentences[:20], wanted, atol=2e-3)
    assert train(tmp_path, tmp_path, "--from-teacher", "--layers", "0,1,2", "--passes", "9") == 0
    assert read_curve(tmp_path / "run" / "curve.csv")[0]["held_out_cosine"] > 0.999


def test_what_does_not_fit_is_one_line(data, trained, tmp_path, capsys):
    other = folders.bert(tmp_path / "other", num_hidden_layers=2, max_position_embeddings=64)
    cased = folders.roberta(tmp_path / "cased")
    swapped = shutil.copytree(data / "targets", tmp_path / "swapped")
    folders.edit(swapped / "targets.json", teacher=str(other))
    begin = ("--from-teacher", "--layers", "0,2")
    capsys.readouterr()
    for told, options, changed in (
        ("layers, 0 to 2", ("--from-teacher", "--layers", "0,7"), {}),
        ("layers, 0 to 2", ("--from-teacher", "--layers", "5"), {}),
        ("names a layer twice", ("--from-teacher", "--layers", "1,1"), {}),
        ("not a whole number", ("--from-teacher", "--layers", "0,x"), {}),
        ("another tokenizer", ("--from", cased), {}),
        ("another teacher", begin, {"targets": swapped}),
        ("is missing", begin, {"targets": tmp_path / "nothing"}),
        ("begins once", (*begin, "--from", other), {}),
        ("--bag line", (*begin, "--bag", "line"), {}),
        ("need --from-teacher or --from", (), {}),
        ("num_heads 2: what the student begins with has 4", (*begin, "--heads", "2"), {}),
        ("hidden_size 32", (*begin, "--hidden", "32"), {}),
        ("no multiple of the head size", ("--from-teacher", "--width", "50"), {}),
    ):
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(tmp_path)
            try:
                status = train(data, tmp_path / "new", *options, **changed)
            except SystemExit as left:  # argparse
                status = left.code
        said = capsys.readouterr().err
        assert told in said, told
        assert said.count("\n") == 1, said
        assert status in (2, 5)
        assert not (tmp_path / "new").exists()
    # The folder of a run is that run's.
    shutil.copytree(trained / "run", tmp_path / "begun" / "run")
    for told, options in (
        ("begun with passes 200", (*begin, "--passes", "100")),
        ("begun with fingerprint", ("--from-teacher", "--layers", "0,1")),
    ):
        assert train(data, tmp_path / "begun", *options) == ArtifactError.status
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1


def test_targets_of_gpt2_s_tokens_have_no_layers_to_take(data, tmp_path, capsys):
    shutil.copytree(data / "targets", tmp_path / "old")
    folders.edit(tmp_path / "old" / "targets.json", tokenizer=None)
    for options in (("--from-teacher",), ("--width", "32"), ("--layers", "0,1")):
        assert train(data, tmp_path / "new", *options, targets=tmp_path / "old") == 2
        said = capsys.readouterr().err
        assert "asterisk-teacher --tokenizer teacher" in said
        assert said.count("\n") == 1


def test_what_a_teacher_cannot_be_asked(data, tmp_path, capsys):
    prompted = shutil.copytree(data / "teacher", tmp_path / "prompted")
    folders.edit(
        prompted / "config_sentence_transformers.json",
        prompts={"query": "query: "},
        default_prompt_name="query",
    )
    capsys.readouterr()
    for status, told, options, changed in (
        (2, "--size is for", ("--size", "32"), {}),
        (2, "--sentences-only is for", ("--sentences-only",), {}),
        (2, "--teacher-length is for", ("--teacher-length", "9"), {}),
        (2, "--engine int8 is for", ("--engine", "int8"), {}),
        (5, "prompt before every text", (), {"teacher": prompted, "out": tmp_path / "o"}),
        (5, "engine bf16, not engine torch", ("--limit", "40", "--engine", "torch"), {}),
        (5, "longest 40, not longest 12", ("--limit", "12"), {}),
    ):
        assert teach(data, *options, **changed) == status, told
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1


def test_interrupted_targets_go_on_and_are_taken_over(data, tmp_path):
    whole = shard_folder(data / "targets" / "train", 0)
    cut = shutil.copytree(data / "targets", tmp_path / "targets")
    shutil.rmtree(shard_folder(cut / "train", 0))
    (cut / "targets.json").unlink()
    assert teach(data, "--limit", "40", out=cut) == 0
    for path in sorted(whole.iterdir()):
        assert path.read_bytes() == (shard_folder(cut / "train", 0) / path.name).read_bytes()


def test_a_full_disk_leaves_no_half_shard(data, tmp_path, capsys):
    """The limit on a file's size stands for the disk's end."""
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        status = teach(data, out=tmp_path / "targets")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert status == 7, said
    assert said.splitlines()[-1].startswith("asterisk-teacher: cannot write")
    assert "Traceback" not in said
    whole = {"targets", "targets.json", "held-out", "shard-00000", "train"}
    left = {path.name for path in (tmp_path / "targets").rglob("*") if path.suffix != ".npy"}
    assert left <= whole
    assert not list((tmp_path / "targets" / "train").glob("*"))
    assert teach(data, out=tmp_path / "targets") == 0


def test_the_preset(data, trained):
    told = json.loads((trained / "run" / "run.json").read_text())["recipe"]
    assert told["optimiser"] == PRESETS["from-teacher"].optimiser == "adamw"
    assert told["relation_weight"] == 0


def test_the_licence_is_passed_on(trained, data, tmp_path, capsys):
    assert (trained / "out" / "LICENSE").read_text() == "Apache License\n"
    card = (trained / "out" / "README.md").read_text()
    assert "license: apache-2.0\n" in card
    assert "layers 0 and 2 of" in card
    (tmp_path / "mine").write_text("another\n")
    few = ("--passes", "9")
    assert (
        train(data, tmp_path, "--from", trained / "out", "--licence", tmp_path / "mine", *few) == 0
    )
    assert (tmp_path / "out" / "LICENSE").read_text() == "another\n"
    capsys.readouterr()
    assert train(data, tmp_path, "--from", trained / "out", "--licence", tmp_path / "none") == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_saved_and_read_again(trained, tmp_path):
    """What is passed on stays: the teacher's space and the tokenizer."""
    found = load(trained / "out")
    save(found, tmp_path / "copy")
    again = load(tmp_path / "copy")
    assert (again.fingerprint, again.compatible_with) == (found.fingerprint, found.compatible_with)

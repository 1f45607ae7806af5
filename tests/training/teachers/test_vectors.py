"""Teachers that only give vectors: files, and a service that fails, throttles and lies."""

from __future__ import annotations

import gzip
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.cli import teacher as command
from asterisk.common.errors import EngineError, InputError, UsageError
from asterisk.training.corpora.clean import Evaluated
from asterisk.training.corpora.corpus import Corpus, DataRecipe, prepare
from asterisk.training.corpora.sources import Source
from asterisk.training.teachers import targets, vectors
from asterisk.training.teachers.targets import Shard, shard_folder
from asterisk.training.teachers.teacher import Teacher
from asterisk.training.teachers.vectors import (
    KEY,
    Budget,
    BudgetSpent,
    Endpoint,
    JsonLines,
    NpyRows,
    check_address,
    retry_after,
)

pytest.importorskip("openai")
SIZE = 24
SECRET = "sk-a-very-secret-key"


def vector(text: str) -> np.ndarray:
    """Return the vector that everybody here gives a text, not normalised."""
    seed = int.from_bytes(text.encode()[:6].ljust(6), "little") + len(text)
    return np.random.default_rng(seed).normal(size=SIZE)


def unit(some) -> np.ndarray:
    rows = np.stack([vector(text) for text in some])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    from asterisk.common import texts

    out = tmp_path_factory.mktemp("corpora") / "corpus"
    some = [text.text for text in texts.load()]
    recipe = DataRecipe(texts=200, joined=0, held_out=20)
    prepare([Source("s", lambda: ((t,) for t in some))], recipe, out, evaluated=Evaluated())
    return out


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(targets, "SHARD", 64)
    monkeypatch.setattr(targets, "PROJECTION_TEXTS", 100)
    monkeypatch.delenv(KEY, raising=False)


def teach(*arguments):
    return command.main([*map(str, arguments), "--size", "16"])


def check_targets(out, corpus):
    for part in ("train", "held-out"):
        some = Corpus.open(corpus, part)
        made = [Shard.open(path) for path in sorted((out / part).iterdir())]
        assert all(shard.tokens is None for shard in made)
        found = np.concatenate([shard.sentences for shard in made])
        assert np.allclose(found, unit(some), atol=1e-3)
    rotation = np.load(out / "projection.npy")
    wanted = targets.fit_projection(unit(Corpus.open(corpus)[:100]).astype("f4"), 16)
    assert np.abs((rotation[:8] * wanted[:8]).sum(1)).min() > 0.99


# --- files


def test_npy(corpus, tmp_path):
    for part in ("train", "held-out"):
        rows = np.stack([vector(text) for text in Corpus.open(corpus, part)])
        np.save(tmp_path / f"{part}.npy", rows.astype("f4"))
    out = tmp_path / "targets"
    files = ("--teacher", tmp_path / "train.npy", "--held-out-vectors", tmp_path / "held-out.npy")
    assert teach(corpus, *files, "--out", out) == 0
    check_targets(out, corpus)
    told = json.loads((out / "targets.json").read_text())
    assert told["identity"]["kind"] == "npy"
    assert (told["tokens"], told["uncased"], told["dimensions"]) == (False, False, SIZE)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.ones((4, 3)), "4 rows for 5 texts"),
        (np.ones((5, 3), int), "not floats"),
        (np.ones((5, 0)), "not floats"),
        (np.ones(5), "not one array"),
        (np.array([{}] * 5), "cannot read"),
    ],
)
def test_npy_that_does_not_fit(tmp_path, values, told):
    np.save(tmp_path / "v.npy", values, allow_pickle=True)
    with pytest.raises(InputError, match=told):
        NpyRows(tmp_path / "v.npy", 5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
def test_npy_with_a_bad_row(tmp_path, wrong):
    values = np.ones((5, 3), "f4")
    values[3] = wrong
    np.save(tmp_path / "v.npy", values)
    rows = NpyRows(tmp_path / "v.npy", 5)
    assert np.allclose(rows.sentences(0, ["a"] * 3), 3**-0.5)
    with pytest.raises(InputError, match="vector 1 is zero or not finite"):
        rows.sentences(2, ["a"] * 3)


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_npy_of_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.npy"
    path.write_bytes(content)
    with pytest.raises(InputError):
        NpyRows(path, 5)


def line(text, values=None) -> str:
    values = vector(text).tolist() if values is None else values
    return json.dumps({"text": text, "embedding": values}) + "\n"


def test_json_lines_in_any_order(corpus, tmp_path):
    every = [text for part in ("train", "held-out") for text in Corpus.open(corpus, part)]
    path = tmp_path / "v.jsonl"
    path.write_text("".join(line(text) for text in [*reversed(every), "another"]) + "\n")
    out = tmp_path / "targets"
    assert teach(corpus, "--teacher", path, "--out", out) == 0
    check_targets(out, corpus)


def test_a_text_without_a_vector_is_named(corpus, tmp_path, capsys):
    path = tmp_path / "v.jsonl"
    train = Corpus.open(corpus)
    path.write_text("".join(line(text) for text in train if text != train[70]))
    assert teach(corpus, "--teacher", path, "--out", tmp_path / "o") == 4
    told = capsys.readouterr().err.splitlines()
    assert "no vector for text 70" in told[-1]
    assert train[70][:40] in told[-1]


@given(st.lists(st.text(max_size=20), min_size=1, unique=True), st.randoms())
@settings(max_examples=40, deadline=None)
def test_json_lines_are_found_by_text(tmp_path_factory, some, random):
    path = tmp_path_factory.getbasetemp() / "found.jsonl"
    path.write_text("".join(line(text, [1.0, index]) for index, text in enumerate(some)))
    found = JsonLines(path)
    order = random.sample(range(len(some)), len(some))
    rows = found.sentences(0, [some[index] for index in order])
    assert np.allclose(rows[:, 1] / rows[:, 0], order)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no line"),
        ("{", "line 1: not JSON"),
        (line("a", [1.0]) + line("b", [1.0, 2.0]), "line 2: 2 dimensions, not 1"),
        (line("a", [True]), "line 1: not"),
        (line("a", ["1"]), "line 1: not"),
        (line("a", []), "line 1: not"),
        ('{"text": "a", "embedding": [1e999]}', "line 1: not"),
        ('{"text": "a", "embedding": [NaN]}', "line 1: not"),
        ('{"text": 1, "embedding": [1]}', "line 1: not"),
        ("[" * 99_999, "line 1: not JSON"),
    ],
)
def test_json_lines_that_are_wrong(tmp_path, content, told):
    path = tmp_path / "v.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=told):
        JsonLines(path)


# --- a service


class Service:
    """A local service whose ``script`` says how it answers its next requests; then it is well."""

    def __init__(self):
        self.script, self.asked, self.headers = [], [], []
        self.at = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.at.append(time.monotonic())
                outer.asked.append(body)
                outer.headers.append(dict(self.headers))
                outer.path = self.path
                say = outer.script.pop(0) if outer.script else good
                status, headers, content = say(body)
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()


def answer(data, **more):
    return 200, {}, json.dumps({"object": "list", "data": data, **more}).encode()


def items(body):
    return [
        {"object": "embedding", "index": i, "embedding": vector(text).tolist()}
        for i, text in enumerate(body["input"])
    ]


def good(body):
    tokens = sum(len(text.split()) for text in body["input"])
    return answer(items(body), usage={"prompt_tokens": tokens, "total_tokens": tokens})


def reordered(body):
    return answer(items(body)[::-1])


def refusal(status, message="no", **headers):
    content = json.dumps({"error": {"message": message}}).encode()
    return lambda body: (status, {k.replace("_", "-"): v for k, v in headers.items()}, content)


def hung_up(body):
    return None, {}, b""


@pytest.fixture(scope="module")
def shared_service():
    it = Service()
    yield it
    it.server.shutdown()
    it.server.server_close()


@pytest.fixture
def service(shared_service):
    it = shared_service
    it.script, it.asked, it.headers, it.at = [], [], [], []
    return it


@pytest.fixture
def ask(service):
    """Open the service as a teacher that does not really wait; ``waits`` are how long it would."""

    def opened(**options):
        waits = []
        it = Endpoint(service.base, "m", sleep=waits.append, **options)
        it.waits = waits
        return it

    return opened


def test_vectors_come_in_order(service, ask):
    some = [f"text {i}" for i in range(50)]
    service.script = [reordered, good, reordered]
    teacher: Teacher = ask(batch=7, at_once=3)
    assert np.allclose(teacher.sentences(0, some), unit(some), atol=1e-6)
    assert teacher.size == SIZE
    assert service.path == "/v1/embeddings"
    assert {len(body["input"]) for body in service.asked} == {7, 1}
    assert service.asked[0]["model"] == "m"
    assert "Authorization" not in service.headers[0]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(service, ask, status):
    service.script = [refusal(status), hung_up, refusal(status), refusal(status)]
    teacher = ask()
    assert teacher.sentences(0, ["a"]).shape == (1, SIZE)
    assert len(service.asked) == 5
    for attempt, wait in enumerate(teacher.waits):
        assert 2**attempt <= wait <= 2**attempt + 1


def test_retry_after_is_honoured(service, ask):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    service.script = [refusal(429, Retry_After="17"), refusal(503, Retry_After=soon)]
    teacher = ask()
    teacher.sentences(0, ["a"])
    assert teacher.waits[0] == 17
    assert 30 < teacher.waits[1] <= 40
    service.script = [refusal(429, Retry_After="86400")]
    with pytest.raises(EngineError, match="86400 seconds"):
        teacher.sentences(0, ["a"])


def test_patience_ends(service, ask):
    service.script = [refusal(500, "on fire")] * 99
    with pytest.raises(EngineError, match="failed 7 times: 500 on fire"):
        ask().sentences(0, ["a"])
    assert len(service.asked) == vectors.ATTEMPTS


def test_nobody_there():
    teacher = Endpoint("http://127.0.0.1:9/v1", "m", sleep=lambda seconds: None)
    with pytest.raises(EngineError, match="failed 7 times"):
        teacher.sentences(0, ["a"])


@pytest.mark.parametrize("status", [400, 401, 404, 301])
def test_what_will_not_pass_is_told_at_once(service, ask, status):
    service.script = [refusal(status, "bad \x1b[31m\nrequest", Location="http://elsewhere/")]
    with pytest.raises(EngineError) as failure:
        ask().sentences(0, ["a"])
    assert str(failure.value).endswith(f"answered {status} bad [31m request")
    assert len(service.asked) == 1


def lie(change):
    def say(body):
        data = items(body)
        return answer(change(data))

    return say


def changed(place, **fields):
    def change(data):
        data[place] = {**data[place], **fields}
        return data

    return change


@pytest.mark.parametrize(
    "say",
    [
        lie(lambda data: data[:-1]),
        lie(lambda data: [*data, data[0]]),
        lie(lambda data: []),
        lie(changed(0, index=1)),
        lie(changed(0, index=-1)),
        lie(changed(0, index="0")),
        lie(changed(1, index=True)),
        lie(changed(1, embedding=[1.0])),
        lie(changed(1, embedding=[float("nan")] * SIZE)),
        lie(changed(1, embedding=[0.0] * SIZE)),
        lie(changed(1, embedding=["1"] * SIZE)),
        lie(changed(1, embedding="AAAA")),
        lie(changed(1, embedding=None)),
        lie(lambda data: {"not": "a list"}),
        lambda body: (200, {}, b"<html>"),
        lambda body: (200, {}, b"[" * 99_999),
        lambda body: (200, {}, b"3"),
    ],
)
def test_lies_are_noticed(service, ask, say):
    service.script = [good, say]
    teacher = ask(batch=3)
    with pytest.raises(EngineError, match=r"127\.0\.0\.1"):
        teacher.sentences(0, [f"text {i}" for i in range(6)])


def test_an_answer_without_end_is_dropped(service, ask, monkeypatch):
    monkeypatch.setattr(vectors, "LARGEST", 10_000)
    service.script = [lambda body: (200, {}, b" " * 200_000)]
    with pytest.raises(EngineError, match="answered more than"):
        ask().sentences(0, ["a"])


def test_a_compressed_answer_is_not_unpacked(service, ask):
    bomb = gzip.compress(bytes(100 << 20))
    for status in (200, 400):
        service.script = [lambda body: (status, {"Content-Encoding": "gzip"}, bomb)]  # noqa: B023
        with pytest.raises(EngineError, match=r"not JSON|answered 400"):
            ask().sentences(0, ["a"])


@given(st.binary(max_size=100), st.sampled_from([200, 400, 500]))
@settings(max_examples=15, deadline=None)
def test_any_answer_is_one_failure(shared_service, content, status):
    shared_service.script = [lambda body: (status, {}, content)] * 9
    teacher = Endpoint(shared_service.base, "m", sleep=lambda seconds: None)
    with pytest.raises(EngineError) as failure:
        teacher.sentences(0, ["a"])
    assert len(str(failure.value).splitlines()) == 1


# --- the key


def test_the_key_comes_from_the_environment_and_stays_there(
    service, corpus, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv(KEY, SECRET)
    out = tmp_path / "targets"
    arguments = (corpus, "--out", out, "--teacher", service.base, "--model", "m")
    service.script = [refusal(401, f"Incorrect API key provided: {SECRET}")]
    assert teach(*arguments) == 8
    told = capsys.readouterr()
    assert "Incorrect API key provided: ***" in told.err
    assert service.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert teach(*arguments) == 0
    told = capsys.readouterr()
    assert SECRET not in told.err + told.out
    for path in out.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
    check_targets(out, corpus)


def test_variables_of_others_are_not_sent(service, ask, monkeypatch):
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "CUSTOM_HEADERS", "BASE_URL"):
        monkeypatch.setenv(f"OPENAI_{name}", f"authorization: {SECRET}")
    ask().sentences(0, ["a"])
    assert SECRET not in str(service.headers)
    assert "Authorization" not in service.headers[0]


@pytest.mark.parametrize(
    "base",
    [
        "http://user:pass@host/v1",
        "https://host/v1?api_key=1",
        "https://host/v1#x",
        "https:///v1",
        "http://host:port/v1",
        "https://host..org/v1",
        "https://host/\0",
        "http://example.org/v1",
    ],
)
def test_addresses_that_hold_or_betray_a_secret(base):
    with pytest.raises(UsageError) as failure:
        check_address(base, secret=True)
    assert "pass" not in str(failure.value)


# --- pace and budget


def test_every_request_waits_its_turn(service, ask, monkeypatch):
    monkeypatch.setattr(vectors.time, "monotonic", lambda: 0.0)
    service.script = [refusal(500)]
    teacher = ask(batch=1, per_minute=600)
    teacher.sentences(0, ["a", "b", "c", "d"])
    turns = [wait for wait in teacher.waits if wait < 1]
    assert np.allclose(turns, [0, 0.1, 0.2, 0.3, 0.4])


@given(st.text(max_size=40))
def test_any_retry_after_is_read_or_left(told):
    failure = SimpleNamespace(response=SimpleNamespace(headers={"retry-after": told}))
    assert retry_after(failure) >= 0


def test_a_budget_in_tokens_learns_what_a_text_costs():
    budget = Budget(tokens=100)
    assert budget.refusal(1, 301)
    assert not budget.refusal(1, 299)
    budget.spend(1, 100, 10)
    assert not budget.refusal(1, 900)
    assert budget.refusal(1, 901)


def test_a_budget_ends_between_shards_and_work_goes_on(service, corpus, tmp_path, capsys):
    out = tmp_path / "targets"
    arguments = (corpus, "--out", out, "--teacher", service.base, "--model", "m")
    assert teach(*arguments, "--budget-texts", 150) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "budget of 150 texts does not cover the next 64 texts: 3 of 5 shards" in told
    assert "run the same command again" in told
    done = {path: path.stat().st_mtime_ns for path in (out / "train").iterdir()}
    assert len(done) == 2
    held = len(Corpus.open(corpus, "held-out"))
    asked = [len(body["input"]) for body in service.asked]
    assert sum(asked) == 1 + 2 * 64 + held  # one to learn the size
    assert (out / "projection.npy").is_file()
    assert teach(*arguments, "--budget-tokens", 1_000_000) == 0
    check_targets(out, corpus)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    asked = [len(body["input"]) for body in service.asked]
    assert sum(asked) == len(Corpus.open(corpus)) + held + 2


def test_a_budget_below_one_shard_asks_for_nothing(service, ask):
    teacher = ask(budget=Budget(tokens=5))
    with pytest.raises(BudgetSpent, match="5 tokens"):
        teacher.sentences(0, ["some text that is long enough"])
    assert not service.asked


def test_a_failure_keeps_what_is_done(service, corpus, tmp_path, capsys):
    out = tmp_path / "targets"
    arguments = (corpus, "--out", out, "--teacher", service.base, "--model", "m", "--batch", 64)
    service.script = [good, good, refusal(400, "too long")]
    assert teach(*arguments) == 8
    assert "400 too long" in capsys.readouterr().err
    assert [path.name for path in (out / "train").iterdir()] == [shard_folder(out, 0).name]
    assert teach(*arguments) == 0
    check_targets(out, corpus)
    assert teach(*arguments[:-2], "--dimensions", 8) == 5
    assert "dimensions" in capsys.readouterr().err


def test_the_client_is_an_extra(corpus, tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    arguments = ("--teacher", "http://127.0.0.1:9/v1", "--model", "m", "--out", tmp_path / "o")
    assert teach(corpus, *arguments) == 3
    assert "asterisk-edge[train]" in capsys.readouterr().err

"""The whole way to a device over a real ssh, and everything that can be wrong on it.

The device is this machine behind an sshd, the bundle a small one of `fake`; what an emulated board
does with a real one is in test_emulated_pi.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench.reports import recorded
from hypothesis import given
from hypothesis import strategies as st
from sshd import running

from asterisk.bench.results import read
from asterisk.bench.targets import Ssh, parse_target
from asterisk.cli import deploy as command
from asterisk.common import ssh as client
from asterisk.common.errors import ArtifactError, EngineError, UsageError
from asterisk.common.ssh import parse
from asterisk.deploy import DeployError, boards, deploy, service
from asterisk.deploy.device.install import execute
from deploy import fake

SSH = shutil.which("ssh")
ADDRESS = "ssh://board"


PUMP = f"{sys.executable} {Path(__file__).with_name('pump.py')}"
KILL = """
n=$(( $(cat "$N" 2>/dev/null || echo 0) + 1 )); echo $n > "$N"
[ $n = {call} ] || exec $SSH "$@"
{how}
"""
SAYS = """
n=$(( $(cat "$N" 2>/dev/null || echo 0) + 1 )); echo $n > "$N"
case $n in 1) exec $SSH "$@" ;; 2) echo '{{}}' ;; *) echo {line} ;; esac
"""
CUT = 'exec {pump} cut {count} /dev/null $SSH "$@"'


class Way:
    """A command line to a device, with what is there afterwards."""

    def __init__(self, server, tmp_path, monkeypatch):
        self.server = server
        self.folder = tmp_path
        self.prefix = tmp_path / "device" / "asterisk"
        self.prefix.parent.mkdir()
        self.monkeypatch = monkeypatch
        self.made = {}
        self.programs = tmp_path / "programs"
        self.programs.mkdir()
        monkeypatch.setenv("PATH", f"{self.programs}:{os.environ['PATH']}")
        monkeypatch.setattr(boards, "MACHINE", platform.machine())
        monkeypatch.setattr(boards, "PYTHONS", {fake.PYTHON: "this one"})
        monkeypatch.setattr(deploy, "open_artifact", fake_artifact)
        monkeypatch.setattr(deploy, "collect", lambda artifact, board, python: self.bundle)

    def use(self, version="version1", **how):
        key = json.dumps([version, how])
        if key not in self.made:
            self.made[key] = fake.bundle(self.folder / f"bundle{len(self.made)}", version, **how)
        self.bundle = self.made[key]
        return self.bundle.manifest["id"]

    def installed(self, version="version1"):
        """Have a version on the device already; return its id."""
        id = self.use(version)
        source = self.bundle.files["bin/python"].parents[1]
        (source / "bundle.json").write_text(json.dumps(self.bundle.manifest))
        answer = execute(["--prefix", str(self.prefix)], source)
        assert answer["id"] == id, answer
        return id

    def run(self, *options, address=ADDRESS):
        other = {"--rollback", "--remove"} & set(options)
        artifact = [] if other else ["artifact"]
        return command.main([address, *artifact, "--prefix", str(self.prefix), *options])

    def ssh(self, script):
        """Have ``script`` run in the place of ssh; ``$SSH`` is the real one."""
        path = self.programs / "ssh"
        path.write_text(f"#!/bin/bash\nSSH={SSH}\nN={self.folder}/calls\n{script}\n")
        path.chmod(0o755)

    @property
    def current(self):
        link = self.prefix / "current"
        return link.readlink().name if link.is_symlink() else None

    def check(self, version):
        """Assert that ``version`` is what is used and that it works, and that nothing is left."""
        assert self.current == version
        done = subprocess.run(
            [self.prefix / "bin" / "asterisk-verify", self.prefix / "current" / "artifact"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "files intact" in done.stdout
        self.check_tidy()

    def check_tidy(self):
        wait_for(lambda: not list(self.prefix.parent.rglob(".asterisk-push-*")))
        wait_for(lambda: not list(self.prefix.glob("versions/.*")))
        assert list(self.server.there.iterdir()) == []


def fake_artifact(folder):
    class Known:
        class manifest:  # noqa: N801
            name, format, recipe = "toy", "tflite", "int8"

    return Known


def wait_for(condition):
    for _ in range(200):
        with contextlib.suppress(FileNotFoundError):  # of a folder that goes while it is looked at
            if condition():
                return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


@pytest.fixture
def way(tmp_path, monkeypatch):
    with running(tmp_path / "sshd", monkeypatch) as server:
        yield Way(server, tmp_path, monkeypatch)


def test_the_whole_way_and_only_what_changed_the_second_time(way, capsys):
    first = way.use()
    assert way.run() == 0
    message = capsys.readouterr()
    assert "pushed 7 of 7 files, 1.1 of 1.1 MB" in message.out
    assert "cosine to FP32 mean 0.99990 min 0.99910" in message.out
    assert f"id {first}, before none" in message.out
    steps = [line.partition(" ")[0] for line in message.err.splitlines()]
    assert steps == ["probe", "there:", "note:", "bundle", "push"]
    way.check(first)
    counter = way.folder / "bytes"
    way.ssh(f'exec {PUMP} count 0 {counter} $SSH "$@"')
    second = way.use("version2")
    assert way.run() == 0
    message = capsys.readouterr()
    assert "pushed 2 of 7 files" in message.out
    assert f"id {second}, before {first}" in message.out
    way.check(second)
    assert sum(map(int, counter.read_text().split())) < 150_000 < fake.ENGINE
    assert way.run() == 0
    assert "pushed 0 of 7 files" in capsys.readouterr().out
    way.check(second)


def test_a_dry_run_changes_nothing(way, capsys):
    wanted = way.use()
    assert way.run("--dry-run") == 0
    assert f"would push 7 of 7 files, 1.1 of 1.1 MB as {wanted}" in capsys.readouterr().out
    assert not way.prefix.exists()


@pytest.mark.slow
def test_back_and_away(way, capsys):
    first = way.installed()
    second = way.use("version2")
    assert way.run() == 0
    assert way.run("--rollback") == 0
    assert f"before {second}" in capsys.readouterr().out
    way.check(first)
    assert way.run("--remove") == 0
    assert not way.prefix.exists()
    way.check_tidy()
    assert way.run("--rollback") == 8
    assert "there is no earlier version" in one_line(capsys)


def one_line(capsys):
    """Return the complaint, after lines of progress."""
    lines = capsys.readouterr().err.splitlines()
    complaints = [line for line in lines if line.startswith("asterisk-deploy: ")]
    assert len(complaints) == 1
    assert lines[-1] == complaints[0]
    return complaints[0]


def test_an_engine_that_dies_there_leaves_the_old_one(way, capsys):
    old = way.installed()
    way.use("version2", engine="import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    assert way.run() == 8
    assert "onnxruntime 1.31.1 dies of an illegal instruction (SIGILL)" in one_line(capsys)
    way.check(old)


def test_an_artifact_that_fails_there_leaves_the_old_one(way, capsys):
    old = way.installed()
    way.use("version2", golden=False)
    assert way.run() == 8
    message = one_line(capsys)
    assert "verification failed" in message
    assert "cosine to FP32 is 0.10000" in message
    assert "the old installation stays" in message
    way.check(old)


@pytest.mark.slow
def test_one_that_fails_only_in_its_place_is_rolled_back(way, capsys):
    old = way.installed()
    way.use("version2", extra='case "$1" in */current/*) echo "not here" >&2; exit 6;; esac')
    assert way.run() == 8
    assert "not here" in one_line(capsys)
    way.check(old)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [60_000, 1_000_000])
def test_a_corrupted_push_is_noticed(way, capsys, offset):
    old = way.installed()
    way.monkeypatch.setattr(fake, "ENGINE", fake.ENGINE + 1)
    new = way.use("version2")
    way.ssh(KILL.format(call=3, how=f'exec {PUMP} flip {offset} /dev/null $SSH "$@"'))
    assert way.run() == 8
    message = one_line(capsys)
    assert "what arrived is not what was sent; the old installation stays" in message
    assert way.current == old
    way.check_tidy()
    (way.programs / "ssh").unlink()
    assert way.run() == 0
    way.check(new)


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_connection_that_never_comes_about(way, capsys, call):
    old = way.installed()
    way.use("version2")
    capsys.readouterr()
    way.ssh(KILL.format(call=call, how="echo 'ssh: connect: No route to host' >&2; exit 255"))
    assert way.run() == 8
    assert "No route to host" in one_line(capsys)
    way.check(old)


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 14_000, 400_000])
def test_a_connection_cut_while_files_are_sent(way, capsys, count):
    way.use()
    way.ssh(KILL.format(call=3, how=CUT.format(pump=PUMP, count=count)))
    assert way.run() == 8
    assert "Connection reset by peer" in one_line(capsys)
    assert way.current is None
    way.check_tidy()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["staged", "in its place"])
def test_a_connection_cut_while_it_is_installed(way, capsys, when):
    old = way.installed()
    reached = way.folder / "reached"
    place = "*/current/*" if when == "in its place" else "*/versions/.*"
    slow = f'case "$1" in {place}) touch {reached}; sleep 60;; esac'
    way.use("version2", extra=slow)
    how = f'$SSH "$@" <&0 & while [ ! -e {reached} ]; do sleep 0.1; done; kill -9 $!; exit 255'
    way.ssh(KILL.format(call=3, how=how))
    assert way.run() == 8
    assert "the device goes back to what it had" in one_line(capsys)
    wait_for(lambda: way.current == old)
    way.check(old)


@pytest.mark.slow
def test_ctrl_c_leaves_the_device_as_it_was(way, capsys):
    old = way.installed()
    reached = way.folder / "reached"
    way.use("version2", extra=f"touch {reached}; sleep 60")

    def interrupt():
        wait_for(reached.exists)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert way.run() == 130
    assert one_line(capsys) == "asterisk-deploy: interrupted"
    wait_for(lambda: way.current == old)
    way.check_tidy()


def test_a_machine_that_hangs_is_left_in_time(way, capsys):
    way.use("version2", extra="sleep 60")
    assert way.run("--timeout", "3") == 8
    assert "gave no answer in 3 s" in one_line(capsys)
    wait_for(lambda: way.current is None)
    way.check_tidy()


@pytest.mark.slow
def test_two_at_once(way, capsys):
    reached, go = way.folder / "reached", way.folder / "go"
    first = way.use(
        extra=f"touch {reached}; until [ -e {go} ]; do sleep 0.1; done", version="version1"
    )
    bundle = way.bundle
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(
            deploy.deploy(
                deploy.Request(parse(ADDRESS), str(way.prefix)), Path("x"), lambda line: None
            )
        )
    )
    thread.start()
    wait_for(reached.exists)
    way.use("version2")
    assert way.run() == 8
    assert "another installer is at work" in one_line(capsys)
    go.touch()
    thread.join()
    assert first in answers[0][0]
    assert bundle.manifest["id"] == way.current
    way.check(first)


@pytest.mark.slow
def test_a_full_disk(way, capsys):
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    small = way.prefix.parent
    words = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(small)]
    if subprocess.run(words, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this system does not let a file system be mounted")
    try:
        way.monkeypatch.setattr(boards, "SPARE_DISK", 1 << 20)
        old = way.installed()
        (small / "filler").write_bytes(b"x" * (12 << 20))
        other = fake.bundle(way.folder / "other", "version2")
        way.bundle = other
        way.monkeypatch.setattr(boards, "SPARE_DISK", 64 << 20)
        assert way.run() == 8
        assert "no space in" in one_line(capsys)
        way.monkeypatch.setattr(boards, "SPARE_DISK", -(1 << 30))
        big = fake.random.Random(2).randbytes(4 << 20)
        way.monkeypatch.setattr(fake, "ENGINE", len(big))
        way.bundle = fake.bundle(way.folder / "big", "version3")
        assert way.run() == 8
        message = one_line(capsys)
        assert "No space left on device" in message
        assert "the old installation stays" in message
        way.check(old)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_another_host_key_is_refused_and_told_what_to_do(way, capsys):
    way.use()
    way.server.trust((way.server.folder / "authorized").read_text("ascii"))
    assert way.run() == 8
    message = one_line(capsys)
    assert "host key verification failed" in message
    assert "ssh-keygen -R" in message
    assert not way.prefix.exists()


def test_a_wrong_key_and_a_dead_host(way, capsys):
    way.use()
    (way.server.folder / "authorized").write_text("")
    assert way.run() == 8
    assert "ssh-copy-id board" in one_line(capsys)
    way.server.stop()
    assert way.run() == 8
    assert "Connection refused" in one_line(capsys)


LIES = {
    "echo hello": "instead of a JSON object",
    "echo '[]'": "instead of a JSON object",
    "echo '{}'": "the probe's answer makes no sense",
    "printf '\\033[31m{\\n'": "instead of a JSON object",
    "yes": "answered with more than",
    "exit 127": "there is no python3",
    "exit 0": "instead of a JSON object",
    "kill -9 $$": "ended with status",
    "yes '[' | head -c 100000 | tr -d '\\n'": "instead of a JSON object",
}


@pytest.mark.parametrize("script", LIES)
def test_garbage_for_an_answer(way, capsys, script):
    way.use()
    way.ssh(script)
    assert way.run() == 8
    message = one_line(capsys)
    assert LIES[script] in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "line",
    [
        {"ok": True},
        {"ok": True, "line": 3},
        {"ok": "yes", "line": ""},
        {"ok": True, "line": "", "id": "0" * 16},
        {"ok": False, "line": "no\x1b[31m\nway"},
    ],
)
def test_lies_about_the_installation(way, capsys, line):
    way.use()
    way.ssh(SAYS.format(line=shlex.quote(json.dumps(line))))
    assert way.run() == 8
    assert one_line(capsys).isprintable()


@pytest.mark.parametrize(
    "message", [{"files": {"../x": "y"}}, {"files": []}, {"current": "../../x"}]
)
def test_lies_about_the_inventory(way, capsys, message):
    way.use()
    way.ssh(KILL.format(call=2, how=f"echo {shlex.quote(json.dumps(message))}"))
    assert way.run() == 8
    assert "inventory makes no sense" in one_line(capsys)


def test_a_folder_that_holds_something_else_is_left_alone(way, capsys):
    way.prefix.mkdir()
    (way.prefix / "precious").write_text("x")
    way.use()
    assert way.run() == 8
    assert "holds something else" in one_line(capsys)
    assert [path.name for path in way.prefix.iterdir()] == ["precious"]


def test_what_a_killed_session_left_is_removed_by_the_next(way):
    left = way.prefix.parent / ".asterisk-push-abcd1234"
    left.mkdir()
    (left / "big").write_bytes(b"x")
    other = way.prefix.parent / ".asterisk-push-me"
    other.mkdir()
    way.use()
    assert way.run() == 0
    assert not left.exists()
    assert other.exists()


USAGE = [
    ["ssh://board"],
    ["ssh://board", "artifact", "--rollback"],
    ["ssh://board", "--rollback", "--remove"],
    ["ssh://board", "--remove", "--bench"],
    ["ssh://board", "artifact", "--port", "8081"],
    ["ssh://board", "artifact", "--service", "--port", "80"],
    ["ssh://board", "artifact", "--service", "--host", "localhost; reboot"],
    ["ssh://board", "artifact", "--service", "--token-file", "token"],
    ["ssh://board", "artifact", "--service", "--prefix", "~/x"],
    ["ssh://board", "artifact", "--service", "--prefix", "/home/pi/asterisk"],
    ["ssh://board", "artifact", "--service", "--prefix", "/root"],
    ["ssh://board", "artifact", "--service", "--prefix", "/var/tmp/x"],
    ["ssh://[::1%; id]", "artifact"],
    ["ssh://[::1%]", "artifact"],
    ["ssh://board", "artifact", "--out", "x.json"],
    ["ssh://board", "artifact", "--board", "pi9"],
    ["board", "artifact"],
    ["pi@board", "artifact"],
    ["ssh://-oProxyCommand=touch${IFS}x", "artifact"],
    ["ssh://a b@board", "artifact"],
    ["ssh://-l@board", "artifact"],
    ["ssh://a;b@board", "artifact"],
    ["ssh://board?python=/usr/bin/python3", "artifact"],
    *(
        ["ssh://board", "artifact", "--prefix", folder]
        for folder in (
            *("", "/", "~", "relative", "~pi/x", "/a/../b", "/a/.", "/a//b", "/a'b", "/a b"),
            "/a\n",
            *("/a;b", "/-x", "/a$(id)", "~/..", "/" + "a" * 300, "/a\\b", "--"),
        )
    ),
]


@pytest.mark.parametrize("argv", USAGE, ids=" ".join)
def test_what_cannot_be_meant_is_one_line_and_no_connection(argv, monkeypatch, capsys):
    monkeypatch.setattr(client.subprocess, "Popen", None)
    try:
        status = command.main(argv)
    except SystemExit as left:  # argparse
        status = left.code
    assert status == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@given(st.text(max_size=30) | st.text("/~.ab-'\"\n $;`\\", max_size=20))
def test_a_prefix_is_a_plain_path_or_refused(text):
    try:
        folder = boards.check_prefix(text)
    except UsageError as refused:
        assert "\n" not in str(refused)  # noqa: PT017
        return
    assert folder == text
    assert folder.removeprefix("~").startswith("/")
    assert shlex.quote(folder.removeprefix("~")) == folder.removeprefix("~")
    assert not {"..", "."} & set(folder.split("/"))
    assert "/-" not in folder


@given(
    st.text(max_size=30) | st.text("-oPrxyCmand= @:;$`'\"\n?&/[]ssh", max_size=30),
    st.sampled_from([False, True]),
)
def test_no_address_adds_an_option_and_remote_words_stay_words(text, sudo):
    seen = []

    def popen(argv, **how):
        seen.append(argv)
        raise OSError("not really")

    try:
        address = parse(f"ssh://{text}")
    except UsageError as refused:
        assert "\n" not in str(refused)  # noqa: PT017
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(client.CONFIG, raising=False)
        patch.setattr(client.subprocess, "Popen", popen)
        with pytest.raises(DeployError):
            deploy.ask(address, "pass", {"prefix": "/x"}, sudo=sudo)
    (argv,) = seen
    fixed = ["ssh", "-T", *(part for option in client.OPTIONS for part in ("-o", option))]
    assert argv[: len(fixed)] == fixed
    message = argv[len(fixed) :]
    own = [*(["-l", address.user] if address.user else [])]
    own += [*(["-p", str(address.port)] if address.port else [])]
    assert message[:-1] == [*own, "--", address.host]
    assert not address.host.startswith("-")
    first = list(deploy.SUDO) if sudo else []
    words = shlex.split(message[-1])
    assert words[:-1] == [*first, "python3", "-I", "-c"]
    assert words[-1].startswith("import sys; exec(")


def test_a_zone_goes_along():
    address = parse("ssh://pi@[fe80::1%eth0.1]:22")
    assert client.arguments(address, ["true"])[-2:] == ["fe80::1%eth0.1", "true"]
    assert parse(str(address)) == address
    assert parse_target("ssh://[FE80::1%wlan0]").host == "fe80::1%wlan0"


def test_whoever_complains_a_lot_is_read_to_the_end(way):
    way.ssh("head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; echo out; echo why >&2; exit 3")
    with pytest.raises(client.RemoteError, match=r"^why$"):
        client.run(parse(ADDRESS), ["true"], timeout=20, limit=100)


def test_another_recipe_that_would_suit_better_is_named(way, capsys):
    way.use()
    assert way.run("--dry-run", "--board", "zero2w") == 0
    assert "note: int8-emb4 would suit a Raspberry Pi Zero 2 W better" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "model.safetensors"], "make an artifact of it by asterisk-export"),
        (["one/artifact.json", "two/artifact.json"], "asterisk-bundle says which suits a board"),
    ],
)
def test_what_only_a_bundle_takes_is_pointed_on(tmp_path, monkeypatch, capsys, names, message):
    monkeypatch.setattr(client.subprocess, "Popen", None)
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert command.main([ADDRESS, str(tmp_path)]) == ArtifactError.status
    assert message in one_line(capsys)


@pytest.mark.parametrize("manifest", ['{"schema": 99}', "{", None])
def test_an_artifact_of_another_version_is_refused_before_anybody_connects(
    tmp_path, monkeypatch, capsys, manifest
):
    monkeypatch.setattr(client.subprocess, "Popen", None)
    if manifest is not None:
        (tmp_path / "artifact.json").write_text(manifest)
    assert command.main([ADDRESS, str(tmp_path)]) == ArtifactError.status
    message = one_line(capsys)
    assert ("this version reads 2" in message) == (manifest == '{"schema": 99}')


@pytest.fixture
def benched(tmp_path, monkeypatch):
    """Have the benchmark answer with a recorded report; what it was asked for is kept."""
    known = SimpleNamespace(format="tflite", recipe="int8", fingerprint="space")
    asked, folders = [], []

    def bench(request, progress):
        asked.append(request)
        (folder,) = request.artifacts.iterdir()
        folders.append(folder.name)
        assert (folder / "model").read_text() == "x"
        return recorded()

    checkpoint = SimpleNamespace(name="asterisk-256", fingerprint="space")
    monkeypatch.setattr(command, "open_artifact", lambda folder: SimpleNamespace(manifest=known))
    monkeypatch.setattr("asterisk.model.checkpoint.load", lambda folder: checkpoint)
    monkeypatch.setattr("asterisk.bench.runner.bench", bench)
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    (artifact / "model").write_text("x")
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(asked=asked, known=known, folders=folders)


def test_the_benchmark_is_run_by_what_was_deployed_and_its_report_comes_home(way, benched, capsys):
    way.use()
    assert way.run("--bench") == (EngineError.status if recorded().failures else 0)
    (request,) = benched.asked
    (target,) = request.targets
    assert target == Ssh("board", python=f"{way.prefix}/bin/python")
    assert parse_target(str(target)) == target
    assert (request.runtimes, request.peers) == (("tflite",), ())
    path = Path("bench-results/deploy-board.json")
    assert read(path).to_json() == recorded().to_json()
    assert capsys.readouterr().out.splitlines()[-1] == str(path)


def test_an_artifact_that_the_benchmark_does_not_know_is_refused(way, benched, capsys):
    way.use()
    benched.known.fingerprint = "another"
    assert way.run("--bench") == 2
    assert "--bench measures the shipped checkpoint, and artifact is of another" in one_line(capsys)
    benched.known.fingerprint, benched.known.recipe = "space", "int7"
    assert way.run("--bench") == 2
    assert "--bench knows no tflite recipe 'int7'" in one_line(capsys)
    assert not benched.asked
    assert way.current is None  # and nothing was deployed


def test_the_benchmark_takes_the_recipe_that_was_deployed(way, benched):
    way.use()
    benched.known.recipe = "int8-emb4"
    assert way.run("--bench") == (EngineError.status if recorded().failures else 0)
    (request,) = benched.asked
    assert request.recipes == {"tflite": "int8-emb4"}
    assert benched.folders == ["asterisk-256-tflite-int8-emb4"]


def test_the_benchmark_prepares_the_recipe_that_it_is_asked_for(tmp_path, monkeypatch):
    from asterisk.bench import plan, prepare, process, runner
    from asterisk.common.files import shipped_checkpoint

    seen = []

    def artifact(checkpoint, name, folder, recipe):
        seen.append((name, recipe))
        raise EngineError("not really")

    def ask(module, wanted, *_, **how):
        return prepare.prepare(json.loads(json.dumps(wanted)))

    monkeypatch.setattr(prepare, "_artifact", artifact)
    monkeypatch.setattr(process, "ask", ask)
    folders = (shipped_checkpoint(), tmp_path, tmp_path)
    recipes = {"tflite": "int8-emb4"}
    runner.prepare(
        runner.Request(("tflite", "onnx"), (), *folders, (1,), plan.QUICK, 1, 9, recipes=recipes)
    )
    assert seen == [("tflite", "int8-emb4"), ("onnx", None)]


def test_the_unit_is_in_the_usual_place():
    assert service.PATH == "/etc/systemd/system/asterisk.service"

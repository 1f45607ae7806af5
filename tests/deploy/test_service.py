"""The unit as systemd itself judges it, and its way to a device, with a stand-in for systemctl.

The stand-in really starts what the unit's ExecStart names; what systemd confines it to is judged by
`systemd-analyze` alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.request
from dataclasses import replace

import pytest
from sshd import running

from asterisk.common.errors import UsageError
from asterisk.deploy import boards, deploy, service
from deploy.test_deploy import KILL, Way, one_line, wait_for

ANALYZE = shutil.which("systemd-analyze")
EXPOSED = 2.0  # of 10; systemd calls up to 2 "ok" or better
MANIFEST = {"name": "asterisk-256", "format": "tflite", "threads": 2, "max_memory": 128 << 20}

SUDO = """#!/bin/sh
printf "%s\\n" "$*" >> {log}/sudo
[ "$1" = -n ] || exit 1
shift
[ "$1" = -- ] && shift
exec "$@"
"""
SYSTEMCTL = """#!/bin/bash
log={log}
echo "$@" >> $log/systemctl
alive() {{ [ -s $log/pid ] && kill -0 "$(cat $log/pid)" 2>/dev/null; }}
end() {{ alive && kill -9 "$(cat $log/pid)"; rm -f $log/pid; true; }}
case "$1" in
  is-active) alive && echo active || {{ echo inactive; exit 3; }} ;;
  is-system-running) echo running ;;
  stop) end ;;
  disable) [ "$2" != --now ] || end ;;
  restart)
    end
    command=$(sed -n 's/^ExecStart=//p' {units}/"$2")
    setsid $command < /dev/null > /dev/null 2> $log/journal &
    echo $! > $log/pid
    sleep 0.2
    alive || {{ echo "Job for $2 failed." >&2; exit 1; }} ;;
esac
"""
JOURNALCTL = """#!/bin/sh
cat {log}/journal
"""


@pytest.fixture
def way(tmp_path, monkeypatch):
    with running(tmp_path / "sshd", monkeypatch) as server:
        way = Way(server, tmp_path, monkeypatch)
        way.units, way.log = tmp_path / "units", tmp_path / "log"
        for folder in (way.units, way.log, tmp_path / "board"):
            folder.mkdir()
        programs = {"sudo": SUDO, "systemctl": SYSTEMCTL, "journalctl": JOURNALCTL}
        for name, text in programs.items():
            path = tmp_path / "board" / name
            path.write_text(text.format(log=way.log, units=way.units))
            path.chmod(0o755)
        server.stop()
        server.start(environment={"PATH": f"{tmp_path}/board:{os.environ['PATH']}"})
        monkeypatch.setattr(service, "PATH", str(way.units / service.NAME))
        monkeypatch.setattr(service, "HIDDEN_FOLDERS", ())  # pytest's folders are in one of them
        read, script = boards.read_machine, deploy.script
        monkeypatch.setattr(
            boards, "read_machine", lambda message: replace(read(message), root=False)
        )
        monkeypatch.setattr(
            deploy,
            "script",
            lambda name: script(name).replace("PATIENCE = 60", "PATIENCE = 2"),
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            way.port = str(probe.getsockname()[1])
        yield way
        subprocess.run([tmp_path / "board" / "systemctl", "stop"], check=True)


def health(way):
    with urllib.request.urlopen(f"http://127.0.0.1:{way.port}/health", timeout=10) as answer:
        return json.load(answer)["version"]


def unit(way):
    path = way.units / "asterisk.service"
    return path.read_text() if path.exists() else None


def versions(way):
    """Return the previous version and all that are there."""
    link = way.prefix / "previous"
    known = {path.name for path in (way.prefix / "versions").iterdir()}
    return link.readlink().name if link.is_symlink() else None, known


def asked(way, name="systemctl"):
    path = way.log / name
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow
def test_a_service_is_installed_renewed_and_taken_away(way, capsys):
    way.installed("version0")
    first = way.use()
    assert way.run("--service", "--port", way.port) == 0
    assert health(way) == "version1"
    way.check(first)
    message = [line for line in asked(way) if line.startswith(("daemon", "enable", "restart"))]
    assert message == ["daemon-reload", "enable asterisk.service", "restart asterisk.service"]
    assert any(line.startswith("-n -- python3") for line in asked(way, "sudo"))
    assert f"ExecStart={way.prefix}/bin/asterisk-serve {way.prefix}/current/artifact" in unit(way)
    assert (way.units / "asterisk.service").stat().st_mode & 0o777 == 0o644
    second = way.use("version2")
    assert way.run("--service", "--port", way.port) == 0
    assert health(way) == "version2"
    assert versions(way) == (first, {first, second})  # not the oldest, now that it answers
    assert way.run("--rollback", "--service", "--port", way.port) == 0
    assert health(way) == "version1"
    way.check(first)
    assert f"before {second}" in capsys.readouterr().out
    assert way.run("--remove", "--service", "--port", way.port) == 0
    assert unit(way) is None
    assert not way.prefix.exists()
    with pytest.raises(OSError, match="refused"):
        health(way)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "message"),
    [("unserved", "asterisk-serve: it does not start"), ("unwell00", "/health did not answer")],
)
def test_a_server_that_does_not_come_up_gives_way_to_the_old_one(way, capsys, version, message):
    oldest = way.installed("version0")
    first = way.use()
    assert way.run("--service", "--port", way.port) == 0
    (way.units / "asterisk.service").write_text(unit(way) + "# by hand\n")
    before = unit(way)
    way.use(version)
    capsys.readouterr()
    assert way.run("--service", "--port", way.port) == 8
    line = one_line(capsys)
    assert message in line
    assert "the old installation stays" in line
    assert unit(way) == before
    assert health(way) == "version1"
    way.check(first)
    assert versions(way) == (oldest, {oldest, first})
    assert [path.name for path in way.units.iterdir()] == ["asterisk.service"]


@pytest.mark.slow
def test_a_rollback_whose_server_does_not_come_up_goes_forward_again(way, capsys):
    bad = way.installed("unserved")
    first = way.use()
    assert way.run("--service", "--port", way.port) == 0
    capsys.readouterr()
    assert way.run("--rollback", "--service") == 8  # at the port that the unit names
    line = one_line(capsys)
    assert "asterisk-serve: it does not start" in line
    assert line.endswith(f"; {first} is in use again")
    assert health(way) == "version1"
    way.check(first)
    assert versions(way) == (bad, {bad, first})


@pytest.mark.slow
def test_files_and_their_unit_belong_together(way, capsys):
    first = way.use()
    assert way.run("--service", "--port", way.port) == 0
    second = way.use("version2")
    capsys.readouterr()
    for options in ([], ["--remove"], ["--rollback"], ["--dry-run"]):
        assert way.run(*options) == 8
        message = one_line(capsys)
        assert f"asterisk.service serves from {way.prefix}: add --service" in message
    other = ["--prefix", str(way.folder / "other")]
    for option in ("--remove", "--rollback"):
        assert way.run(option, "--service", *other) == 8
        assert f"asterisk.service serves from {way.prefix}, not from" in one_line(capsys)
    assert health(way) == "version1"
    assert unit(way) is not None
    way.check(first)
    assert way.run("--service", "--port", way.port, "--dry-run", *other) == 0
    message = capsys.readouterr()
    assert f"note: asterisk.service served from {way.prefix}, where" in message.err
    assert second in message.out
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert way.run("--service", "--port", port) == 8  # also while it runs at another one
    assert f"port {port} is in use there" in one_line(capsys)


def test_a_first_one_that_does_not_come_up_leaves_nothing(way, capsys):
    way.use("unserved")
    assert way.run("--service", "--port", way.port) == 8
    assert "it does not start" in one_line(capsys)
    assert unit(way) is None
    assert not way.prefix.exists()
    way.check_tidy()


@pytest.mark.slow
def test_a_connection_cut_while_the_server_starts(way, capsys):
    first = way.use()
    assert way.run("--service", "--port", way.port) == 0
    way.use("version2")
    path = way.folder / "board" / "systemctl"
    path.write_text(
        path.read_text().replace(
            "restart)", "restart) [ -e $log/slow ] || { touch $log/slow; sleep 60; }", 1
        )
    )
    how = f'$SSH "$@" <&0 & while [ ! -e {way.log}/slow ]; do sleep 0.1; done; kill -9 $!; exit 255'
    way.ssh(KILL.format(call=3, how=how))
    assert way.run("--service", "--port", way.port) == 8
    wait_for(lambda: way.current == first)
    wait_for(lambda: asked(way).count("restart asterisk.service") == 3)
    way.check(first)
    wait_for((way.log / "pid").exists)


def test_a_port_in_use_is_one_line_and_nothing_is_sent(way, capsys):
    way.use()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(way.port)))
        taken.listen()
        assert way.run("--service", "--port", way.port) == 8
    assert f"port {way.port} is in use there" in one_line(capsys)
    assert not way.prefix.exists()


def test_no_sudo_without_a_password_is_one_line_and_nothing_is_sent(way, capsys):
    way.use()
    sudo = way.folder / "board" / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2; exit 1\n")
    assert way.run("--service", "--port", way.port) == 8
    assert "no sudo without a password" in one_line(capsys)
    assert not way.prefix.exists()


def test_a_token_file_that_is_not_there_is_one_line(way, capsys):
    way.use()
    token = way.folder / "token"
    options = ["--service", "--port", way.port, "--token-file", str(token)]
    assert way.run(*options) == 8
    assert f"there is no token file {token}" in one_line(capsys)
    assert not way.prefix.exists()
    assert unit(way) is None


def text(tmp_path, **how):
    program = tmp_path / "asterisk" / "bin" / "asterisk-serve"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "asterisk.service"
    it = service.unit(service.Service(**how), str(tmp_path / "asterisk"), MANIFEST)
    path.write_text(it)
    return path


def analysed(*words):
    if ANALYZE is None:
        pytest.skip("no systemd-analyze here")
    return subprocess.run([ANALYZE, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("token", ["", "/etc/asterisk/token"])
def test_systemd_understands_every_line(tmp_path, token):
    done = analysed("verify", "--man=no", "--recursive-errors=no", str(text(tmp_path, token=token)))
    complaints = [line for line in done.stderr.splitlines() if "asterisk" in line]
    assert complaints == []
    assert done.returncode == 0


def test_systemd_finds_it_hardly_exposed(tmp_path):
    done = analysed("security", "--offline=true", "--no-pager", str(text(tmp_path)))
    found = re.search(r"Overall exposure level for asterisk\.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSED


def test_memory_and_command_are_the_bundles(tmp_path):
    written = text(tmp_path, host="::1", port=9000, token="/etc/t").read_text()
    assert f"MemoryMax={160 << 20}\n" in written
    assert " --host ::1 --port 9000 --threads 2 --max-memory 134217728" in written
    assert " --token-file %d/token\n" in written
    assert "LoadCredential=token:/etc/t\n" in written


@pytest.mark.parametrize(("format", "limit"), [("tflite", 256), ("onnx", 256), ("gguf", 384)])
def test_without_a_limit_of_its_own_a_bundle_gets_its_formats(format, limit):
    manifest = {**MANIFEST, "format": format, "max_memory": None}
    written = service.unit(service.Service(), "/opt/asterisk", manifest)
    assert f" --max-memory {limit << 20}\n" in written
    assert f"MemoryMax={(limit + limit // 4) << 20}\n" in written


@pytest.mark.parametrize(
    "how",
    [
        {"host": "a\nExecStartPre=/bin/sh"},
        {"host": "%h"},
        {"port": 80},
        {"port": 70000},
        {"token": "relative"},
        {"token": "/a b"},
        {"token": "/a\nUser=root"},
        {"token": "/%h/x"},
    ],
)
def test_nothing_else_gets_into_a_unit(how):
    with pytest.raises(UsageError):
        service.Service(**how)

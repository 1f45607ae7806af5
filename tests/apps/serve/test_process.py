"""How the server starts and stops, and who may use it."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from apps.serve.conftest import NAME, answer, refused, running, until
from asterisk.apps.serve.server import read_token, unix_socket
from asterisk.cli.serve import main
from asterisk.common.errors import UsageError


def fails(command, *arguments, says: str, status: int, **options) -> None:
    done = command("serve", *arguments, **options)
    message = done.stderr.decode()
    assert done.returncode == status, message
    assert len(message.splitlines()) == 1, message
    assert says in message


def test_a_port_in_use(command, server, tflite):
    says = f"cannot listen on 127.0.0.1 port {server.port}: Address already in use"
    fails(command, tflite, "--port", server.port, says=says, status=2)
    assert server.embed("x")[0] == 200


@pytest.mark.parametrize(
    ("arguments", "says", "status"),
    [
        (("--port", "0"), "neither an artifact nor", 5),
        (("--host", "no.such.invalid"), "cannot listen on", 2),
        (("--host", "192.0.2.1"), "cannot listen on", 2),
        (("--port", "65536"), "is not a port", 2),
        (("--max-memory", "much"), "--max-memory", 2),
        (("--socket", "/"), "cannot listen on", 2),
    ],
)
def test_what_cannot_be_served(capfd, tmp_path, arguments, says, status):
    try:
        found = main([str(tmp_path), *arguments])
    except SystemExit as left:
        found = left.code
    message = capfd.readouterr().err
    assert (found, message.count("\n")) == (status, 1)
    assert says in message


def test_a_damaged_artifact(command, tflite, tmp_path):
    import shutil

    copy = shutil.copytree(tflite, tmp_path / "copy")
    with (copy / "model.tflite").open("r+b") as file:
        file.write(b"\0\0\0\0")
    fails(command, copy, "--port", 0, says="model.tflite", status=5)


def test_a_missing_extra_is_named(tflite):
    code = (
        "import sys; sys.modules['starlette'] = None; "
        "from asterisk.cli.serve import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tflite)], capture_output=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr.decode().count("\n") == 1
    assert b"asterisk-edge[serve]" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 0)])
def test_signals(tflite, number, status):
    with running(tflite) as server:
        assert server.embed("x")[0] == 200
        assert server.stop(number) == status
        assert len(server.messages.splitlines()) == 1


def test_a_token_is_asked_for(tflite, tmp_path):
    file = tmp_path / "token"
    file.write_text("s3cret-token\n")
    file.chmod(0o600)
    body = json.dumps({"model": NAME, "input": "x"}).encode()
    with running(tflite, "--token-file", file) as server:
        wrong = ["", "s3cret-token", "Bearer", "Bearer s3cret-toke", "Bearer s3cret-token2"]
        for given in (None, *wrong, "Basic s3cret-token", "Bearer \xe9"):
            headers = {} if given is None else {"Authorization": given}
            for method, path in (("POST", "/v1/embeddings"), ("GET", "/v1/models"),
                                 ("GET", "/metrics"), ("GET", f"/v1/models/{NAME}")):  # fmt: skip
                status, got, answer = server.call(method, path, body, headers)
                assert status == 401, given
                assert got["www-authenticate"] == "Bearer"
                assert refused(answer)["code"] == "invalid_api_key"
        for given in ("Bearer s3cret-token", "bearer s3cret-token"):
            headers = {"Authorization": given}
            assert server.call("POST", "/v1/embeddings", body, headers)[0] == 200
        assert server.call("GET", "/health")[0] == 200
        assert "warning" not in server.messages


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_a_token_that_others_could_read_or_change(tmp_path, mode):
    file = tmp_path / "token"
    file.write_text("token")
    file.chmod(mode)
    with pytest.raises(UsageError, match="must be private"):
        read_token(file)
    file.chmod(0o400)
    assert read_token(file) == b"token"


def test_a_token_that_is_none(tmp_path):
    for content in (b"", b"\n", b"two words", b"a\nb", b"\xff", b"x" * 5000):
        file = tmp_path / "token"
        file.write_bytes(content)
        file.chmod(0o600)
        with pytest.raises(UsageError):
            read_token(file)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError, match=str(path)):
            read_token(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match="not a plain file"):
        read_token(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_who_owns_a_token(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("token")
    file.chmod(0o440)  # as systemd hands a credential to a service with a user of its own
    with pytest.raises(UsageError, match="must be private"):
        read_token(file)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_token(file) == b"token"
    file.chmod(0o460)
    with pytest.raises(UsageError, match="must be private"):
        read_token(file)
    file.chmod(0o400)
    os.chown(file, 12345, 0)
    with pytest.raises(UsageError, match="another user"):
        read_token(file)


def test_another_address_without_a_token_is_warned_of(tflite):
    with running(tflite, "--host", "0.0.0.0") as server:
        assert re.search(
            r"warning: anyone who reaches \S+:\d+ may use it: no token\n", server.messages
        )
        assert server.embed("x")[0] == 200


def test_systemd_hears_when_it_is_ready_and_when_it_stops(tflite, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        with running(tflite, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as server:
            assert manager.recv(100) == b"READY=1"
            assert server.embed("x")[0] == 200
            assert server.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"


def test_a_unix_socket(tflite, tmp_path):
    path = tmp_path / "socket"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(path))  # by a server that was killed
    with running(tflite, "--socket", path) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("POST", "/v1/embeddings", json.dumps({"model": NAME, "input": "x"}))
        assert connection.getresponse().status == 200
        connection.close()
        assert server.stop() == 0
    assert not path.exists()


def test_a_new_server_takes_a_unix_socket_over_from_one_that_stops(tflite, tmp_path):
    path = tmp_path / "socket"
    data = json.dumps({"model": NAME, "input": ["many words"] * 20}).encode()
    with running(tflite, "--socket", path) as old, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\n")
        client.sendall(b"Content-Length: %d\r\n\r\n" % len(data) + data[:-1])
        time.sleep(0.2)
        old.process.send_signal(signal.SIGTERM)
        with socket.socket(socket.AF_UNIX) as it:
            until(lambda: it.connect_ex(str(path)) == errno.ECONNREFUSED)
        with running(tflite, "--socket", path):
            client.sendall(data[-1:])
            assert answer(client).startswith(b"HTTP/1.1 200 ")
            assert old.stop() == 0
            with socket.socket(socket.AF_UNIX) as it:
                it.connect(str(path))
        assert not path.exists()


def test_only_the_socket_of_its_own_is_removed(tmp_path):
    path = tmp_path / "socket"
    with unix_socket(path):
        path.chmod(0o660)
    assert not path.exists()
    with contextlib.ExitStack() as new:
        with unix_socket(path) as old:
            old.close()
            new.enter_context(unix_socket(path))  # perhaps with the same inode
        assert path.exists()
    assert not path.exists()


def test_a_memory_limit_bounds_requests_too(tflite):
    with running(tflite, "--threads", 2, "--max-memory", "96M") as server:
        assert server.embed("x")[0] == 200
        status, _, body = server.call("POST", "/v1/embeddings", b" " * 3_000_000)
        assert status == 413
        assert int(re.search(r"more than (\d+) bytes", refused(body)["message"])[1]) < 2_000_000
        assert server.embed(["many words " * 80] * 60)[0] == 200
        assert server.metric("process_resident_memory_bytes") < 96 << 20


def test_a_memory_limit_that_is_too_low(command, capfd, tflite):
    """It names the total with what is for requests, and that is taken."""
    assert main([str(tflite), "--port", "0", "--max-memory", "1"]) == 10
    assert "M for requests; a memory limit of 1 bytes is not enough" in capfd.readouterr().err
    done = command("serve", tflite, "--port", 0, "--max-memory", "50M")
    assert done.returncode == 10
    assert b"M for requests; a memory limit of " in done.stderr
    assert done.stderr.count(b"\n") == 1
    named = re.search(r"needs about (\d+)M ", done.stderr.decode())[1]
    with running(tflite, "--max-memory", f"{named}M") as server:
        assert server.embed("many words " * 500)[0] == 200
    done = command("serve", tflite, "--port", 0, "--max-memory", f"{int(named) - 4}M")
    assert done.returncode == 10


def test_only_what_is_needed_is_imported(tflite, python):
    done = python(
        "import sys, asterisk, asterisk.cli.serve, asterisk.apps.serve.server\n"
        "with asterisk.load(sys.argv[1]) as runtime: runtime.encode('x')\n"
        "print([name for name in ('httptools', 'uvloop', 'websockets', 'wsproto', 'pydantic', "
        "'torch', 'dotenv', 'watchfiles', 'httpx', 'jinja2', 'python_multipart', "
        "'asterisk.exporters') "
        "if name in sys.modules])",
        tflite,
    )
    assert done.stdout.strip() == "[]", done.stderr

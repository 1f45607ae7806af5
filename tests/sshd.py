"""A real sshd on this machine, with keys that are thrown away."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from asterisk.bench.targets import Ssh

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
ALIAS = "board"


class Server:
    """An sshd, its configuration for the client, and the temporary folder it gives sessions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.config = folder / "config"
        self.there = folder / "there"
        self.there.mkdir()
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        (folder / "user.pub").replace(folder / "authorized")
        self.trust((folder / "host.pub").read_text("ascii"))
        self.start()

    def trust(self, key: str) -> None:
        """Have the client know ``key`` as this host's."""
        known = self.folder / "known"
        known.write_text(f"{ALIAS} {key}", "ascii")
        self.config.write_text(
            f"Host {ALIAS}\n  HostName 127.0.0.1\n  HostKeyAlias {ALIAS}\n  Port {self.port}\n"
            f"  IdentityFile {self.folder}/user\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n",
            "ascii",
        )

    def start(
        self, temporary: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it, with ``temporary`` as everybody's folder for temporary files."""
        told = {"TMPDIR": str(temporary or self.there), **(environment or {})}
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host\n"
            f"AuthorizedKeysFile {self.folder}/authorized\nPidFile none\nStrictModes no\n"
            "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"SetEnv {' '.join(f'{name}={value}' for name, value in told.items())}\n",
            "ascii",
        )
        command = [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("sshd did not start")

    def stop(self) -> None:
        """Stop it, and with it every connection it has."""
        me = str(self.process.pid)
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", me], capture_output=True, text=True, check=False
        )
        for pid in listed.stdout.split():
            subprocess.run(["kill", "-9", pid], check=False)
        self.process.kill()
        self.process.wait()

    @property
    def target(self) -> Ssh:
        """Return it as a target, with this interpreter."""
        return Ssh(ALIAS, getpass.getuser(), python=sys.executable)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run an sshd that this project's client finds as ``ssh://board``; skip where there is none."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no sshd here: install openssh-server to test other machines over ssh")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    folder.mkdir()
    server = Server(folder)
    monkeypatch.setenv("ASTERISK_SSH_CONFIG", str(server.config))
    try:
        yield server
    finally:
        server.stop()

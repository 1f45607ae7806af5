"""Debian packages of another architecture: downloaded and unpacked, never installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asterisk.common.errors import EngineError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "ASTERISK_DEBIAN_MIRROR"
NEEDED = ("apt-get", "dpkg-deb", "tar")
_SETTINGS = """\
Dir::State "{folder}/";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/";
Dir::Cache::archives "{folder}/archives";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "-";
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
"""


class Apt:
    """A private apt: its own lists and an empty status, so that nothing counts as installed."""

    def __init__(self, folder: Path, architecture: str, suite: str) -> None:
        for name in ("lists/partial", "archives/partial", "etc"):
            (folder / name).mkdir(parents=True)
        self.folder = folder
        self.suite = suite
        (folder / "status").touch()
        source = f"[signed-by={KEYRING}] {mirror()} {suite} main\n"
        (folder / "sources.list").write_text(f"deb {source}", "utf-8")
        settings = _SETTINGS.format(folder=folder, architecture=architecture)
        (folder / "apt.conf").write_text(settings, "utf-8")
        self.run("update")

    def run(self, *arguments: str) -> None:
        """Run apt-get with its own settings."""
        env = {**os.environ, "APT_CONFIG": str(self.folder / "apt.conf")}
        call(["apt-get", "-qq", *arguments], cwd=self.folder / "archives", env=env)

    def download(self, names: Sequence[str]) -> list[Path]:
        """Return the files of ``names`` and of all they depend on."""
        self.run("install", "--yes", "--download-only", *names)
        return sorted((self.folder / "archives").glob("*.deb"))

    def fetch(self, *names: str) -> list[Path]:
        """Return the files of ``names`` alone, of this suite."""
        self.run("download", *(f"{name}/{self.suite}" for name in names))
        return sorted((self.folder / "archives").glob("*.deb"))


def mirror() -> str:
    """Return Debian's mirror: that of `MIRROR`, or the one this machine's apt uses."""
    if named := os.environ.get(MIRROR):
        return named
    listed = call(["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)"])
    for line in listed.splitlines():
        if line.startswith("Debian Debian "):
            return line.split()[2]
    raise EngineError(f"this system's apt has no Debian mirror: name one in {MIRROR}")


def unpack(deb: Path, folder: Path, *members: str) -> None:
    """Unpack the files of a package, or only ``members``, without running anything of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as source:
        # A link that exists already, such as bin -> usr/bin, is followed.
        extract = ["tar", "-x", "--no-same-owner", "--keep-directory-symlink"]
        call([*extract, "-C", str(folder), *members], stdin=source.stdout)
    if source.returncode:
        raise EngineError(f"{deb.name} could not be unpacked")


def call(command: Sequence[str | Path], **options: Any) -> str:
    """Run a tool and return what it prints; EngineError with its last line if it fails."""
    options |= {"capture_output": True, "text": True, "timeout": 1800}
    finished = subprocess.run(command, check=False, **options)
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or ["it failed"])[-1][:300]
        raise EngineError(f"{Path(command[0]).name}: {last}")
    out: str = finished.stdout
    return out

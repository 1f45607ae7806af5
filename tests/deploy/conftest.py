"""Boards to deploy to: a real sshd whose sessions land in an emulated Raspberry Pi."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sshd

from asterisk.bench.targets import Unavailable
from benchmarks import board_root
from deploy.stand_in import MODEL, Board, Unfit

EXPECTED = ("CI", "ASTERISK_EMULATION")  # where a missing emulation is a failure


@dataclass(frozen=True)
class Pi:
    """A stand-in that answers as ``ssh://board``, and its sshd."""

    board: Board
    server: sshd.Server

    @property
    def home(self) -> Path:
        """Where its home is on this machine."""
        return self.board.home

    def ssh(self, command: str, *, timeout: float = 300, **options) -> subprocess.CompletedProcess:
        """Run ``command`` there over ssh and return it, finished."""
        words = ["ssh", "-F", str(self.server.config), "-T", "board", command]
        return subprocess.run(words, capture_output=True, check=False, timeout=timeout, **options)


def made(release: str) -> Path:
    """Return the files of a release; make them in CI, skip without them elsewhere."""
    (system,) = (each for each in board_root.SYSTEMS if each.suite == release)
    if any(map(os.environ.get, EXPECTED)):
        return board_root.make(system)
    try:
        return board_root.find(system)
    except Unavailable as reason:
        pytest.skip(str(reason))


@contextmanager
def pi(folder: Path, release: str, cpu: str, size: str = "", model: str = MODEL) -> Iterator[Pi]:
    """Run a stand-in with ``folder`` as its own, found through ``ASTERISK_SSH_CONFIG``.

    ``release`` is Debian's name; with ``size`` its home is a file system no larger than that.
    """
    files = made(release)
    with pytest.MonkeyPatch.context() as patch, sshd.running(folder / "sshd", patch) as server:
        try:
            board = Board(files, folder / "board", cpu, size=size, model=model)
        except Unfit as reason:
            if any(map(os.environ.get, EXPECTED)):
                raise
            pytest.skip(f"this machine cannot emulate a board: {reason}")
        authorized = server.folder / "authorized"
        key = authorized.read_text("ascii")
        authorized.write_text(f'command="{board.session}" {key}', "ascii")
        try:
            yield Pi(board, server)
        finally:
            board.stop()

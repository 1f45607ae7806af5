"""A real sshd on this machine, with keys that are thrown away."""

from __future__ import annotations

import pytest
from sshd import running


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Run an sshd for one test."""
    with running(tmp_path / "sshd", monkeypatch) as server:
        yield server

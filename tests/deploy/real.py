"""Real bundles for a session: each is collected once, from wheels that are downloaded once."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from asterisk.artifact import open_artifact
from asterisk.common.errors import EngineError
from asterisk.deploy import boards, bundle, libraries, wheels

CI = bool(os.environ.get("CI"))


def wheels_of(format, python):
    """Return a format's wheels; skip where no index is within reach, except in CI."""
    try:
        return wheels.wheels(wheels.requirements(format), python)
    except EngineError as reason:
        if CI:
            raise
        pytest.skip(str(reason))


@cache
def bundle_of(artifact: Path, board: str = "pi4", python: str = "3.11") -> bundle.Bundle:
    """Return the bundle of an artifact, whose format's wheels are there."""
    return bundle.collect(open_artifact(artifact), boards.BOARDS[board], python)


def libgomp():
    """Return libgomp's files; skip where no apt can bring them, except in CI."""
    found = libraries.libgomp()
    if found is None:
        assert not CI, "no apt brings libgomp"
        pytest.skip("no apt brings libgomp")
    return found

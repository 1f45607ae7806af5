"""A working folder belongs to one run; its recipe stands in ``run.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asterisk.common.errors import ArtifactError
from asterisk.common.files import replacing_file
from asterisk.training.distil import state_of
from asterisk.training.recipe import TrainingRecipe

CLAIM = "run.json"


def claim(run: Path, recipe: TrainingRecipe, ours: dict[str, dict[str, Any]]) -> None:
    """Make ``run`` the folder of ``ours``, choices by group; ArtifactError if another began there.

    ``passes`` alone may be raised, until the learning rate falls or a loss changes its weight:
    nothing before depends on it. What one of the two does not know is not compared.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = run / CLAIM
    if path.exists():
        theirs = _read(path)
        for group in sorted(ours.keys() | theirs.keys()):
            before, now = theirs.get(group, {}), ours.get(group, {})
            for name in sorted(before.keys() | now.keys()):
                was, wanted = before.get(name), now.get(name)
                if (
                    None in (was, wanted)
                    or was == wanted
                    or (name == "passes" and _raised(run, recipe, was, wanted))
                ):
                    continue
                raise ArtifactError(f"{run} was begun with {name} {was}, not {wanted}{_why(name)}")
    with replacing_file(path) as staging:
        staging.write_text(json.dumps(ours, indent=1) + "\n", "utf-8")


def _raised(run: Path, recipe: TrainingRecipe, was: Any, wanted: Any) -> bool:
    if not isinstance(was, int) or not isinstance(wanted, int) or wanted < was:
        return False
    return (state_of(run) or 0) <= recipe.settled * was


def _why(name: str) -> str:
    return (
        "; they can be raised until the decay, or a later loss, begins" if name == "passes" else ""
    )


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        told = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise ArtifactError(f"{path} is not JSON") from None
    if not isinstance(told, dict) or not all(isinstance(some, dict) for some in told.values()):
        raise ArtifactError(f"{path} does not describe a run")
    return told

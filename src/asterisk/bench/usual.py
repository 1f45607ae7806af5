"""The artifact to show when nobody named one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asterisk.artifact import is_artifact
from asterisk.bench.spawn import CellError, ask
from asterisk.common.errors import EngineError
from asterisk.common.files import SHIPPED, shipped_checkpoint

FORMAT, RECIPE = "tflite", "int8"
TIMEOUT = 900  # seconds


def usual(folder: Path, tell: Callable[[str], None]) -> Path:
    """Return the LiteRT artifact of the shipped checkpoint in ``folder``, exported if need be.

    In a process of its own, so that PyTorch is not in the memory that is told afterwards.
    UsageError outside a clone of the project, EngineError with the reason if it cannot be exported.
    """
    wanted = f"{SHIPPED}-{FORMAT}-{RECIPE}"
    if is_artifact(folder / wanted):
        return folder / wanted
    checkpoint = shipped_checkpoint()
    tell(f"exporting {wanted} (once, about a minute)")
    request = {
        "checkpoint": str(checkpoint),
        "runtimes": [FORMAT],
        "peers": [],
        "artifacts": str(folder),
        "work": str(folder),
        "buckets": [20],
        "every_recipe": False,
    }
    try:
        answer = ask("asterisk.bench.prepare", request, TIMEOUT, quiet=False)
    except CellError as failure:
        raise EngineError(f"{wanted} could not be exported: {failure}") from failure
    if not answer.get("rows"):
        reason = answer.get("refused") or answer.get("failed", {}).get(FORMAT, "no reason given")
        raise EngineError(f"{wanted} could not be exported: {reason}")
    return Path(answer["rows"][0]["path"])

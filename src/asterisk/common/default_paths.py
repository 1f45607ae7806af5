"""Where a user's things are when no path is given."""

from __future__ import annotations

from pathlib import Path

from asterisk.common.errors import UsageError

ARTIFACTS = Path("artifacts")
SHIPPED = "asterisk-256-wp"


def shipped_checkpoint() -> Path:
    """Return the checkpoint that comes with the project; UsageError outside a clone of it."""
    here = Path(__file__).resolve()
    for folder in (Path.cwd(), here.parents[3]):
        candidate = folder / "checkpoints" / SHIPPED
        if (candidate / "model.safetensors").is_file():
            return candidate
    raise UsageError(
        f"no checkpoint given, and no checkpoints/{SHIPPED} here: name a checkpoint folder"
    )

"""Our own studies, run from the root of a clone; the wheel does not have them."""

import os
from pathlib import Path

# The processes that a study starts are modules of this folder as well.
_ROOT = str(Path(__file__).resolve().parents[1])
_PATHS = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if _ROOT not in _PATHS:
    os.environ["PYTHONPATH"] = os.pathsep.join([_ROOT, *filter(None, _PATHS)])

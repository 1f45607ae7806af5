"""Scripts that run on a device, by its own Python and standard library alone."""

from __future__ import annotations

import re
from importlib.resources import files

FUTURE = "from __future__ import annotations\n"  # what has to stand at a file's beginning
COMMAND = 'if __name__ == "__main__":\n'
_IMPORT = re.compile(rf"^from {re.escape(__name__)}\.(\w+) import (?:\([^)]*\)|.*)\n", re.MULTILINE)


def script(name: str) -> str:
    """Return the text of one script, with the modules of this package in place of their imports."""
    joined = {name}

    def text(module: str) -> str:
        return (files(__name__) / f"{module}.py").read_text("utf-8")

    def replacement(found: re.Match[str]) -> str:
        module = found[1]
        if module in joined:
            return ""
        joined.add(module)
        body = text(module).partition(FUTURE)[2].partition(COMMAND)[0]
        return _IMPORT.sub(replacement, body)

    return _IMPORT.sub(replacement, text(name))

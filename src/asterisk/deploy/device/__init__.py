"""Scripts that run on a device, by its own Python and standard library alone."""

from __future__ import annotations

import ast
from importlib.resources import files

FUTURE = "from __future__ import annotations\n"


def script(name: str) -> str:
    """Return the text of one script; the modules of this package that it imports are part of it."""
    texts: dict[str, str] = {}

    def add(module: str) -> None:
        text = (files(__name__) / f"{module}.py").read_text("utf-8")
        lines = text.splitlines(keepends=True)
        for node in reversed(ast.parse(text).body):
            imported = (isinstance(node, ast.ImportFrom) and node.module) or ""
            command = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
            package, _, inner = imported.rpartition(".")
            if package == __name__ or (command and module != name):
                del lines[node.lineno - 1 : node.end_lineno]
            if package == __name__ and inner not in texts:
                add(inner)
        texts[module] = "".join(lines)

    add(name)
    if len(texts) == 1:
        return texts[name]
    own = texts.pop(name)
    head, future, body = own.partition(FUTURE)  # what has to stand at a file's beginning
    return head + future + "".join(text.replace(FUTURE, "") for text in texts.values()) + body

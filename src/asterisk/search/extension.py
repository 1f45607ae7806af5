"""sqlite-vec where it can be used: the wheel, a library of this machine, a Python that loads it."""

from __future__ import annotations

import platform
import sqlite3
import struct
import sys
from importlib.util import find_spec
from pathlib import Path

from asterisk.search.schema import VEC0

_MACHINES = {"x86_64": 62, "aarch64": 183, "armv7l": 40, "riscv64": 243}  # ELF's e_machine


def load(connection: sqlite3.Connection) -> str:
    """Load sqlite-vec into ``connection``; return "" or the reason why it cannot be used."""
    if not hasattr(connection, "enable_load_extension"):
        return "this Python's sqlite3 cannot load extensions"
    library = _library()
    if library is None:
        return "sqlite-vec is not installed; it comes with: pip install 'asterisk-edge[search]'"
    if reason := unfit(library):
        return reason
    try:
        connection.enable_load_extension(True)
        try:
            # SQLite appends the platform's suffix itself.
            connection.load_extension(str(library.with_suffix("")))
        finally:
            connection.enable_load_extension(False)
        (version,) = connection.execute("SELECT vec_version()").fetchone()
    except sqlite3.Error as failure:
        return f"sqlite-vec cannot be loaded: {failure}"
    if version != f"v{VEC0}":
        return f"sqlite-vec is {version}, the file's layout is that of v{VEC0}"
    return ""


def unfit(library: Path) -> str:
    """Return "" or why ``library`` is not for this machine: some wheels held another's.

    Sixteen bytes of identification, then type and machine; nothing is mapped or executed.
    """
    if not sys.platform.startswith("linux"):
        return ""
    try:
        with library.open("rb") as file:
            head = file.read(20)
    except OSError as failure:
        return f"{library.name} cannot be read: {failure.strerror or failure}"
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return f"{library.name} is not a library"
    bits = 2 if sys.maxsize > 1 << 32 else 1
    (machine,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    expected = _MACHINES.get(platform.machine(), machine)
    if head[4] != bits or machine != expected:
        return f"{library.name} is for another machine (ELF machine {machine})"
    return ""


def _library() -> Path | None:
    spec = find_spec("sqlite_vec")
    if spec is None or spec.origin is None:
        return None
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    library = Path(spec.origin).with_name(f"vec0{suffix}")
    return library if library.is_file() else None

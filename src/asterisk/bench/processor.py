"""What a processor is: its name, its cores and what it can do. Standard library only."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

UNKNOWN = "unavailable"
FEATURES = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"),  # x86-64
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),  # AArch64
)
# Implementer and part of the main ID register, for what runs Linux on small boards and servers.
ARM = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
}
PATIENCE = 5.0  # seconds that a tool of the system may take


def describe(root: Path) -> dict[str, Any]:
    """Return its name, board, revision, kinds of Arm cores and features, as read under ``root``.

    A board's serial number, which `/proc/cpuinfo` has too, is left out on purpose.
    """
    cpuinfo = read(root / "proc/cpuinfo")
    tree = root / "proc/device-tree"
    board = read(tree / "model").strip("\0")
    compatible = [part for part in read(tree / "compatible").split("\0") if part]
    cores = arm(cpuinfo)
    return {
        "cpu": board or _field(cpuinfo, "model name") or _brand() or ", ".join(cores) or UNKNOWN,
        "board": board or UNKNOWN,
        "compatible": compatible,
        "revision": _field(cpuinfo, "Revision") or UNKNOWN,
        "arm": cores,
        "isa": [name for name in FEATURES if name in _flags(cpuinfo)],
    }


def arm(cpuinfo: str) -> list[str]:
    """Return the kinds of Arm cores in order of appearance; numbers where the name is unknown."""
    found: dict[str, None] = {}
    for block in re.split(r"\n\s*\n", cpuinfo):
        maker, part = _field(block, "CPU implementer"), _field(block, "CPU part")
        if maker and part:
            name = ARM.get((maker, part), f"{maker}:{part}")
            variant, revision = _field(block, "CPU variant"), _field(block, "CPU revision")
            if variant and revision:
                name += f" r{int(variant, 16)}p{revision}"
            found[name] = None
    return list(found)


def ask(*command: str) -> str:
    """Return what a tool of the system prints; empty if it is missing, fails or takes too long."""
    tool = shutil.which(command[0])
    if tool is None:
        return ""
    try:
        done = subprocess.run(
            [tool, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def read(path: Path) -> str:
    """Return a file's text, stripped; empty if it cannot be read."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _brand() -> str:
    return ask("sysctl", "-n", "machdep.cpu.brand_string") if _is_mac() else ""


def _is_mac() -> bool:
    return platform.system() == "Darwin"


def _field(cpuinfo: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _flags(cpuinfo: str) -> set[str]:
    line = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return set(line.group(1).split()) if line else set()

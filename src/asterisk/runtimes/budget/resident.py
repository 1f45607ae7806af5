"""What this process occupies. Source: proc_pid_smaps(5)."""

from __future__ import annotations

from pathlib import Path

KIB = 1 << 10
_MAPS = Path("/proc/self/smaps")


def resident(without: Path | None = None, maps: Path = _MAPS) -> int | None:
    """Return the bytes of memory that are in use, leaving out files in the folder ``without``.

    Pages that are shared with other processes count in full: this one may be their last user.
    None where the system does not tell: elsewhere than on Linux, and under qemu's user mode, which
    reports every mapping as empty.
    """
    inside = bytes(without.resolve()) + b"/" if without else None
    total, counted = 0, False
    try:
        with maps.open("rb") as lines:
            for line in lines:
                first, *rest = line.split(maxsplit=5)
                if not first.endswith(b":"):
                    name = rest[4] if len(rest) == 5 else b""
                    counted = inside is None or not name.startswith(inside)
                elif first == b"Rss:" and counted:
                    total += int(rest[0]) * KIB
    except OSError:
        return None
    return total or None

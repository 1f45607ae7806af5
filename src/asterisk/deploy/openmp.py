"""libgomp for 64-bit Arm: llama.cpp's library needs GNU's OpenMP, and slim systems lack it.

From Debian's own package, fetched by a private apt that installs nothing, and kept in the cache.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from asterisk.common.errors import EngineError
from asterisk.deploy.wheels import cache

SONAME = "libgomp.so.1"
PACKAGE = "libgomp1"
LICENCE = "libgomp.copyright"
SUITE = "bookworm"  # the older one: what it needs of the C library, the newer ones have
_EDITION = 1
_PLACES = (f"usr/lib/aarch64-linux-gnu/{SONAME}", f"lib/aarch64-linux-gnu/{SONAME}")


def libgomp() -> dict[str, Path] | None:
    """Return ``libgomp.so.1`` and its licence by name; None where no apt can bring it."""
    folder = cache() / f"{PACKAGE}-{SUITE}-{_EDITION}"
    found = {name: folder / name for name in (SONAME, LICENCE)}
    if not all(path.is_file() for path in found.values()) and not _make(folder):
        return None
    return found


def _make(folder: Path) -> bool:
    from asterisk.common import debian as root

    if any(shutil.which(tool) is None for tool in root.NEEDED):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{PACKAGE}-", dir=folder.parent))
    try:
        debs = root.Apt(work / "apt", "arm64", SUITE).fetch(PACKAGE, "gcc-12-base")
        for deb in debs:
            root.unpack(deb, work / "root")
        new = work / "new"
        new.mkdir()
        library = next(path for path in _PLACES if (work / "root" / path).exists())
        shutil.copyfile(work / "root" / library, new / SONAME)
        # Debian keeps one text for all packages of this source, in the one they all need.
        shutil.copyfile(work / "root/usr/share/doc/gcc-12-base/copyright", new / LICENCE)
        new.chmod(0o755)
        new.rename(folder)
    except (EngineError, OSError, StopIteration):
        return folder.is_dir()  # another process was first, or no mirror is within reach
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True

"""Control groups of a fixed size, of either version, where this machine lets one be made."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
ENTER = 'echo $$ > "$0" && exec "$@"'


@dataclass
class Ended:
    """A command that ran in a group: ``anonymous`` is the peak of what cannot be reclaimed."""

    status: int
    out: bytes
    errors: str
    killed: int
    failed: int
    anonymous: int


@dataclass
class Group:
    """A group that may hold ``limit`` bytes."""

    folder: Path
    version: int
    peaks: list[int] = field(default_factory=lambda: [0])

    def run(self, command: Sequence[str]) -> Ended:
        """Run ``command`` in it."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(ended,))
        watcher.start()
        try:
            done = subprocess.run(
                ["sh", "-c", ENTER, str(self.folder / "cgroup.procs"), *command],
                capture_output=True,
                timeout=120,
                check=False,
            )
        finally:
            ended.set()
            watcher.join()
        events = "memory.oom_control" if self.version == 1 else "memory.events"
        failed = (
            int((self.folder / "memory.failcnt").read_text())
            if self.version == 1
            else self._number("memory.events", "max")
        )
        return Ended(
            done.returncode,
            done.stdout,
            done.stderr.decode(),
            self._number(events, "oom_kill"),
            failed,
            max(self.peaks),
        )

    def _watch(self, ended: threading.Event) -> None:
        name = "total_rss" if self.version == 1 else "anon"
        while not ended.is_set():
            self.peaks.append(self._number("memory.stat", name))
            time.sleep(0.003)

    def _number(self, file: str, name: str) -> int:
        found = re.search(rf"^{name} (\d+)$", (self.folder / file).read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


def _write(path: Path, value: object) -> None:
    path.write_text(str(value))


def _make(limit: int) -> Group | None:
    one, two = ROOT / "memory", ROOT
    name = f"asterisk-test-{os.getpid()}-{time.monotonic_ns()}"
    with contextlib.suppress(OSError):
        if (one / "memory.limit_in_bytes").exists():
            folder = one / name
            folder.mkdir()
            group = Group(folder, 1)
            try:
                _write(folder / "memory.limit_in_bytes", limit)
                _write(folder / "memory.swappiness", 0)
            except OSError:
                folder.rmdir()
                raise
            return group
        if "memory" in (two / "cgroup.subtree_control").read_text().split():
            folder = two / name
            folder.mkdir()
            try:
                _write(folder / "memory.max", limit)
                with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                    _write(folder / "memory.swap.max", 0)
            except OSError:
                folder.rmdir()
                raise
            return Group(folder, 2)
    return None


@contextlib.contextmanager
def group(limit: int) -> Iterator[Group | None]:
    """Give a group that may hold ``limit`` bytes and no swap, or None; remove it in the end."""
    made = _make(limit)
    try:
        yield made
    finally:
        if made is not None:
            for _ in range(50):  # until what ended in it is gone
                with contextlib.suppress(OSError):
                    made.folder.rmdir()
                    break
                time.sleep(0.05)

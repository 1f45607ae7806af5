"""From a target's description to a session on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from asterisk.bench.targets.local import LocalSession
from asterisk.bench.targets.parse import Local, Ssh, Target
from asterisk.bench.targets.session import Session


@contextmanager
def opened(target: Target, folder: Path, keep: bool) -> Iterator[Session]:
    """Make ``target`` ready and, in the end, leave nothing there unless ``keep``.

    ``folder`` is for files on this side and exists as long as the session does. TargetError if the
    target cannot be used.
    """
    context: AbstractContextManager[Session]
    if isinstance(target, Local):
        yield LocalSession(target)
        return
    if isinstance(target, Ssh):
        from asterisk.bench.targets.ssh import connected  # what a run here need not load

        context = connected(target, folder, keep)
    else:
        from asterisk.bench.targets.emulated import emulated  # nor this, and numpy with it

        context = emulated(target, folder)
    with context as session:
        yield session

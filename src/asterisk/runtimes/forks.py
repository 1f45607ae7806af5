"""What a process that forks has to begin anew in its child.

A child has one thread only. A lock that any other thread held when the process forked stays locked
in the child for ever.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that holds locks."""

    def after_fork(self) -> None:
        """Make them anew, in the child, before anything else runs there."""


_owners: weakref.WeakSet[Forked] = weakref.WeakSet()


def follow(owner: Forked) -> None:
    """Call ``owner.after_fork()`` in every child that this process forks while ``owner`` lives."""
    _owners.add(owner)


def _after_fork() -> None:
    for owner in list(_owners):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

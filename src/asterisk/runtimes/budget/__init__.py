"""A limit on a process's memory: what it allows, and whether that is kept; see docs/memory.md."""

from __future__ import annotations

from asterisk.runtimes.budget.size import add_option, parse, told

__all__ = ["add_option", "parse", "told"]

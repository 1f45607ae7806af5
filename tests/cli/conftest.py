"""A real artifact."""

from __future__ import annotations

from integrations.conftest import artifact

__all__ = ["artifact"]

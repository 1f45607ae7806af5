"""Bundles of an artifact and all it needs, and their way onto a device."""

from __future__ import annotations

from asterisk.common.errors import EngineError


class DeployError(EngineError):
    """A machine that cannot be deployed to, or did not do what it was asked; one line."""

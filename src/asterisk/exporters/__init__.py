"""From a checkpoint to an artifact, one module a format."""

from __future__ import annotations

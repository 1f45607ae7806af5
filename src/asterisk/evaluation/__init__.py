"""How good vectors are."""

from __future__ import annotations

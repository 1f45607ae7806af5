"""Commands: one thin module each, and what they share."""

from __future__ import annotations

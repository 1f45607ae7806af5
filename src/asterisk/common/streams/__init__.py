"""Texts in and vectors out, a piece at a time."""

from __future__ import annotations

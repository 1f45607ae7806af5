"""Distillation: a corpus and a teacher in, a checkpoint out."""

from __future__ import annotations

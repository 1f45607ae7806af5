"""The model: its configuration, its PyTorch module and the checkpoint folder it lives in."""

from __future__ import annotations

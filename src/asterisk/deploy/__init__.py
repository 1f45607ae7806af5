"""Bundles of an artifact and all it needs, and their way onto a device."""

"""Formats for asterisk-edge: ``npz``, by numpy alone, and ``onnx-equalised``, a recipe for ONNX."""

"""Numerics of human motion: pure functions of tensors and frozen dataclasses."""

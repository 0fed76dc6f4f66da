"""Whether a network is being written as a graph (ONNX, torch.export, TorchScript)."""

from __future__ import annotations

import torch


def exporting() -> bool:
    """Whether a graph is being traced for use elsewhere: it can hold no foreign code and no view of another layout."""
    asked = getattr(torch.compiler, "is_exporting", None)  # since torch 2.7
    return bool(torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or (asked is not None and asked()))


def traced() -> bool:
    """Whether a graph is being made, for use elsewhere or by torch.compile: no size in it may depend on values."""
    return exporting() or bool(torch.compiler.is_compiling())

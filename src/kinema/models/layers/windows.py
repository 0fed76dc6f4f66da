"""Windows of a video through the stage of a network that cannot share work between them, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sliding(frames: Tensor, size: int) -> Tensor:
    """All windows of so many frames, as a view: (B, T, C) to (B, T - size + 1, size, C)."""
    return frames.unfold(1, size, 1).transpose(2, 3)


def over_windows(lift: Callable[..., Tensor], *windows: Tensor, chunk: int | None = None) -> Tensor:
    """Lift the centre frame of every window.

    Args:
        lift: takes as many tensors (N, F, C) as there are `windows` and gives (N, 1, J, 3).
        windows: (B, L, F, C) each, seen side by side.
        chunk: windows at a time; None = 64 on a CPU, where they stay in the cache, and 1024 elsewhere.

    Returns:
        (B, L, J, 3).
    """
    batch, length = windows[0].shape[:2]
    step = max(1, (chunk or (64 if windows[0].device.type == "cpu" else 1024)) // batch)
    parts = [
        lift(*(seen[:, start : start + step].flatten(0, 1) for seen in windows)).unflatten(0, (batch, -1)).squeeze(2)
        for start in range(0, length, step)
    ]
    return torch.cat(parts, dim=1)

"""Random motion to measure with: stores in memory, picks and orders over them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kinema.core.skeleton import skeleton
from kinema.data.orders import Order
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows

BODY = skeleton("h36m17")
ACTIONS = ("Walking", "Sitting", "Eating", "Posing")


def camera_space(lengths: list[int], *, channels: int = 2, seed: int = 0) -> Sequences:
    """Sequences of given lengths: 2D of a spread as in network units, 3D in metres around a wandering root."""
    random = np.random.default_rng(seed)
    items = []
    for number, length in enumerate(lengths):
        root = 4 + random.normal(size=(length, 1, 3)).cumsum(0) * 0.01
        items.append(
            {
                "pose2d": random.normal(scale=0.4, size=(length, 17, channels)).astype(np.float32),
                "pose3d": (root + random.normal(scale=0.3, size=(length, 17, 3))).astype(np.float32),
                "subject": "S9",
                "action": ACTIONS[number % len(ACTIONS)],
            }
        )
    return Sequences.from_arrays(items, skeleton=BODY, skeleton2d=BODY)


def image_space(lengths: list[int], *, seed: int = 0) -> Sequences:
    """Sequences with the arrays that MotionBERT's evaluation needs."""
    random = np.random.default_rng(seed)
    items: list[dict[str, Any]] = []
    for number, length in enumerate(lengths):
        items.append(
            {
                "pose2d": random.uniform(-1, 1, (length, 17, 3)).astype(np.float32),
                "pose3d": random.uniform(-1, 1, (length, 17, 3)).astype(np.float32),
                "pose3d_eval": random.normal(scale=300, size=(length, 17, 3)).astype(np.float32),
                "factor": random.uniform(3, 4, length).astype(np.float32),
                "size": np.tile(np.array([1000, 1002 if number % 2 else 1000], dtype=np.float32), (length, 1)),
                "subject": "S9",
                "action": ACTIONS[number % len(ACTIONS)],
            }
        )
    return Sequences.from_arrays(items, skeleton=BODY, skeleton2d=BODY, space="image")


def batches(windows: Windows, size: int) -> list[dict[str, Tensor]]:
    """All rows of some windows in the order of the table, gathered in batches."""
    order = Order(lambda epoch: np.arange(len(windows)), len(windows), size)
    return [windows[picks] for picks in order]


def disturbed(target: Tensor, *, scale: float = 0.1, seed: int = 1) -> Tensor:
    """A prediction near a target; every 50th frame is mirrored."""
    generator = torch.Generator().manual_seed(seed)
    out = target + scale * torch.randn(target.shape, generator=generator, dtype=target.dtype)
    frames = out.flatten(0, -3)  # a view
    frames[::50, :, 0] *= -1
    return out


def as_after_a_network() -> None:
    """Bring the memory allocator into the state in which predictions are judged.

    Until a program has freed one large block, glibc gives the memory of every result of some megabytes back to the
    system and fetches it again for the next. A network has freed such blocks long before.
    """
    torch.empty(6 << 20)  # 24 MB, never touched


def scatter(module: nn.Module, scale: float = 0.02, seed: int = 1) -> None:
    """Random values on top of every parameter and running statistic: zeros of an initialisation hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * scale
                tensor.add_(noise.abs() if name.endswith("running_var") else noise)


def distance(*pairs: tuple[Tensor, Tensor]) -> float:
    """Largest difference of paired tensors; values above 1 are compared relative to the largest of their tensor."""
    worst = 0.0
    for found, expected in pairs:
        if found.shape != expected.shape:
            raise AssertionError(f"shapes differ: {tuple(found.shape)} and {tuple(expected.shape)}")
        size = max(1.0, float(expected.abs().max()))
        gap = float((found.double() - expected.double()).abs().max()) / size
        if not math.isfinite(gap):
            raise AssertionError("NaN or infinity in a result")
        worst = max(worst, gap)
    return worst

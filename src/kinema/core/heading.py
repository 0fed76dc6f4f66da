"""Heading of a body: the direction of its hips seen from above, and turning about the vertical axis z."""

from __future__ import annotations

import torch
from torch import Tensor

# Lengths below this count as none.
SMALLEST = 1e-8
# Share of the hips' distance that must lie in the floor plane; a hip axis that stands upright has no heading.
LEVEL = 0.01


def heading(pose: Tensor, hips: tuple[int, int]) -> Tensor:
    """Angle of the hip axis, from the right hip to the left one, against x in the floor plane.

    Args:
        pose: (..., J, 3), z upwards.
        hips: indices of the right and of the left hip.

    Returns:
        (...,) radians; 0 for hips that stand above each other.
    """
    right, left = hips
    axis = pose[..., left, :] - pose[..., right, :]
    level = torch.linalg.vector_norm(axis[..., :2], dim=-1)
    flat = level <= (LEVEL * torch.linalg.vector_norm(axis, dim=-1)).clamp_min(SMALLEST)
    return torch.atan2(axis[..., 1], axis[..., 0]).masked_fill(flat, 0)


def turn(motion: Tensor, angle: Tensor) -> Tensor:
    """Turn motions about z, counter-clockwise seen from above.

    Args:
        motion: (B, ..., F) features, three per joint, or (B, ..., J, 3).
        angle: (B,) radians.

    Returns:
        Like `motion`.
    """
    shape = motion.shape
    points = motion.reshape(len(motion), -1, 3)
    cosine, sine = angle.cos()[:, None].to(motion), angle.sin()[:, None].to(motion)
    x, y, z = points.unbind(-1)
    return torch.stack([x * cosine - y * sine, x * sine + y * cosine, z], dim=-1).reshape(shape)

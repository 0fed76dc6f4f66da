"""Cropping a motion to its bounding box: the input scale of in-the-wild and action models."""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.core.skeleton import Skeleton

_FEWEST_POINTS = 4


def crop_scale(
    motion: Tensor,
    ratio: float | Tensor = 1.0,
    *,
    batch_axes: int = 0,
    valid: Tensor | None = None,
    depth: bool = False,
) -> Tensor:
    """Move and scale a motion so that the box around its x, y, over the whole clip, becomes [-1, 1].

    Fewer than four points that count, or a box without extent, give zeros. Afterwards every channel is clipped to
    [-1, 1], the third one included (published behaviour).

    Which points count: in the published form those with a third channel other than 0, which stands for a confidence.
    Of 3D data that form loses every point at depth 0, moves the zeros of absent persons into the box, and clips depths
    of another scale than x and y; there pass `valid` and `depth=True`.

    Args:
        motion: (..., J, 3): x, y, confidence or x, y, z, any unit.
        ratio: size of the new box relative to the person, a number or a tensor over the batch axes; above 1 shrinks
            the person, below 1 enlarges it and clamps what leaves the frame.
        batch_axes: leading axes with a box of their own; the others (persons, frames) share one.
        valid: bool, broadcasts with (..., J): points that count; the others become 0 in all channels. None = the
            published form.
        depth: the third channel is scaled like x and y, neither moved nor clipped.

    Returns:
        Same shape, a copy.

    Source: MotionBERT, lib/utils/utils_data.py (crop_scale).
    """
    shared = tuple(range(batch_axes, motion.ndim - 1))
    points, third = motion[..., :2], motion[..., 2:]
    seen = third != 0 if valid is None else valid.expand(motion.shape[:-1])[..., None]
    low = torch.where(seen, points, torch.inf).amin(shared, keepdim=True)
    high = torch.where(seen, points, -torch.inf).amax(shared, keepdim=True)
    side = (high - low).amax(-1, keepdim=True) * _over_points(ratio, motion)
    usable = (seen.sum(shared, keepdim=True) >= _FEWEST_POINTS) & (side != 0)
    # A box that nobody uses must not bring infinities into the arithmetic.
    side = torch.where(usable, side, 1)
    corner = torch.where(usable, (low + high - side) / 2, 0)
    boxed = (((points - corner) / side - 0.5) * 2).clip(-1, 1)
    third = third / side * 2 if depth else third.clip(-1, 1)
    return torch.where(usable if valid is None else usable & seen, torch.cat([boxed, third], dim=-1), 0)


def crop_scale_3d(motion: Tensor, skeleton: Skeleton, ratio: float | Tensor = 1.0, *, batch_axes: int = 0) -> Tensor:
    """Move and scale a 3D motion so that the x, y box around the clip becomes [-1, 1], with z on the same scale.

    Unlike in `crop_scale`, a ratio above 1 enlarges, nothing is clipped, and z is not only divided but also shifted
    like x and y (published behaviour). The root's depth in the first frame is subtracted before.

    Args:
        motion: (..., T, J, 3).
        skeleton: names the root.
        ratio: a number or a tensor over the batch axes.
        batch_axes: leading axes with a box of their own.

    Returns:
        Same shape, a copy; a clip without extent gives zeros.

    Source: MotionBERT, lib/utils/utils_data.py (crop_scale_3d).
    """
    shared = tuple(range(batch_axes, motion.ndim - 1))
    depth = motion[..., :1, skeleton.root : skeleton.root + 1, 2:]
    points, z = motion[..., :2], motion[..., 2:] - depth
    low, high = points.amin(shared, keepdim=True), points.amax(shared, keepdim=True)
    side = (high - low).amax(-1, keepdim=True) / _over_points(ratio, motion)
    usable = side != 0
    side = torch.where(usable, side, 1)
    corner = (low + high - side) / 2
    boxed = (torch.cat([(points - corner) / side, z / side], dim=-1) - 0.5) * 2
    return torch.where(usable, boxed, 0)


def _over_points(ratio: float | Tensor, motion: Tensor) -> float | Tensor:
    if not isinstance(ratio, Tensor):
        return ratio
    return ratio.to(motion).reshape(*ratio.shape, *(1,) * (motion.ndim - ratio.ndim))

"""Mirrored poses, and the mean of a prediction with that of the mirrored input."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from kinema.core.shapes import expect
from kinema.core.skeleton import Skeleton


def mirror_pose(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """Mirror a body: x negated, left and right joints exchanged; confidences move with their joints.

    Args:
        pose: (..., J, C), x first; 2D with the origin in the middle of the image, or 3D. A pose of five channels ends
            with the velocities of x and y, one of six with those of x, y and z: that of x is negated too.
        skeleton: of this pose; 2D and 3D may have different ones.

    Returns:
        (..., J, C).
    """
    expect(pose, "... J C", "pose", J=len(skeleton))
    mirrored = pose.index_select(-2, _flip_index(skeleton.flip_index, pose.device))
    if mirrored.shape[-1] == 5:
        return torch.cat([-mirrored[..., :1], mirrored[..., 1:3], -mirrored[..., 3:4], mirrored[..., 4:]], dim=-1)
    if mirrored.shape[-1] == 6:
        return mirrored * mirrored.new_tensor([-1, 1, 1, -1, 1, 1])
    return torch.cat([-mirrored[..., :1], mirrored[..., 1:]], dim=-1)


def flip_average(predict: Callable[[Tensor], Tensor], pose: Tensor, skeleton2d: Skeleton, skeleton: Skeleton) -> Tensor:
    """Average a prediction with the mirrored-back prediction of the mirrored pose.

    Args:
        predict: from pose (B, T, J2, C) to (B, T', J, 3): a model, or a function around `slide`.
        pose: (B, T, J2, C).
        skeleton2d: of the input.
        skeleton: of the output.

    Returns:
        (B, T', J, 3).
    """
    straight = predict(pose)
    mirrored = predict(mirror_pose(pose, skeleton2d))
    return (straight + mirror_pose(mirrored, skeleton)) / 2


@lru_cache(maxsize=64)
def _flip_index(order: tuple[int, ...], device: torch.device) -> Tensor:
    """The joint order as a tensor, copied to a device once and not at every step."""
    with torch.inference_mode(False):  # a cached inference tensor could not be used in training
        return torch.tensor(order, device=device)

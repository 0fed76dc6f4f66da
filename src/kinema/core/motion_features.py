"""Motion as motion prediction sees it: joints relative to the root, without the root, as one vector per frame."""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.core.shapes import expect


def to_features(pose: Tensor, root: int = 0) -> Tensor:
    """Subtract the root, leave it out, and write what remains joint by joint, x, y, z running fastest.

    Args:
        pose: (..., J, 3) positions in any space.
        root: index of the root joint.

    Returns:
        (..., 3 (J - 1)).
    """
    expect(pose, "... J 3", "pose")
    if root == 0:
        others = pose[..., 1:, :].clone(memory_format=torch.contiguous_format)
    else:
        others = torch.cat([pose[..., :root, :], pose[..., root + 1 :, :]], dim=-2)
    for axis in range(3):  # over all joints at once; differences of three values at a time take twice as long
        others[..., axis].sub_(pose[..., root, None, axis])
    return others.flatten(-2)


def to_joints(motion: Tensor, root: int = 0, path: Tensor | None = None) -> Tensor:
    """Inverse of `to_features`.

    Args:
        motion: (..., F) features.
        root: index of the root joint in the result.
        path: (..., 3) where the root goes; None = it stays at the origin.

    Returns:
        (..., F / 3 + 1, 3).
    """
    joints = motion.unflatten(-1, (-1, 3))
    origin = torch.zeros_like(joints[..., :1, :])
    joints = torch.cat([joints[..., :root, :], origin, joints[..., root:, :]], dim=-2)
    return joints if path is None else joints + path[..., None, :]

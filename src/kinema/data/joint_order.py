"""Whether joints stand in the order they are said to have: what the shape of a body tells about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.data.anatomy import bone_sides

# Limits of the order as stated and of the other one. Human3.6M joints under the names of MPI-INF-3DHP (real motion, 4
# cameras): the bones of the two sides differ by 35 to 45 %, by nothing under their own names; the image has a cosine of
# at most 0.35 with 3D in the other order, of at least 0.97 with 3D in its own.
_SIDES = (0.2, 0.1)
_LIKENESS = (0.7, 0.85)
_LOOKED_AT = 60  # frames of a view


def misplaced(
    flat: Sequence[np.ndarray],
    solid: Sequence[np.ndarray],
    body: Skeleton,
    convert: Callable[[np.ndarray], np.ndarray],
) -> tuple[bool, bool]:
    """Find poses that have another order of joints; data in neither order is left to other checks.

    3D bones tell by their two sides, which are alike in the right order only; the 2D must then resemble the 3D.

    Args:
        flat: (T, J, 2) of every view of a file.
        solid: (T, J, 3) of the same views, camera's space in any unit.
        body: the order they are said to have.
        convert: brings the other order into this one.

    Returns:
        Whether the 2D is in the other order, and whether the 3D is.
    """
    flat, solid = ([pose[:: max(1, len(pose) // _LOOKED_AT)] for pose in poses] for poses in (flat, solid))
    converted = [convert(pose) for pose in solid]
    here, there = (_mean([side_difference(pose, body) for pose in poses]) for poses in (solid, converted))
    wrong_3d = here > _SIDES[0] and there < _SIDES[1]
    if wrong_3d:
        solid = converted
    converted = [convert(points) for points in flat]
    here, there = (_mean(list(map(likeness, poses, solid))) for poses in (flat, converted))
    return here < _LIKENESS[0] and there > _LIKENESS[1], wrong_3d


def side_difference(pose: np.ndarray, skeleton: Skeleton) -> float:
    """Difference of the two sides' bones relative to their length, mean over pairs of bones and frames.

    Args:
        pose: (T, J, 3), any unit.
        skeleton: whose order the joints are said to have.

    Returns:
        NaN where no frame is whole or the skeleton has no sides.
    """
    left, right = bone_sides(skeleton)
    whole = pose[np.isfinite(pose).all((1, 2))]
    if not left or not len(whole):
        return float("nan")
    child, parent = (list(ends) for ends in zip(*skeleton.bones, strict=True))
    bones = np.linalg.norm(whole[:, child] - whole[:, parent], axis=-1).mean(0)
    return float((2 * np.abs(bones[left] - bones[right]) / (bones[left] + bones[right]).clip(1e-9)).mean())


def likeness(points: np.ndarray, pose: np.ndarray) -> float:
    """How an image resembles the 3D seen along the camera's axis: the mean cosine of joints relative to their middle.

    Args:
        points: (T, J, 2 or more) image.
        pose: (T, J, 3) camera's space.

    Returns:
        1 where they have one shape; NaN where no frame is whole.
    """
    whole = np.isfinite(points).all((1, 2)) & np.isfinite(pose).all((1, 2))
    if not whole.any():
        return float("nan")
    a, b = (values[whole, :, :2] - values[whole, :, :2].mean(1, keepdims=True) for values in (points, pose))
    norms = np.linalg.norm(a, axis=(1, 2)) * np.linalg.norm(b, axis=(1, 2))
    return float(((a * b).sum((1, 2)) / norms.clip(1e-12)).mean())


def _mean(values: list[float]) -> float:
    """Mean of the known ones, NaN where there are none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")

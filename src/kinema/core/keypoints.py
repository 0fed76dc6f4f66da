"""Converters from detector layouts to the 17 joints of Human3.6M, with confidences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kinema.core.shapes import expect
from kinema.core.skeleton import Skeleton, skeleton

Array = TypeVar("Array", np.ndarray, Tensor)

# Target joints of a layout: one source joint, or the midpoint of two. Joints that all layouts name alike (limbs,
# nose) are not listed; the spine is the midpoint of the new pelvis and thorax.
_COCO = {
    "pelvis": ("left_hip", "right_hip"),
    "thorax": ("left_shoulder", "right_shoulder"),
    "head": ("left_eye", "right_eye"),
}
_HALPE = {"pelvis": ("hip",), "thorax": ("neck",), "head": ("head",)}
_POSETRACK = {"pelvis": ("left_hip", "right_hip"), "thorax": ("head_bottom",), "head": ("head_top",)}


def coco_to_h36m(pose: Array) -> Array:
    """Convert COCO-17 to Human3.6M joints.

    The thorax is the middle of the shoulders, the head that of the eyes.

    Args:
        pose: (..., 17, C); every channel, confidence included, is averaged.

    Returns:
        (..., 17, C).

    Source: MotionBERT, lib/data/dataset_action.py (coco2h36m).
    """
    return _convert(pose, "coco17", _COCO)


def halpe_to_h36m(pose: Array) -> Array:
    """Convert Halpe-26 (AlphaPose) to Human3.6M joints.

    Args:
        pose: (..., 26, C); every channel, confidence included, is averaged for the spine.

    Returns:
        (..., 17, C).

    Source: MotionBERT, lib/data/dataset_wild.py (halpe2h36m).
    """
    return _convert(pose, "halpe26", _HALPE)


def posetrack_to_h36m(pose: Array) -> Array:
    """Convert PoseTrack18 to Human3.6M joints; a midpoint is as visible as the less visible of its two joints.

    Args:
        pose: (..., 17, 3): x, y, visibility.

    Returns:
        (..., 17, 3).

    Source: MotionBERT, lib/data/dataset_motion_2d.py (posetrack2h36m).
    """
    return _convert(pose, "posetrack17", _POSETRACK, lowest_confidence=True)


def _convert(
    pose: Array, source: str, named: Mapping[str, tuple[str, ...]], *, lowest_confidence: bool = False
) -> Array:
    layout, target = skeleton(source), skeleton("h36m17")
    expect(pose, "... J C", f"{source} keypoints", J=len(layout))
    pairs = [_sources(layout, joint, named) for joint in target.joints]
    first, second = pose[..., [a for a, _ in pairs], :], pose[..., [b for _, b in pairs], :]
    out = _midpoint(first, second, lowest_confidence)
    pelvis, spine, thorax = (target.index(joint) for joint in ("pelvis", "spine", "thorax"))
    out[..., spine, :] = _midpoint(out[..., pelvis, :], out[..., thorax, :], lowest_confidence)
    return out


def _sources(layout: Skeleton, joint: str, named: Mapping[str, tuple[str, ...]]) -> tuple[int, int]:
    # The spine is filled afterwards; until then it holds the pelvis.
    names = named.get("pelvis" if joint == "spine" else joint, (joint,))
    return layout.index(names[0]), layout.index(names[-1])


def _midpoint(first: Array, second: Array, lowest_confidence: bool) -> Array:
    middle = (first + second) / 2
    if lowest_confidence:
        least = torch.minimum if isinstance(first, Tensor) else np.minimum
        middle[..., 2] = least(first[..., 2], second[..., 2])
    return middle

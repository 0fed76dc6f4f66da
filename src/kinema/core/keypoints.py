"""Converters from detector layouts to the 17 joints of Human3.6M, with confidences; `layouts.py` registers them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from kinema.core.shapes import expect
from kinema.core.skeleton import Skeleton, skeleton

Array = TypeVar("Array", np.ndarray, Tensor)
# Pixels; no image is that large. Far beyond it a network's numbers overflow, and poses come out as NaN.
LARGEST = 1e6

# Target joints of a layout: one source joint, or the midpoint of two. Joints that all layouts name alike (limbs,
# nose) are not listed; the spine is the midpoint of the new pelvis and thorax.
_COCO = {
    "pelvis": ("left_hip", "right_hip"),
    "thorax": ("left_shoulder", "right_shoulder"),
    "head": ("left_eye", "right_eye"),
}
_HALPE = {"pelvis": ("hip",), "thorax": ("neck",), "head": ("head",)}
_BODY25 = {"pelvis": ("mid_hip",), "thorax": ("neck",), "head": ("left_eye", "right_eye")}
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


def coco_to_h36m_exchanged(pose: Array) -> Array:
    """Convert COCO-17 as `coco_to_h36m` does, with the sides exchanged: slots of right joints get left ones.

    Published behaviour of a helper in the demo of MotionAGFormer and PoseMamba; use `coco_to_h36m` for new data.

    Args:
        pose: (..., 17, C).

    Returns:
        (..., 17, C).

    Source: MotionAGFormer, demo/lib/preprocess.py (turn_into_h36m).
    """
    return coco_to_h36m(pose)[..., list(skeleton("h36m17").flip_index), :]


def coco_to_h36m_demo(pose: Array) -> Array:
    """Convert COCO-17 to Human3.6M joints with the corrections of the video demos.

    Head, nose, thorax and spine are moved towards where Human3.6M has them: the head above the face by as much as the
    eyes are above the nose, the nose towards the shoulders, the thorax towards the nose and up, the spine sideways,
    away from the line between pelvis and thorax.

    Args:
        pose: (..., 17, 3): x, y in pixels (y downwards) and score.

    Returns:
        (..., 17, 3); scores of new joints are means of those they were made of.

    Source: MotionAGFormer, demo/lib/preprocess.py (h36m_coco_format), after the demo of GAST-Net.
    """
    expect(pose, "... J C", "coco17 keypoints", J=17, C=3)
    layout, target = skeleton("coco17"), skeleton("h36m17")

    def mean(*joints: str) -> Array:
        return pose[..., [layout.index(joint) for joint in joints], :].mean(-2)

    def moved(joint: Array, x: Any = 0, y: Any = 0) -> Array:
        parts = [joint[..., 0] + x, joint[..., 1] + y, joint[..., 2]]
        return torch.stack(parts, dim=-1) if isinstance(joint, Tensor) else np.stack(parts, axis=-1)

    shoulders, hips = mean("left_shoulder", "right_shoulder"), mean("left_hip", "right_hip")
    nose, eyes = mean("nose"), mean("left_eye", "right_eye")
    head = mean("left_eye", "right_eye", "left_ear", "right_ear")
    towards = nose - shoulders
    lifted = eyes[..., 1] - nose[..., 1]  # negative for an upright head
    trunk = mean("left_shoulder", "right_shoulder", "left_hip", "right_hip")
    lean = trunk[..., 0] - (hips[..., 0] + shoulders[..., 0] + towards[..., 0] / 3) / 2
    made = {
        "pelvis": hips,
        # Its score is that of pelvis and thorax, which is the same mean of four.
        "spine": moved(trunk, x=2 * lean),
        "thorax": moved(shoulders, towards[..., 0] / 3, towards[..., 1] / 3 - lifted * 2 / 3),
        "nose": moved(nose, -towards[..., 0] / 4, -towards[..., 1] / 4),
        "head": moved(head, y=eyes[..., 1] + lifted - head[..., 1]),
    }
    joints = [made[joint] if joint in made else mean(joint) for joint in target.joints]
    return torch.stack(joints, dim=-2) if isinstance(pose, Tensor) else np.stack(joints, axis=-2)


def seen(pose: Array) -> Array:
    """Frames in which a person was found: those whose x and y do not sum to 0, (..., J, 2 or more) to (...,) bool."""
    return pose[..., :2].sum(-1).sum(-1) != 0


def fold_uncertain_legs(pose: Array, threshold: float = 0.3) -> Array:
    """Put knees and ankles that a detector guessed onto the joint above them.

    Only certain sets of uncertain joints are treated (published behaviour): one ankle alone, or both ankles with none,
    one or both of the knees. Frames without a person (`seen`) become zero in x and y.

    Args:
        pose: (..., 17, 3) in Human3.6M order: x, y, score.
        threshold: joints with a lower score are uncertain; 0.3 in the released demos.

    Returns:
        (..., 17, 3), a copy; scores stay.

    Source: MotionAGFormer, demo/lib/preprocess.py (revise_kpts).
    """
    expect(pose, "... J C", "pose", J=17, C=3)
    body = skeleton("h36m17")
    low = pose[..., 2] < threshold
    names = ("right_knee", "right_ankle", "left_knee", "left_ankle")
    knee_r, ankle_r, knee_l, ankle_l = (low[..., body.index(name)] for name in names)
    both = ankle_r & ankle_l
    # A knee alone, or a knee and the ankle of one leg while the other is certain, is left as it is.
    feet = {"right": both | (ankle_r & ~knee_r & ~knee_l), "left": both | (ankle_l & ~knee_r & ~knee_l)}
    knees = {"right": both & knee_r, "left": both & knee_l}
    points = [pose[..., joint, :2] for joint in range(17)]
    where: Any = torch.where if isinstance(pose, Tensor) else np.where
    for side in ("right", "left"):
        hip, knee, ankle = (body.index(f"{side}_{joint}") for joint in ("hip", "knee", "ankle"))
        points[knee] = where(knees[side][..., None], points[hip], points[knee])
        points[ankle] = where(feet[side][..., None], points[knee], points[ankle])
    present = seen(pose)[..., None, None]
    if isinstance(pose, Tensor):
        return torch.cat([torch.stack(points, dim=-2) * present, pose[..., 2:]], dim=-1)
    return np.concatenate([np.stack(points, axis=-2) * present, pose[..., 2:]], axis=-1)


def halpe_to_h36m(pose: Array) -> Array:
    """Convert Halpe-26 (AlphaPose) to Human3.6M joints.

    Args:
        pose: (..., 26, C); every channel, confidence included, is averaged for the spine.

    Returns:
        (..., 17, C).

    Source: MotionBERT, lib/data/dataset_wild.py (halpe2h36m).
    """
    return _convert(pose, "halpe26", _HALPE)


def body25_to_h36m(pose: Array) -> Array:
    """Convert OpenPose BODY_25 to Human3.6M joints: pelvis and thorax are its own points, the head is that of COCO-17.

    Args:
        pose: (..., 25, C); every channel, confidence included, is averaged.

    Returns:
        (..., 17, C).
    """
    return _convert(pose, "body25", _BODY25)


def mediapipe_to_h36m(pose: Array) -> Array:
    """Convert the 33 landmarks of MediaPipe Pose to Human3.6M joints as COCO-17 is, whose points are among them.

    Args:
        pose: (..., 33, C); every channel, visibility included, is averaged.

    Returns:
        (..., 17, C).
    """
    return _convert(pose, "mediapipe33", _COCO)


def posetrack_to_h36m(pose: Array) -> Array:
    """Convert PoseTrack18 to Human3.6M joints; a midpoint is as visible as the less visible of its two joints.

    Args:
        pose: (..., 17, 2 or 3): x, y, visibility.

    Returns:
        (..., 17, C).

    Source: MotionBERT, lib/data/dataset_motion_2d.py (posetrack2h36m).
    """
    return _convert(pose, "posetrack17", _POSETRACK, lowest_confidence=True)


def mpi_inf_3dhp_to_h36m(pose: Array) -> Array:
    """Bring the joints of MPI-INF-3DHP into the order of Human3.6M; head and head_top stand for nose and head.

    Args:
        pose: (..., 17, C).

    Returns:
        (..., 17, C).
    """
    expect(pose, "... J C", "pose", J=17)
    return pose[..., list(skeleton("mpi_inf_3dhp17").tables["h36m17"]), :]


def h36m_to_mpi_inf_3dhp(pose: Array) -> Array:
    """Inverse of `mpi_inf_3dhp_to_h36m`.

    Args:
        pose: (..., 17, C).

    Returns:
        (..., 17, C).
    """
    expect(pose, "... J C", "pose", J=17)
    order = skeleton("mpi_inf_3dhp17").tables["h36m17"]
    return pose[..., [order.index(joint) for joint in range(17)], :]


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
    if lowest_confidence and first.shape[-1] > 2:
        least = torch.minimum if isinstance(first, Tensor) else np.minimum
        middle[..., 2] = least(first[..., 2], second[..., 2])
    return middle

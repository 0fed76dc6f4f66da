"""Augmentation in 3D: motions are edited in the room and seen again by their cameras, detector errors included.

Camera-space motions of one rig show few headings, sizes and combinations of limbs. The edits stand in `augment`, in any
number, and `reproject` behind them makes input and targets of the edited motion:

    augment: [swap_upper_body: {probability: 0.5}, random_heading: {shift: 0.3}, reproject: {errors: exchanged}]

They work in the level frame of a sample: metres, x to the camera's right, y forward along the floor, z up, the floor at
z = 0, the origin below the camera. It follows from the camera's rotation and height alone, so it holds for mirrored
samples too. What an edit takes from another sample is that of another row of the same batch, picked by the sample's own
draw: with several devices, of the same device.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from kinema.core.camera import project, qinverse, qrot
from kinema.core.skeleton import Skeleton
from kinema.data.draws import Batch, Draws, joint_order, needs
from kinema.errors import ConfigError

# Batch keys: the targets' array at all input frames, and the edited motion in the level frame.
WIDE, MOTION = "pose3d_input", "motion"
_CAMERA = (WIDE, "orientation", "translation")
ERRORS = ("none", "own", "exchanged")
# Nearer than this (metres) nothing is projected.
_NEAREST = 0.5


@needs(*_CAMERA)
def swap_upper_body(batch: Batch, draws: Draws, *, probability: float, skeleton: Skeleton) -> Batch:
    """Give random samples everything above the legs from another sample of the batch, mirrored half of the time.

    Frame by frame, relative to the root, turned so that the lines through the hips have the same heading, scaled by the
    ratio of the thighs.

    Args:
        batch: any.
        draws: of the batch.
        probability: of a sample to be changed.
        skeleton: of the targets.
    """
    motion = _motion(batch)
    legs = _limbs(skeleton)[0]
    drawn = draws.uniform("swap_upper_body", (3,))
    donor = motion[_partner(drawn[:, 0])]
    donor = torch.where(_wide(drawn[:, 1] < 0.5), _mirrored(donor, skeleton), donor)
    upper = [joint for joint in range(len(skeleton)) if joint != skeleton.root and joint not in (*legs[0], *legs[1])]
    heads = (legs[0][0], legs[1][0])
    moved = _grafted(motion, donor, skeleton.root, heads, skeleton)
    chosen = _wide(drawn[:, 2] < probability) & _is_joint(tuple(upper), len(skeleton), motion.device)
    return {**batch, MOTION: torch.where(chosen, moved, motion)}


@needs(*_CAMERA)
def swap_arms(batch: Batch, draws: Draws, *, probability: float, skeleton: Skeleton) -> Batch:
    """Give each arm of random samples the motion of that arm in another sample of the batch.

    Frame by frame, relative to the shoulder, turned so that the lines through the shoulders have the same heading,
    scaled by the ratio of the thighs.

    Args:
        batch: any.
        draws: of the batch.
        probability: of an arm to be changed.
        skeleton: of the targets.
    """
    motion = _motion(batch)
    arms = _limbs(skeleton)[1]
    drawn = draws.uniform("swap_arms", (3,))
    donor = motion[_partner(drawn[:, 0])]
    heads = (arms[0][0], arms[1][0])
    edited = motion
    for side, arm in enumerate(arms):
        chosen = _wide(drawn[:, 1 + side] < probability) & _is_joint(arm[1:], len(skeleton), motion.device)
        edited = torch.where(chosen, _grafted(motion, donor, arm[0], heads, skeleton), edited)
    return {**batch, MOTION: edited}


@needs(*_CAMERA)
def scale_bones(batch: Batch, draws: Draws, *, size: float, bones: float, skeleton: Skeleton) -> Batch:
    """Change the size of the body and the length of its bones, alike on both sides and in all frames of a sample.

    The height of the root above the floor changes by the mean factor.

    Args:
        batch: any.
        draws: of the batch.
        size: standard deviation of the logarithm of the body's factor.
        bones: standard deviation of the logarithm of a bone's own factor.
        skeleton: of the targets.
    """
    motion = _motion(batch)
    groups, parents, chain = _tree(skeleton, motion.device)
    drawn = draws.normal("scale_bones", (1 + len(skeleton),))
    factor = torch.exp(size * drawn[:, :1] + bones * drawn[:, 1:])[:, groups]  # (B, J)
    root = motion[:, :, skeleton.root : skeleton.root + 1]
    lengths = (motion - motion[:, :, parents]) * factor[:, None, :, None]
    lifted = torch.stack([torch.ones_like(factor[:, 0]), torch.ones_like(factor[:, 0]), factor.mean(1)], -1)
    return {**batch, MOTION: root * lifted[:, None, None] + chain @ lengths}


@needs(*_CAMERA)
def random_heading(batch: Batch, draws: Draws, *, shift: float, skeleton: Skeleton) -> Batch:
    """Turn the motion about the vertical by any angle, about the root in the middle frame, and shift it on the floor.

    Args:
        batch: any.
        draws: of the batch.
        shift: standard deviation in metres, each way.
        skeleton: of the targets.
    """
    motion = _motion(batch)
    angle = 2 * math.pi * draws.uniform("random_heading")  # (B,)
    floor = torch.tensor([1.0, 1.0, 0.0], device=motion.device)
    centre = motion[:, motion.shape[1] // 2, skeleton.root] * floor  # (B, 3)
    moved = centre + shift * draws.normal("floor_shift", (3,)) * floor
    turned = _turned(motion - centre[:, None, None], angle[:, None, None])
    return {**batch, MOTION: turned + moved[:, None, None]}


@needs(*_CAMERA, "intrinsics")
def reproject(batch: Batch, draws: Draws, *, errors: str, context: tuple[int, int]) -> Batch:
    """Make `pose2d` and `pose3d` of the edited motion, seen by the sample's own camera; behind all edits.

    A detector's error is what the input differs from the projection of the unedited motion. No noise model is fitted:
    exchanged errors keep the detector's own distribution, its bursts, and the scores that go with them.

    Args:
        batch: any.
        draws: of the batch.
        errors: of the new input: "none" (the exact projection, scores as they are), "own" (those the sample had) or
            "exchanged" (errors and scores of another sample of the batch).
        context: input frames before and after the targets.

    Raises:
        ConfigError: for another word in `errors`.
    """
    if errors not in ERRORS:
        raise ConfigError(f"dataset.augment: reproject has no errors={errors!r}. Use one of {', '.join(ERRORS)}.")
    motion = _motion(batch)
    edited = _into_camera(motion, batch)
    seen = project(_in_front(edited), batch["intrinsics"])  # (B, T, J, 2)
    rest = batch["pose2d"][..., 2:]
    if errors != "none":
        wrong = batch["pose2d"][..., :2] - project(_in_front(batch[WIDE]), batch["intrinsics"])
        if errors == "exchanged":
            partner = _partner(draws.uniform("exchange_errors"))
            wrong, rest = wrong[partner], rest[partner]
        seen = seen + wrong
    targets = edited[:, context[0] : edited.shape[1] - context[1]]
    kept = {key: value for key, value in batch.items() if key not in (MOTION, WIDE)}
    return {**kept, "pose2d": torch.cat([seen, rest], -1), "pose3d": targets}


# The level frame.


def _level(batch: Batch) -> tuple[Tensor, Tensor]:
    """Rotation (B, 3, 3) from camera to level axes, rows = right, forward, up; height of the camera (B,)."""
    world_up = torch.tensor([[0.0, 0.0, 1.0]], device=batch["orientation"].device)
    up = qrot(qinverse(batch["orientation"]), world_up)  # in camera axes: x right, y down, z forward
    up = torch.where(batch["flip"][:, None], up * up.new_tensor([-1.0, 1.0, 1.0]), up)
    forward = up.new_tensor([0.0, 0.0, 1.0]) - up[:, 2:] * up
    forward = torch.nn.functional.normalize(forward, dim=-1)
    return torch.stack([torch.linalg.cross(forward, up), forward, up], 1), batch["translation"][:, 2]


def _motion(batch: Batch) -> Tensor:
    """The motion as edited so far (B, T, J, 3), level frame."""
    if MOTION in batch:
        return batch[MOTION]
    axes, height = _level(batch)
    pose = batch[WIDE]
    motion = (pose.flatten(1, 2) @ axes.transpose(1, 2)).view_as(pose)
    return motion + _raised(height)


def _into_camera(motion: Tensor, batch: Batch) -> Tensor:
    axes, height = _level(batch)
    return ((motion - _raised(height)).flatten(1, 2) @ axes).view_as(motion)


def _raised(height: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(height), torch.zeros_like(height), height], -1)[:, None, None]


def _in_front(pose: Tensor) -> Tensor:
    return torch.cat([pose[..., :2], pose[..., 2:].clamp_min(_NEAREST)], -1)


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    """Turn (B, T, J, 3) about the vertical by angles that broadcast to (B, T, J)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([x[..., 0] * cos - x[..., 1] * sin, x[..., 0] * sin + x[..., 1] * cos, x[..., 2]], -1)


# Bodies.


def _grafted(motion: Tensor, donor: Tensor, base: int, line: tuple[int, int], skeleton: Skeleton) -> Tensor:
    """The donor's joints as they would stand on joint `base`, turned to the heading of `line`, in the body's size."""
    thigh = _limbs(skeleton)[0][0][:2]
    size = _length(motion, *thigh) / _length(donor, *thigh)  # (B,), the first frame stands for all
    angle = _heading(motion, *line) - _heading(donor, *line)  # (B, T)
    relative = (donor - donor[:, :, base : base + 1]) * _wide(size)
    return _turned(relative, angle[..., None]) + motion[:, :, base : base + 1]


def _heading(motion: Tensor, left: int, right: int) -> Tensor:
    line = motion[:, :, left] - motion[:, :, right]
    return torch.atan2(line[..., 1], line[..., 0])


def _length(motion: Tensor, a: int, b: int) -> Tensor:
    return (motion[:, 0, a] - motion[:, 0, b]).norm(dim=-1).clamp_min(1e-6)


def _mirrored(motion: Tensor, skeleton: Skeleton) -> Tensor:
    swapped = motion.index_select(2, joint_order(skeleton.flip_index, motion.device))
    return swapped * motion.new_tensor([-1.0, 1.0, 1.0])


def _partner(uniform: Tensor) -> Tensor:
    """Another row of the batch for every row, (B,); a batch of one sample is its own partner."""
    rows = len(uniform)
    steps = 1 + (uniform * (rows - 1)).long()
    return (torch.arange(rows, device=uniform.device) + steps) % rows


def _wide(x: Tensor) -> Tensor:
    return x[:, None, None, None]


@lru_cache(maxsize=8)
def _limbs(skeleton: Skeleton) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], ...]]:
    """Joints of the (left, right) legs and of the (left, right) arms, from the one nearest to the trunk outwards.

    Raises:
        ConfigError: for a skeleton without two legs, which leave the root, and two arms.
    """
    limbs: dict[bool, list[tuple[int, ...]]] = {True: [], False: []}
    for side in (skeleton.left, skeleton.right):
        for head in (joint for joint in side if skeleton.parents[joint] not in side):
            limb = [head]
            limb += [joint for joint in range(len(skeleton)) if _hangs_on(skeleton, joint, head)]
            limbs[skeleton.parents[head] == skeleton.root].append(tuple(limb))
    legs, arms = limbs[True], limbs[False]
    if len(legs) != 2 or len(arms) != 2 or min(map(len, (*legs, *arms))) < 2:
        raise ConfigError(
            f"Skeleton {skeleton.name} has no two legs that leave its root and two arms, which exchanging limbs needs. "
            "Use dataset.augment=[]."
        )
    return (legs[0], legs[1]), (arms[0], arms[1])


def _hangs_on(skeleton: Skeleton, joint: int, ancestor: int) -> bool:
    parent = skeleton.parents[joint]
    return parent >= 0 and (parent == ancestor or _hangs_on(skeleton, parent, ancestor))


@lru_cache(maxsize=16)
def _tree(skeleton: Skeleton, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Bones by the joint at their end: group (J,), one for left and right; parent (J,), the root its own; chain (J, J),
    1 where a bone lies on the way from the root to a joint.
    """
    groups = list(range(len(skeleton)))
    for left, right in zip(skeleton.left, skeleton.right, strict=True):
        groups[right] = groups[left]
    parents = [max(parent, 0) if joint != skeleton.root else joint for joint, parent in enumerate(skeleton.parents)]
    joints = range(len(skeleton))
    chain = [
        [float(bone != skeleton.root and (bone == joint or _hangs_on(skeleton, joint, bone))) for bone in joints]
        for joint in joints
    ]
    with torch.inference_mode(False):  # a tensor born in inference mode could not be used in training
        return (
            torch.tensor(groups, device=device),
            torch.tensor(parents, device=device),
            torch.tensor(chain, device=device),
        )


@lru_cache(maxsize=32)
def _is_joint(joints: tuple[int, ...], count: int, device: torch.device) -> Tensor:
    """(count, 1) bool, true at some joints."""
    with torch.inference_mode(False):
        return torch.tensor([[joint in joints] for joint in range(count)], device=device)

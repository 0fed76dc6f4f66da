"""Transforms of action clips: `pose` (B, M, T, J, C), x, y, z or x, y, score, with `persons` (B, M) who are there.

As those of `transforms.py`: (batch, draws, **options) -> batch, everything random from `draws`. What a data set hands
over: `skeleton`, `has_3d`, and `preprocess`. Behind a published preprocessing (`clip_preprocess(name).published`)
absent persons are moved and cropped like others and a third channel of 0 means "not seen", as released checkpoints
expect; else absent persons stay zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from kinema.core import motion
from kinema.core.clip_preprocess import clip_preprocess
from kinema.core.crop import crop_scale as core_crop_scale
from kinema.core.skeleton import Skeleton
from kinema.data.draws import Batch, Draws, joint_order
from kinema.errors import ConfigError


def random_move(
    batch: Batch,
    draws: Draws,
    *,
    preprocess: str,
    angle: float = 10.0,
    scale: float = 0.1,
    shift: float = 0.1,
) -> Batch:
    """Turn, scale and shift x, y by amounts that change evenly over the clip; all persons alike.

    Args:
        batch: any.
        draws: of the batch.
        preprocess: of the data.
        angle: largest turn in degrees, either way.
        scale: largest relative change of size, either way.
        shift: largest shift, either way.

    Source: MotionBERT, lib/data/dataset_action.py (random_move), which writes into the stored clips, so that the moves
    of all epochs add up. Here every epoch moves the clips as they are stored.
    """
    pose = batch["pose"]
    unit = draws.uniform("random_move", (4, 2))
    pose = motion.drift(pose, motion.drift_ranges(unit, angle, scale, shift))
    return _of_those_present({**batch, "pose": pose}, preprocess)


def crop_scale(
    batch: Batch,
    draws: Draws,
    *,
    preprocess: str,
    has_3d: bool,
    train: Sequence[float],
    test: Sequence[float],
) -> Batch:
    """Move and scale the box around all persons of a clip to [-1, 1] times 1 / ratio; all channels clipped to [-1, 1].

    Args:
        batch: any.
        draws: of the batch.
        preprocess: of the data.
        has_3d: whether the third channel is a depth.
        train: bounds of the ratio that is drawn in training.
        test: bounds of the ratio in evaluation, where it is drawn as well if they differ.

    Source: MotionBERT, lib/utils/utils_data.py (crop_scale). Ours keeps depths on the scale of x, y.
    """
    low, high = _bounds(train if draws.training else test)
    ratio = low + (high - low) * draws.uniform("crop_scale")
    pose = batch["pose"]
    if clip_preprocess(preprocess).published:
        return {**batch, "pose": core_crop_scale(pose, ratio, batch_axes=1)}
    seen = batch["persons"][:, :, None, None].expand(pose.shape[:-1])
    if not has_3d:
        seen = seen & (pose[..., 2] != 0)
    pose = core_crop_scale(pose, ratio, batch_axes=1, valid=seen, depth=has_3d)
    return {**batch, "pose": pose}


def mirror(batch: Batch, draws: Draws, *, probability: float, skeleton: Skeleton) -> Batch:
    """Mirror random clips: x negated, left and right exchanged. Not for classes that tell left from right."""
    chosen = (draws.uniform("mirror") < probability)[:, None, None, None, None]
    pose = batch["pose"]
    swapped = pose.index_select(-2, joint_order(skeleton.flip_index, pose.device))
    swapped = torch.cat([-swapped[..., :1], swapped[..., 1:]], dim=-1)
    return {**batch, "pose": torch.where(chosen, swapped, pose)}


def turn(batch: Batch, draws: Draws, *, degrees: float) -> Batch:
    """Turn clips about the vertical third axis by up to so many degrees, either way; for 3D in a room."""
    angle = math.radians(degrees) * (2 * draws.uniform("turn") - 1)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero, zero, zero, one]
    return {**batch, "pose": _rotated(batch["pose"], torch.stack(rows, -1).unflatten(-1, (3, 3)))}


def rotate(batch: Batch, draws: Draws, *, radians: float) -> Batch:
    """Turn clips about all three axes by up to so much, either way; for 3D.

    Source: PYSKL, pyskl/datasets/pipelines/augmentations.py (RandomRot), 0.3 in its stronger recipe.
    """
    angles = radians * (2 * draws.uniform("rotate", (3,)) - 1)
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    zero, one = torch.zeros_like(cx), torch.ones_like(cx)
    about = [
        [one, zero, zero, zero, cx, sx, zero, -sx, cx],
        [cy, zero, -sy, zero, one, zero, sy, zero, cy],
        [cz, sz, zero, -sz, cz, zero, zero, zero, one],
    ]
    x, y, z = (torch.stack(rows, -1).unflatten(-1, (3, 3)) for rows in about)
    return {**batch, "pose": _rotated(batch["pose"], z @ y @ x)}


def rescale(batch: Batch, draws: Draws, *, share: float, has_3d: bool) -> Batch:
    """Stretch each axis by up to a share of its own, either way.

    Source: PYSKL, pyskl/datasets/pipelines/augmentations.py (RandomScale), 0.1 in its stronger recipe.
    """
    factor = 1 + share * (2 * draws.uniform("rescale", (3,)) - 1)
    if not has_3d:  # the third channel is a score
        factor = torch.cat([factor[:, :2], torch.ones_like(factor[:, :1])], dim=-1)
    return {**batch, "pose": batch["pose"] * factor[:, None, None, None]}


def shake(batch: Batch, draws: Draws, *, std: float, preprocess: str, has_3d: bool) -> Batch:
    """Add independent Gaussian noise to the coordinates."""
    pose = batch["pose"]
    axes = 3 if has_3d else 2
    noise = std * draws.normal("shake", (*pose.shape[1:-1], axes))
    moved = torch.cat([pose[..., :axes] + noise.to(pose), pose[..., axes:]], dim=-1)
    return _of_those_present({**batch, "pose": moved}, preprocess)


def drop_frames(batch: Batch, draws: Draws, *, probability: float, share: float) -> Batch:
    """Blank a block of neighbouring frames of random clips.

    Source: MMN (block dropout, probability 0.2).
    """
    frames = batch["pose"].shape[2]
    drawn = draws.uniform("drop_frames", (2,))
    length = max(1, round(share * frames))
    first = (drawn[:, 1] * (frames - length + 1)).floor()
    at = torch.arange(frames, device=drawn.device)
    gone = (at >= first[:, None]) & (at < first[:, None] + length) & (drawn[:, :1] < probability)
    return {**batch, "pose": batch["pose"] * ~gone[:, None, :, None, None]}


def drop_part(batch: Batch, draws: Draws, *, probability: float, skeleton: Skeleton) -> Batch:
    """Blank a body part of random clips.

    Source: ProtoGCN (part drop).
    """
    parts = tuple(skeleton.tables.get("parts", {}).values())
    if not parts:
        raise ConfigError(f"dataset.augment: drop_part needs body parts, and {skeleton.name} names none. Leave it out.")
    masks = np.zeros((len(parts), len(skeleton)), bool)
    for row, joints in enumerate(parts):
        masks[row, list(joints)] = True
    drawn = draws.uniform("drop_part", (2,))
    which = (drawn[:, 1] * len(parts)).long()
    gone = torch.from_numpy(masks).to(drawn.device)[which] & (drawn[:, :1] < probability)
    return {**batch, "pose": batch["pose"] * ~gone[:, None, None, :, None]}


def mixup(batch: Batch, draws: Draws, *, alpha: float) -> Batch:
    """Blend each clip with its partner in the batch (the batch in reverse): `mix` (B,) share, `partner` (B,) label.

    The partner is of the same device's clips, so that a training on several devices is not bit-equal to one.

    Args:
        batch: any.
        draws: of the batch.
        alpha: of the Beta distribution that the shares are drawn from.

    Source: Zhang et al. 2018, mixup; for skeletons as in MAC 2024 and SoftRerank.
    """
    share = _beta(draws.uniform("mixup"), alpha).to(batch["pose"])
    wide = share[:, None, None, None, None]
    pose = wide * batch["pose"] + (1 - wide) * batch["pose"].flip(0)
    persons = batch["persons"] | batch["persons"].flip(0)
    return {**batch, "pose": pose, "persons": persons, "mix": share, "partner": batch["label"].flip(0)}


def with_motion(batch: Batch, draws: Draws, *, scale: float) -> Batch:
    """Append the velocity of every joint, from each frame that is shown to the next: six channels; zero in the last.

    Velocities are per frame of the clip, however many were left out between: clips of any length are shown by equally
    many frames, and how fast somebody moves would be lost.

    Args:
        batch: any, of 3D clips.
        draws: unused.
        scale: of the velocities, which are small beside the places.
    """
    pose = batch["pose"]
    passed = batch["frames"].diff(dim=1).abs().clamp_min(1).to(pose)[:, None, :, None, None]
    way = torch.cat([pose.diff(dim=2) / passed, torch.zeros_like(pose[:, :, :1])], dim=2)
    return {**batch, "pose": torch.cat([pose, scale * way], dim=-1)}


CLIP_TRANSFORMS: dict[str, Callable[..., Batch]] = {
    "random_move": random_move,
    "crop_scale": crop_scale,
    "mirror": mirror,
    "turn": turn,
    "rotate": rotate,
    "rescale": rescale,
    "shake": shake,
    "drop_frames": drop_frames,
    "drop_part": drop_part,
    "mixup": mixup,
    "with_motion": with_motion,
}


def _of_those_present(batch: Batch, preprocess: str) -> Batch:
    if clip_preprocess(preprocess).published:
        return batch
    return {**batch, "pose": batch["pose"] * batch["persons"][:, :, None, None, None]}


def _rotated(pose: Tensor, turns: Tensor) -> Tensor:
    """(B, M, T, J, 3) points, each as a column behind its sample's matrix (B, 3, 3)."""
    return torch.einsum("bij,bmtvj->bmtvi", turns.to(pose), pose)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    if len(values) != 2 or not 0 < values[0] <= values[1]:
        raise ConfigError(
            f"crop_scale: {list(values)} are no two ratios. Use crop_scale: {{train: [1.0, 3.0], test: [2.0, 2.0]}}."
        )
    return float(values[0]), float(values[1])


def _beta(unit: Tensor, alpha: float) -> Tensor:
    """Turn uniforms into draws of Beta(alpha, alpha), by a table of its distribution function."""
    if alpha <= 0:
        raise ConfigError(f"mixup: alpha={alpha} is not positive. Use mixup: {{alpha: 0.2}}.")
    # The density has poles at the ends for alpha < 1; in t with x = sin(t)^2 it has weaker ones, and only one side is
    # needed: the distribution is symmetric.
    angle = (np.arange(4096) + 0.5) / 4096 * (math.pi / 2)
    density = (np.sin(angle) * np.cos(angle)) ** (2 * alpha - 1)
    reached = np.concatenate([[0], np.cumsum(density)]) / density.sum()
    edges = np.sin(np.arange(4097) / 4096 * (math.pi / 2)) ** 2
    return torch.from_numpy(np.interp(unit.cpu().numpy(), reached, edges)).to(unit)

"""Transforms of motion in a room: `pose3d` (B, T, J, 3) world metres, z up, augmented window by window.

As those of `transforms.py`: (batch, draws, **options) -> batch, everything random from `draws`. The last one is
`motion`, which makes what networks of motion prediction see.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kinema.core import random
from kinema.core.motion_features import to_features
from kinema.core.skeleton import Skeleton
from kinema.data.draws import Batch, Draws, mirror_some
from kinema.errors import ConfigError

# Where the order hands over what a batch draws, see `motion_orders.Published`.
TURN, SIGNS = "published_turn", "published_signs"


def spin(batch: Batch, draws: Draws, *, probability: float = 1.0) -> Batch:
    """Turn random windows about the vertical by any angle.

    Args:
        batch: any.
        draws: of the batch.
        probability: of a window to be turned.
    """
    unit = draws.uniform("spin", (2,))
    angle = torch.where(unit[:, 0] < probability, 2 * math.pi * unit[:, 1], 0.0)
    return {**batch, "pose3d": _turned(batch["pose3d"], angle)}


def mirror_axes(batch: Batch, draws: Draws, *, probability: float = 0.5) -> Batch:
    """Negate x and, independently, y of random windows, without exchanging left and right: published augmentation.

    One of both alone shows a body that has its left side on the right. `mirror_body` is what is meant.

    Args:
        batch: any.
        draws: of the batch.
        probability: of an axis to be negated.

    Source: HumanMAC, data_loader/dataset.py, there one draw per batch.
    """
    sign = torch.where(draws.uniform("mirror_axes", (2,)) < probability, -1.0, 1.0)
    return {**batch, "pose3d": _signed(batch["pose3d"], sign)}


def mirror_body(batch: Batch, draws: Draws, *, probability: float = 0.5, skeleton: Skeleton) -> Batch:
    """Mirror random windows: x negated, left and right exchanged.

    Args:
        batch: any.
        draws: of the batch.
        probability: of a window to be mirrored.
        skeleton: the data set's.
    """
    if not skeleton.left:
        raise ConfigError(
            f"dataset.augment: mirror_body needs left and right joints, and {skeleton.name} names none. Leave it out, "
            "or name them: 'dataset.skeleton={parents:[...],left:[...],right:[...]}'."
        )
    return {**batch, "pose3d": mirror_some(batch["pose3d"], draws.uniform("mirror_body") < probability, skeleton)}


def scale_body(batch: Batch, draws: Draws, *, share: float) -> Batch:
    """Enlarge or shrink body and path of every window by up to a share.

    Args:
        batch: any.
        draws: of the batch.
        share: largest relative change of size, either way.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"dataset.augment: scale_body by {share} of the size. Use scale_body: {{share: 0.1}}.")
    factor = 1 + share * (2 * draws.uniform("scale_body") - 1)
    return {**batch, "pose3d": batch["pose3d"] * factor[:, None, None, None]}


def stretch_time(batch: Batch, draws: Draws, *, slowest: float, fastest: float, length: int) -> Batch:
    """Play every window at a speed of its own, from its first frame on; frames between frames by straight lines.

    Args:
        batch: of windows that reach `fastest` times as far as they are shown; a window near the end of its sequence is
            played no faster than its frames last.
        draws: of the batch.
        slowest, fastest: bounds of the speed, 1 = as recorded; drawn evenly in its logarithm.
        length: frames that are shown.
    """
    slowest, fastest = bounds(slowest, fastest)
    pose, valid = batch["pose3d"], batch["valid"]
    inside = (valid if valid.ndim == 2 else valid.all(-1)).sum(1)
    speed = slowest * (fastest / slowest) ** draws.uniform("stretch_time")
    speed = torch.minimum(speed, (inside - 1) / max(length - 1, 1))
    at = torch.arange(length, device=pose.device) * speed[:, None]
    low = at.floor().long().clamp_max(pose.shape[1] - 1)
    high = (low + 1).clamp_max(pose.shape[1] - 1)
    share = (at - low)[..., None, None].to(pose)
    rows = torch.arange(len(pose), device=pose.device)[:, None]
    played = torch.lerp(pose[rows, low], pose[rows, high], share)
    return {**batch, "pose3d": played, **{key: batch[key][:, :length] for key in ("valid", "frames") if key in batch}}


def motion_noise(batch: Batch, draws: Draws, *, std: float, skeleton: Skeleton) -> Batch:
    """Add independent Gaussian noise to every joint but the root, in every frame.

    Args:
        batch: any.
        draws: of the batch.
        std: standard deviation in metres.
        skeleton: the data set's.
    """
    pose = batch["pose3d"]
    moved = torch.ones(pose.shape[-2], 1, dtype=pose.dtype, device=pose.device)
    moved[skeleton.root] = 0
    return {**batch, "pose3d": pose + std * moved * draws.normal("motion_noise", pose.shape[1:])}


def published_turns(batch: Batch, draws: Draws, *, skeleton: Skeleton) -> Batch:
    """What the published training draws once per batch, for all of its windows alike: a turn, x negated, y negated.

    Each happens in half of the batches. With dataset.order=legacy the draws are those of the published generator.

    Args:
        batch: any.
        draws: of the batch.
        skeleton: the data set's; joints are turned relative to its root.

    Source: HumanMAC, data_loader/dataset.py (sampling_generator).
    """
    pose = batch["pose3d"]
    if TURN in batch:
        angle, sign = batch[TURN], batch[SIGNS]
    else:
        unit = random.uniform(draws.seed, draws.epoch, draws.step, "published_turns", (4,))
        angle = torch.where(unit[:, 0] > 0.5, 2 * math.pi * unit[:, 1], 0.0).expand(len(pose))
        sign = torch.where(unit[:, 2:] > 0.5, -1.0, 1.0).expand(len(pose), 2)
    root = pose[..., skeleton.root : skeleton.root + 1, :]
    parts = [_signed(_turned(part, angle), sign) for part in (root, pose - root)]
    kept = {key: value for key, value in batch.items() if key not in (TURN, SIGNS)}
    return {**kept, "pose3d": parts[0] + parts[1]}


def motion(batch: Batch, draws: Draws, *, skeleton: Skeleton) -> Batch:
    """Make `motion` (B, T, F) of `pose3d`: relative to the root, without it, one vector per frame; the last transform.

    Args:
        batch: any.
        draws: unused.
        skeleton: the data set's.
    """
    return {**batch, "motion": to_features(batch["pose3d"], skeleton.root)}


def bounds(slowest: float, fastest: float) -> tuple[float, float]:
    """Check the speeds of `stretch_time`."""
    if not 0 < slowest <= fastest:
        raise ConfigError(
            f"dataset.augment: stretch_time from {slowest} to {fastest} are no two speeds. "
            "Use stretch_time: {slowest: 0.8, fastest: 1.25}."
        )
    return float(slowest), float(fastest)


MOTION_TRANSFORMS: dict[str, Callable[..., Batch]] = {
    "spin": spin,
    "mirror_axes": mirror_axes,
    "mirror_body": mirror_body,
    "scale_body": scale_body,
    "stretch_time": stretch_time,
    "motion_noise": motion_noise,
    "published_turns": published_turns,
    "motion": motion,
}


def _turned(pose: Tensor, angle: Tensor) -> Tensor:
    """(B, T, J, 3) with x, y as a row vector times [[cos, -sin], [sin, cos]], in the precision of the angles (B,)."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x, y = pose[..., 0].to(angle), pose[..., 1].to(angle)
    turned = pose.to(angle.dtype, copy=True)
    turned[..., 0].mul_(cos).addcmul_(y, sin)
    turned[..., 1].mul_(cos).addcmul_(x, sin, value=-1)
    return turned.to(pose)


def _signed(pose: Tensor, sign: Tensor) -> Tensor:
    """(B, T, J, 3) with x, y of each sample times its two signs (B, 2)."""
    factor = functional.pad(sign.to(pose), (0, 1), value=1.0).repeat(1, pose.shape[-2])
    # Whole frames side by side: a factor for three values at a time would take four times as long.
    return (pose.flatten(-2) * factor[:, None]).view_as(pose)

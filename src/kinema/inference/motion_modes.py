"""What can be asked of a diffusion network of motions beside a prediction: to keep, reach or switch to something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinema.core import motion_masks
from kinema.core.heading import heading, turn
from kinema.core.motion_features import to_features, to_joints
from kinema.core.skeleton import Skeleton
from kinema.errors import ConfigError
from kinema.inference.motion_baselines import hips_of
from kinema.inference.motion_sampler import KnownMotion
from kinema.inference.motion_windows import MotionWindow

# Of the last steps of sampling this share goes without the target, so that the transition is smooth: 20 of 100.
FREE = 0.2


@dataclass(frozen=True)
class Sampled:
    """Samples of one window.

    Attributes:
        window: what they begin with.
        samples: (K, N, J, 3) float32 metres relative to the root; the first H frames are the history itself.
        target: (N, J, 3) motion whose end was given; None where none was.
        given: joints that were given over all frames.
        end_frames: frames at the end that were given; 0 = none.
        reached: (K,) mean distance of a joint (m) from the given ones in the frames in which they were given, past the
            history; None where nothing was given.
    """

    window: MotionWindow
    samples: np.ndarray
    target: np.ndarray | None = None
    given: tuple[int, ...] = ()
    end_frames: int = 0
    reached: np.ndarray | None = None


@dataclass(frozen=True)
class Wish:
    """What samples are to have besides the history.

    Attributes:
        known: parts that are held, with motions (W, N, F).
        target: (W, N, F), None where no end is given.
        given: joints that are given over all frames.
        end_frames: frames at the end that are given.
    """

    known: Sequence[KnownMotion] = ()
    target: Tensor | None = None
    given: tuple[int, ...] = field(default_factory=tuple)
    end_frames: int = 0


def switch(windows: Sequence[MotionWindow], target: MotionWindow, count: int, until: int, body: Skeleton,
           history: int, *, align: bool = False) -> Wish:  # fmt: skip
    """Go over to the end of another motion.

    Args:
        windows: W histories.
        target: motion of N frames whose last ones are reached.
        count: how many.
        until: loop index of sampling (the last step has 0) down to which they are held.
        body: skeleton.
        history: H.
        align: turn the target about the vertical, so that in its first given frame the hips have the heading of the
            last observed pose.
    """
    motion = features([target], body).expand(len(windows), -1, -1)
    if align:
        motion = turned(motion, motion.shape[1] - count, features(windows, body), history - 1, body)
    known = KnownMotion(motion_masks.ending(count, motion.shape[1]), motion_masks.end_motion(motion, count), until)
    return Wish([known], motion, end_frames=count)


def inbetween(windows: Sequence[MotionWindow], ends: Sequence[MotionWindow], count: int, until: int,
              body: Skeleton) -> Wish:  # fmt: skip
    """Reach given last frames, those of `ends`, one motion of N frames for each of the W windows."""
    motion = features(ends, body)
    if len(motion) != len(windows):
        raise ConfigError(f"{len(motion)} ends were given for {len(windows)} windows. Give one for each.")
    known = KnownMotion(motion_masks.ending(count, motion.shape[1]), motion_masks.end_motion(motion, count), until)
    return Wish([known], motion, end_frames=count)


def control(windows: Sequence[MotionWindow], parts: Sequence[str], body: Skeleton, history: int) -> Wish:
    """Keep the true future of some joints and predict the others, with one noise for all samples as published."""
    motion, joints = features(windows, body), motion_masks.joints_of(parts, body)
    mask = motion_masks.held_joints(joints, history, motion.shape[1], body)
    known = KnownMotion(mask, motion_masks.part_motion(motion, joints, history, body), shared=True)
    return Wish([known], given=joints)


def draw(
    task: Any,
    device: torch.device,
    windows: Sequence[MotionWindow],
    body: Skeleton,
    num_samples: int,
    wish: Wish | None = None,
) -> list[Sampled]:
    """Sample windows with the network as its task does, in chunks that bound the memory.

    Args:
        task: PredictionTask.
        device: where its network is.
        windows: W of them, with at least the history.
        body: skeleton.
        num_samples: K of each.
        wish: what the samples are to have beside the history; None = nothing.

    Returns:
        One for each window.
    """
    wish, history, sampling = wish or Wish(), task.history, task.sampling.changed({"num_samples": num_samples})
    observed = features([MotionWindow(w.recording, w.start, w.pose[:history]) for w in windows], body)
    numbers = torch.tensor([window.number for window in windows], device=device)
    motion = task.motion_sampler(sampling)(
        observed.to(device), num_samples, conditioned=sampling.conditioned, known=wish.known, ids=numbers,
        seed=task.seed,
    ).cpu()  # fmt: skip
    reached = _reached(motion, wish, history, body)
    # Samples hold a smooth copy of the history; what was observed is known better.
    motion[:, :, :history] = observed[:, None]
    poses = to_joints(motion, body.root).numpy()
    targets = [None] * len(windows) if wish.target is None else list(to_joints(wish.target, body.root).numpy())
    return [
        Sampled(window, poses[i], targets[i], wish.given, wish.end_frames, None if reached is None else reached[i])
        for i, window in enumerate(windows)
    ]


def features(windows: Sequence[MotionWindow], body: Skeleton) -> Tensor:
    """Motions (W, T, F) of windows of one length."""
    return to_features(torch.from_numpy(np.stack([window.pose for window in windows])).float(), body.root)


def turned(motion: Tensor, frame: int, towards: Tensor, at: int, body: Skeleton) -> Tensor:
    """Motions (W, T, F) turned so that their hips at one frame have the heading of those of `towards` at another.

    Raises:
        ConfigError: for a skeleton without sides.
    """
    hips = hips_of(body)
    if hips is None:
        raise ConfigError(
            f"motion.align needs left and right joints, and {body.name} names none. Use motion.align=false."
        )
    own, wanted = (heading(one.unflatten(-1, (-1, 3)), hips) for one in (motion[:, frame], towards[:, at]))
    return turn(motion, wanted - own)


def _reached(motion: Tensor, wish: Wish, history: int, body: Skeleton) -> np.ndarray | None:
    """How far (W, K) samples are from what was given behind the history, metres for a joint."""
    if not wish.known:
        return None
    frames = motion.shape[2]
    far = []
    for part in wish.known:
        mask = part.mask if part.mask.dim() == 2 else part.mask[:, None].expand(-1, motion.shape[-1])
        mask = mask & ~motion_masks.observed(history, frames)[:, None]
        apart = (motion - part.motion[:, None]).unflatten(-1, (-1, 3)).norm(dim=-1)  # (W, K, N, J - 1)
        counted = mask.unflatten(-1, (-1, 3))[..., 0].to(apart)
        far.append((apart * counted).sum((-2, -1)) / counted.sum().clamp_min(1))
    return torch.stack(far).mean(0).numpy()

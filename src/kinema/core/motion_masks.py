"""What is given of a motion beside its history, for samplers that hold it: body parts, an end, a motion to switch to.

Masks are bool over frames (N,) or frames and features (N, F); features are the joints without the root, x, y, z running
fastest. N = H + P frames, of which H are observed.

Source: HumanMAC, utils/evaluation and models/diffusion.py (modes control and switch).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from kinema.core.diffusion import padded
from kinema.core.skeleton import Skeleton
from kinema.errors import ConfigError


def observed(history: int, frames: int) -> Tensor:
    """Mask (N,) of the history."""
    return torch.arange(frames) < history


def ending(count: int, frames: int) -> Tensor:
    """Mask (N,) of the last frames."""
    return torch.arange(frames) >= frames - count


def held_joints(joints: Sequence[int], history: int, frames: int, skeleton: Skeleton) -> Tensor:
    """Mask (N, F) of the history, and of some joints to the end.

    Args:
        joints: indices in the skeleton; the root is none of the features.
        history: H.
        frames: N.
        skeleton: with the root.
    """
    chosen = torch.zeros(len(skeleton), dtype=torch.bool)
    chosen[list(joints)] = True
    kept = torch.arange(len(skeleton)) != skeleton.root
    return observed(history, frames)[:, None] | chosen[kept].repeat_interleave(3)


def part_motion(motion: Tensor, joints: Sequence[int], history: int, skeleton: Skeleton) -> Tensor:
    """The padded history of a motion (..., N, F), with the true future of some joints."""
    mask = held_joints(joints, history, motion.shape[-2], skeleton).to(motion.device)
    return torch.where(mask, motion, padded(motion, history))


def end_motion(motion: Tensor, count: int) -> Tensor:
    """A motion (..., N, F) whose last frames are kept, and that stands still in the first of them before."""
    start = motion.shape[-2] - count
    held = motion[..., start : start + 1, :].expand(*motion.shape[:-2], start, motion.shape[-1])
    return torch.cat([held, motion[..., start:, :]], dim=-2)


def switch_frames(history: int, horizon: int, count: int | None) -> int:
    """Frames at the end in which a motion is the one it switches to: twice the history as published, or as asked for.

    Raises:
        ConfigError: they would reach into the history, or are none.
    """
    wanted = 2 * history if count is None else count
    if not 1 <= wanted <= horizon:
        raise ConfigError(
            f"{wanted} given frames at the end do not fit into the {horizon} frames that are predicted. Use "
            f"motion.end_frames={max(1, horizon // 2)}."
        )
    return wanted


def part_names(skeleton: Skeleton) -> tuple[str, ...]:
    """Names of the body parts that can be held, in the order of the published modes fix_0, fix_1, ..."""
    return tuple(_groups(skeleton))


def joints_of(names: Sequence[str], skeleton: Skeleton) -> tuple[int, ...]:
    """Joints of body parts, of groups of them, and of joints by their names; fix_0 is the first published part.

    Raises:
        ConfigError: for an unknown name, or where nothing but the root is named.
    """
    groups, chosen = _groups(skeleton), set()
    for name in map(str, names):
        number = re.fullmatch(r"fix_(\d+)", name)
        if number and int(number[1]) < len(groups):
            name = tuple(groups)[int(number[1])]
        if name in groups:
            chosen |= set(groups[name])
        elif name in skeleton.joints:
            chosen.add(skeleton.joints.index(name))
        else:
            known = (*groups, *skeleton.joints)
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
            raise ConfigError(f"motion.parts: {skeleton.name} has no body part or joint {name!r}. {hint}")
    if not chosen - {skeleton.root}:
        raise ConfigError(
            f"motion.parts={list(names)} holds nothing: the root is where every pose begins. Name other joints of "
            f"{skeleton.name}: {', '.join(joint for i, joint in enumerate(skeleton.joints) if i != skeleton.root)}."
        )
    return tuple(sorted(chosen))


def _groups(skeleton: Skeleton) -> dict[str, tuple[int, ...]]:
    """Joints of every part and of every group of parts."""
    parts: dict[str, tuple[int, ...]] = skeleton.tables.get("parts", {})
    order: dict[str, tuple[str, ...]] = skeleton.tables.get("control", {name: (name,) for name in parts})
    return {name: tuple(joint for part in members for joint in parts[part]) for name, members in order.items()}

"""Streams of a clip: its joints, its bones, and how both move; networks trained on different ones are fused."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from kinema.core.shapes import expect
from kinema.core.skeleton import Skeleton
from kinema.errors import ConfigError

Array = TypeVar("Array", np.ndarray, Tensor)


def stream(clip: Array, name: str, skeleton: Skeleton, score_channel: bool) -> Array:
    """Turn a whole, prepared clip into one of its streams.

    Args:
        clip: (..., T, J, C), such as (M, T, J, 3).
        name: "joint", "bone", "joint_motion" or "bone_motion".
        skeleton: of the clip.
        score_channel: the last channel is a score: it becomes the mean of the two scores that it depends on.

    Returns:
        Same shape.

    Raises:
        ConfigError: for an unknown name, with the nearest known one.

    Source: pyskl, datasets/pipelines/pose_related.py (JointToBone, ToMotion).
    """
    if name not in STREAMS:
        near = difflib.get_close_matches(name, STREAMS, n=1)
        raise ConfigError(f"No stream is called {name!r}. Use dataset.stream={near[0] if near else 'joint'}.")
    expect(clip, "... T J C", "clip", J=len(skeleton))
    return STREAMS[name](clip, skeleton, score_channel)


def joint(clip: Array, skeleton: Skeleton, score_channel: bool) -> Array:
    """The clip as it is."""
    return clip


def bone(clip: Array, skeleton: Skeleton, score_channel: bool) -> Array:
    """Each joint minus the one that it hangs on; a joint without one gives zero and keeps its score."""
    return _difference(clip, clip[..., list(_hangs_on(skeleton)), :], score_channel)


def motion(clip: Array, skeleton: Skeleton, score_channel: bool) -> Array:
    """Next frame minus this one; the last frame gives zero, its score included."""
    moved = _difference(clip[..., 1:, :, :], clip[..., :-1, :, :], score_channel)
    return _joined([moved, 0 * clip[..., -1:, :, :]], -3)


def bone_motion(clip: Array, skeleton: Skeleton, score_channel: bool) -> Array:
    """Motion of the bones."""
    return motion(bone(clip, skeleton, score_channel), skeleton, score_channel)


STREAMS: dict[str, Callable[[Any, Skeleton, bool], Any]] = {
    "joint": joint,
    "bone": bone,
    "joint_motion": motion,
    "bone_motion": bone_motion,
}


def _difference(first: Array, second: Array, score_channel: bool) -> Array:
    if not score_channel:
        return first - second
    score = (first[..., -1:] + second[..., -1:]) / 2
    return _joined([first[..., :-1] - second[..., :-1], score], -1)


@lru_cache
def _hangs_on(skeleton: Skeleton) -> tuple[int, ...]:
    """For each joint the other end of its bone, itself where it has none."""
    found = list(range(len(skeleton)))
    for child, parent in skeleton.tables.get("bone_stream", skeleton.bones):
        found[child] = parent
    return tuple(found)


def _joined(parts: list[Any], axis: int) -> Any:
    return torch.cat(parts, dim=axis) if isinstance(parts[0], Tensor) else np.concatenate(parts, axis=axis)

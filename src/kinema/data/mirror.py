"""Mirrored bodies: x negated, left and right joints exchanged, by whole blocks of joints where that is possible."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from kinema.core.skeleton import Skeleton

if TYPE_CHECKING:
    from kinema.data.sequences import Sequences

# Arrays with a joint axis: which skeleton orders it, and whether channel 0 is an x that changes its sign.
JOINT_ARRAYS: dict[str, tuple[str, bool]] = {
    "pose2d": ("skeleton2d", True),
    "pose3d": ("skeleton", True),
    "pose3d_eval": ("skeleton", True),
    "valid": ("skeleton", False),
}

# Entries of the (9,) intrinsic vector that change sign in a mirrored image: the centre cx and the distortion p1.
INTRINSICS_NEGATED = (2, 7)


@lru_cache(maxsize=32)
def blocks(order: tuple[int, ...]) -> tuple[tuple[slice, slice], ...]:
    """Split a joint order into runs of neighbours, as pairs (target slice, source slice)."""
    cuts = [0, *(i for i in range(1, len(order)) if order[i] != order[i - 1] + 1), len(order)]
    return tuple((slice(a, b), slice(order[a], order[a] + b - a)) for a, b in pairwise(cuts) if b > a)


def mirrored(x: np.ndarray, skeleton: Skeleton, *, negate: bool, axis: int) -> np.ndarray:
    """Return a mirrored copy of an array with a joint axis.

    Args:
        x: (..., J, C), or (..., J) where nothing has an x.
        skeleton: whose left and right joints change places.
        negate: whether channel 0 behind the joint axis is an x.
        axis: the joint axis.
    """
    out = np.empty_like(x)
    source, target = np.moveaxis(x, axis, 0), np.moveaxis(out, axis, 0)
    for to, origin in blocks(skeleton.flip_index):
        target[to] = source[origin]
    if negate:
        np.negative(out[..., 0], out=out[..., 0])
    return out


def rule(sequences: Sequences, name: str) -> tuple[Skeleton, bool] | None:
    """How an array of a store is mirrored: (skeleton, negate), or None where a mirrored row equals its original."""
    if name not in JOINT_ARRAYS or name not in sequences.arrays or sequences.arrays[name].ndim < 2:
        return None
    which, negate = JOINT_ARRAYS[name]
    skeleton = getattr(sequences, which)
    return None if skeleton is None else (skeleton, negate)

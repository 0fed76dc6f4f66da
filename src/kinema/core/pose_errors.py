"""Errors of 3D poses per frame, in the unit of the input; means over frames and actions belong to the protocols."""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.core.align import scale_align, similarity_distances


def joint_errors(pred: Tensor, target: Tensor) -> Tensor:
    """Euclidean distance of every joint: (..., J, D) twice to (..., J)."""
    return torch.linalg.vector_norm(pred - target, dim=-1)


def mpjpe(pred: Tensor, target: Tensor) -> Tensor:
    """Mean per-joint position error (protocol 1).

    Args:
        pred: (..., J, 3).
        target: (..., J, 3).

    Returns:
        (...,) mean distance over joints.
    """
    return joint_errors(pred, target).mean(-1)


def p_mpjpe(pred: Tensor, target: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """MPJPE after similarity alignment of each frame (protocol 2); `dtype` as in `similarity_align`.

    Args:
        pred: (..., J, 3).
        target: (..., J, 3).

    Returns:
        (...,).
    """
    return similarity_distances(pred, target, dtype=dtype).mean(-1).to(pred.dtype)


def n_mpjpe(pred: Tensor, target: Tensor) -> Tensor:
    """MPJPE after scaling each frame (protocol 3): (..., J, 3) twice to (...,)."""
    return mpjpe(scale_align(pred, target), target)


def mpjve(pred: Tensor, target: Tensor) -> Tensor:
    """Mean per-joint velocity error of first differences in time.

    Args:
        pred: (..., T, J, 3), frames of one sequence.
        target: (..., T, J, 3).

    Returns:
        (..., T-1), per step; unit of the input per frame.
    """
    return torch.linalg.vector_norm((pred - target).diff(dim=-3), dim=-1).mean(-1)


def acceleration_error(pred: Tensor, target: Tensor) -> Tensor:
    """Mean error of second differences in time: (..., T, J, 3) twice to (..., T-2), unit per frame squared."""
    return torch.linalg.vector_norm((pred - target).diff(n=2, dim=-3), dim=-1).mean(-1)


def pck(pred: Tensor, target: Tensor, threshold: float) -> Tensor:
    """Share of joints whose error is below a threshold in the unit of the input (usually 150 mm).

    Args:
        pred: (..., J, 3).
        target: (..., J, 3).
        threshold: exclusive limit.

    Returns:
        (...,) in [0, 1].
    """
    return (joint_errors(pred, target) < threshold).to(pred.dtype).mean(-1)


def auc(pred: Tensor, target: Tensor, limit: float, steps: int = 31) -> Tensor:
    """Mean of PCK over evenly spaced thresholds from 0 to a limit (MPI-INF-3DHP: 0, 5, ..., 150 mm).

    Args:
        pred: (..., J, 3).
        target: (..., J, 3).
        limit: largest threshold, unit of the input.
        steps: number of thresholds, 0 and the limit included.

    Returns:
        (...,) in [0, 1].
    """
    thresholds = torch.linspace(0, limit, steps, dtype=pred.dtype, device=pred.device)
    # Thresholds above each error, counted by position, without a column per threshold.
    passed = steps - torch.bucketize(joint_errors(pred, target), thresholds, right=True)  # (..., J)
    return passed.to(pred.dtype).mean(-1) / steps

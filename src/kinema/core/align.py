"""Alignment of poses before an error is measured: root, scale, similarity (Procrustes)."""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.core.skeleton import Skeleton


def root_relative(pose3d: Tensor, skeleton: Skeleton) -> Tensor:
    """Subtract the root joint of every frame.

    Args:
        pose3d: (..., J, 3).
        skeleton: names the root.

    Returns:
        (..., J, 3) with zeros at the root.
    """
    return pose3d - pose3d[..., skeleton.root : skeleton.root + 1, :]


def first_frame_depth(pose3d: Tensor, skeleton: Skeleton) -> Tensor:
    """Subtract from z the root's depth in the first frame of each clip, and nothing from x and y.

    Args:
        pose3d: (..., T, J, 3).
        skeleton: names the root.

    Source: MotionBERT, train.py, label of the models that are not root-relative.
    """
    depth = pose3d[..., :1, skeleton.root : skeleton.root + 1, 2]  # (..., 1, 1)
    return torch.cat([pose3d[..., :2], (pose3d[..., 2] - depth)[..., None]], dim=-1)


def scale_align(pred: Tensor, target: Tensor) -> Tensor:
    """Scale `pred` to `target` frame by frame before measuring N-MPJPE.

    The factor is the least-squares one, <pred, target> / <pred, pred>, with the inner product over joints and axes;
    both poses are meant to be root-relative.

    Args:
        pred: (..., J, 3), any unit.
        target: (..., J, 3), same unit.

    Returns:
        (..., J, 3) scaled prediction. Gradient flows through the factor.

    Source: Rhodin et al. 2018, section 4.1.
    """
    norm = pred.square().sum((-2, -1), keepdim=True)
    dot = (pred * target).sum((-2, -1), keepdim=True)
    # A collapsed prediction has norm 0; scale 0 keeps its error and gradient finite.
    return pred * (dot / torch.where(norm > 0, norm, torch.ones_like(norm)))


def similarity_align(pred: Tensor, target: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Move `pred` onto `target` frame by frame by the best rotation (no reflection), scale and translation.

    One batched singular value decomposition. Where a pose is degenerate (joints on a line or in one point) the
    rotation is not unique and any best one is taken; the result is finite. A frame with NaN or infinity gives NaN for
    that frame only.

    Args:
        pred: (..., J, 3), any unit.
        target: (..., J, 3), same unit.
        dtype: of the computation; default float64 (float32 on devices that have none), whose cost is small and whose
            products no fast matrix mode rounds.

    Returns:
        (..., J, 3) aligned prediction in the type of `pred`. For evaluation: the decomposition has no useful gradient
        at degenerate poses.

    Source: Umeyama 1991; VideoPose3D, common/loss.py (p_mpjpe).
    """
    moved, _, centre = _moved_onto(pred, target, dtype)
    return moved.add_(centre).to(pred.dtype).view(pred.shape)


def similarity_distances(pred: Tensor, target: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Distances of the joints after `similarity_align`: (..., J, 3) twice to (..., J), in the type computed with."""
    moved, fixed, _ = _moved_onto(pred, target, dtype)
    return torch.linalg.vector_norm(moved.sub_(fixed), dim=-1).view(pred.shape[:-1])


def _moved_onto(pred: Tensor, target: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, Tensor]:
    """Aligned prediction and target around the target's mean, (N, J, 3) each, and that mean (N, 1, 3).

    Few large results are made, and these are changed in place: fresh memory costs as much time as the arithmetic.
    """
    if dtype is None:
        dtype = torch.float32 if pred.device.type == "mps" else torch.float64
    moving, fixed = (pose.reshape(-1, *pose.shape[-2:]).to(dtype, copy=True) for pose in (pred, target))
    centre = fixed.mean(1, keepdim=True)
    moving -= moving.mean(1, keepdim=True)
    fixed -= centre
    size_moving, size_fixed = (torch.linalg.vector_norm(points.flatten(1), dim=1) for points in (moving, fixed))  # (N,)
    covariance = (fixed.mT @ moving).permute(1, 2, 0).contiguous()
    covariance = covariance / _nonzero(size_fixed) / _nonzero(size_moving)
    rotation, gain = _best_rotation(covariance)
    turn = rotation * (gain * size_fixed / _nonzero(size_moving))
    return moving @ turn.permute(2, 0, 1).contiguous(), fixed, centre


# Four sweeps reach rounding on every kind of matrix that was tried (test_best_rotation.py); two are spare.
_SWEEPS = 6


def _best_rotation(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation (no reflection) that turns one set of points best onto another, and how well it does.

    A singular value decomposition by one-sided Jacobi sweeps, all matrices in step: plane rotations make the columns
    orthogonal, and the rotation takes the right vectors of the two longest columns to their left ones. The third pair
    follows as their cross products, so a reflection never arises. LAPACK, matrix by matrix, takes five times as long,
    and on a GPU waits for the host.

    Args:
        covariance: (3, 3, N), entry (i, k) the sum over points of fixed_i moving_k; best of norm 1 or less.

    Returns:
        (3, 3, N), entry (k, i) for moving_k to fixed_i, and (N,) the inner product of the turned points with the fixed
        ones, which is the best scale.

    Source: Hestenes 1958; Golub and Van Loan 2013, section 8.6.3.
    """
    columns = list(covariance.unbind(1))
    for _ in range(_SWEEPS):
        for p, q in ((0, 1), (0, 2), (1, 2)):
            columns[p], columns[q] = _made_orthogonal(columns[p], columns[q])
    a, b, c = columns
    size_a, size_b, size_c = (column.square().sum(0) for column in columns)
    a, size_a, c, size_c = _larger_first(a, size_a, c, size_c)
    b, size_b, _, _ = _larger_first(b, size_b, c, size_c)
    a, _, b, _ = _larger_first(a, size_a, b, size_b)
    left = _orthonormal(a, b)
    right = _orthonormal(*((covariance * vector[:, None]).sum(0) for vector in left[:2]))
    rotation = sum((v[:, None] * u for u, v in zip(left, right, strict=True)), start=torch.zeros_like(covariance))
    return rotation, (rotation.transpose(0, 1) * covariance).sum((0, 1))


def _made_orthogonal(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Turn two vectors (3, N) in the plane they span until they are at right angles, by the smaller angle."""
    twice = 2 * (x * y).sum(0)
    gap = ((y - x) * (y + x)).sum(0)
    slope = gap + torch.hypot(gap, twice).copysign(gap)
    tangent = twice / slope.masked_fill(slope == 0, 1)
    cosine = (tangent * tangent + 1).rsqrt_()
    sine = tangent * cosine
    return cosine * x - sine * y, cosine * y + sine * x


def _larger_first(x: Tensor, size_x: Tensor, y: Tensor, size_y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Exchange two vectors (3, N) where the second one is longer, with their sizes (N,)."""
    swap = size_y > size_x
    pairs = ((y, x), (size_y, size_x), (x, y), (size_x, size_y))
    first, size_first, second, size_second = (torch.where(swap, yes, no) for yes, no in pairs)
    return first, size_first, second, size_second


def _orthonormal(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A right-handed frame of unit vectors (3, N) along two vectors; any directions where these have none."""
    size = first.square().sum(0).sqrt_()
    axis = torch.eye(3, 1, dtype=first.dtype, device=first.device)
    first = torch.where(size > 0, first / _nonzero(size), axis)
    second = second - (second * first).sum(0) * first
    rest = second.square().sum(0).sqrt_()
    found = rest > 50 * torch.finfo(first.dtype).eps * size  # less is rounding
    second = torch.where(found, second / _nonzero(rest), _right_angle_to(first))
    (a, b, c), (d, e, f) = first, second
    return first, second, torch.stack([b * f - c * e, c * d - a * f, a * e - b * d])


def _right_angle_to(unit: Tensor) -> Tensor:
    """Some unit vector at a right angle to each of (3, N) (Duff et al. 2017)."""
    x, y, z = unit
    sign = torch.ones_like(z).copysign_(z)
    share = -1 / (sign + z)
    return torch.stack([1 + sign * x * x * share, sign * x * y * share, -sign * x])


def _nonzero(size: Tensor) -> Tensor:
    """Replace 0 by 1, so that a pose shrunk to a point divides to zeros instead of NaN."""
    return torch.where(size > 0, size, torch.ones_like(size))

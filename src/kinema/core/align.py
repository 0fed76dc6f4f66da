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

    All frames at once: few by a batched singular value decomposition, many by quaternions with that decomposition for
    the doubtful ones. Where a pose is degenerate (joints on a line or in one point) the rotation is not unique and any
    best one is taken; the result is finite. A frame with NaN or infinity gives NaN for that frame only.

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
    if dtype is None:
        dtype = torch.float32 if pred.device.type == "mps" else torch.float64
    moving, fixed = pred.to(dtype, copy=True), target.to(dtype, copy=True)
    mean_moving, mean_fixed = moving.mean(-2, keepdim=True), fixed.mean(-2, keepdim=True)
    moving.sub_(mean_moving)
    fixed.sub_(mean_fixed)
    size_moving = torch.linalg.vector_norm(moving, dim=(-2, -1), keepdim=True)
    size_fixed = torch.linalg.vector_norm(fixed, dim=(-2, -1), keepdim=True)
    covariance = (fixed.mT @ moving) / _nonzero(size_fixed) / _nonzero(size_moving)  # (..., 3, 3)
    rotation, gain = _best_rotation(covariance.reshape(-1, 3, 3))
    scale = gain.view_as(size_moving) * size_fixed / _nonzero(size_moving)
    return (moving @ (scale * rotation.view_as(covariance))).add_(mean_fixed).to(pred.dtype)


# Fewer frames than this are as fast by singular values.
_MANY = 256


def _best_rotation(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation (no reflection) that turns one set of points best onto another, and how well it does.

    Args:
        covariance: (N, 3, 3), sum over points of fixed moving^T, both of norm 1.

    Returns:
        (N, 3, 3) to be multiplied to the right of the moving points, and (N,) the inner product of the turned points
        with the fixed ones, which is the best scale.
    """
    if len(covariance) < _MANY or covariance.dtype != torch.float64 or covariance.requires_grad:
        return _rotation_by_singular_values(covariance)
    rotation, gain, certain = _rotation_by_quaternion(covariance)
    if not certain.all():
        doubtful = ~certain
        rotation[doubtful], gain[doubtful] = _rotation_by_singular_values(covariance[doubtful])
    return rotation, gain


def _rotation_by_singular_values(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """`_best_rotation` of any covariance: where several rotations are best one of them, NaN where it is not finite."""
    finite = covariance.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    left, singular, right = torch.linalg.svd(torch.where(finite, covariance, torch.zeros_like(covariance)))
    # With the last axis turned where the best orthogonal map would be a reflection.
    sign = torch.det(left @ right).sign()[..., None]
    flip = torch.cat([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)  # (N, 3)
    return (right.mT * flip[..., None, :]) @ left.mT, (singular * flip).sum(-1)


# The largest angle, in radians, by which the quaternion's rotation may be off.
_ANGLE = 1e-10


def _rotation_by_quaternion(covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`_best_rotation` as the eigenvector of Horn's 4 x 4 matrix, ten times as fast; and where it is certain.

    The largest eigenvalue is the largest root of a quartic, to which Newton's steps descend from above; the
    eigenvector is a column of the adjugate. Where the root is nearly double (mirrored or degenerate poses) this is not
    accurate: the residual over the distance to the next eigenvalue bounds the error of the angle.

    Source: Horn 1987; Theobald 2005 (quaternion characteristic polynomial); the bound is Davis and Kahan's.
    """
    s = covariance.mT.reshape(-1, 9).T  # (9, N)
    size = s.square().sum(0).sqrt() * 3**0.5  # no eigenvalue is larger
    s = s / _nonzero(size)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = s
    rows = (
        (xx + yy + zz, yz - zy, zx - xz, xy - yx),
        (yz - zy, xx - yy - zz, xy + yx, zx + xz),
        (zx - xz, xy + yx, yy - xx - zz, yz + zy),
        (xy - yx, zx + xz, yz + zy, zz - xx - yy),
    )
    horn = torch.stack([entry for row in rows for entry in row]).view(4, 4, -1)
    # lambda^4 + a lambda^2 + b lambda + c; the trace is 0
    a = -2 * s.square().sum(0)
    b = -8 * (xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx))
    c = _adjugate_and_determinant(horn)[1]
    root, slope = torch.ones_like(a), torch.ones_like(a)
    for _ in range(20):
        square = root * root
        slope = (4 * square + 2 * a) * root + b
        root = root - ((square + a) * square + b * root + c) / _nonzero(slope)
    shifted = horn.clone()
    for entry in range(4):
        shifted[entry, entry] -= root
    adjugate, _ = _adjugate_and_determinant(shifted)
    column = adjugate.diagonal(dim1=0, dim2=1).abs().argmax(1)  # all columns are multiples of the eigenvector
    q = adjugate.gather(0, column.expand(1, 4, -1))[0]
    q = q / _nonzero(q.square().sum(0).sqrt())
    image = (horn * q).sum(1)  # (4, N)
    gain = (image * q).sum(0)
    residual = (image - gain * q).square().sum(0).sqrt()
    # slope = product of the distances to the other roots, none of them above 2
    certain = residual * 4 <= _ANGLE * slope
    w, x, y, z = q
    turn = (
        1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y),
        2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x),
        2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(turn, dim=-1).view(-1, 3, 3), gain * size, certain


def _adjugate_and_determinant(m: Tensor) -> tuple[Tensor, Tensor]:
    """Adjugate (4, 4, N) and determinant (N,) of (4, 4, N), by 2 x 2 minors of the upper and the lower half."""
    pairs = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    s = [m[0, p] * m[1, q] - m[1, p] * m[0, q] for p, q in pairs]
    c = [m[2, p] * m[3, q] - m[3, p] * m[2, q] for p, q in pairs]
    determinant = s[0] * c[5] - s[1] * c[4] + s[2] * c[3] + s[3] * c[2] - s[4] * c[1] + s[5] * c[0]
    entries: list[Tensor] = []
    # Row i leaves out column i of m; its minors are those of the three columns that stay.
    for left, (i, j, k) in enumerate(((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2))):
        jk, ik, ij = pairs.index((j, k)), pairs.index((i, k)), pairs.index((i, j))
        for row, minors in ((1, c), (0, c), (3, s), (2, s)):
            value = m[row, i] * minors[jk] - m[row, j] * minors[ik] + m[row, k] * minors[ij]
            positive = (left + len(entries) % 4) % 2 == 0
            entries.append(value if positive else -value)
    return torch.stack(entries).view(4, 4, -1), determinant


def _nonzero(size: Tensor) -> Tensor:
    """Replace 0 by 1, so that a pose shrunk to a point divides to zeros instead of NaN."""
    return torch.where(size > 0, size, torch.ones_like(size))

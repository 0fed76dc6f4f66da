"""The losses of semi-supervised lifting against plain loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kinema.core import losses
from kinema.core.skeleton import skeleton

BODY = skeleton("h36m17")


def _poses(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _lenses(samples: int) -> Tensor:
    """Focal lengths, centres and distortions of the size that Human3.6M's have."""
    typical = torch.tensor([2.29, 2.287, 0.025, 0.029, -0.2, 0.24, -0.002, -0.0009, -0.0016], dtype=torch.float64)
    return typical * (1 + 0.1 * _poses(7, samples, 9))


def test_trajectory_errors_are_distances_over_depths() -> None:
    pred, true = _poses(0, 3, 2, 3), _poses(1, 3, 2, 3)
    true[..., 2] = true[..., 2].abs() + 2
    true[0, 0, 2] = -1  # behind the camera: counts as the nearest depth there is
    found = losses.trajectory_errors(pred, true)
    for i in range(3):
        for t in range(2):
            distance = math.sqrt(sum((float(pred[i, t, c]) - float(true[i, t, c])) ** 2 for c in range(3)))
            assert float(found[i, t]) == pytest.approx(distance / max(float(true[i, t, 2]), 0.1), rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: losses.trajectory_errors(x, true), pred.requires_grad_())


def _seen(point: list[float], lens: list[float], linear: bool) -> tuple[float, float]:
    """One point through one lens, as poseformer's reference writes it."""
    x, y = (max(-1.0, min(1.0, value / point[2])) for value in point[:2])
    fx, fy, cx, cy, k1, k2, k3, p1, p2 = lens
    if linear:
        return fx * x + cx, fy * y + cy
    r2 = x * x + y * y
    bend = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * x + p2 * y
    return fx * (x * bend + p1 * r2) + cx, fy * (y * bend + p2 * r2) + cy


@pytest.mark.parametrize("linear", [False, True])
def test_reprojection_errors_equal_the_loop(linear: bool) -> None:
    pose, pose2d, lenses = 0.4 * _poses(0, 2, 3, 17, 3), _poses(1, 2, 3, 17, 3), _lenses(2)
    pose[..., 2] += 4
    pose[0, 0, 0] = torch.tensor([9.0, 0.1, 3.0])  # outside of what is clamped
    found = losses.reprojection_errors(pose, pose2d, lenses, linear=linear)
    for i in range(2):
        for t in range(3):
            distances = []
            for j in range(17):
                u, v = _seen(pose[i, t, j].tolist(), lenses[i].tolist(), linear)
                distances.append(math.hypot(u - float(pose2d[i, t, j, 0]), v - float(pose2d[i, t, j, 1])))
            assert float(found[i, t]) == pytest.approx(sum(distances) / 17, rel=1e-12)
    few = pose[:, :1, 1:4].clone().requires_grad_()
    target = pose2d[:, :1, 1:4]
    assert torch.autograd.gradcheck(lambda x: losses.reprojection_errors(x, target, lenses, linear=linear), few)


def test_a_mirrored_pose_is_seen_mirrored_through_the_mirrored_lens() -> None:
    pose, lenses = 0.4 * _poses(0, 2, 1, 17, 3), _lenses(2)
    pose[..., 2] += 4
    sign = torch.ones(9, dtype=torch.float64)
    sign[[2, 7]] = -1  # cx and p1
    side = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    seen = torch.stack(
        [
            torch.tensor([_seen(p.tolist(), k.tolist(), False) for p in one[0]])
            for one, k in zip(pose, lenses, strict=True)
        ]
    )
    errors = losses.reprojection_errors(
        pose * side, (seen * side[:2].float())[:, None].double(), lenses * sign, linear=False
    )
    assert float(errors.max()) < 1e-6


def test_bone_lengths_are_distances_from_parents() -> None:
    pose = _poses(3, 2, 2, 17, 3)
    found = losses.bone_lengths(pose, BODY)
    assert found.shape == (2, 2, 16)
    for bone, joint in enumerate(range(1, 17)):
        parent = BODY.parents[joint]
        wanted = math.dist(pose[1, 0, joint].tolist(), pose[1, 0, parent].tolist())
        assert float(found[1, 0, bone]) == pytest.approx(wanted, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: losses.bone_lengths(x, BODY), pose[:1, :1].clone().requires_grad_())


def test_bones_without_length_have_a_gradient() -> None:
    pose = torch.zeros(1, 1, 17, 3, requires_grad=True)
    losses.bone_lengths(pose, BODY).sum().backward()
    assert pose.grad is not None and pose.grad.isfinite().all()

"""Pose errors against plain loops."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core import pose_errors
from tests.core.poses import poses, seeds, shapes

few = settings(max_examples=20, deadline=None)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).sum()))


@few
@given(seeds, shapes())
def test_mpjpe_is_the_mean_distance_of_joints(seed: int, shape: tuple[int, int]) -> None:
    pred, target = poses(seed, 2, *shape, 3), poses(seed + 1, 2, *shape, 3)
    found = pose_errors.mpjpe(torch.from_numpy(pred), torch.from_numpy(target)).numpy()
    assert found.shape == pred.shape[:2]
    for i in np.ndindex(found.shape):
        expected = np.mean([distance(pred[i][j], target[i][j]) for j in range(shape[1])])
        np.testing.assert_allclose(found[i], expected)


@few
@given(seeds, shapes(max_frames=8))
def test_velocity_and_acceleration_compare_neighbouring_frames(seed: int, shape: tuple[int, int]) -> None:
    frames, joints = shape
    pred, target = poses(seed, *shape, 3), poses(seed + 1, *shape, 3)
    x, y = torch.from_numpy(pred), torch.from_numpy(target)
    velocity, acceleration = pose_errors.mpjve(x, y), pose_errors.acceleration_error(x, y)
    assert velocity.shape == (max(frames - 1, 0),)
    assert acceleration.shape == (max(frames - 2, 0),)
    for t in range(frames - 1):
        steps = [distance(pred[t + 1, j] - pred[t, j], target[t + 1, j] - target[t, j]) for j in range(joints)]
        np.testing.assert_allclose(velocity[t], np.mean(steps))
    for t in range(frames - 2):
        bends = [distance(*(x[t + 2, j] - 2 * x[t + 1, j] + x[t, j] for x in (pred, target))) for j in range(joints)]
        np.testing.assert_allclose(acceleration[t], np.mean(bends))


@few
@given(seeds, st.floats(0.1, 4))
def test_pck_and_auc_count_errors_below_the_threshold(seed: int, limit: float) -> None:
    pred, target = poses(seed, 6, 17, 3), poses(seed + 1, 6, 17, 3)
    x, y = torch.from_numpy(pred), torch.from_numpy(target)
    errors = np.linalg.norm(pred - target, axis=-1)
    np.testing.assert_allclose(pose_errors.pck(x, y, limit), (errors < limit).mean(-1))
    steps = [(errors < threshold).mean(-1) for threshold in np.linspace(0, limit, 31)]
    np.testing.assert_allclose(pose_errors.auc(x, y, limit), np.mean(steps, axis=0))


def test_an_error_equal_to_the_threshold_does_not_count() -> None:
    pred, target = torch.zeros(1, 2, 3), torch.tensor([[[0.0, 0.0, 1.0], [0.5, 0.0, 0.0]]])
    assert pose_errors.pck(pred, target, 1.0).item() == 0.5
    # Thresholds 0, 0.5, 1: the second joint passes at 1 only.
    torch.testing.assert_close(pose_errors.auc(pred, target, 1.0, steps=3), torch.tensor([1 / 6]))


@few
@given(seeds)
def test_protocols_remove_what_their_name_says(seed: int) -> None:
    target = torch.from_numpy(poses(seed, 4, 17, 3))
    assert pose_errors.n_mpjpe(target * 0.2, target).max() < 1e-12
    assert pose_errors.p_mpjpe(target * 0.2 + 5, target).max() < 1e-12
    assert pose_errors.n_mpjpe(target + 5, target).min() > 0.1


def test_gradients_are_finite_where_the_error_is_zero() -> None:
    target = torch.from_numpy(poses(0, 3, 17, 3))
    for error in (pose_errors.mpjpe, pose_errors.n_mpjpe, pose_errors.mpjve, pose_errors.acceleration_error):
        pred = target.clone().requires_grad_()
        error(pred, target).sum().backward()
        assert pred.grad is not None
        assert pred.grad.isfinite().all(), error.__name__

"""Alignment against slow, obvious forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from kinema.core.align import first_frame_depth, root_relative, scale_align, similarity_align
from kinema.core.skeleton import skeleton
from tests.core.poses import poses, rotation, seeds, shapes

few = settings(max_examples=25, deadline=None)


def textbook(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Umeyama's alignment of one frame (J, 3), step by step."""
    mean_p, mean_t = pred.mean(0), target.mean(0)
    p, t = pred - mean_p, target - mean_t
    u, s, vt = np.linalg.svd(p.T @ t)
    signs = np.ones(3)
    if np.linalg.det(u @ vt) < 0:
        signs[2] = -1
    turn = u @ np.diag(signs) @ vt
    spread = (p**2).sum()
    scale = (s * signs).sum() / spread if spread else 0.0
    return scale * p @ turn + mean_t


@few
@given(seeds, shapes())
def test_similarity_equals_textbook_loop(seed: int, shape: tuple[int, int]) -> None:
    pred, target = poses(seed, *shape, 3), poses(seed + 1, *shape, 3)
    found = similarity_align(torch.from_numpy(pred), torch.from_numpy(target)).numpy()
    # Two joints lie on a line: the rotation about it is free, but leaves both where they are.
    for frame in range(shape[0]):
        np.testing.assert_allclose(found[frame], textbook(pred[frame], target[frame]), atol=1e-9)


@few
@given(seeds)
def test_similarity_undoes_rotation_scale_and_shift(seed: int) -> None:
    target = poses(seed, 5, 17, 3)
    pred = 0.3 * target @ rotation(seed) + [1, -2, 3]
    found = similarity_align(torch.from_numpy(pred), torch.from_numpy(target))
    np.testing.assert_allclose(found, target, atol=1e-10)


@few
@given(seeds)
def test_mirrored_pose_is_not_reflected_back(seed: int) -> None:
    target = poses(seed, 4, 17, 3)
    pred = target * [-1, 1, 1]
    found = similarity_align(torch.from_numpy(pred), torch.from_numpy(target)).numpy()
    for frame in range(4):
        np.testing.assert_allclose(found[frame], textbook(pred[frame], target[frame]), atol=1e-9)
        spread = found[frame] - found[frame].mean(0)
        sources = pred[frame] - pred[frame].mean(0)
        # The map from the sources keeps their handedness.
        linear = np.linalg.lstsq(sources, spread, rcond=None)[0]
        assert np.linalg.det(linear) > 0
    assert np.abs(found - target).max() > 0.1


def line(seed: int) -> np.ndarray:
    return np.linspace(0, 1, 17)[:, None] * poses(seed, 3)


@pytest.mark.parametrize(
    ("pred", "target"),
    [
        pytest.param(line(0), line(1), id="both on a line"),
        pytest.param(line(0), poses(1, 17, 3), id="prediction on a line"),
        pytest.param(poses(1, 17, 3), line(0), id="target on a line"),
        pytest.param(np.zeros((17, 3)), poses(1, 17, 3), id="prediction in one point"),
        pytest.param(poses(1, 17, 3), np.ones((17, 3)), id="target in one point"),
        pytest.param(np.zeros((17, 3)), np.zeros((17, 3)), id="both zero"),
        pytest.param(poses(1, 17, 3) * [1, 1, 0], poses(2, 17, 3), id="prediction in a plane"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_poses_align_as_well_as_possible(pred: np.ndarray, target: np.ndarray, dtype: torch.dtype) -> None:
    found = similarity_align(torch.from_numpy(pred).to(dtype), torch.from_numpy(target).to(dtype)).double().numpy()
    assert np.isfinite(found).all()
    best = ((textbook(pred, target) - target) ** 2).sum()
    # float32 input: its rounding enters the squared sum.
    np.testing.assert_allclose(((found - target) ** 2).sum(), best, atol=1e-9 if dtype == torch.float64 else 1e-5)


def test_frame_with_nan_stays_nan_alone() -> None:
    pred, target = torch.from_numpy(poses(0, 3, 17, 3)), torch.from_numpy(poses(1, 3, 17, 3))
    clean = similarity_align(pred, target)
    broken = pred.clone()
    broken[1, 4, 2] = torch.nan
    found = similarity_align(broken, target)
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2]], clean[[0, 2]])


def test_dtype_follows_prediction_and_option_sets_precision() -> None:
    pred, target = torch.from_numpy(poses(0, 200, 17, 3)).float(), torch.from_numpy(poses(1, 200, 17, 3)).float()
    exact = similarity_align(pred.double(), target.double())
    by_default = similarity_align(pred, target)
    assert by_default.dtype == torch.float32
    single = similarity_align(pred, target, dtype=torch.float32)
    assert (by_default - exact).abs().max() < 2e-7
    assert (by_default - exact).abs().max() < (single - exact).abs().max() < 1e-4


@pytest.mark.gpu
def test_a_gpu_aligns_like_the_cpu() -> None:
    pred, target = poses(0, 500, 17, 3), poses(1, 500, 17, 3)
    pred[:100] = target[:100] * [-1, 1, 1]
    pred[100:110], target[105:115] = line(0), 0
    on_cpu = torch.from_numpy(pred), torch.from_numpy(target)
    on_gpu = (x.float().cuda() for x in on_cpu)
    torch.testing.assert_close(similarity_align(*on_gpu).cpu(), similarity_align(*on_cpu).float(), rtol=1e-4, atol=1e-4)


@few
@given(seeds, shapes())
def test_scale_is_least_squares(seed: int, shape: tuple[int, int]) -> None:
    pred, target = poses(seed, *shape, 3), poses(seed + 1, *shape, 3)
    found = scale_align(torch.from_numpy(pred), torch.from_numpy(target)).numpy()
    for frame in range(shape[0]):
        factor = np.linalg.lstsq(pred[frame].reshape(-1, 1), target[frame].ravel(), rcond=None)[0][0]
        np.testing.assert_allclose(found[frame], factor * pred[frame], atol=1e-9)


def test_collapsed_prediction_has_finite_scale_and_gradient() -> None:
    pred = torch.zeros(2, 17, 3, requires_grad=True)
    found = scale_align(pred, torch.ones(2, 17, 3))
    found.sum().backward()
    assert (found == 0).all()
    assert pred.grad is not None
    assert pred.grad.isfinite().all()


def test_root_relative_uses_the_root_of_the_skeleton() -> None:
    body = skeleton("halpe26")
    pose = torch.from_numpy(poses(0, 2, 26, 3))
    found = root_relative(pose, body)
    torch.testing.assert_close(found[:, body.root], torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(found + pose[:, None, body.root], pose)


def test_first_frame_depth_moves_each_clip_by_one_number() -> None:
    body = skeleton("h36m17")
    pose = torch.from_numpy(poses(0, 3, 5, 17, 3))
    moved = pose - first_frame_depth(pose, body)
    assert (moved[..., :2] == 0).all()
    for clip in range(3):
        torch.testing.assert_close(moved[clip, ..., 2], pose[clip, 0, 0, 2].expand(5, 17))

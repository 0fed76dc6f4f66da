"""The fast form of the best rotation, taken for many frames, against singular values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from kinema.core import align
from kinema.core.align import similarity_align
from tests.core.poses import poses, rotation, seeds

COUNT = 600


def one_by_one(pred: Tensor, target: Tensor) -> Tensor:
    """Frames in groups too small for the fast form."""
    parts = zip(pred.split(50), target.split(50), strict=True)
    return torch.cat([similarity_align(a, b) for a, b in parts])


def kinds(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    target = poses(seed, COUNT, 17, 3)
    noise = poses(seed + 1, COUNT, 17, 3)
    return {
        "unrelated": (noise, target),
        "near": (target + 0.01 * noise, target),
        "equal": (target.copy(), target),
        "turned": (target @ rotation(seed) * 7 + 3, target),
        "mirrored": (target * [-1, 1, 1], target),
        "mirrored and near": (target * [-1, 1, 1] + 1e-6 * noise, target),
        "flat": (noise * [1, 1, 0], target),
        "tiny": (noise * 1e-12, target),
        "large": (noise * 1e9, target),
    }


@settings(max_examples=6, deadline=None)
@given(seeds)
def test_many_frames_are_aligned_as_few_are(seed: int) -> None:
    for name, (pred, target) in kinds(seed).items():
        pred, target = torch.from_numpy(pred), torch.from_numpy(target)
        found = similarity_align(pred, target)
        torch.testing.assert_close(found, one_by_one(pred, target), rtol=0, atol=1e-8, msg=name)


@pytest.mark.parametrize("shape", [(COUNT, 17, 3), (6, COUNT // 6, 17, 3)])
def test_leading_axes_stay(shape: tuple[int, ...]) -> None:
    pred, target = (torch.from_numpy(poses(seed, *shape)) for seed in (0, 1))
    flat = one_by_one(pred.reshape(-1, 17, 3), target.reshape(-1, 17, 3))
    torch.testing.assert_close(similarity_align(pred, target), flat.view(shape))


def test_ordinary_poses_take_the_fast_form_and_doubtful_ones_do_not() -> None:
    def certain(pred: np.ndarray, target: np.ndarray) -> Tensor:
        moving, fixed = (torch.from_numpy(x - x.mean(1, keepdims=True)) for x in (pred, target))
        covariance = (fixed / fixed.norm(dim=(1, 2), keepdim=True)).mT @ (
            moving / moving.norm(dim=(1, 2), keepdim=True)
        )
        return align._rotation_by_quaternion(covariance)[2]

    some = kinds(3)
    assert certain(*some["near"]).all() and certain(*some["unrelated"]).double().mean() > 0.99
    # joints on a line: every rotation about it is as good
    line = np.linspace(0, 1, 17)[:, None] * poses(5, COUNT, 1, 3)
    assert not certain(line, some["near"][1]).any()


def test_degenerate_frames_among_many_are_finite_and_best() -> None:
    pred, target = poses(0, COUNT, 17, 3), poses(1, COUNT, 17, 3)
    pred[10] = 0
    target[20] = 1
    pred[30] = np.linspace(0, 1, 17)[:, None] * poses(5, 3)
    pred[40, 3, 0] = np.nan
    pred, target = torch.from_numpy(pred), torch.from_numpy(target)
    found, slow = similarity_align(pred, target), one_by_one(pred, target)
    assert found[40].isnan().all() and found.isnan().sum() == found[40].numel()
    torch.testing.assert_close(found[:30], slow[:30], rtol=0, atol=1e-10)
    error, best = ((x[30] - target[30]).norm() for x in (found, slow))
    torch.testing.assert_close(error, best)


def test_a_gradient_flows_through_many_frames() -> None:
    pred, target = (torch.from_numpy(poses(seed, COUNT, 17, 3)) for seed in (0, 1))
    grads = []
    for part in (slice(None), slice(0, 50)):
        moving = pred[part].clone().requires_grad_()
        (similarity_align(moving, target[part]) - target[part]).square().sum().backward()
        grads.append(moving.grad)
    torch.testing.assert_close(grads[0][:50], grads[1])

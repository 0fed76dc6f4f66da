"""The best rotation by Jacobi sweeps over many matrices at once, against LAPACK's singular values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from kinema.core import align
from kinema.core.align import similarity_align, similarity_distances
from tests.core.poses import poses, rotation, seeds

COUNT = 2000
SPECTRA = {
    "spread": lambda u: (np.ones(COUNT), u[0], u[1] * u[0]),
    "two equal": lambda u: (np.ones(COUNT), np.ones(COUNT) + 1e-9 * u[0], u[1]),
    "three equal": lambda u: (np.ones(COUNT), np.ones(COUNT), np.ones(COUNT)),
    "nearly equal": lambda u: tuple(1 + 1e-10 * u),
    "graded": lambda u: (np.ones(COUNT), 10 ** (-8 * u[0]), 10 ** (-16 * u[1])),
    "flat": lambda u: (np.ones(COUNT), u[0], np.zeros(COUNT)),
    "nearly flat": lambda u: (np.ones(COUNT), u[0], 1e-12 * u[1]),
}


def matrices(kind: str, seed: int) -> Tensor:
    """(3, 3, N) of norm 1; half of those made from a spectrum are reflections."""
    random = np.random.default_rng(seed)
    if kind in SPECTRA:
        left, right = (np.linalg.qr(random.normal(size=(COUNT, 3, 3)))[0] for _ in range(2))
        made = left * np.stack(SPECTRA[kind](random.uniform(size=(3, COUNT))), axis=-1)[:, None] @ right
    else:
        made = {
            "normal": lambda: random.normal(size=(COUNT, 3, 3)),
            "whole numbers": lambda: random.integers(-2, 3, size=(COUNT, 3, 3)).astype(float),
            "diagonal": lambda: random.normal(size=(COUNT, 3, 1)) * np.eye(3),
            "near unity": lambda: np.eye(3) + 1e-6 * random.normal(size=(COUNT, 3, 3)),
        }[kind]()
    size = np.linalg.norm(made, axis=(1, 2), keepdims=True)
    return torch.from_numpy(made / np.where(size > 0, size, 1)).permute(1, 2, 0)


def by_lapack(covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Best rotation (N, 3, 3), its gain, and how far the gain of any other one is: 0 where several are best."""
    left, singular, right = torch.linalg.svd(covariance.permute(2, 0, 1))
    sign = torch.det(left @ right).sign()
    flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
    gain = (singular * flip).sum(-1)
    return (right.mT * flip[:, None]) @ left.mT, gain, singular[:, 1] + sign * singular[:, 2]


@pytest.mark.parametrize("kind", [*SPECTRA, "normal", "whole numbers", "diagonal", "near unity"])
@settings(max_examples=4, deadline=None)
@given(seed=seeds)
def test_equals_lapack(kind: str, seed: int) -> None:
    covariance = matrices(kind, seed)
    turn, gain = align._best_rotation(covariance)
    expected, best, margin = by_lapack(covariance)
    torch.testing.assert_close(gain, best, rtol=0, atol=1e-14)
    turn = turn.permute(2, 0, 1)
    torch.testing.assert_close(turn.mT @ turn, torch.eye(3, dtype=turn.dtype).expand_as(turn), rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.det(turn), torch.ones(COUNT, dtype=turn.dtype))
    # Rounding moves the rotation the more the closer another one comes to it.
    assert ((turn - expected).abs().amax((1, 2)) * margin).max() < 1e-13


@pytest.mark.parametrize("kind", [*SPECTRA, "normal", "whole numbers", "diagonal", "near unity"])
def test_two_sweeps_are_spare(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    covariance = matrices(kind, 0)
    expected = align._best_rotation(covariance)[1]
    monkeypatch.setattr(align, "_SWEEPS", align._SWEEPS - 2)
    torch.testing.assert_close(align._best_rotation(covariance)[1], expected, rtol=0, atol=4e-15)


def kinds(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    target, noise = poses(seed, 300, 17, 3), poses(seed + 1, 300, 17, 3)
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
def test_a_frame_does_not_depend_on_its_company(seed: int) -> None:
    for name, (pred, target) in kinds(seed).items():
        pred, target = torch.from_numpy(pred), torch.from_numpy(target)
        parts = zip(pred.split(7), target.split(7), strict=True)
        expected = torch.cat([similarity_align(a, b) for a, b in parts])
        torch.testing.assert_close(similarity_align(pred, target), expected, rtol=0, atol=1e-12, msg=name)


def test_leading_axes_stay() -> None:
    pred, target = (torch.from_numpy(poses(seed, 6, 50, 17, 3)) for seed in (0, 1))
    flat = similarity_align(pred.flatten(0, 1), target.flatten(0, 1))
    torch.testing.assert_close(similarity_align(pred, target), flat.view(6, 50, 17, 3))
    distances = similarity_distances(pred, target)
    torch.testing.assert_close(distances, (flat.view_as(target) - target).norm(dim=-1))
    assert similarity_align(pred[0, 0], target[0, 0]).shape == (17, 3)
    assert similarity_distances(pred[:0], target[:0]).shape == (0, 50, 17)


def test_degenerate_frames_leave_the_others_alone() -> None:
    pred, target = poses(0, 60, 17, 3), poses(1, 60, 17, 3)
    clean = similarity_align(torch.from_numpy(pred), torch.from_numpy(target))
    pred[10] = 0
    target[20] = 1
    pred[30] = np.linspace(0, 1, 17)[:, None] * poses(5, 3)
    pred[40, 3, 0] = np.nan
    pred[50, 3, 0] = np.inf
    found = similarity_align(torch.from_numpy(pred), torch.from_numpy(target))
    assert found[[40, 50]].isnan().all() and found.isnan().sum() == found[[40, 50]].numel()
    others = [i for i in range(60) if i not in (10, 20, 30, 40, 50)]
    torch.testing.assert_close(found[others], clean[others], rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    pred, target = (torch.from_numpy(poses(seed, 3, 5, 3)) for seed in (0, 1))
    assert torch.autograd.gradcheck(lambda x: similarity_align(x, target), pred.requires_grad_(), atol=1e-6)

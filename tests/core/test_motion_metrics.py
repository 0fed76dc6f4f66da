"""Numbers of motion prediction against slow loops over windows, samples and frames, hard cases included."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinema.core import motion_metrics
from kinema.core.motion_metrics import Groups

few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 999)


def drawn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distance(one: Tensor, other: Tensor) -> float:
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(one, other, strict=True)))


def slow_errors(samples: Tensor, truth: Tensor) -> tuple[float, float]:
    """Best mean and best last distance of the samples (K, P, F) of one window."""
    means = [sum(distance(a, b) for a, b in zip(one, truth, strict=True)) / len(truth) for one in samples]
    return min(means), min(distance(one[-1], truth[-1]) for one in samples)


def slow_apd(samples: Tensor) -> float:
    pairs = [distance(a.flatten(), b.flatten()) for a, b in itertools.combinations(samples, 2)]
    return sum(pairs) / len(pairs) if pairs else 0.0


def slow_groups(poses: Tensor, threshold: float) -> list[list[int]]:
    return [[b for b in range(len(poses)) if a == b or distance(poses[a], poses[b]) < threshold]
            for a in range(len(poses))]  # fmt: skip


def lists(group: Groups) -> list[list[int]]:
    return [group.flat[a:b].tolist() for a, b in itertools.pairwise(group.ptr.tolist())]


@few
@given(st.integers(0, 12), st.floats(0, 4), seeds)
def test_groups_are_all_pairs_below_the_threshold(count: int, threshold: float, seed: int) -> None:
    poses = drawn(seed, count, 3)
    group = motion_metrics.groups(poses, threshold)
    assert lists(group) == slow_groups(poses, threshold)
    assert (group.flat.dtype, group.ptr.dtype) == (torch.int64, torch.int64)


def test_groups_do_not_depend_on_the_blocks_they_are_searched_in(monkeypatch: pytest.MonkeyPatch) -> None:
    poses = drawn(0, 23, 3)
    whole = motion_metrics.groups(poses, 1.5)
    monkeypatch.setattr(motion_metrics, "_MEMORY", 8 * 23 * 4)
    blocked = motion_metrics.groups(poses, 1.5)
    assert torch.equal(blocked.flat, whole.flat)
    assert torch.equal(blocked.ptr, whole.ptr)


def test_the_threshold_is_exclusive_and_measured_in_double_precision() -> None:
    step = 0.5
    poses = torch.tensor([[0.0], [step], [2 * step - 2e-8]], dtype=torch.float64)
    assert lists(motion_metrics.groups(poses, step)) == [[0], [1, 2], [1, 2]]
    # A window is of its own group even where nothing can be near enough.
    assert lists(motion_metrics.groups(poses, 0.0)) == [[0], [1], [2]]


@few
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), seeds)
def test_all_numbers_are_those_of_the_loops(windows: int, count: int, frames: int, features: int, seed: int) -> None:
    samples, futures = drawn(seed, windows, count, frames, features), drawn(seed + 1, windows, frames, features)
    group = motion_metrics.groups(drawn(seed + 2, windows, 1), 0.8)
    found = motion_metrics.prediction_errors(samples, futures, group)
    truth = motion_metrics.errors(samples, futures)
    alone = motion_metrics.multimodal(samples, futures, group, skip_single=True)
    reference = motion_metrics.group_apd(futures, group)
    for window, members in enumerate(lists(group)):
        ade, fde = slow_errors(samples[window], futures[window])
        many = [slow_errors(samples[window], futures[other]) for other in members]
        expected = [
            slow_apd(samples[window]),
            ade,
            fde,
            *(sum(column) / len(many) for column in zip(*many, strict=True)),
        ]
        np.testing.assert_allclose([float(found[name][window]) for name in found], expected, rtol=1e-9)
        np.testing.assert_allclose([float(one[window]) for one in truth], [ade, fde], rtol=1e-9)
        skipped = [math.nan, math.nan] if len(members) == 1 else expected[3:]
        np.testing.assert_allclose([float(one[window]) for one in alone], skipped, rtol=1e-9)
        np.testing.assert_allclose(float(reference[window]), slow_apd(futures[members]), rtol=1e-9, atol=1e-12)
    assert list(found) == ["apd", "ade", "fde", "mmade", "mmfde"]


@few
@given(st.lists(st.integers(0, 5), max_size=4), seeds)
def test_any_rows_in_any_order_give_the_numbers_of_their_windows(rows: list[int], seed: int) -> None:
    samples, futures = drawn(seed, 6, 3, 2, 3), drawn(seed + 1, 6, 2, 3)
    group = motion_metrics.groups(drawn(seed + 2, 6, 1), 0.8)
    picks = torch.tensor(rows, dtype=torch.int64)
    whole = motion_metrics.prediction_errors(samples, futures, group)
    some = motion_metrics.prediction_errors(samples[picks], futures, group, picks)
    for name, values in whole.items():
        assert torch.equal(some[name], values[picks])
    for mine, all_ in zip(
        motion_metrics.multimodal(samples[picks], futures, group, picks, skip_single=True),
        motion_metrics.multimodal(samples, futures, group, skip_single=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, all_[picks], equal_nan=True)
    reference = motion_metrics.group_apd(futures, group)
    # Some of the groups may be summed in another way than all of them.
    torch.testing.assert_close(motion_metrics.group_apd(futures, group, picks), reference[picks], rtol=1e-12, atol=0)


def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pairs of every call that measures distances."""
    pairs: list[int] = []
    pdist, cdist = torch.pdist, torch.cdist
    monkeypatch.setattr(torch, "pdist", lambda x: (pairs.append(len(x) * (len(x) - 1) // 2), pdist(x))[1])
    monkeypatch.setattr(
        torch, "cdist", lambda x, y, **options: (pairs.append(len(x) * len(y)), cdist(x, y, **options))[1]
    )
    return pairs


@pytest.mark.parametrize("memory", [2**26, 8 * 40 * 7])
@pytest.mark.parametrize("apart", [0.0, 0.5])
def test_the_diversity_of_still_people_is_measured_once(
    monkeypatch: pytest.MonkeyPatch, apart: float, memory: int
) -> None:
    """Groups of nearly everybody, equal ones and different ones: not one pass over the pairs for each window."""
    count = 40
    poses, futures = apart * torch.arange(count)[:, None].double() / count, drawn(3, count, 3, 6)
    group = motion_metrics.groups(poses, 0.305)
    expected = [slow_apd(futures[members]) for members in lists(group)]
    assert len({tuple(members) for members in lists(group)}) == (31 if apart else 1)
    monkeypatch.setattr(motion_metrics, "_MEMORY", memory)
    pairs = measured(monkeypatch)
    found = motion_metrics.group_apd(futures, group)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert sum(pairs) <= count**2


def test_small_groups_measure_their_own_pairs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    futures, group = drawn(3, 40, 3, 6), motion_metrics.groups(torch.arange(40)[:, None], 1.5)
    pairs = measured(monkeypatch)
    found = motion_metrics.group_apd(futures, group)
    assert sum(pairs) == 38 * 3 + 2
    np.testing.assert_allclose(found, [slow_apd(futures[members]) for members in lists(group)], rtol=1e-9)


def test_large_groups_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, futures = drawn(0, 30, 2, 3, 6), drawn(1, 30, 3, 6)
    group = Groups(torch.arange(30).repeat(30), torch.arange(31) * 30)
    whole = motion_metrics.prediction_errors(samples, futures, group)
    monkeypatch.setattr(motion_metrics, "_MEMORY", 7 * 2 * 3 * 8)
    parts = motion_metrics.prediction_errors(samples, futures, group)
    for name, values in whole.items():
        torch.testing.assert_close(parts[name], values)


def test_predictions_beside_the_truth_keep_their_digits() -> None:
    """A matrix product of float32 says 0 here, and is 10 % off for the diversity."""
    futures = 3 * drawn(0, 2, 100, 48, dtype=torch.float32)
    samples = futures[:, None] + 1e-4 * drawn(1, 2, 50, 100, 48, dtype=torch.float32)
    group = Groups(torch.arange(2), torch.arange(3))
    found = motion_metrics.prediction_errors(samples, futures, group)
    exact = motion_metrics.prediction_errors(samples.double(), futures.double(), group)
    for name, values in exact.items():
        torch.testing.assert_close(found[name].double(), values, rtol=1e-5, atol=0)
    assert (exact["fde"] < 1e-3).all()


def test_one_sample_has_no_diversity() -> None:
    assert motion_metrics.apd(drawn(0, 3, 1, 2, 3)).tolist() == [0, 0, 0]
    assert motion_metrics.apd(drawn(0, 0, 4, 2, 3)).shape == (0,)


def test_apde_skips_windows_without_a_reference() -> None:
    found = motion_metrics.apde(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 0.0, 2.5]))
    torch.testing.assert_close(found, torch.tensor([2.0, math.nan, 0.5]), equal_nan=True)


@few
@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 4), st.integers(1, 3), seeds)
def test_motion_per_frame_is_a_loop_over_joints(windows: int, count: int, frames: int, joints: int, seed: int) -> None:
    samples = drawn(seed, windows, count, frames, 3 * joints)
    found = motion_metrics.motion_per_frame(samples)
    for window, frame in itertools.product(range(windows), range(frames - 1)):
        ways = [
            distance(samples[window, k, frame + 1, 3 * j : 3 * j + 3], samples[window, k, frame, 3 * j : 3 * j + 3])
            for k in range(count)
            for j in range(joints)
        ]
        assert float(found[window, frame]) == pytest.approx(sum(ways) / len(ways))


@few
@given(st.integers(1, 8), st.integers(1, 4), seeds)
def test_cmd_is_the_surplus_carried_to_the_end(windows: int, frames: int, seed: int) -> None:
    motion = drawn(seed, windows, frames).abs()
    classes = torch.randint(4, (windows,), generator=torch.Generator().manual_seed(seed))
    means = drawn(seed + 1, 4).abs()
    total = 0.0
    for one in range(4):
        mine = [motion[window] for window in range(windows) if classes[window] == one]
        if not mine:
            continue
        surplus = [
            abs(float(sum(row[frame] for row in mine)) / len(mine) - float(means[one])) for frame in range(frames)
        ]
        # A cumulative sum of the surplus, summed over the frames.
        total += sum(itertools.accumulate(surplus)) * len(mine)
    assert float(motion_metrics.cmd(motion, classes, means)) == pytest.approx(total / windows)


@few
@given(st.integers(2, 20), st.integers(1, 5), seeds)
def test_moments_are_mean_and_covariance(count: int, width: int, seed: int) -> None:
    features = drawn(seed, count, width).numpy()
    tensor = torch.from_numpy(features)
    mean, covariance = motion_metrics.moments(count, tensor.sum(0), tensor.T @ tensor)
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False).reshape(width, width), rtol=1e-6, atol=1e-9)


@few
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 12), seeds)
def test_frechet_distance_has_the_trace_of_the_root(width: int, one: int, other: int, seed: int) -> None:
    """Also for covariances of fewer samples than features, which are singular."""
    a, b = drawn(seed, one, width), drawn(seed + 1, other, width)
    first, second = a.T @ a, b.T @ b
    means = drawn(seed + 2, width), drawn(seed + 3, width)
    # The eigenvalues of C C' are those of the symmetric form, and not below 0.
    values = np.linalg.eigvals((first @ second).numpy()).real.clip(0)
    expected = float((means[0] - means[1]).square().sum() + first.trace() + second.trace()) - 2 * np.sqrt(values).sum()
    found = motion_metrics.frechet_distance(means[0], first, means[1], second)
    assert float(found) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    same = motion_metrics.frechet_distance(means[0], first, means[0], first)
    assert float(same) == pytest.approx(0, abs=1e-5)

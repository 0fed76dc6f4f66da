"""Baselines against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinema.core import baselines
from kinema.core.baselines import constant_velocity, nearest, random_futures, zero_velocity
from kinema.errors import DataError

few = settings(max_examples=20, deadline=None)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@few
@given(st.integers(1, 3), st.integers(2, 5), st.integers(1, 4), st.data())
def test_velocity_baselines_are_loops_over_frames(
    windows: int, history: int, horizon: int, data: st.DataObject
) -> None:
    frames = data.draw(st.integers(1, history - 1))
    past = drawn(windows, windows, history, 6)
    still, moving = zero_velocity(past, horizon), constant_velocity(past, horizon, frames=frames)
    assert still.shape == moving.shape == (windows, 1, horizon, 6)
    for window in range(windows):
        steps = [past[window, -k] - past[window, -k - 1] for k in range(1, frames + 1)]
        velocity = torch.stack(steps).mean(0)
        pose = past[window, -1]
        for frame in range(horizon):
            assert torch.equal(still[window, 0, frame], past[window, -1])
            pose = pose + velocity
            torch.testing.assert_close(moving[window, 0, frame], pose, rtol=1e-4, atol=1e-5)


def test_zero_velocity_is_memory_of_its_own() -> None:
    past = torch.ones(1, 2, 3)
    zero_velocity(past, 2).zero_()
    assert (past == 1).all()


@pytest.mark.parametrize("frames", [0, 3])
def test_a_velocity_needs_its_frames(frames: int) -> None:
    with pytest.raises(DataError, match="from 3 frames"):
        constant_velocity(torch.zeros(1, 3, 3), 2, frames=frames)


@few
@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from([None, 10.0]), st.integers(0, 99))
def test_nearest_sorts_all_training_windows(windows: int, count: int, fade: float | None, seed: int) -> None:
    past, known = drawn(seed, windows, 3, 6), drawn(seed + 1, 6, 7, 6)
    found = nearest(past, known, count, fade=fade)
    assert found.shape == (windows, count, 4, 6)
    for window in range(windows):
        order = sorted(range(6), key=lambda one: float((known[one, :3] - past[window]).square().sum()))
        for sample, one in enumerate(order[:count]):
            for frame in range(4):
                expected = known[one, 3 + frame]
                if fade is not None:
                    expected = expected + (past[window, -1] - known[one, 2]) * math.exp(-frame / fade)
                torch.testing.assert_close(found[window, sample, frame], expected)


def test_nearest_does_not_depend_on_the_blocks_it_is_searched_in(monkeypatch: pytest.MonkeyPatch) -> None:
    past, known = drawn(0, 7, 3, 6), drawn(1, 20, 7, 6)
    whole = nearest(past, known, 5, fade=10)
    monkeypatch.setattr(baselines, "_MEMORY", 200)
    assert torch.equal(nearest(past, known, 5, fade=10), whole)


def test_random_futures_are_different_training_windows_and_depend_on_the_window_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = torch.arange(30.0)[:, None, None].expand(30, 7, 3)
    found = random_futures(torch.zeros(6, 3, 3), known, 12, seed=1)
    assert found.shape == (6, 12, 4, 3)
    rows = found[:, :, 0, 0]
    assert (rows.sort(1).values.diff(dim=1) > 0).all()
    assert len({tuple(row.tolist()) for row in rows}) == 6
    alone = random_futures(torch.zeros(2, 3, 3), known, 12, seed=1, ids=torch.tensor([4, 2]))
    assert torch.equal(alone, found[[4, 2]])
    assert not torch.equal(random_futures(torch.zeros(6, 3, 3), known, 12, seed=2), found)
    monkeypatch.setattr(baselines, "_MEMORY", 1)
    assert torch.equal(random_futures(torch.zeros(6, 3, 3), known, 12, seed=1), found)


def test_random_futures_take_every_training_window_alike() -> None:
    known = torch.arange(10.0)[:, None, None].expand(10, 4, 3)
    rows = random_futures(torch.zeros(400, 3, 3), known, 5)[..., 0, 0].flatten().long()
    # 200 +- 10 (standard deviation of a binomial with half of 400).
    assert ((torch.bincount(rows, minlength=10) - 200).abs() < 50).all()


def test_more_futures_than_training_windows_are_refused() -> None:
    past, known = torch.zeros(1, 2, 3), torch.zeros(4, 5, 3)
    for call in (nearest, random_futures):
        with pytest.raises(DataError, match=r"5 futures .* only 4 training windows. Use task.num_samples=4"):
            call(past, known, 5)


def test_no_windows_have_no_predictions() -> None:
    past, known = torch.zeros(0, 2, 3), torch.zeros(4, 5, 3)
    for found in (nearest(past, known, 2, fade=3), random_futures(past, known, 2)):
        assert found.shape == (0, 2, 3, 3)

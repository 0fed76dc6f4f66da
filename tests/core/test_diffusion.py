"""Schedules, visited steps, noise and targets, padding: against slow plain forms and each other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinema.core.dct import orthonormal_dct_matrix
from kinema.core.diffusion import (
    PADDINGS,
    PREDICTIONS,
    SCHEDULES,
    alpha_hats,
    betas,
    from_coeffs,
    padded,
    q_sample,
    target,
    to_coeffs,
    to_noise,
    to_start,
    visited,
)
from kinema.errors import ConfigError

few = settings(max_examples=25, deadline=None)


def left(schedule: str, tau: float) -> float:
    if schedule == "cosine":
        return math.cos((tau + 0.008) / 1.008 * math.pi / 2) ** 2
    if schedule == "sqrt":
        return 1 - math.sqrt(tau + 1e-4)
    low, here, high = (1 / (1 + math.exp(-x / 0.7)) for x in (-3, 6 * tau - 3, 3))
    return (high - here) / (high - low)


@few
@given(st.sampled_from(SCHEDULES), st.integers(30, 300))
def test_schedules_are_those_of_the_formulas(schedule: str, count: int) -> None:
    expected, product = [], 1.0
    for step in range(count):
        if schedule == "linear":
            beta = 1000 / count * (1e-4 + (0.02 - 1e-4) * step / (count - 1))
        else:
            ratio = left(schedule, (step + 1) / count) / left(schedule, step / count)
            beta = min(max(1 - ratio, 0), 0.999)
        product *= 1 - beta
        expected.append((beta, product))
    wanted = torch.tensor(expected, dtype=torch.float64)
    # The ratios of the last steps are those of small float32 numbers.
    torch.testing.assert_close(betas(schedule, count).double(), wanted[:, 0], rtol=0, atol=2e-4)
    torch.testing.assert_close(alpha_hats(schedule, count).double(), wanted[:, 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("count", [50, 1000])
def test_noise_grows_with_every_step_and_never_takes_everything(schedule: str, count: int) -> None:
    share = alpha_hats(schedule, count)
    assert share.dtype == torch.float32
    assert (share.diff() < 0).all()
    assert (share > 0).all()
    assert share[0] < 1


def test_the_released_setting_visits_the_published_steps() -> None:
    steps = visited(1000, 100)
    assert steps[:2].tolist() == [[991, 981], [981, 971]]
    assert steps[-2:].tolist() == [[11, 1], [1, 0]]


@few
@given(st.integers(2, 60), st.integers(1, 12))
def test_visited_steps_chain_down_to_zero(stride: int, count: int) -> None:
    steps = visited(stride * count, count)
    assert steps.dtype == torch.int64
    assert torch.equal(steps, visited(stride * count, count, compat=True))
    assert steps[-1, 1] == 0
    assert torch.equal(steps[1:, 0], steps[:-1, 1])
    assert (steps[:-1, 0] - steps[:-1, 1] == stride).all()
    assert steps[0, 0] == 1 + stride * (count - 1) < stride * count


def test_compat_leaves_the_highest_levels_out() -> None:
    steps = visited(1000, 600, compat=True)
    assert (len(steps), steps[0].tolist()) == (600, [600, 599])


@pytest.mark.parametrize(
    ("noise_steps", "asked", "works"), [(1000, 7, 8), (1000, 600, 500), (1000, 1000, 500), (1000, 0, 1), (50, 30, 25)]
)
def test_step_counts_that_do_not_divide_are_refused_with_one_that_does(
    noise_steps: int, asked: int, works: int
) -> None:
    with pytest.raises(ConfigError, match=rf"task\.ddim_timesteps={works}\."):
        visited(noise_steps, asked)
    assert len(visited(noise_steps, works)) == works


def test_compat_refuses_what_the_published_program_cannot_do() -> None:
    for asked in (1000, 1001, 0):
        with pytest.raises(ConfigError, match=r"task\.ddim_timesteps=100\."):
            visited(1000, asked, compat=True)


def test_a_single_noise_step_cannot_be_visited() -> None:
    with pytest.raises(ConfigError, match=r"task\.noise_steps=1000"):
        visited(1, 1)


def test_unknown_names_are_refused() -> None:
    x = torch.zeros(1, 2, 3)
    with pytest.raises(ConfigError, match="cosine, sqrt, sigmoid, linear"):
        betas("exponential", 100)
    with pytest.raises(ConfigError, match="linear with 20 noise steps"):
        betas("linear", 20)
    with pytest.raises(ConfigError, match=r"task\.padding=last_frame"):
        padded(x, 1, "mirror")
    for call in (to_noise, to_start):
        with pytest.raises(ConfigError, match=r"task\.prediction=noise or x0 or v"):
            call("score", x, x, 0, alpha_hats("cosine", 10))
    with pytest.raises(ConfigError, match=r"task\.prediction"):
        target("score", x, x, 0, alpha_hats("cosine", 10))


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@few
@given(st.sampled_from(PREDICTIONS), st.integers(1, 4), st.integers(0, 999))
def test_a_perfect_network_gives_motion_and_noise_back(prediction: str, batch: int, seed: int) -> None:
    alpha_hat = alpha_hats("cosine", 1000).double()
    t = torch.randint(1, 990, (batch,), generator=torch.Generator().manual_seed(seed))
    x0, noise = drawn(seed, batch, 3, 6), drawn(seed + 1, batch, 3, 6)
    x = q_sample(x0, t, noise, alpha_hat)
    output = target(prediction, x0, noise, t, alpha_hat)
    torch.testing.assert_close(to_start(prediction, output, x, t, alpha_hat), x0)
    torch.testing.assert_close(to_noise(prediction, output, x, t, alpha_hat), noise)


@few
@given(st.sampled_from(PREDICTIONS), st.integers(1, 4), st.integers(0, 999))
def test_levels_per_sample_are_those_of_each_alone(prediction: str, batch: int, seed: int) -> None:
    alpha_hat = alpha_hats("sqrt", 100).double()
    t = torch.randint(100, (batch,), generator=torch.Generator().manual_seed(seed))
    x0, noise = drawn(seed, batch, 2, 3), drawn(seed + 1, batch, 2, 3)
    together = q_sample(x0, t, noise, alpha_hat), target(prediction, x0, noise, t, alpha_hat)
    for one, level in enumerate(t.tolist()):
        share = float(alpha_hat[level])
        plain = math.sqrt(share) * x0[one] + math.sqrt(1 - share) * noise[one]
        torch.testing.assert_close(together[0][one], plain)
        alone = target(prediction, x0[one], noise[one], level, alpha_hat)
        torch.testing.assert_close(together[1][one], alone)


def test_velocity_is_the_published_mixture() -> None:
    alpha_hat = torch.tensor([0.36], dtype=torch.float64)
    x0, noise = drawn(0, 2, 2), drawn(1, 2, 2)
    torch.testing.assert_close(target("v", x0, noise, 0, alpha_hat), 0.6 * noise - 0.8 * x0)


@few
@given(st.sampled_from(PADDINGS), st.booleans(), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_padding_is_a_loop_over_frames(padding: str, compat: bool, history: int, times: int, batch: int) -> None:
    motion = drawn(history, batch, history * times, 3)
    before = motion.clone()
    found = padded(motion, history, padding, compat=compat)
    for frame in range(history * times):
        if padding == "repeat":
            expected = motion[:, frame % history]
        elif padding == "zero" and frame >= history - compat:
            expected = torch.zeros(batch, 3, dtype=torch.float64)
        else:
            expected = motion[:, min(frame, history - 1)]
        assert torch.equal(found[:, frame], expected)
    assert torch.equal(motion, before)
    assert torch.equal(padded(motion[:, :history], history, padding, frames=history * times, compat=compat), found)


def test_padding_never_shares_memory_with_the_motion() -> None:
    motion = torch.ones(1, 2, 3)
    for padding in PADDINGS:
        padded(motion, 2, padding).zero_()
    assert (motion == 1).all()


def test_a_history_that_cannot_be_repeated_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fills 5 frames .* of 2"):
        padded(torch.zeros(1, 5, 3), 2, "repeat")


@few
@given(st.integers(1, 12), st.data())
def test_coefficients_are_sums_over_frames(frames: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, frames))
    dct, motion = orthonormal_dct_matrix(frames, kept), drawn(frames, 2, frames, 3)
    coeffs = to_coeffs(motion, dct)
    slow = [sum(dct[k, frame] * motion[:, frame] for frame in range(frames)) for k in range(kept)]
    torch.testing.assert_close(coeffs, torch.stack([torch.as_tensor(one) for one in slow], dim=1))
    # What is left of a motion is the part the kept frequencies span: doing it twice changes nothing.
    smooth = from_coeffs(coeffs, dct)
    torch.testing.assert_close(from_coeffs(to_coeffs(smooth, dct), dct), smooth)
    if kept == frames:
        torch.testing.assert_close(smooth, motion)

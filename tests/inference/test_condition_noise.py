"""Samples that see their condition through noise: chunks, levels, the clean end, completion beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kinema.core.condition_noise import mixed, spread_levels
from kinema.core.motion_space import MotionSpace
from kinema.inference.denoise import denoiser
from kinema.inference.motion_sampler import CONDITION, START, KeyedNoise, MotionSampler
from kinema.models.motion_mlp import MotionMLP
from tests.inference.test_motion_sampler import CLOSE, FEATURES, FRAMES, HISTORY, HORIZON, KEPT, motions

SPACE = MotionSpace(HISTORY, HORIZON, KEPT, residual="padded", condition="history", condition_stride=1)


def network() -> MotionMLP:
    torch.manual_seed(0)
    model = MotionMLP(
        kept_coeffs=KEPT, num_features=FEATURES, condition_frames=SPACE.condition_rows, dim=24, time_dim=8, depth=2,
        dropout=0.3,
    )  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.calibrate(SPACE.encode(motions(50, seed=9)).condition)
    return model.eval()


def sampler(highest: float | None, **options: Any) -> MotionSampler:
    given: dict[str, Any] = {"ddim_timesteps": 5, "completion": False, "prediction": "x0", **options}
    return MotionSampler(network(), SPACE, condition_noise=highest, **given)


@pytest.mark.parametrize("completion", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 8, 13])
def test_samples_do_not_depend_on_the_chunk(chunk: int, completion: bool) -> None:
    history, ids = motions(3), torch.tensor([7, 3, 9])
    whole = sampler(0.8, completion=completion)(history, 4, ids=ids)
    assert whole.shape == (3, 4, FRAMES, FEATURES)
    again = sampler(0.8, completion=completion, chunk=chunk)(history, 4, ids=ids)
    torch.testing.assert_close(again, whole, **CLOSE)
    alone = sampler(0.8, completion=completion)(history[1:2], 4, ids=ids[1:2])
    torch.testing.assert_close(alone, whole[1:2], **CLOSE)


def test_few_samples_are_the_first_of_many() -> None:
    history = motions(2)
    torch.testing.assert_close(sampler(0.8)(history, 7)[:, :3], sampler(0.8)(history, 3), **CLOSE)


def test_level_zero_is_the_condition_itself() -> None:
    history = motions(3)
    torch.testing.assert_close(sampler(0.0)(history, 4), sampler(None)(history, 4), **CLOSE)
    noisy = sampler(1.0)(history, 4)
    clean = sampler(None)(history, 4)
    torch.testing.assert_close(noisy[:, 0], clean[:, 0], **CLOSE)  # the first sample has level 0
    assert (noisy[:, 1:] - clean[:, 1:]).abs().amax((2, 3)).min() > 0.01


def test_samples_are_those_of_a_plain_loop() -> None:
    model, history, count = network(), motions(2), 3
    drawn = sampler(0.7)
    found = next(drawn.steps(history, count, seed=4))  # after the first step
    condition = model.standardised(SPACE.encode_history(history).condition)
    source, ids, samples = KeyedNoise(4), torch.arange(2), torch.arange(count)
    hidden = source(ids, samples, START, CONDITION, tuple(condition.shape[1:]))
    start = source(ids, samples, START, 0, (KEPT, FEATURES))
    t, after = (int(value) for value in drawn.timesteps[0])
    encoded = SPACE.encode_history(history)
    expected: list[Tensor] = []
    for window in range(2):
        for number in range(count):
            level = spread_levels(torch.tensor([number]), 0.7)
            seen = mixed(condition[window : window + 1], hidden[window, number][None], level)
            with torch.no_grad():
                x0 = model(start[window, number][None], torch.tensor([t]), seen, level=level)
            here, there = (drawn.alpha_hat[one] for one in (t, after))
            noise = (start[window, number] - here.sqrt() * x0[0]) / (1 - here).sqrt()
            expected.append(there.sqrt() * x0[0] + (1 - there).sqrt() * noise)
    coeffs = torch.stack(expected).unflatten(0, (2, count))
    torch.testing.assert_close(found, SPACE.decode(coeffs, encoded), **CLOSE)


def test_a_denoiser_hands_the_level_on() -> None:
    model = network()
    x, _, condition = model.signature.example(4)
    level = torch.tensor([0.0, 0.2, 0.6, 1.0])
    made = denoiser(model, condition, torch.tensor([700]), level=level)
    with torch.no_grad():
        expected = model(x, torch.full((4,), 700), condition, level=level)
    torch.testing.assert_close(made(x[:, None], 0)[:, 0], expected)

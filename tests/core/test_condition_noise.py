"""Noise on the condition: sizes that stay, shares of levels, an even spread over the samples."""

from __future__ import annotations

import pytest
import torch

from kinema.core.condition_noise import mixed, spread_levels, trained_levels


def test_ends_are_the_condition_and_the_noise() -> None:
    condition, noise = torch.randn((2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    level = torch.tensor([0.0, 1.0, 0.5])
    out = mixed(condition, noise, level)
    torch.testing.assert_close(out[0], condition[0])
    torch.testing.assert_close(out[1], noise[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(out[2], (condition[2] + noise[2]) / 2**0.5)


def test_the_size_stays_at_every_level() -> None:
    condition, noise = torch.randn((2, 20_000, 1, 4), generator=torch.Generator().manual_seed(1))
    for level in (0.2, 0.5, 0.8):
        out = mixed(condition, noise, torch.full((20_000,), level))
        assert float(out.std()) == pytest.approx(1, abs=0.01)


def test_shares_are_kept_and_the_others_see_every_level() -> None:
    draws = torch.rand(40_000, 2, generator=torch.Generator().manual_seed(2))
    level = trained_levels(draws, clean=0.25, unseen=0.1)
    assert float((level == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float((level == 1).float().mean()) == pytest.approx(0.10, abs=0.01)
    between = level[(level > 0) & (level < 1)]
    assert float(between.mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.equal(trained_levels(draws, clean=1.0, unseen=0.0), torch.zeros(40_000))
    assert torch.equal(trained_levels(draws, clean=0.0, unseen=1.0), torch.ones(40_000))


def test_samples_are_spread_evenly_and_few_are_the_first_of_many() -> None:
    few, many = spread_levels(torch.arange(5), 0.8), spread_levels(torch.arange(64), 0.8)
    torch.testing.assert_close(few, torch.tensor([0.0, 0.4, 0.2, 0.6, 0.1]))
    assert torch.equal(many[:5], few)
    torch.testing.assert_close(many.sort().values, torch.arange(64) * 0.8 / 64)
    assert torch.equal(spread_levels(torch.tensor([3, 0]), 0.8), many[[3, 0]])

"""Samples of motions: independent of batches and chunks, masks held, the published order of random numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kinema.core.dct import orthonormal_dct_matrix
from kinema.core.diffusion import alpha_hats, padded, visited
from kinema.core.heading import turn
from kinema.core.motion_space import MotionSpace
from kinema.core.sampling import SAMPLERS
from kinema.errors import ConfigError
from kinema.inference.denoise import denoiser
from kinema.inference.motion_sampler import START, KeyedNoise, KnownMotion, MotionSampler
from kinema.models.humanmac import HumanMAC
from kinema.models.smrnet import SMRNet

HISTORY, HORIZON, KEPT, FEATURES = 4, 8, 7, 12
FRAMES = HISTORY + HORIZON


def network(name: str = "smrnet") -> nn.Module:
    """A small network whose zero output layers are filled."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"kept_coeffs": KEPT, "num_features": FEATURES, "dim": 16, "depth": 2, "num_heads": 2}
    model = SMRNet(**sizes, dropout=0.0) if name == "smrnet" else HumanMAC(**sizes, ff_dim=24, dropout=0.0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


class Recorder(nn.Module):
    """A network without a shared form that writes down what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network()
        self.sizes: list[int] = []
        self.seeing: list[bool] = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None, present: Tensor | None) -> Tensor:
        self.sizes.append(len(x))
        self.seeing.append(condition is not None)
        output: Tensor = self.model(x, t, condition, present)
        return output


def space(**options: Any) -> MotionSpace:
    return MotionSpace(HISTORY, HORIZON, KEPT, hips=(0, 2), **options)


def sampler(model: nn.Module | None = None, options: dict[str, Any] | None = None, **own: Any) -> MotionSampler:
    return MotionSampler(model or network(), space(**options or {}), ddim_timesteps=own.pop("ddim_timesteps", 5), **own)


def motions(count: int, seed: int = 0) -> Tensor:
    """Smooth motions, which the kept coefficients nearly hold."""
    noise = torch.randn(count, FRAMES, FEATURES, generator=torch.Generator().manual_seed(seed))
    dct = orthonormal_dct_matrix(FRAMES, 4).float()
    return dct.T @ (dct @ noise)


# Sums of products in other orders: rounding of float32, which a random network makes larger in every step.
CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}


@pytest.mark.parametrize("name", ["smrnet", "humanmac"])
@pytest.mark.parametrize("chunk", [1, 3, 4, 8, 13])
def test_samples_do_not_depend_on_the_chunk(name: str, chunk: int) -> None:
    """Also where the samples of one window do not fit into a chunk."""
    model, history = network(name), motions(3)
    whole = sampler(model)(history, 4, conditioned=3)
    assert whole.shape == (3, 4, FRAMES, FEATURES)
    torch.testing.assert_close(sampler(model, chunk=chunk)(history, 4, conditioned=3), whole, **CLOSE)


def test_samples_depend_on_their_window_number_and_seed_alone() -> None:
    draw, history = sampler(), motions(4)
    whole = draw(history, 5, ids=torch.tensor([7, 3, 9, 2]))
    picked = draw(history[[2, 0]], 3, ids=torch.tensor([9, 7]))
    torch.testing.assert_close(picked, whole[[2, 0], :3], **CLOSE)
    # The future is not read.
    alone = draw(history[:, :HISTORY], 5, ids=torch.tensor([7, 3, 9, 2]))
    assert torch.equal(alone, whole)
    twice = draw(history[[0, 0]], 5, ids=torch.tensor([7, 8]))
    assert not torch.allclose(twice[0], twice[1], atol=0.1)
    assert not torch.allclose(draw(history, 5, seed=1), draw(history, 5), atol=0.1)
    assert torch.equal(draw(history, 5, noise=KeyedNoise(1)), draw(history, 5, seed=1))


def test_keyed_noise_is_standard_normal_and_new_for_every_step_part_window_and_sample() -> None:
    source = KeyedNoise(3)
    ids, samples = torch.tensor([0, 5, 2**31]), torch.arange(6)
    drawn = torch.stack([source(ids, samples, step, part, (KEPT, 40)) for step in (START, 0, 1) for part in (0, 1)])
    assert drawn.shape == (6, 3, 6, KEPT, 40)
    flat = drawn.flatten(0, 2).flatten(1)
    correlation = torch.corrcoef(flat).fill_diagonal_(0)
    # 108 rows of 280 numbers: the largest of 5778 correlations of a standard deviation of 0.06.
    assert float(correlation.abs().max()) < 0.3
    assert float(drawn.mean().abs()) < 0.03
    assert abs(float(drawn.std()) - 1) < 0.03
    assert torch.equal(source(ids[1:], samples[2:], 1, 1, (KEPT, 40)), drawn[5, 1:, 2:])


def test_the_network_sees_a_chunk_at_a_time() -> None:
    """What is in memory at once does not grow with the windows."""
    seen = []
    for windows in (2, 9):
        model = Recorder().eval()
        sampler(model, chunk=10)(motions(windows), 4)
        seen.append(max(model.sizes))
        assert sum(model.sizes) == windows * 4 * 5
    assert seen == [8, 8]


@pytest.mark.parametrize("chunk", [2, 1000])
@pytest.mark.parametrize("conditioned", [0, 2, 3, 4])
def test_the_first_samples_see_the_condition(conditioned: int, chunk: int) -> None:
    model, history = network(), motions(2)
    with_, without = (sampler(model)(history, 4, conditioned=count) for count in (None, 0))
    found = sampler(model, chunk=chunk)(history, 4, conditioned=conditioned)
    torch.testing.assert_close(found[:, :conditioned], with_[:, :conditioned], **CLOSE)
    torch.testing.assert_close(found[:, conditioned:], without[:, conditioned:], **CLOSE)
    assert not torch.allclose(with_, without, atol=0.01)


def test_without_a_condition_the_network_is_given_none() -> None:
    model = Recorder().eval()
    sampler(model)(motions(2), 3, conditioned=0)
    assert model.seeing == [False] * 5


@pytest.mark.parametrize("count", [-1, 4])
def test_more_conditioned_samples_than_samples_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"{count} of 3 samples .* Use 0 to 3"):
        sampler()(motions(1), 3, conditioned=count)
    with pytest.raises(ConfigError, match="Use 0 to 3"):
        next(sampler().steps(motions(1), 3, conditioned=count))


def distance(samples: Tensor, motion: Tensor, mask: Tensor) -> float:
    """Root mean square distance of the samples from a motion where a mask is set."""
    where = (mask if mask.dim() == 2 else mask[:, None]).expand(FRAMES, FEATURES)
    return float((samples - motion[:, None])[:, :, where].square().mean().sqrt())


OBSERVED = torch.arange(FRAMES) < HISTORY


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heading": True},
        {"residual": "last_pose"},
        {"residual": "padded"},
        {"scale": (3.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2)},
    ],
    ids=["plain", "heading", "last_pose", "padded", "scale"],
)
def test_completion_holds_the_history(name: str, options: dict[str, Any]) -> None:
    history = 3 * motions(3)
    held, free = (
        sampler(options=options, sampler=name, completion=completion)(history, 4) for completion in (True, False)
    )
    assert distance(held, history, OBSERVED) < 0.6
    assert distance(free, history, OBSERVED) > 2 * distance(held, history, OBSERVED)


@pytest.mark.parametrize("chunk", [3, 1000])
@pytest.mark.parametrize("heading", [False, True])
def test_an_end_that_is_known_is_reached(heading: bool, chunk: int) -> None:
    history, target = 2 * motions(2), 2 * motions(2, seed=5)
    end = torch.arange(FRAMES) >= FRAMES - 4
    draw = sampler(options={"heading": heading}, chunk=chunk, ddim_timesteps=20)
    held = draw(history, 4, known=[KnownMotion(end, target)])
    free = draw(history, 4)
    assert distance(held, target, end) < 0.5
    assert distance(free, target, end) > 1.5
    # One motion for all windows.
    same = draw(history, 4, known=[KnownMotion(end, target[:1])])
    assert distance(same, target[:1].expand(2, -1, -1), end) < 0.5


def test_joints_that_are_known_are_held_and_others_move() -> None:
    history, target = 2 * motions(2), 2 * motions(2, seed=5)
    joint = (torch.arange(FEATURES) // 3 == 1).expand(FRAMES, -1)
    found = sampler(ddim_timesteps=20)(history, 4, known=[KnownMotion(joint, target)])
    assert distance(found, target, joint) < 0.5
    assert distance(found, target, ~joint) > 1.5


def test_shared_noise_is_one_for_all_samples_of_a_window() -> None:
    """Where everything is held, samples differ by that noise alone."""
    everything, target = torch.ones(FRAMES, dtype=torch.bool), motions(2, seed=5)
    for chunk in (1, 2, 1000):
        draw = sampler(chunk=chunk, completion=False)
        spread = [
            float(draw(motions(2), 3, known=[KnownMotion(everything, target, shared=shared)]).std(1).max())
            for shared in (True, False)
        ]
        assert spread[0] < 1e-6 < 1e-3 < spread[1]


def test_a_part_that_is_let_go_is_free_in_the_last_steps() -> None:
    history, target = motions(1), 5 * motions(1, seed=5)
    end = torch.arange(FRAMES) >= FRAMES - 4
    found = [
        list(sampler(ddim_timesteps=10).steps(history, 2, known=[KnownMotion(end, target, until=until)]))
        for until in (0, 3, 10)
    ]
    # The loop index falls from 9 to 0: seven steps are the same, and none is held that begins at 10.
    torch.testing.assert_close(found[1][:7], found[0][:7])
    assert not torch.allclose(found[1][7], found[0][7], atol=0.05)
    torch.testing.assert_close(found[2], list(sampler(ddim_timesteps=10).steps(history, 2)))


def test_the_last_step_is_the_result() -> None:
    options: dict[str, Any] = {"conditioned": 2, "seed": 4, "ids": torch.tensor([8, 1])}
    history = motions(2)
    steps = list(sampler().steps(history, 3, **options))
    assert len(steps) == 5
    assert torch.equal(steps[-1], sampler()(history, 3, **options))
    assert not torch.allclose(steps[0], steps[-1], atol=0.1)


def test_with_headings_a_turned_history_has_turned_futures() -> None:
    draw, history, by = sampler(options={"heading": True}), motions(2), torch.tensor([0.7, -2.0])
    found = draw(turn(history, by), 3)
    torch.testing.assert_close(found, turn(draw(history, 3), by), **CLOSE)


@pytest.mark.parametrize("mod_test", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("chunk", [2, 1000])
def test_published_draws_come_in_the_published_order(mod_test: float, chunk: int) -> None:
    """A plain loop over passes and steps on the global generators."""
    model, history, count = network(), motions(3), 4
    np.random.seed(1)
    torch.manual_seed(1)
    found = sampler(model, chunk=chunk, ddim_timesteps=4).published(history, count, mod_test=mod_test)
    np.random.seed(1)
    torch.manual_seed(1)
    dct = orthonormal_dct_matrix(FRAMES, KEPT).float()
    known, alpha_hat = dct @ padded(history, HISTORY), alpha_hats("cosine", 1000)
    seeing = 0
    for number in range(count):
        condition = None if np.random.random() > mod_test else known
        seeing += condition is not None
        x = torch.randn(3, KEPT, FEATURES)
        for t, after in visited(1000, 4).tolist():
            eps = model(x, torch.full((3,), t), condition, None)
            share, later = float(alpha_hat[t]), float(alpha_hat[after])
            start = (x - math.sqrt(1 - share) * eps) / math.sqrt(share)
            x = math.sqrt(later) * start + math.sqrt(1 - later) * eps
            noisy = math.sqrt(later) * known + math.sqrt(1 - later) * torch.randn_like(x)
            x = dct @ torch.where(OBSERVED[:, None], dct.T @ noisy, dct.T @ x)
        torch.testing.assert_close(found[:, number], dct.T @ x, **CLOSE)
    assert {0.0: seeing == 0, 0.5: 0 < seeing < count, 1.0: seeing == count}[mod_test]


def test_half_of_the_published_passes_of_seed_0_are_not_what_half_sounds_like() -> None:
    """With mod_test 0.5 and seed 0 the published evaluation draws 20 conditional passes of 50."""
    model = Recorder().eval()
    np.random.seed(0)
    sampler(model, ddim_timesteps=1).published(motions(1), 50, mod_test=0.5)
    assert sum(model.seeing) == 20


def test_plain_and_shared_forms_give_the_same_samples() -> None:
    model, history = network(), motions(2)
    recorder = Recorder().eval()
    recorder.model.load_state_dict(model.state_dict())
    assert (
        denoiser(model, None, torch.tensor([1])).__class__ is not denoiser(recorder, None, torch.tensor([1])).__class__
    )
    torch.testing.assert_close(sampler(recorder)(history, 4, conditioned=2), sampler(model)(history, 4, conditioned=2),
                               **CLOSE)  # fmt: skip


def test_a_network_in_training_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.eval\(\)"):
        sampler(network().train())(motions(1), 2)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.chunk=1000"):
        sampler(chunk=0)
    with pytest.raises(ConfigError, match="ddim, fixed_known"):
        sampler(sampler="euler")
    with pytest.raises(ConfigError, match=r"task\.ddim_timesteps=8"):
        sampler(ddim_timesteps=7)
    assert len(sampler(ddim_timesteps=7, compat_steps=True).timesteps) == 7


def test_no_windows_have_no_samples() -> None:
    assert sampler()(motions(0), 3).shape == (0, 3, FRAMES, FEATURES)

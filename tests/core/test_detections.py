"""Detector noise and masking against plain loops, and their draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.core import detections
from kinema.core.detections import NoiseModel, noise_model
from kinema.errors import ConfigError

STEP = torch.tensor([3])


def small_model(joints: int) -> NoiseModel:
    """A model for any number of joints, with large and distinct constants."""
    return NoiseModel.from_dict(
        {
            "mean": [[0.1 * j, -0.05 * j] for j in range(joints)],
            "std": [[0.2, 0.3]] * joints,
            "weight": [0.6] * joints,
            "uniform_range": 0.5,
            "jitter": 0.1,
            "key_frames": 4,
            "confidence": {"a": 0.5, "b": 0.2, "m": 0.05, "s": 0.1},
        }
    )


def clips(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, shape)).float()


@pytest.mark.parametrize(("joints", "frames"), [(15, 9), (21, 4), (3, 1)])
def test_noise_equals_a_plain_loop(joints: int, frames: int) -> None:
    model, clean = small_model(joints), clips(2, frames, joints, 2)
    draws = detections.count_draws(0, 1, torch.arange(2), STEP, frames, model)
    found = detections.add_noise(clean, model, draws).numpy()
    for b, t, j in np.ndindex(2, frames, joints):
        keys = []
        for k in range(model.key_frames):
            gaussian = np.array(model.mean[j]) + np.array(model.std[j]) * draws.gaussian[b, k, j].numpy()
            flat = (draws.uniform[b, k, j].numpy() - 0.5) * model.uniform_range
            keys.append(gaussian if draws.selector[b, k, j, 0] < model.weight[j] else flat)
        # Key frames are spread from the first to the last frame.
        at = t * (len(keys) - 1) / (frames - 1) if frames > 1 else 0.0
        low = min(int(at), len(keys) - 2)
        moved = keys[low] + (at - low) * (keys[low + 1] - keys[low]) + model.jitter * draws.jitter[0, t, j].numpy()
        distance = math.hypot(*moved)
        a, b_, m, s = model.confidence
        score = a / (distance + a) + b_ * distance + m + s * float(draws.confidence[b, t, j])
        expected = [*(clean[b, t, j].numpy() + moved), min(max(score, 0), 1)]
        np.testing.assert_allclose(found[b, t, j], expected, atol=1e-6)


def test_noise_of_a_sample_does_not_depend_on_its_batch() -> None:
    model, clean = noise_model(), clips(5, 30, 17, 3)
    draw = torch.tensor([40, 2, 7, 2, 9])

    def noisy(rows: slice) -> Tensor:
        chosen = draw[rows]
        moved = detections.add_noise(clean[rows], model, detections.count_draws(5, 1, chosen, STEP, 30, model))
        return detections.mask(moved, detections.count_mask_draws(5, 1, chosen, STEP, 30, 17), 0.3, 0.2)

    whole = noisy(slice(None))
    # Normals agree to rounding: vectorised logarithms may differ in the last bit with the position in memory.
    torch.testing.assert_close(torch.cat([noisy(slice(0, 2)), noisy(slice(2, 5))]), whole)
    own = detections.count_draws(5, 1, draw, draw, 30, model).jitter
    assert own.shape == (5, 30, 17, 2)
    assert not torch.equal(own[0], own[1])


def test_published_noise_is_small_and_its_scores_are_high() -> None:
    model, clean = noise_model(), clips(64, 50, 17, 2)
    noisy = detections.add_noise(clean, model, detections.count_draws(0, 0, torch.arange(64), STEP, 50, model))
    moved = (noisy[..., :2] - clean).norm(dim=-1)
    # Standard deviations are 3 to 10 thousandths of half the image width.
    assert 0.003 < moved.mean() < 0.03
    assert noisy[..., 2].min() >= 0
    assert noisy[..., 2].max() <= 1
    assert 0.5 < noisy[..., 2].mean() < 0.95


def test_mask_hides_all_channels_in_the_wanted_shares() -> None:
    pose = torch.ones(40, 100, 17, 3)
    draws = detections.count_mask_draws(0, 0, torch.arange(40), STEP, 100, 17)
    found = detections.mask(pose, draws, 0.2, 0.3)
    assert ((found == 0) | (found == 1)).all()
    assert torch.equal(found.amin(-1), found.amax(-1))
    frames = (found == 0).flatten(2).all(-1)
    # The frame mask is shared by the batch.
    assert torch.equal(frames.all(0), frames.any(0))
    assert 0.15 < frames.float().mean() < 0.45
    assert (found[:, ~frames[0]] == 0).float().mean() == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(detections.mask(pose, draws, 0.0, 0.0), pose)


def test_legacy_draws_follow_one_generator() -> None:
    model = noise_model()
    together, apart = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    noise = detections.legacy_draws(2, 9, model, together)
    hidden = detections.legacy_mask_draws(2, 9, 17, together)
    assert torch.equal(noise.selector, torch.rand((2, 27, 17, 1), generator=apart))
    assert torch.equal(noise.gaussian, torch.randn((2, 27, 17, 2), generator=apart))
    assert hidden.frames.shape == (1, 9, 1, 1)
    assert not torch.equal(hidden.joints, detections.legacy_mask_draws(2, 9, 17, together).joints)


def test_layout_without_published_noise_is_named() -> None:
    with pytest.raises(ConfigError, match="humaneva15"):
        noise_model("humaneva15")

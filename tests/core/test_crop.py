"""Crops against a plain form for one clip."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.crop import crop_scale, crop_scale_3d
from kinema.core.skeleton import skeleton
from tests.core.poses import poses, seeds

few = settings(max_examples=25, deadline=None)
ratios = st.sampled_from([0.4, 1.0, 1.7, 3.0])


def clip_of(seed: int, *shape: int) -> np.ndarray:
    """Pixels with scores, a third of them 0."""
    generator = np.random.default_rng(seed)
    clip = generator.uniform(50, 600, (*shape, 3))
    clip[..., 2] = generator.uniform(0, 1, shape) * (generator.random(shape) > 1 / 3)
    return clip


def slow_crop(clip: np.ndarray, ratio: float) -> np.ndarray:
    seen = clip[clip[..., 2] != 0][:, :2]
    if len(seen) < 4:
        return np.zeros_like(clip)
    low, high = seen.min(0), seen.max(0)
    side = (high - low).max() * ratio
    if side == 0:
        return np.zeros_like(clip)
    corner = (low + high - side) / 2
    out = clip.copy()
    out[..., :2] = ((clip[..., :2] - corner) / side - 0.5) * 2
    return np.clip(out, -1, 1)


@few
@given(seeds, ratios)
def test_crop_equals_the_plain_form(seed: int, ratio: float) -> None:
    clip = clip_of(seed, 2, 3, 17)
    np.testing.assert_allclose(crop_scale(torch.from_numpy(clip), ratio), slow_crop(clip, ratio), atol=1e-12)


@few
@given(seeds)
def test_batch_axes_have_a_box_and_a_ratio_of_their_own(seed: int) -> None:
    clips = clip_of(seed, 4, 2, 3, 17)
    clips[1] = 0
    ratio = np.random.default_rng(seed).uniform(1, 3, 4)
    found = crop_scale(torch.from_numpy(clips), torch.from_numpy(ratio), batch_axes=1)
    for i in range(4):
        np.testing.assert_allclose(found[i], slow_crop(clips[i], ratio[i]), atol=1e-12)


def test_persons_keep_their_distance_in_one_box() -> None:
    clip = torch.from_numpy(clip_of(0, 2, 3, 17))
    clip[..., 2] = 1
    together = crop_scale(clip, 1.0)
    scale = (together[0, 0, 0, 0] - together[1, 0, 0, 0]) / (clip[0, 0, 0, 0] - clip[1, 0, 0, 0])
    torch.testing.assert_close((together[0] - together[1])[..., :2], scale * (clip[0] - clip[1])[..., :2])
    torch.testing.assert_close(together[..., :2].abs().amax(), torch.tensor(1.0, dtype=torch.float64))


def test_too_few_points_or_no_extent_give_zeros_and_finite_gradients() -> None:
    few_points, constant = torch.from_numpy(clip_of(0, 3, 17)), torch.full((3, 17, 3), 0.5, dtype=torch.float64)
    few_points[..., 2] = 0
    few_points[0, :3, 2] = 1
    for clip in (few_points, constant):
        clip.requires_grad_()
        found = crop_scale(clip, 1.0)
        assert (found == 0).all()
        found.sum().backward()
        assert clip.grad is not None
        assert clip.grad.isfinite().all()


@few
@given(seeds, ratios)
def test_an_explicit_mask_boxes_depths_and_leaves_absent_persons_zero(seed: int, ratio: float) -> None:
    clip = poses(seed, 2, 4, 6, 3) + 3
    clip[1] = 0
    clip[0, :, 0, 2] = 0  # a depth of 0 is a depth
    present = torch.tensor([True, False])[:, None, None]
    found = crop_scale(torch.from_numpy(clip), ratio, valid=present, depth=True).numpy()
    assert (found[1] == 0).all()
    points = clip[0, ..., :2]
    low, high = points.min((0, 1)), points.max((0, 1))
    side = (high - low).max() * ratio
    np.testing.assert_allclose(found[0, ..., :2], np.clip(2 * (points - (low + high) / 2) / side, -1, 1), atol=1e-12)
    np.testing.assert_allclose(found[0, ..., 2], 2 * clip[0, ..., 2] / side, atol=1e-12)


@few
@given(seeds, ratios)
def test_a_mask_of_the_seen_points_gives_the_published_numbers_of_these(seed: int, ratio: float) -> None:
    clip = torch.from_numpy(clip_of(seed, 3, 2, 3, 17))
    seen = clip[..., 2] != 0
    published = crop_scale(clip, ratio, batch_axes=1)
    masked = crop_scale(clip, ratio, batch_axes=1, valid=seen)
    torch.testing.assert_close(masked[seen], published[seen])
    assert (masked[~seen] == 0).all()


def test_a_mask_of_too_few_points_or_none_gives_zeros() -> None:
    clip = torch.from_numpy(clip_of(1, 3, 17))
    for number in (0, 3):
        valid = torch.zeros(3, 17, dtype=torch.bool)
        valid[0, :number] = True
        assert (crop_scale(clip, 1.0, valid=valid) == 0).all()
    valid[0, :4] = True
    assert (crop_scale(clip, 1.0, valid=valid)[0, :4] != 0).any()


def test_the_published_form_empties_a_planar_clip_and_the_mask_keeps_it() -> None:
    clip = torch.from_numpy(poses(2, 1, 5, 17, 3))
    clip[..., 2] = 0
    everywhere = torch.ones(1, 1, 1, dtype=torch.bool)
    assert (crop_scale(clip, 2.0) == 0).all()
    kept = crop_scale(clip, 2.0, valid=everywhere, depth=True)
    torch.testing.assert_close(kept[..., :2].abs().amax(), torch.tensor(0.5, dtype=torch.float64))


@few
@given(seeds, ratios)
def test_crop_3d_keeps_proportions_and_puts_the_box_at_half_the_ratio(seed: int, ratio: float) -> None:
    body = skeleton("h36m17")
    clip = torch.from_numpy(poses(seed, 2, 5, 17, 3))
    found = crop_scale_3d(clip, body, torch.tensor([ratio, 1.0]), batch_axes=1)
    for i, each in enumerate((ratio, 1.0)):
        extent = (clip[i, ..., :2].amax((0, 1)) - clip[i, ..., :2].amin((0, 1))).max()
        scale = 2 * each / extent
        # The same scale on all axes; the root of the first frame ends at depth -1 (published behaviour).
        torch.testing.assert_close(found[i].diff(dim=0), scale * clip[i].diff(dim=0))
        torch.testing.assert_close(found[i, 0, 0, 2], torch.tensor(-1.0, dtype=torch.float64))
        middle = (found[i, ..., :2].amax((0, 1)) + found[i, ..., :2].amin((0, 1))) / 2
        torch.testing.assert_close(middle, torch.zeros(2, dtype=torch.float64))
    assert (crop_scale_3d(torch.ones(5, 17, 3), body) == 0).all()

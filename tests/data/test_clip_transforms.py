"""Transforms of action clips: what they change, what they leave, and that draws belong to samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kinema.core.crop import crop_scale
from kinema.core.motion import drift, drift_ranges
from kinema.core.skeleton import skeleton
from kinema.data import clip_transforms
from kinema.data.draws import Draws
from kinema.data.transforms import resolve
from kinema.errors import ConfigError
from kinema.inference.flip import mirror_pose

BODY = skeleton("h36m17")


def batch(samples: int = 6, persons: int = 2, frames: int = 9, seed: int = 0) -> dict[str, torch.Tensor]:
    """Clips of which the odd ones have one person."""
    generator = torch.Generator().manual_seed(seed)
    pose = torch.randn(samples, persons, frames, 17, 3, generator=generator)
    there = torch.ones(samples, persons, dtype=torch.bool)
    there[1::2, 1:] = False
    label = torch.arange(samples)
    return {"pose": pose * there[:, :, None, None, None], "persons": there, "label": label, "draw": label.clone()}


def draws(items: dict[str, torch.Tensor], epoch: int = 0, training: bool = True) -> Draws:
    return Draws(3, epoch, items["draw"], items["draw"][:1], training=training)


def apply(entry: Any, items: dict[str, torch.Tensor], **changes: Any) -> dict[str, torch.Tensor]:
    given = {"preprocess": "ma52", "has_3d": True, "skeleton": BODY, **changes}
    training, epoch = given.pop("training", True), given.pop("epoch", 0)
    (function,) = resolve([entry], "augment", **given)
    return function(dict(items), draws(items, epoch, training))


ALL = [
    "random_move", {"crop_scale": {"train": [1.0, 3.0], "test": [2.0, 2.0]}}, {"mirror": {"probability": 0.5}},
    {"turn": {"degrees": 40}}, {"rotate": {"radians": 0.3}}, {"rescale": {"share": 0.1}}, {"shake": {"std": 0.1}},
    {"drop_frames": {"probability": 0.5, "share": 0.3}}, {"drop_part": {"probability": 0.5}},
]  # fmt: skip


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry if isinstance(entry, str) else next(iter(entry)))
def test_a_sample_gets_the_same_in_every_batch_and_absent_persons_stay_zero(entry: Any) -> None:
    whole = batch()
    out = apply(entry, whole)["pose"]
    assert out.shape == whole["pose"].shape
    assert not torch.equal(out, whole["pose"])
    assert not out[1::2, 1].any()
    picked = {key: value[[4, 1]] for key, value in whole.items()}
    assert torch.equal(apply(entry, picked)["pose"], out[[4, 1]])
    assert not torch.equal(apply(entry, whole, epoch=1)["pose"], out)


def test_the_published_form_moves_absent_persons_too() -> None:
    items = batch()
    assert apply("random_move", items, preprocess="ma52_fork")["pose"][1::2, 1].any()
    assert not apply("random_move", items, preprocess="ma52")["pose"][1::2, 1].any()


def test_random_move_is_the_published_drift_with_our_draws() -> None:
    items = batch()
    unit = draws(items).uniform("random_move", (4, 2))
    expected = drift(items["pose"], drift_ranges(unit))
    assert torch.equal(apply("random_move", items, preprocess="ma52_fork")["pose"], expected)


def test_moves_start_from_the_stored_clip_in_every_epoch() -> None:
    items = batch()
    unit = Draws(3, 299, items["draw"], items["draw"][:1]).uniform("random_move", (4, 2))
    expected = drift(items["pose"], drift_ranges(unit))
    assert torch.equal(apply("random_move", items, preprocess="ma52_fork", epoch=299)["pose"], expected)
    with pytest.raises(ConfigError, match=r"random_move has no option 'accumulate'\. It has: angle, scale, shift"):
        apply({"random_move": {"accumulate": True}}, items)


def test_crop_draws_from_the_range_of_the_stage() -> None:
    items = batch()
    entry = {"crop_scale": {"train": [1.0, 3.0], "test": [2.0, 2.0]}}
    tested = apply(entry, items, preprocess="ma52_fork", training=False)["pose"]
    assert torch.equal(tested, crop_scale(items["pose"], torch.full((6,), 2.0), batch_axes=1))
    trained = apply(entry, items, preprocess="ma52_fork")["pose"]
    ratio = 1 + 2 * draws(items).uniform("crop_scale")
    assert torch.equal(trained, crop_scale(items["pose"], ratio, batch_axes=1))


def test_crop_of_two_dimensional_clips_leaves_unseen_points_out_of_the_box() -> None:
    items = batch(persons=1)
    pose = items["pose"].clone()
    pose[..., 2] = 1
    pose[..., 3, :] = torch.tensor([50.0, 50.0, 0.0])  # never seen
    entry = {"crop_scale": {"train": [1.0, 1.0], "test": [1.0, 1.0]}}
    out = apply(entry, {**items, "persons": torch.ones(6, 1, dtype=torch.bool), "pose": pose}, has_3d=False)["pose"]
    seen = out[..., [j for j in range(17) if j != 3], :2]
    assert torch.allclose(seen.amax((1, 2, 3)).max(1).values, torch.ones(6), atol=1e-5)
    assert (out[..., 2] <= 1).all()


def test_mirrored_clips_are_mirror_images() -> None:
    items = batch()
    out = apply({"mirror": {"probability": 1.0}}, items)["pose"]
    assert torch.equal(out, mirror_pose(items["pose"], BODY))


@pytest.mark.parametrize("entry", [{"turn": {"degrees": 180}}, {"rotate": {"radians": 0.5}}])
def test_turns_keep_distances(entry: Any) -> None:
    items = batch()
    out = apply(entry, items)["pose"]
    before, after = (
        torch.cdist(pose, pose, compute_mode="donot_use_mm_for_euclid_dist") for pose in (items["pose"], out)
    )
    assert torch.allclose(before, after, atol=1e-4)
    if "turn" in entry:
        assert torch.allclose(out[..., 2], items["pose"][..., 2])


def test_dropped_parts_and_frames_are_whole_parts_and_blocks() -> None:
    items = batch(samples=64, persons=1)
    items["persons"][:] = True
    items["pose"] = torch.ones_like(items["pose"])
    frames = apply({"drop_frames": {"probability": 1.0, "share": 0.34}}, items)["pose"][:, 0, :, 0, 0]
    assert ((frames == 0).sum(1) == 3).all()
    assert (frames.diff(dim=1).abs().sum(1) <= 2).all()
    parts = apply({"drop_part": {"probability": 1.0}}, items)["pose"][:, 0, 0, :, 0]
    known = {tuple(sorted(joints)) for joints in BODY.tables["parts"].values()}
    found = {tuple(np.flatnonzero(row == 0).tolist()) for row in parts.numpy()}
    assert found == known


def test_mixup_blends_clips_and_says_with_whom() -> None:
    items = batch()
    out = apply({"mixup": {"alpha": 0.4}}, items)
    share = out["mix"][:, None, None, None, None]
    assert torch.allclose(out["pose"], share * items["pose"] + (1 - share) * items["pose"].flip(0))
    assert torch.equal(out["partner"], items["label"].flip(0))
    assert torch.equal(out["persons"], items["persons"] | items["persons"].flip(0))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_of_mixup_have_the_moments_of_the_beta_distribution(alpha: float) -> None:
    unit = (torch.arange(20000) + 0.5) / 20000
    drawn = clip_transforms._beta(unit, alpha).double()
    assert abs(drawn.mean() - 0.5) < 1e-3
    assert abs(drawn.var() - 1 / (4 * (2 * alpha + 1))) < 2e-3
    assert (drawn.diff() >= 0).all()


def test_motion_follows_the_body_through_a_mirror() -> None:
    items = batch()
    items["frames"] = torch.arange(9).repeat(6, 1) * torch.tensor([1, 1, 2, 2, 3, 3])[:, None]
    entry = {"with_motion": {"scale": 10.0}}
    out = apply(entry, items)["pose"]
    assert out.shape[-1] == 6
    assert torch.equal(out[..., :3], items["pose"])
    step = torch.tensor([1, 1, 2, 2, 3, 3])[:, None, None, None, None]
    assert torch.allclose(out[:, :, :-1, :, 3:], 10 * items["pose"].diff(dim=2) / step)
    assert not out[:, :, -1, :, 3:].any()
    mirrored = apply(entry, {**items, "pose": mirror_pose(items["pose"], BODY)})["pose"]
    assert torch.allclose(mirror_pose(out, BODY), mirrored, atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"mixup": {"alpha": 0.0}}, "Use mixup: {alpha: 0.2}"),
        ({"crop_scale": {"train": [3.0, 1.0], "test": [2.0, 2.0]}}, "are no two ratios"),
    ],
)
def test_impossible_options_are_refused(entry: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        apply(entry, batch())


def test_a_skeleton_without_parts_cannot_lose_one() -> None:
    with pytest.raises(ConfigError, match="names none"):
        apply({"drop_part": {"probability": 1.0}}, batch(), skeleton=skeleton("posetrack17"))

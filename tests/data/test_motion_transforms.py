"""Transforms of motion in a room: what they change, what they leave, and that draws belong to windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kinema.core.skeleton import skeleton
from kinema.data import motion_transforms
from kinema.data.draws import Draws
from kinema.data.transforms import TRANSFORMS, resolve
from kinema.errors import ConfigError

BODY = skeleton("h36m17")
LENGTH = 9
Batch = dict[str, torch.Tensor]


def batch(samples: int = 64, frames: int = LENGTH, seed: int = 0) -> Batch:
    pose = torch.randn(samples, frames, 17, 3, generator=torch.Generator().manual_seed(seed))
    valid = torch.ones(samples, frames, dtype=torch.bool)
    return {"pose3d": pose, "valid": valid, "frames": valid.cumsum(1), "draw": torch.arange(samples)}


def apply(entry: Any, items: Batch, epoch: int = 0) -> Batch:
    (function,) = resolve([entry], "augment", skeleton=BODY, length=LENGTH)
    return function(dict(items), Draws(3, epoch, items["draw"], items["draw"][:1] // 16, training=True))


def of(entry: Any, items: Batch, epoch: int = 0) -> torch.Tensor:
    return apply(entry, items, epoch)["pose3d"]


RANDOM = [
    "spin", "mirror_axes", "mirror_body", {"scale_body": {"share": 0.2}},
    {"stretch_time": {"slowest": 0.5, "fastest": 0.9}}, {"motion_noise": {"std": 0.1}},
]  # fmt: skip


@pytest.mark.parametrize("entry", RANDOM, ids=str)
def test_draws_belong_to_windows_and_change_with_the_epoch(entry: Any) -> None:
    items = batch()
    kept = items["pose3d"].clone()
    whole = of(entry, items)
    part = of(entry, {key: value[20:33] for key, value in items.items()})
    torch.testing.assert_close(whole[20:33], part)
    assert torch.equal(whole, of(entry, items))
    assert not torch.equal(whole, of(entry, items, epoch=1))
    assert torch.equal(items["pose3d"], kept)
    changed = (whole - kept).abs().amax((1, 2, 3)) > 1e-6
    assert 0.3 < changed.float().mean() <= 1


def test_a_spin_turns_about_the_vertical_by_any_angle() -> None:
    items = batch(2000, 2)
    turned = of("spin", items)
    torch.testing.assert_close(turned[..., 2], items["pose3d"][..., 2])
    size = [pose.norm(dim=-1) for pose in (items["pose3d"], turned)]
    torch.testing.assert_close(size[0], size[1])
    plane = [torch.view_as_complex(pose[:, :, :, :2].contiguous()) for pose in (items["pose3d"], turned)]
    angle = torch.angle(plane[1] / plane[0])  # one angle for all joints and frames of a window
    first = angle[:, :1, :1]
    assert torch.angle(torch.exp(1j * (angle - first))).abs().max() < 1e-2
    assert np.histogram(first.numpy(), 4, (-np.pi, np.pi))[0].min() > 400
    half = of({"spin": {"probability": 0.5}}, items)
    assert 0.45 < (half == items["pose3d"]).flatten(1).all(1).float().mean() < 0.55


def test_mirrored_axes_keep_left_and_a_mirrored_body_exchanges_it() -> None:
    items = batch(400)
    signs = (of("mirror_axes", items) / items["pose3d"]).round()
    assert (signs == signs[:, :1, :1]).all() and (signs[..., 2] == 1).all()
    kinds = {tuple(sign) for sign in signs[:, 0, 0, :2].int().tolist()}
    assert kinds == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    mirrored = of({"mirror_body": {"probability": 1.0}}, items)
    expected = items["pose3d"][:, :, list(BODY.flip_index)] * torch.tensor([-1.0, 1, 1])
    assert torch.equal(mirrored, expected)
    assert torch.equal(of({"mirror_body": {"probability": 1.0}}, {**items, "pose3d": mirrored}), items["pose3d"])


def test_a_body_is_scaled_as_a_whole() -> None:
    items = batch(500)
    factor = of({"scale_body": {"share": 0.2}}, items) / items["pose3d"]
    one = factor[:, 0, 0, 0]
    torch.testing.assert_close(factor, one[:, None, None, None].expand_as(factor))
    assert 0.8 <= one.min() < 0.82 and 1.18 < one.max() <= 1.2
    with pytest.raises(ConfigError, match=r"share: 0\.1"):
        of({"scale_body": {"share": 1.5}}, items)


def test_stretched_time_plays_at_one_speed_as_far_as_the_frames_last() -> None:
    items = batch(300, frames=14)
    items["pose3d"] = torch.arange(14.0)[None, :, None, None].expand(300, 14, 17, 3).contiguous()
    items["valid"][150:, 11:] = False  # there the speed cannot exceed (11 - 1) / (9 - 1)
    out = apply({"stretch_time": {"slowest": 0.5, "fastest": 1.6}}, items)
    played = out["pose3d"][:, :, 0, 0]
    assert played.shape == (300, LENGTH) and out["valid"].shape == out["frames"].shape == (300, LENGTH)
    assert (played[:, 0] == 0).all()
    speed = played[:, 1:] - played[:, :-1]
    torch.testing.assert_close(speed, speed[:, :1].expand_as(speed), atol=1e-5, rtol=0)
    assert 0.5 <= speed[:, 0].min() < 0.52 and 1.55 < speed[:150, 0].max() <= 1.6001
    assert speed[150:, 0].max() == pytest.approx(10 / 8)
    assert 0.4 < (speed[:150, 0] < (0.5 * 1.6) ** 0.5).float().mean() < 0.6  # as often slower as faster


def test_noise_leaves_the_root() -> None:
    items = batch(200)
    moved = of({"motion_noise": {"std": 0.1}}, items) - items["pose3d"]
    assert not moved[:, :, BODY.root].any()
    assert moved[:, :, 1:].std() == pytest.approx(0.1, rel=0.02)


def test_published_turns_are_one_draw_for_a_batch() -> None:
    items = batch(16)
    relative = items["pose3d"][:, :, 1:] - items["pose3d"][:, :, :1]
    kinds = set()
    for step in range(24):
        now = {**items, "draw": items["draw"] + 16 * step}
        out = apply("published_turns", now)
        turned = out["pose3d"][:, :, 1:] - out["pose3d"][:, :, :1]
        # One matrix for all windows: least squares finds it without a rest.
        solved = torch.linalg.lstsq(relative.reshape(-1, 3).double(), turned.reshape(-1, 3).double())
        matrix = solved.solution
        torch.testing.assert_close(relative.double() @ matrix, turned.double(), atol=1e-5, rtol=0)
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)
        kinds.add((bool((matrix.abs() - torch.eye(3)).abs().max() < 1e-4), round(float(torch.det(matrix)))))
    assert kinds == {(True, 1), (True, -1), (False, 1), (False, -1)}


def test_every_one_is_known_by_its_name() -> None:
    for name, function in motion_transforms.MOTION_TRANSFORMS.items():
        assert TRANSFORMS[name] is function and function.__name__ == name

"""Transforms: what they change, what they leave, and that a sample's draws are its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kinema.core.skeleton import skeleton
from kinema.data import transforms
from kinema.data.draws import Draws, needs
from kinema.data.transforms import resolve
from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.inference.flip import mirror_pose
from tests.data import tiny

BODY = skeleton("h36m17")
GIVEN = {"skeleton": BODY, "skeleton2d": BODY, "channels": 3, "confidence": True, "context": (1, 1)}


def _batch(count: int = 6, channels: int = 3) -> dict[str, torch.Tensor]:
    windows = Windows.chunked(tiny.store(channels=channels), 1, context=(1, 1), keys=("pose2d", "pose3d", "intrinsics"))
    rows = torch.arange(count)
    return windows[torch.stack([rows * 0, rows + 10, rows], dim=1)]


def _draws(batch: dict[str, torch.Tensor], epoch: int = 0) -> Draws:
    return Draws(1, epoch, batch["draw"], batch["draw"][:1] // 4)


def _apply(entry: object, batch: dict[str, torch.Tensor], epoch: int = 0) -> dict[str, torch.Tensor]:
    (function,) = resolve([entry], "augment", **GIVEN)  # type: ignore[list-item]
    return function(batch, _draws(batch, epoch))


def test_flip_equals_the_mirrored_view_of_the_table() -> None:
    store = tiny.store(channels=3)
    windows = Windows.chunked(store, 1, context=(1, 1), both_views=True, keys=("pose2d", "pose3d", "intrinsics"))
    straight, mirrored = (windows[torch.tensor([[0, 0, row]])] for row in (4, 4 + 11))
    flipped = _apply({"flip": {"probability": 1.0}}, straight)
    for key in ("pose2d", "pose3d", "intrinsics", "flip", "valid"):
        assert torch.equal(flipped[key], mirrored[key]), key
    again = _apply({"flip": {"probability": 1.0}}, flipped)
    for key in ("pose2d", "pose3d", "intrinsics", "flip"):
        assert torch.equal(again[key], straight[key]), key


def test_flip_mirrors_its_share_of_samples_and_says_which() -> None:
    batch = _batch(30)
    flipped = _apply({"flip": {"probability": 0.5}}, batch)
    chosen = flipped["flip"]
    assert 5 < int(chosen.sum()) < 25
    assert torch.equal(flipped["pose3d"][~chosen], batch["pose3d"][~chosen])
    assert (flipped["pose3d"][chosen] != batch["pose3d"][chosen]).any(dim=(1, 2, 3)).all()
    other = _apply({"flip": {"probability": 0.5}}, batch, epoch=1)["flip"]
    assert not torch.equal(other, chosen)


@pytest.mark.parametrize(
    "entry", [{"flip": {"probability": 0.5}}, {"noise": {"std": 0.1}}, "motionbert_noise"], ids=str
)
def test_a_sample_does_not_depend_on_its_batch(entry: object) -> None:
    batch = _batch(8)
    whole = _apply(entry, batch)
    part = {key: value[2:7:2] for key, value in batch.items()}
    (function,) = resolve([entry], "augment", **GIVEN)  # type: ignore[list-item]
    alone = function(part, Draws(1, 0, part["draw"], batch["draw"][:1] // 4))
    for key, value in alone.items():
        torch.testing.assert_close(value, whole[key][2:7:2])


def test_noise_moves_the_input_and_leaves_the_target() -> None:
    batch = _batch(30)
    noisy = _apply({"noise": {"std": 0.1}}, batch)
    assert torch.equal(noisy["pose2d"], batch["pose2d"])
    moved = noisy["pose"] - batch["pose2d"]
    assert torch.equal(moved[..., 2], torch.zeros_like(moved[..., 2]))
    assert abs(float(moved[..., :2].std()) - 0.1) < 0.01


def test_pixel_noise_is_of_the_image_and_the_same_for_a_frame_of_the_order() -> None:
    batch = _batch(30) | {"width": torch.tensor([1000, 500]).repeat(15)}
    (function,) = resolve([{"pixel_noise": {"std": 5.0}}], "transforms", **GIVEN)
    assert function.needs == ("width",)
    noisy = function(batch, _draws(batch))
    assert torch.equal(noisy["pose2d"], batch["pose2d"])
    moved = noisy["pose"] - batch["pose2d"]
    assert torch.equal(moved[..., 2], torch.zeros_like(moved[..., 2]))
    for width, rows in ((1000, slice(0, None, 2)), (500, slice(1, None, 2))):
        pixels = moved[rows, ..., :2] * width / 2
        assert abs(float(pixels.std()) - 5) < 0.3 and abs(float(pixels.mean())) < 0.3
    assert torch.equal(function(batch, _draws(batch))["pose"], noisy["pose"])
    part = {key: value[4:9] for key, value in batch.items()}
    alone = function(part, Draws(1, 0, part["draw"], batch["draw"][:1] // 4))
    torch.testing.assert_close(alone["pose"], noisy["pose"][4:9])


def test_relative_input_keeps_the_root_and_enlarges_the_rest() -> None:
    batch = _batch(8)
    made = _apply({"relative_input": {"scale": 4.0}}, batch)
    root = batch["pose2d"][:, :, :1, :2]
    torch.testing.assert_close(made["pose"][:, :, :1, :2], root)
    torch.testing.assert_close(made["pose"][:, :, 1:, :2] / 4 + root, batch["pose2d"][:, :, 1:, :2])
    assert torch.equal(made["pose"][..., 2], batch["pose2d"][..., 2])
    assert torch.equal(made["pose2d"], batch["pose2d"])


def test_relative_input_of_a_mirrored_pose_is_mirrored() -> None:
    batch = _batch(8)
    entry, mirror = {"relative_input": {"scale": 4.0}}, {"flip": {"probability": 1.0}}
    torch.testing.assert_close(
        _apply(entry, _apply(mirror, batch))["pose"], _apply(mirror, _apply(entry, batch))["pose"]
    )


def test_only_transforms_that_write_the_input_tell_networks_apart() -> None:
    relative = {"relative_input": {"scale": 4.0}}
    assert transforms.writing([relative, "pose"]) == transforms.writing(
        [relative, {"noise": {"std": 0.1}}, {"pose": None}]
    )
    assert transforms.writing([relative, "pose"]) != transforms.writing([{"relative_input": {"scale": 2.0}}, "pose"])
    assert transforms.spelt([relative, "pose"]) == "[{relative_input:{scale:4.0}},pose]"


def test_mask_hides_joints_and_whole_frames() -> None:
    batch = _batch(30)
    hidden = _apply({"mask": {"joints": 0.3, "frames": 0.0}}, batch)["pose"]
    gone = (hidden == 0).all(-1)
    assert 0.2 < float(gone.float().mean()) < 0.4
    assert torch.equal(hidden[~gone], batch["pose2d"][~gone])
    frames = _apply({"mask": {"joints": 0.0, "frames": 0.5}}, batch)["pose"]
    gone = (frames == 0).all(-1)
    assert torch.equal(gone.all(-1), gone.any(-1)), "all joints of a frame or none"


def test_detector_noise_gives_scores() -> None:
    made = _apply("motionbert_noise", _batch(channels=2))["pose"]
    assert made.shape[-1] == 3
    assert ((made[..., 2] >= 0) & (made[..., 2] <= 1)).all()
    assert made[..., 2].std() > 0.001


def test_input_from_the_target_is_its_image_with_score_one() -> None:
    batch = {"pose3d": torch.randn(2, 4, 17, 3)}
    made = transforms.pose2d_from_target(batch, None)["pose2d"]  # type: ignore[arg-type]
    assert torch.equal(made[..., :2], batch["pose3d"][..., :2])
    assert (made[..., 2] == 1).all()


@pytest.mark.parametrize(("stored", "channels", "confidence"), [(2, 2, True), (2, 3, True), (3, 2, True), (3, 3, True),
                                                               (3, 3, False)])  # fmt: skip
def test_pose_has_the_channels_of_the_network(stored: int, channels: int, confidence: bool) -> None:
    batch = _batch(channels=stored)
    (function,) = resolve(["pose"], "transforms", channels=channels, confidence=confidence)
    made = function(batch, None)["pose"]
    assert made.shape[-1] == channels
    np.testing.assert_array_equal(made[..., :2], batch["pose2d"][..., :2])
    if channels == 3:
        expected = batch["pose2d"][..., 2] if stored == 3 and confidence else torch.ones(made.shape[:-1])
        np.testing.assert_array_equal(made[..., 2], expected)


def test_a_function_of_another_package_is_named_by_its_path() -> None:
    (function,) = resolve([{"tests.data.test_transforms.outsider": {"factor": 3}}], "augment", **GIVEN)
    batch = _batch()
    assert torch.equal(function(batch, None)["pose"], batch["pose2d"] * 3)
    assert function.needs == ("intrinsics",)  # type: ignore[attr-defined]


@needs("intrinsics")
def outsider(batch: dict[str, torch.Tensor], draws: Draws, *, factor: float, offset: float = 0.0) -> dict:
    return {**batch, "pose": batch["pose2d"] * factor + offset}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("flp", r"dataset\.augment: no transform is called 'flp'. Did you mean 'flip'\?"),
        ("flip", r"flip needs probability"),
        ({"flip": {"probability": 0.5, "axis": 1}}, r"flip has no option 'axis'. It has: probability"),
        ("nowhere.at_all", "cannot be imported"),
    ],
)
def test_wrong_entries_are_named(entry: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve([entry], "augment", **GIVEN)  # type: ignore[list-item]


def _clips() -> dict[str, torch.Tensor]:
    windows = Windows.tiled(tiny.store(channels=3), 6, 3, keys=("pose2d", "pose3d"))
    rows = torch.arange(3)
    return windows[torch.stack([rows * 0, rows, rows], dim=1)]


def test_five_channels_hold_the_way_to_the_next_frame_and_cost_the_last_one() -> None:
    batch = _clips()
    (pose,) = resolve(["pose"], "transforms", **{**GIVEN, "channels": 5, "context": (0, 0)})
    made = pose(batch, _draws(batch))
    assert made["pose"].shape == (3, 5, 17, 5)
    assert torch.equal(made["pose"][..., :3], batch["pose2d"][:, :5])
    for t in range(5):
        assert torch.equal(made["pose"][:, t, :, 3:], batch["pose2d"][:, t + 1, :, :2] - batch["pose2d"][:, t, :, :2])
    for key in ("pose3d", "frames", "valid"):
        assert torch.equal(made[key], batch[key][:, :5]), key
    del batch["pose3d"]  # nothing to judge by: every frame is wanted
    alone = pose(batch, _draws(batch))["pose"]
    assert torch.equal(alone[:, :5], made["pose"])
    assert torch.equal(alone[:, 5, :, 3:], made["pose"][:, 4, :, 3:])


def test_velocities_of_a_mirrored_clip_are_the_mirrored_ones() -> None:
    batch = _clips()
    (flip,) = resolve([{"flip": {"probability": 1.0}}], "augment", **GIVEN)
    (pose,) = resolve(["pose"], "transforms", **{**GIVEN, "channels": 5, "context": (0, 0)})
    straight = pose(batch, _draws(batch))["pose"]
    mirrored = pose(flip(batch, _draws(batch)), _draws(batch))["pose"]
    assert torch.equal(mirrored, mirror_pose(straight, BODY))


def test_velocities_need_clips() -> None:
    batch = _batch()
    (pose,) = resolve(["pose"], "transforms", **{**GIVEN, "channels": 5})
    with pytest.raises(ConfigError, match=r"need clips. Use model.in_channels=3"):
        pose(batch, _draws(batch))

"""Cutting a clip, and the ways from a camera's or an image's axes to a world whose z points up."""

from __future__ import annotations

import numpy as np
import pytest

from kinema.core.camera import recorded_camera, world_to_camera
from kinema.core.preprocess import PREPROCESS, preprocess
from kinema.errors import ConfigError
from kinema.viz.prepare import Clip, from_image, in_world, pixels, turned, unlabelled, upright

RNG = np.random.default_rng(0)


def clip_of(frames: int = 20, fps: float | None = 50.0) -> Clip:
    time = np.arange(frames, dtype=float)
    return Clip(
        keypoints=np.broadcast_to(time[:, None, None], (frames, 17, 2)),
        poses={"Reconstruction": np.broadcast_to(time[:, None, None], (frames, 17, 3))},
        fps=fps,
    )


def test_skip_comes_before_limit_for_keypoints_and_poses_alike() -> None:
    cut = clip_of().cut(5, 4, 1)
    assert cut.keypoints[:, 0, 0].tolist() == [5, 6, 7, 8]
    np.testing.assert_array_equal(cut.poses["Reconstruction"][:, 0, 0], cut.keypoints[:, 0, 0])
    assert len(clip_of().cut(5, -1, 1)) == 15
    assert len(clip_of().cut(15, 100, 1)) == 5


def test_downsampling_averages_groups_drops_the_rest_and_slows_down() -> None:
    cut = clip_of().cut(1, -1, 3)  # frames 1..19: six groups of three, one left over
    assert cut.keypoints[:, 0, 0].tolist() == [2, 5, 8, 11, 14, 17]
    assert cut.fps == pytest.approx(50 / 3)
    assert clip_of(fps=None).cut(0, -1, 2).fps is None


@pytest.mark.parametrize(("skip", "limit", "downsample"), [(20, -1, 1), (0, 0, 1), (0, 3, 4), (0, -1, 0), (-1, 5, 1)])
def test_a_cut_that_leaves_nothing_is_refused(skip: int, limit: int, downsample: int) -> None:
    with pytest.raises(ConfigError, match=r"leave nothing of 20 frames\. Use render\.skip=0"):
        clip_of().cut(skip, limit, downsample)


@pytest.mark.parametrize("name", PREPROCESS)
def test_pixels_come_back_from_network_units(name: str) -> None:
    seen = RNG.uniform(0, 1000, (3, 17, 3)).astype(np.float32)
    there = preprocess(name).to_network(seen, 1280, 720)
    back = pixels(there, preprocess(name), 1280, 720)
    assert back.shape == (3, 17, 2)
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, seen[..., :2], atol=1e-3)


def test_a_world_seen_by_a_camera_is_found_again() -> None:
    camera = recorded_camera("h36m", "S9", 2)
    world = RNG.normal(size=(4, 17, 3)).astype(np.float32)
    seen = world_to_camera(world, camera["orientation"], camera["translation"])
    poses = in_world(seen + np.float32(0.1), seen, camera["orientation"], camera["translation"])
    np.testing.assert_allclose(poses["Ground truth"], world, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(poses["Reconstruction"] - world, axis=-1), 0.1 * np.sqrt(3), atol=1e-5)


def test_without_truth_the_lowest_point_of_all_frames_is_on_the_floor() -> None:
    prediction = RNG.normal(size=(6, 17, 3)).astype(np.float32)
    for orientation in (None, recorded_camera("h36m", "S1", 0)["orientation"]):
        world = unlabelled(prediction, orientation)["Reconstruction"]
        assert world[..., 2].min() == pytest.approx(0, abs=1e-6)
        assert (world[..., 2].min(-1) > 1e-3).sum() == 5  # one value for the sequence, not one per frame


def test_a_level_camera_and_the_studio_agree_about_up() -> None:
    down = np.zeros((1, 1, 3), np.float32)
    down[..., 1] = 1.0
    np.testing.assert_allclose(upright(down)[0, 0], (0, 0, -1))
    # The studio's cameras look down by about ten degrees.
    assert turned(down, recorded_camera("h36m", "S1", 0)["orientation"])[0, 0, 2] < -0.95


def test_image_units_become_a_person_on_the_floor() -> None:
    pose = RNG.normal(size=(5, 17, 3)) * 0.05
    drawn = from_image({"Reconstruction": pose, "Ground truth": pose + 0.01})
    height = np.ptp(drawn["Reconstruction"][..., 2], axis=1).mean()
    assert height == pytest.approx(1.7)
    assert min(value[..., 2].min() for value in drawn.values()) == pytest.approx(0)
    # Both are scaled alike: their distance keeps its proportion to the body.
    apart = np.linalg.norm(drawn["Ground truth"] - drawn["Reconstruction"], axis=-1)
    np.testing.assert_allclose(apart, 0.01 * np.sqrt(3) * 1.7 / np.ptp(pose[..., 1], axis=1).mean())

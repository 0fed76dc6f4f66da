"""Ways from pixels to network units: bits, round trips, batches of sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.preprocess import PREPROCESS, Preprocess, preprocess
from kinema.errors import ConfigError
from tests.core.poses import seeds

few = settings(max_examples=15, deadline=None)
ways = pytest.mark.parametrize("way", PREPROCESS.values(), ids=PREPROCESS)
sizes = st.tuples(st.integers(100, 4000), st.integers(100, 4000))


def pixels(seed: int, width: int, height: int, channels: int = 3) -> np.ndarray:
    x = np.random.default_rng(seed).uniform(0, 1, (4, 17, channels)) * [width, height, 1][:channels]
    return x.astype(np.float32)


@ways
@few
@given(seeds, sizes)
def test_way_and_back_keep_the_confidence(way: Preprocess, seed: int, size: tuple[int, int]) -> None:
    pose = pixels(seed, *size)
    found = way.to_network(pose, *size)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 2], pose[..., 2])
    # float32 keeps 7 digits of a position of at most 4000 pixels.
    np.testing.assert_allclose(way.from_network(found, *size), pose, atol=2e-3)
    image = way.image_to_network(pose, *size)
    np.testing.assert_array_equal(image[..., :2], found[..., :2])
    np.testing.assert_allclose(way.image_from_network(image, *size), pose, atol=2e-3)


@ways
@few
@given(seeds)
def test_all_axes_have_one_scale(way: Preprocess, seed: int) -> None:
    pose = pixels(seed, 1920, 1080).astype(np.float64)
    step = way.image_to_network(pose, 1920, 1080) - way.image_to_network(pose - [3, 3, 3], 1920, 1080)
    np.testing.assert_allclose(step, np.broadcast_to(step[0, 0, 0], step.shape))


@ways
def test_tensors_get_the_numbers_of_arrays_and_a_size_per_clip(way: Preprocess) -> None:
    width, height = np.array([1000, 640]), np.array([1002, 480])
    pose = np.stack([pixels(0, 1000, 1002), pixels(1, 640, 480)])
    arrays = way.image_to_network(pose, width, height)
    tensors = way.image_to_network(torch.from_numpy(pose), torch.from_numpy(width), torch.from_numpy(height))
    assert tensors.dtype == torch.float32
    np.testing.assert_array_equal(tensors.numpy(), arrays)
    for row in range(2):
        np.testing.assert_array_equal(arrays[row], way.image_to_network(pose[row], int(width[row]), int(height[row])))
    back = way.image_from_network(tensors, torch.from_numpy(width), torch.from_numpy(height))
    np.testing.assert_array_equal(back.numpy(), way.image_from_network(arrays, width, height))


@few
@given(seeds)
def test_screen_way_has_the_bits_of_the_published_expression(seed: int) -> None:
    pose = pixels(seed, 1000, 1002, channels=2)
    # As written with numpy: float32 array, python integers, a float64 offset; stored into a float32 array.
    expected = (pose / 1000 * 2 - np.array([1, 1002 / 1000])).astype(np.float32)
    for name in ("videopose3d", "motionbert"):
        np.testing.assert_array_equal(preprocess(name).to_network(pose, 1000, 1002), expected)


def test_origins() -> None:
    corners = np.array([[0.0, 0.0], [1920.0, 1080.0]])
    for name, expected in {
        "videopose3d": [[-1, -0.5625], [1, 0.5625]],
        "motionbert_action": [[-1, -1], [1, 0.125]],
        "motionbert_pixel": [[-16 / 9, -1], [16 / 9, 1]],
    }.items():
        np.testing.assert_allclose(preprocess(name).to_network(corners, 1920, 1080), expected, err_msg=name)


def test_integer_pixels_become_floating() -> None:
    pose = np.array([[[320, 240]]])
    np.testing.assert_allclose(preprocess("videopose3d").to_network(pose, 640, 480), [[[0, 0]]], atol=1e-12)
    found = preprocess("videopose3d").to_network(torch.from_numpy(pose), 640, 480)
    torch.testing.assert_close(found, torch.zeros(1, 1, 2))


def test_unknown_way_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'videopose3d'"):
        preprocess("videopose")

"""Cameras: round trips, batches, and facts of the calibration table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from kinema.core import camera
from kinema.errors import DataError
from tests.core.poses import poses, seeds

few = settings(max_examples=25, deadline=None)


def quaternion(seed: int, *shape: int) -> np.ndarray:
    q = poses(seed, *shape, 4)
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def rig(seed: int, count: int) -> np.ndarray:
    """(count, 9) plausible normalised intrinsics."""
    spread = np.array([0.1, 0.1, 0.05, 0.05, 0.1, 0.1, 0.01, 0.005, 0.005])
    return np.array([2.2, 2.2, 0, 0, -0.2, 0.2, 0, 0, 0]) + spread * poses(seed, count, 9)


def in_front(seed: int, *shape: int) -> np.ndarray:
    """Points 3 to 7 m before the camera, inside its view."""
    return np.random.default_rng(seed).uniform([-1, -1, 3], [1, 1, 7], (*shape, 3))


@few
@given(seeds)
def test_qrot_equals_the_rotation_matrix(seed: int) -> None:
    w, x, y, z = q = quaternion(seed)
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    v = poses(seed + 1, 7, 3)
    np.testing.assert_allclose(camera.qrot(q, v), v @ matrix.T, atol=1e-12)


@few
@given(seeds)
def test_world_to_camera_and_back(seed: int) -> None:
    x = poses(seed, 2, 5, 17, 3)
    outer = quaternion(seed + 1, 2), poses(seed + 2, 2, 3)
    seen = camera.world_to_camera(x, *outer)
    np.testing.assert_allclose(camera.camera_to_world(seen, *outer), x, atol=1e-12)
    # The camera's own centre is the origin of its space.
    np.testing.assert_allclose(camera.world_to_camera(outer[1], *outer), np.zeros((2, 3)), atol=1e-12)


@few
@given(seeds)
def test_one_camera_per_batch_entry_equals_a_loop(seed: int) -> None:
    x = torch.from_numpy(in_front(seed, 3, 4, 17))
    q, t = torch.from_numpy(quaternion(seed + 1, 3)), torch.from_numpy(poses(seed + 2, 3, 3))
    inner = torch.from_numpy(rig(seed, 3))
    for function, parameters in (
        (camera.world_to_camera, (q, t)),
        (camera.camera_to_world, (q, t)),
        (camera.project, (inner,)),
        (camera.project_linear, (inner,)),
    ):
        looped = torch.stack([function(x[i], *(p[i] for p in parameters)) for i in range(3)])
        torch.testing.assert_close(function(x, *parameters), looped)


@few
@given(seeds)
def test_project_equals_the_published_formula_point_by_point(seed: int) -> None:
    points, (fx, fy, cx, cy, k1, k2, k3, p1, p2) = in_front(seed, 6), rig(seed, 1)[0]
    found = camera.project(points, rig(seed, 1)[0])
    for (x, y, z), uv in zip(points, found, strict=True):
        a, b = np.clip([x / z, y / z], -1, 1)
        r2 = a * a + b * b
        factor = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * a + p2 * b
        np.testing.assert_allclose(uv, [fx * (a * factor + p1 * r2) + cx, fy * (b * factor + p2 * r2) + cy])


@few
@given(seeds)
def test_without_distortion_both_projections_agree(seed: int) -> None:
    inner = rig(seed, 2)
    inner[:, 4:] = 0
    x = in_front(seed, 2, 17)
    np.testing.assert_allclose(camera.project(x, inner), camera.project_linear(x, inner), atol=1e-12)


@few
@given(seeds)
def test_mirrored_camera_sees_the_mirrored_body(seed: int) -> None:
    x, inner = in_front(seed, 2, 17), rig(seed, 2)
    mirrored = inner.copy()
    mirrored[:, [2, 7]] *= -1  # cx, p1
    expected = camera.project(x, inner) * [-1, 1]
    np.testing.assert_allclose(camera.project(x * [-1, 1, 1], mirrored), expected, atol=1e-12)


def test_projection_has_finite_gradient_outside_the_view() -> None:
    x = torch.tensor([[5.0, 0.0, 1.0], [0.1, 0.1, -2.0]], requires_grad=True)
    camera.project(x, torch.from_numpy(rig(0, 1)[0]).float()).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@few
@given(seeds)
def test_pixels_and_screen_are_inverse(seed: int) -> None:
    pixels = np.random.default_rng(seed).uniform(0, 1000, (4, 17, 2))
    screen = camera.normalise_screen(pixels, 1000, 1002)
    np.testing.assert_allclose(camera.to_pixels(screen, 1000, 1002), pixels, atol=1e-9)


def test_screen_corners() -> None:
    corners = np.array([[0.0, 0.0], [640.0, 480.0], [320.0, 240.0]])
    expected = [[-1, -0.75], [1, 0.75], [0, 0]]
    np.testing.assert_allclose(camera.normalise_screen(corners, 640, 480), expected, atol=1e-12)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["arrays", "tensors"])
def test_one_size_per_leading_entry(kind: type) -> None:
    x = np.random.default_rng(0).uniform(0, 1000, (2, 5, 17, 2)).astype(np.float32)
    width, height = kind([1000, 640]), kind([1002, 480])
    found = camera.normalise_screen(kind(x), width, height)
    for row, (w, h) in enumerate([(1000, 1002), (640, 480)]):
        np.testing.assert_array_equal(found[row], camera.normalise_screen(x[row], w, h))
    np.testing.assert_allclose(camera.to_pixels(found, width, height), x, atol=1e-4)


def test_intrinsics_follow_the_table_of_packed_values() -> None:
    table = camera.camera_table()["h36m"]
    found = np.stack([camera.intrinsics_vector(entry) for entry in table["intrinsics"]])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, table["intrinsic_vector_normalised"]["values"], rtol=1e-6, atol=1e-8)


def test_recorded_cameras_stand_around_the_subject_in_metres() -> None:
    for subject in ("S1", "S9", "S11"):
        for index in range(4):
            entry = camera.recorded_camera("h36m", subject, index)
            assert np.linalg.norm(entry["orientation"]) == pytest.approx(1, abs=1e-6)
            assert 3 < np.linalg.norm(entry["translation"]) < 8
            # The origin of the world, on the floor between them, is seen.
            seen = camera.project(
                camera.world_to_camera(np.zeros(3, np.float32), entry["orientation"], entry["translation"]),
                entry["intrinsics"],
            )
            assert np.abs(seen).max() < 1


def test_unreleased_calibrations_are_none_and_unknown_cameras_are_refused() -> None:
    unlabelled = camera.recorded_camera("h36m", "S2", 1)
    assert unlabelled["orientation"] is None
    assert unlabelled["width"] == 1000
    assert camera.recorded_camera("humaneva15", "Train/S1", 0)["intrinsics"] is None
    with pytest.raises(DataError, match="No camera 4 of h36m"):
        camera.recorded_camera("h36m", "S1", 4)

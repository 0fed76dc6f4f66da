"""The four-camera rig around the floor, and a detector that finds keypoints the way real ones do: not exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinema.core.camera import camera_table, intrinsics_vector
from kinema.core.skeleton import Skeleton
from kinema.data.synthetic.skeleton import smooth


@dataclass(frozen=True)
class Camera:
    """One camera of the rig.

    Attributes:
        intrinsics: (9,) float32, normalised as in `core/camera.py`.
        orientation: (4,) float32 unit quaternion (w, x, y, z) of the camera-to-world rotation.
        translation: (3,) float32 camera centre, metres.
        azimuth: degrees around the world's z axis, where the camera stands.
        width, height: of its picture, pixels.
    """

    intrinsics: np.ndarray
    orientation: np.ndarray
    translation: np.ndarray
    azimuth: float
    width: int
    height: int


def rig(rng: np.random.Generator) -> list[Camera]:
    """Set up four cameras in the corners of a room, each time a little differently.

    Lenses and directions are those of the Human3.6M studio; distance, height and aim are drawn around its values.
    """
    cameras = []
    for lens in camera_table()["h36m"]["intrinsics"]:
        azimuth = lens["azimuth"] + rng.uniform(-6.0, 6.0)
        distance, height = rng.uniform(5.3, 5.9), rng.uniform(1.40, 1.70)
        place = np.array((distance * np.cos(np.deg2rad(azimuth)), distance * np.sin(np.deg2rad(azimuth)), height))
        target = np.array((*rng.uniform(-0.08, 0.08, 2), rng.uniform(0.95, 1.10)))
        cameras.append(
            Camera(
                intrinsics=intrinsics_vector(lens),
                orientation=_looking(target - place).astype(np.float32),
                translation=place.astype(np.float32),
                azimuth=float(azimuth),
                width=int(lens["res_w"]),
                height=int(lens["res_h"]),
            )
        )
    return cameras


def _looking(direction: np.ndarray) -> np.ndarray:
    """Quaternion (w, x, y, z) of a level camera (x right, y down, z forward) that looks along a world direction."""
    forward = direction / np.linalg.norm(direction)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    matrix = np.stack((right, np.cross(forward, right), forward), -1)
    # A level camera turns by about a third around every axis, so none of these vanishes.
    signs = np.array(((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)))
    size = 0.5 * np.sqrt(np.maximum(1.0 + signs @ np.diagonal(matrix), 0.0))
    size[1:] *= np.sign((matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]))
    return np.asarray(size / np.linalg.norm(size))


# Pixels of error of a person who fills a 1000-pixel picture as in the rig; small for joints that are easy to see.
_ERROR = {"pelvis": 4.5, "hip": 4.5, "knee": 4.0, "ankle": 4.5, "spine": 4.5, "thorax": 3.5, "nose": 2.5, "head": 3.0,
          "shoulder": 3.5, "elbow": 4.5, "wrist": 5.5}  # fmt: skip


def detect(
    pixels: np.ndarray, skeleton: Skeleton, rng: np.random.Generator, fps: float, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Imitate a 2D detector on exact keypoints.

    Errors are part jitter, part slow drift; each joint is now and then lost for a few tenths of a second, outer joints
    more often, and then guessed far off with a low score.

    Args:
        pixels: (T, J, 2) exact keypoints.
        skeleton: of the keypoints.
        rng: draws.
        fps: frames per second.
        strength: factor on all errors.

    Returns:
        (T, J, 2) keypoints in pixels and (T, J) scores in (0, 1).
    """
    base = np.array([_ERROR[joint.split("_")[-1]] for joint in skeleton.joints]) * rng.uniform(0.8, 1.25)
    shape = pixels.shape
    jitter = _noise(rng, shape, 0.7)
    drift = _noise(rng, shape, max(0.12 * fps, 0.7))
    # Losses begin about every 12 s per joint (every 6 s for wrists) and fade in and out.
    begins = rng.random(shape[:2]) < (base / 4.5) ** 2 / (12.0 * fps)
    lost = np.clip(smooth(begins.astype(float), 0.10 * fps) * (0.25 * fps), 0.0, 1.0)
    spread = base * (0.55 + 5.0 * lost)
    error = strength * (spread[..., None] * (0.6 * jitter + 0.8 * drift))
    distance = np.linalg.norm(error, axis=-1)
    score = 0.96 - 0.55 * lost - 0.25 * np.tanh(distance / 20.0) + 0.03 * rng.standard_normal(shape[:2])
    return pixels + error, np.clip(score, 0.02, 0.99)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> np.ndarray:
    """Normal noise of deviation 1 that is smooth over a width in frames."""
    # White noise smoothed by a Gaussian keeps the deviation (2 width sqrt(pi))^-1/2.
    return smooth(rng.standard_normal(shape), width) * np.sqrt(2 * width * np.sqrt(np.pi))

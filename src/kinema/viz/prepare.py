"""From a prediction to what is drawn: keypoints in pixels, poses in a world whose z axis points up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from kinema.core.camera import camera_to_world
from kinema.core.preprocess import Preprocess
from kinema.errors import ConfigError

# Viewer of poses turned by `upright`: almost from the camera, a little from the side so that depth shows.
LEVEL_AZIMUTH = -70.0
# Drawn height of a body whose pose has no unit, metres.
_BODY = 1.7


@dataclass(frozen=True)
class Clip:
    """One sequence ready to be drawn.

    Attributes:
        keypoints: (T, J2, 2) pixels.
        poses: title -> (T, J, 3) metres in the world, z up; the prediction first.
        viewport: (width, height) of the picture, pixels.
        azimuth: of the camera around the world, degrees.
        fps: frames per second, None where unknown.
    """

    keypoints: np.ndarray
    poses: dict[str, np.ndarray] = field(default_factory=dict)
    viewport: tuple[int, int] = (1000, 1000)
    azimuth: float = 70.0
    fps: float | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    def cut(self, skip: int, limit: int, downsample: int) -> Clip:
        """Drop the first `skip` frames, keep `limit` at most (-1 = all), then average every `downsample` frames.

        Frames left over by averaging are dropped; keypoints and all poses are treated alike.

        Raises:
            ConfigError: for values that leave no frame.
        """
        end = len(self) if limit < 0 else skip + limit
        kept = len(self.keypoints[skip:end]) if skip >= 0 else 0
        if downsample < 1 or kept < downsample:
            raise ConfigError(
                f"render.skip={skip} render.limit={limit} render.downsample={downsample} leave nothing of {len(self)} "
                f"frames. Use render.skip=0 render.limit=-1 render.downsample=1."
            )

        def part(values: np.ndarray) -> np.ndarray:
            values = values[skip:end]
            groups = values[: len(values) // downsample * downsample]
            return groups.reshape(-1, downsample, *values.shape[1:]).mean(1) if downsample > 1 else values

        return replace(
            self,
            keypoints=part(self.keypoints),
            poses={name: part(pose) for name, pose in self.poses.items()},
            fps=None if self.fps is None else self.fps / downsample,
        )


def pixels(pose2d: np.ndarray, way: Preprocess, width: float, height: float) -> np.ndarray:
    """Keypoints (T, J, 2) of network input (T, J, 2 or 3), pixels, float64."""
    return way.from_network(np.asarray(pose2d[..., :2], np.float64), width, height)


def in_world(
    prediction: np.ndarray, truth: np.ndarray, orientation: np.ndarray, translation: np.ndarray
) -> dict[str, np.ndarray]:
    """Move a prediction and the truth, (T, J, 3) metres in camera space, into the world.

    Args:
        prediction: at the place of its root.
        truth: likewise.
        orientation: (4,) of the camera.
        translation: (3,) of the camera, metres.

    Source: VideoPose3D, run.py (rendering).
    """
    return {
        "Reconstruction": camera_to_world(prediction, orientation, translation),
        "Ground truth": camera_to_world(truth, orientation, translation),
    }


def turned(pose: np.ndarray, orientation: np.ndarray | None) -> np.ndarray:
    """Turn poses (T, J, 3) of a camera so that z points up; without an orientation (4,) the camera counts as level."""
    if orientation is None:
        return upright(pose)
    return camera_to_world(pose, orientation, np.zeros(3, pose.dtype))


def unlabelled(prediction: np.ndarray, orientation: np.ndarray | None) -> dict[str, np.ndarray]:
    """Turn a prediction (T, J, 3) in camera space upright, its lowest point on the floor.

    Args:
        prediction: metres, with or without trajectory.
        orientation: (4,) of a camera that stood likewise; None = a level one.

    Source: VideoPose3D, run.py: a known camera's orientation, the lowest point of the whole sequence at z = 0.
    """
    return {"Reconstruction": on_floor(turned(prediction, orientation))}


def on_floor(world: np.ndarray) -> np.ndarray:
    """Move a sequence (T, J, 3) so that its lowest point is at z = 0."""
    return world - np.array((0.0, 0.0, world[..., 2].min()), world.dtype)


def upright(pose: np.ndarray) -> np.ndarray:
    """Turn poses (..., 3) of a level camera (x right, y down, z forward) so that z points up and y away from it."""
    return np.stack((pose[..., 0], pose[..., 2], -pose[..., 1]), -1)


def from_image(poses: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Poses (T, J, 3) in image units, upright, on the floor, and scaled alike to the height of a person.

    The unit differs from frame to frame with the distance of the person, so the mean height over all frames counts.
    """
    turned = {name: upright(pose) for name, pose in poses.items()}
    first = next(iter(turned.values()))
    height = float(np.mean(first[..., 2].max(-1) - first[..., 2].min(-1)))
    scale = _BODY / max(height, 1e-6)
    floor = min(float(pose[..., 2].min()) for pose in turned.values())
    return {
        name: (pose - np.array((0.0, 0.0, floor), pose.dtype)) * np.asarray(scale, pose.dtype)
        for name, pose in turned.items()
    }

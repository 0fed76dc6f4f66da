"""Ways from pixels to network units and back, by the name that a dataset's yaml and a checkpoint state.

Every way scales both axes alike by one side of the image and shifts them. Arrays in, arrays out, tensors in, tensors
out, in the type of the input. (The wild mode that fits the box of a motion is `crop_scale` in `crop.py`: it needs no
image size and cannot be undone.)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from kinema.core.camera import Size, from_pixels, into_pixels, wide
from kinema.errors import ConfigError

Array = TypeVar("Array", np.ndarray, Tensor)
# (width, height) to (side, (offset of x, offset of y)); numbers, arrays or tensors.
Frame = Callable[[Any, Any], tuple[Any, tuple[Any, Any]]]


@dataclass(frozen=True)
class Preprocess:
    """One way from pixels to network units: x / side * 2 - offset.

    float32 input is divided and doubled in float32, shifted in float64 and stored as float32, which gives the bits of
    the published programs.

    Attributes:
        name: in yaml and checkpoints.
        frame: (width, height) to (side, (offset of x, offset of y)).
    """

    name: str
    frame: Frame

    def to_network(self, pose2d: Array, width: Size, height: Size) -> Array:
        """Normalise a 2D pose; a confidence channel passes unchanged.

        Args:
            pose2d: (..., J, 2 or 3) pixels.
            width: pixels; a number, or one per leading entry of the pose (B,).
            height: likewise.
        """
        return _joined(from_pixels(pose2d[..., :2], *self._sizes(pose2d, width, height)), pose2d)

    def from_network(self, pose2d: Array, width: Size, height: Size) -> Array:
        """Inverse of `to_network`."""
        return _joined(into_pixels(pose2d[..., :2], *self._sizes(pose2d, width, height)), pose2d)

    def image_to_network(self, pose3d: Array, width: Size, height: Size) -> Array:
        """Normalise a 2.5D pose (..., J, 3), x, y and depth in pixels; depth is scaled like x and not shifted."""
        side, (x, y) = self._sizes(pose3d, width, height)
        return _joined(from_pixels(pose3d, side, (x, y, 0)), pose3d)

    def image_from_network(self, pose3d: Array, width: Size, height: Size) -> Array:
        """Inverse of `image_to_network`: x, y and depth in pixels."""
        side, (x, y) = self._sizes(pose3d, width, height)
        return _joined(into_pixels(pose3d, side, (x, y, 0)), pose3d)

    def _sizes(self, pose: Array, width: Size, height: Size) -> tuple[Any, tuple[Any, Any]]:
        # Integer tensors would divide to float32.
        return self.frame(wide(pose, width), wide(pose, height))


def preprocess(name: str) -> Preprocess:
    """Return a way by name.

    Raises:
        ConfigError: for an unknown name, with the nearest known one.
    """
    if name in PREPROCESS:
        return PREPROCESS[name]
    near = difflib.get_close_matches(name, PREPROCESS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(PREPROCESS)}."
    raise ConfigError(f"No preprocessing is called {name!r}. {hint}")


def _by_width(width: Any, height: Any) -> tuple[Any, tuple[Any, Any]]:
    return width, (1, height / width)


def _by_longest_side(width: Any, height: Any) -> tuple[Any, tuple[Any, Any]]:
    # Published behaviour: 1 is subtracted on both axes, so the short one is not centred.
    return _maximum(width, height), (1, 1)


def _by_shortest_side(width: Any, height: Any) -> tuple[Any, tuple[Any, Any]]:
    side = -_maximum(-width, -height)
    return side, (width / side, height / side)


def _maximum(a: Any, b: Any) -> Any:
    return torch.maximum(a, b) if isinstance(a, Tensor) else np.maximum(a, b)


_WAYS = (
    # VideoPose3D, common/camera.py: x in [-1, 1], aspect ratio kept. Used by PoseFormer and its kin.
    Preprocess("videopose3d", _by_width),
    # MotionBERT, lib/data/datareader_h36m.py: the same numbers; outputs are 2.5D in these units.
    Preprocess("motionbert", _by_width),
    # MotionBERT, lib/data/dataset_action.py (make_cam).
    Preprocess("motionbert_action", _by_longest_side),
    # MotionBERT, infer_wild.py with --pixel: origin in the image centre, outputs convert to pixels.
    Preprocess("motionbert_pixel", _by_shortest_side),
)
PREPROCESS: dict[str, Preprocess] = {way.name: way for way in _WAYS}


def _joined(points: Array, pose: Array) -> Array:
    """Points in the type of the pose, followed by the channels of the pose beyond them."""
    rest = pose[..., points.shape[-1] :]
    if isinstance(points, Tensor):
        return torch.cat([points.to(rest.dtype if rest.is_floating_point() else torch.float32), rest], dim=-1)
    kind = pose.dtype if np.issubdtype(pose.dtype, np.floating) else np.dtype(np.float64)
    return np.concatenate([points.astype(kind), rest.astype(kind)], axis=-1)

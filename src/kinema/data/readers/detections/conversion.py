"""From a file's points to what a network takes: unit, layout, network units; frame by frame where the size is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kinema.core.crop import crop_scale
from kinema.core.layouts import convert, find, layout_of
from kinema.core.preprocess import preprocess
from kinema.core.skeleton import Skeleton, skeleton
from kinema.errors import ConfigError, DataError

UNITS = ("pixel", "normalised", "screen")
# Columns of MediaPipe's landmarks x, y, z, visibility (, presence) that are kept.
_LANDMARK = (0, 1, 3)


@dataclass(frozen=True)
class Conversion:
    """From a detector's points to network units.

    Attributes:
        layout: order of the points; None = the network's own, or by their number.
        skeleton2d: what the network takes.
        preprocessing: name in `core/preprocess.py`.
        width, height: of the image in pixels, None or 0 = unknown.
        rule: of the conversion between layouts, see `core/layouts.py`.
        unit: "pixel", "normalised" (0 to 1 of width and height), "screen" (-1 to 1 of the width, as VideoPose3D's);
            None = pixels.
    """

    layout: str | None
    skeleton2d: Skeleton
    preprocessing: str
    width: int | None
    height: int | None
    rule: str = "plain"
    unit: str | None = None

    def __post_init__(self) -> None:
        for key, value in (("width", self.width), ("height", self.height)):
            if value is not None and (not isinstance(value, (int, float)) or value < 0):
                raise ConfigError(f"predict.{key}={value} is no number of pixels. Use predict.{key}=1920.")
        if self.unit is not None and self.unit not in UNITS:
            raise ConfigError(f"predict.unit={self.unit} is not known. Use one of {', '.join(UNITS)}, or null.")
        if self.layout is not None:
            find(self.layout, self.skeleton2d.name, "plain" if self.layout == self.skeleton2d.name else self.rule)

    @property
    def by_frame(self) -> bool:
        """Whether a frame is converted without the others: not where the box of the whole motion is fitted."""
        return bool(self.width and self.height)

    def of_size(self, width: int | None, height: int | None) -> Conversion:
        """The same for images of another size."""
        return replace(self, width=width, height=height)

    def order(self, joints: int, path: Path) -> str:
        """Layout of points, of which there are so many.

        Raises:
            DataError: the number of joints does not fit.
        """
        try:
            layout = self.layout or layout_of(joints, self.skeleton2d)
        except DataError as error:
            raise DataError(f"{path} has {error}") from None
        if joints != len(skeleton(layout)):
            try:
                remedy = f"Use predict.layout={layout_of(joints, self.skeleton2d)}."
            except DataError as error:
                remedy = str(error)
            raise DataError(f"{path} has {joints} joints, {len(skeleton(layout))} expected ({layout}). {remedy}")
        return layout

    @staticmethod
    def columns(points: np.ndarray, layout: str) -> np.ndarray:
        """Of points (T, J, 2 or more), x, y and score: (T, J, 2 or 3)."""
        return points[..., list(_LANDMARK)] if layout == "mediapipe33" and points.shape[-1] > 3 else points

    def pixels(self, points: np.ndarray, path: Path, layout: str) -> np.ndarray:
        """Points (T, J, 2 or more) in pixels, with the score as third channel: (T, J, 2 or 3).

        Raises:
            DataError: another unit, and the size of the images is not known.
        """
        points = self.columns(points, layout)
        if self.unit in (None, "pixel"):
            return points
        if not (self.width and self.height):
            raise DataError(
                f"{path} holds {self.unit} coordinates, and the size of the images is not known. Add "
                "predict.width=1920 predict.height=1080 with your numbers."
            )
        if self.unit == "screen":
            return preprocess("videopose3d").from_network(points, self.width, self.height)
        size = np.array([self.width, self.height, 1.0])[: points.shape[-1]]
        return np.asarray(points * size.astype(np.result_type(points, np.float32)))

    def joints(self, points: np.ndarray, path: Path, layout: str) -> np.ndarray:
        """Points (T, J, 2 or 3) of a layout in the joints that the network takes: (T, J2, 2 or 3), pixels still.

        Raises:
            DataError: joints that cannot be made of these.
        """
        rule = "plain" if layout == self.skeleton2d.name else self.rule
        try:
            return np.asarray(convert(points, layout, self.skeleton2d.name, rule=rule))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def network(self, points: np.ndarray, path: Path, layout: str) -> np.ndarray:
        """Pixels (T, J, 2 or 3) of a layout in network units: (T, J2, 2 or 3) float32.

        Raises:
            DataError: a missing image size, or joints that cannot be made of these.
        """
        points = self.joints(points, path, layout)
        return _normalised(points.astype(np.float32), path, self.preprocessing, self.width, self.height)

    def __call__(self, points: np.ndarray, path: Path) -> np.ndarray:
        """Convert (T, J, C) as stored to (T, J2, 2 or 3) float32; `path` is for messages.

        Raises:
            DataError: for joints that do not fit, and for a missing image size.
        """
        layout = self.order(points.shape[1], path)
        return self.network(self.pixels(points, path, layout), path, layout)


def _normalised(points: np.ndarray, path: Path, name: str, width: int | None, height: int | None) -> np.ndarray:
    if width and height:
        return np.asarray(preprocess(name).to_network(points, width, height), dtype=np.float32)
    if name == "motionbert":  # published behaviour: the box of the whole clip, lib/data/dataset_wild.py
        import torch

        scored = points if points.shape[-1] == 3 else np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)
        return crop_scale(torch.from_numpy(scored)).numpy()
    raise DataError(
        f"{path} does not say how large the images are. Add predict.width=1920 predict.height=1080 with your numbers."
    )

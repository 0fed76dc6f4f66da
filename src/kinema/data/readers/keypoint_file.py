"""Keypoints of one's own video as one file: arrays, VideoPose3D's custom npz, or AlphaPose results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kinema.core.crop import crop_scale
from kinema.core.keypoints import coco_to_h36m, halpe_to_h36m
from kinema.core.preprocess import preprocess
from kinema.core.skeleton import Skeleton
from kinema.data.readers.tracks_2d import alphapose
from kinema.data.safe_pickle import existing, load_npz
from kinema.data.sequences import ArrayStore, Sequences
from kinema.errors import DataError

SUFFIXES = (".npz", ".npy", ".json")
# Known by their number of points; 17 points can be Human3.6M's or COCO's, so the caller says which.
_TO_H36M = {"coco17": coco_to_h36m, "halpe26": halpe_to_h36m}
_PART = 4096  # frames looked at together


def read(
    path: Path,
    *,
    layout: str,
    skeleton2d: Skeleton,
    preprocessing: str,
    width: int | None,
    height: int | None,
    track: int | None,
    fps: float | None,
) -> Sequences:
    """Read pixel keypoints and bring them to network units.

    Args:
        path: .npy or .npz with arrays (T, J, 2) of pixels or (T, J, 3) with a score, VideoPose3D's
            data_2d_custom_NAME.npz, or AlphaPose's json.
        layout: order of the points in arrays: "h36m17", "coco17" or "halpe26"; json is Halpe-26.
        skeleton2d: what the network takes.
        preprocessing: name in `core/preprocess.py`.
        width, height: of the image in pixels; None = as the file says, else the box of the keypoints where the
            preprocessing is MotionBERT's (its in-the-wild mode).
        track: person of an AlphaPose file; None = all entries in file order.
        fps: frames per second, for the table.

    Returns:
        Sequences without 3D, one per array of the file.

    Raises:
        DataError: for a file of another kind, other joints, NaN, or a missing image size.
    """
    conversion = Conversion(layout, skeleton2d, preprocessing, width, height)
    items = []
    for name, points, size in _tracks(existing(path), layout, track):
        points = _checked(points, path, name, layout)
        own = conversion.of_layout("halpe26") if path.suffix == ".json" else conversion
        wide, high = (width, height) if width and height else size
        pose = own.of_size(wide, high)(points, path, name)
        items.append({"pose2d": pose, **_row(name, fps, wide, high)})
    return Sequences.from_arrays(items, skeleton2d=skeleton2d, space="camera")


@dataclass(frozen=True)
class Conversion:
    """From a detector's points in pixels to network units.

    Attributes:
        layout: order of the points: "h36m17", "coco17" or "halpe26".
        skeleton2d: what the network takes.
        preprocessing: name in `core/preprocess.py`.
        width, height: of the image in pixels, None or 0 = unknown.
    """

    layout: str
    skeleton2d: Skeleton
    preprocessing: str
    width: int | None
    height: int | None

    @property
    def by_frame(self) -> bool:
        """Whether a frame is converted without the others: not where the box of the whole motion is fitted."""
        return bool(self.width and self.height)

    def of_layout(self, layout: str) -> Conversion:
        """The same with points in another order."""
        return replace(self, layout=layout)

    def of_size(self, width: int | None, height: int | None) -> Conversion:
        """The same for images of another size."""
        return replace(self, width=width, height=height)

    def __call__(self, points: np.ndarray, path: Path, name: str) -> np.ndarray:
        """Convert (T, J, 2 or 3) pixels to (T, J2, 2 or 3) float32; `path` and `name` are for messages.

        Raises:
            DataError: for joints that do not fit, and for a missing image size.
        """
        if self.layout != self.skeleton2d.name:
            if self.layout not in _TO_H36M or self.skeleton2d.name != "h36m17":
                raise DataError(
                    f"{path} holds {self.layout} points and the network takes {self.skeleton2d.name}. "
                    f"Convert them, or say what they are: predict.layout={self.skeleton2d.name}."
                )
            points = np.asarray(_TO_H36M[self.layout](points))
        if points.shape[1] != len(self.skeleton2d):
            raise DataError(
                f"{path}: {name} has {points.shape[1]} joints, {len(self.skeleton2d)} expected "
                f"({self.skeleton2d.name}). Name its layout: predict.layout=coco17 or halpe26."
            )
        return _normalised(points.astype(np.float32), path, self.preprocessing, self.width, self.height)


def mapped(path: Path, conversion: Conversion, fps: float | None) -> Sequences | None:
    """Map the points of a .npy file as they are, pixels, for a program that converts them part by part.

    Returns:
        One sequence whose `pose2d` waits for `conversion`; None where the file has to be read whole: another kind of
        file, columns first, or a box of the whole motion to be fitted.

    Raises:
        DataError: for NaN and normalised coordinates, looked for part by part.
    """
    if path.suffix != ".npy" or not conversion.by_frame:
        return None
    points = _array(existing(path), mmap_mode="r")
    if not points.flags.c_contiguous:
        return None
    points = np.asarray(_checked(points, path, path.stem, conversion.layout))
    row = _row(path.stem, fps, conversion.width, conversion.height)
    made = Sequences.from_arrays([{"pose2d": points[:1], **row}], skeleton2d=conversion.skeleton2d, space="camera")
    made.table["length"][0] = len(points)
    return made.replace(arrays=ArrayStore(len(points), {"pose2d": points}))


def _row(name: str, fps: float | None, width: int | None, height: int | None) -> dict[str, Any]:
    return {
        "subject": name,
        "action": "custom",
        "camera": "0",
        "fps": float(fps or 0.0),
        "width": int(width or 0),
        "height": int(height or 0),
    }


def _tracks(path: Path, layout: str, track: int | None) -> Iterator[tuple[str, np.ndarray, tuple[int, int]]]:
    """Name, points and image size (0 where unknown) of every sequence in a file."""
    unknown = (0, 0)
    if path.suffix == ".json":
        yield path.stem, alphapose(path, track), unknown
    elif path.suffix == ".npy":
        yield path.stem, _array(path), unknown
    elif path.suffix == ".npz":
        content = load_npz(path)
        if "positions_2d" in content:
            sizes = dict(content.get("metadata") or {}).get("video_metadata", {})
            for video, actions in content["positions_2d"].items():
                size = sizes.get(video, {})
                for cameras in actions.values():
                    yield str(video), np.asarray(cameras[0]), (int(size.get("w", 0)), int(size.get("h", 0)))
        else:
            for name, points in content.items():
                yield name, np.asarray(points), unknown
    else:
        raise DataError(f"{path} has an unknown suffix. Known keypoint files: {', '.join(SUFFIXES)}.")


def _array(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    try:
        return np.asanyarray(np.load(path, allow_pickle=False, mmap_mode=mmap_mode))
    except ValueError as error:
        raise DataError(f"{path} is no plain array file ({error}). Save it with numpy.save(path, points).") from None


def _checked(points: np.ndarray, path: Path, name: str, layout: str) -> np.ndarray:
    if points.ndim != 3 or points.shape[-1] not in (2, 3) or not np.issubdtype(points.dtype, np.number):
        raise DataError(
            f"{path}: {name} has shape {points.shape}, expected (frames, joints, 2) or (frames, joints, 3): x and y in "
            f"pixels and a score. Choose or reshape the array."
        )
    if not len(points):
        raise DataError(f"{path}: {name} holds no frames. Detect keypoints first.")
    missing, first, reach = 0, 0, 0.0
    for start in range(0, len(points), _PART):  # a mapped file is never held whole
        part = points[start : start + _PART]
        bad = ~np.isfinite(part).all((1, 2))
        if bad.any():
            first = first if missing else start + int(bad.argmax())
            missing += int(bad.sum())
        reach = max(reach, float(np.abs(part[..., :2]).max()))
    if missing:
        raise DataError(
            f"{path}: {name}: {missing} of {len(points)} frames hold NaN (first {first}). "
            f"Interpolate them before lifting."
        )
    if reach <= 2:
        raise DataError(
            f"{path}: {name} reaches {reach:.2f} only: these are normalised coordinates, "
            f"pixels are expected. Multiply them by the image size."
        )
    return points


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

"""Keypoints of one's own video as one file: arrays, VideoPose3D's custom npz, or AlphaPose results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kinema.core.crop import crop_scale
from kinema.core.keypoints import coco_to_h36m, halpe_to_h36m
from kinema.core.preprocess import preprocess
from kinema.core.skeleton import Skeleton
from kinema.data.readers.tracks_2d import alphapose
from kinema.data.safe_pickle import existing, load_npz
from kinema.data.sequences import Sequences
from kinema.errors import DataError

SUFFIXES = (".npz", ".npy", ".json")
# Known by their number of points; 17 points can be Human3.6M's or COCO's, so the caller says which.
_TO_H36M = {"coco17": coco_to_h36m, "halpe26": halpe_to_h36m}


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
    items = []
    for name, points, size in _tracks(existing(path), layout, track):
        points = _checked(points, path, name, layout)
        if layout != skeleton2d.name or path.suffix == ".json":
            source = "halpe26" if path.suffix == ".json" else layout
            if source not in _TO_H36M or skeleton2d.name != "h36m17":
                raise DataError(
                    f"{path} holds {source} points and the network takes {skeleton2d.name}. "
                    f"Convert them, or say what they are: predict.layout={skeleton2d.name}."
                )
            points = np.asarray(_TO_H36M[source](points))
        if points.shape[1] != len(skeleton2d):
            raise DataError(
                f"{path}: {name} has {points.shape[1]} joints, {len(skeleton2d)} expected ({skeleton2d.name}). "
                f"Name its layout: predict.layout=coco17 or halpe26."
            )
        wide, high = (width, height) if width and height else size
        pose = _normalised(points.astype(np.float32), path, preprocessing, wide, high)
        items.append(
            {
                "pose2d": pose,
                "subject": name,
                "action": "custom",
                "camera": "0",
                "fps": float(fps or 0.0),
                "width": int(wide or 0),
                "height": int(high or 0),
            }
        )
    return Sequences.from_arrays(items, skeleton2d=skeleton2d, space="camera")


def _tracks(path: Path, layout: str, track: int | None) -> Iterator[tuple[str, np.ndarray, tuple[int, int]]]:
    """Name, points and image size (0 where unknown) of every sequence in a file."""
    unknown = (0, 0)
    if path.suffix == ".json":
        yield path.stem, alphapose(path, track), unknown
    elif path.suffix == ".npy":
        try:
            yield path.stem, np.load(path, allow_pickle=False), unknown
        except ValueError as error:
            raise DataError(
                f"{path} is no plain array file ({error}). Save it with numpy.save(path, points)."
            ) from None
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


def _checked(points: np.ndarray, path: Path, name: str, layout: str) -> np.ndarray:
    if points.ndim != 3 or points.shape[-1] not in (2, 3) or not np.issubdtype(points.dtype, np.number):
        raise DataError(
            f"{path}: {name} has shape {points.shape}, expected (frames, joints, 2) or (frames, joints, 3): x and y in "
            f"pixels and a score. Choose or reshape the array."
        )
    missing = ~np.isfinite(points).all((1, 2))
    if missing.any():
        raise DataError(
            f"{path}: {name}: {int(missing.sum())} of {len(points)} frames hold NaN (first {int(missing.argmax())}). "
            f"Interpolate them before lifting."
        )
    if np.abs(points[..., :2]).max() <= 2:
        raise DataError(
            f"{path}: {name} reaches {np.abs(points[..., :2]).max():.2f} only: these are normalised coordinates, "
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

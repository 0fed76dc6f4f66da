"""Arrays: a .npy with one sequence, a .npz with several, or VideoPose3D's data_2d_custom_<name>.npz."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kinema.data.readers.detections.track import Track
from kinema.data.readers.videopose3d import layout_of
from kinema.data.safe_pickle import load_npz
from kinema.errors import DataError

NAME = "arrays"


def load(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """The array of a .npy file.

    Raises:
        DataError: it is none.
    """
    try:
        return np.asanyarray(np.load(path, allow_pickle=False, mmap_mode=mmap_mode))
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is no plain array file ({error}). Save it with numpy.save(path, points).") from None


def read(path: Path) -> Iterator[Track]:
    """Every sequence of a file; shapes are checked where they are used.

    Raises:
        DataError: what the file holds is no keypoints.
    """
    if path.suffix == ".npy":
        yield Track(path.stem, load(path))
        return
    content = load_npz(path)
    if "positions_2d" in content:
        yield from _custom(content, path)
    elif {"boxes", "keypoints"} <= set(content):
        raise DataError(
            f"{path} is the raw output of VideoPose3D's infer_video_d2.py. Run its prepare_data_2d_custom.py, which "
            "writes data_2d_custom_<name>.npz."
        )
    elif set(content) == {"keypoints", "scores"}:
        keypoints, scores = np.asarray(content["keypoints"]), np.asarray(content["scores"])
        if scores.shape != keypoints.shape[:-1]:
            raise DataError(
                f"{path}: scores {scores.shape} for keypoints {keypoints.shape}. Give (frames, joints) and (frames, "
                "joints, 2) of one person."
            )
        yield Track(path.stem, np.concatenate([keypoints[..., :2], scores[..., None]], axis=-1))
    else:
        for name, stored in content.items():
            points = np.asarray(stored)
            if points.ndim != 4:
                yield Track(name, points)
                continue
            for person, one in enumerate(points):  # (persons, T, J, C), as the demos of PoseFormer V2 write it
                yield Track(name if len(points) == 1 else f"{name}_{person}", one)


def _custom(content: Mapping[str, Any], path: Path) -> Iterator[Track]:
    meta = dict(content.get("metadata") or {})
    layout = layout_of(meta)
    scores = content.get("confidence")
    for video, actions in content["positions_2d"].items():
        size = meta.get("video_metadata", {}).get(video, {})
        for action, views in actions.items():
            if not len(views):
                raise DataError(f"{path}: {video} holds no frames. Detect keypoints first.")
            for camera, view in enumerate(views):
                points = np.asarray(view)
                if scores is not None:
                    score = np.asarray(scores[video][action][camera], points.dtype)
                    points = np.concatenate([points[..., :2], score.reshape(*points.shape[:2], 1)], axis=-1)
                yield Track(
                    str(video), points, layout.name if layout else None, int(size.get("w", 0)), int(size.get("h", 0)),
                    action=str(action), camera=str(camera),
                )  # fmt: skip

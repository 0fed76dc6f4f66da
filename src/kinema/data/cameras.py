"""Cameras of the VideoPose3D format: a shipped table, a json file, or the size of an uncalibrated video."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.camera import camera_table, intrinsics_vector, recorded_camera
from kinema.errors import DataError

# The shipped tables; "custom" is no calibration but one camera to draw with.
TABLES = ("h36m", "humaneva15", "custom")

# A camera further away than this stands in millimetres.
_FARTHEST = 100.0


class Cameras:
    """Cameras of a subject in Kinema's units.

    Args:
        cameras: name of a shipped table.
        path: a json file to read instead: `intrinsics` of every camera, `extrinsics` of every subject's cameras, in
            metres.
        fps: frames per second; None takes the table's.
        placed: whether every camera's place must be known, as 3D in world space needs it. Otherwise a subject without
            its own cameras is drawn through those of the first subject that has some (published behaviour).
    """

    def __init__(self, cameras: str, path: Path | None, fps: float | None, *, placed: bool = True) -> None:
        self.name = path.name if path else f"the table {cameras!r}"
        self.dataset = None if path else cameras
        self.table = _json_table(path) if path else camera_table()[cameras]
        known = self.table.get("fps")
        if fps is not None and known is not None and fps != known:
            raise DataError(f"{self.name} says {known:g} frames per second, not {fps:g}. Use dataset.fps={known:g}.")
        rate = known if fps is None else fps
        self.fps = float(np.nan if rate is None else rate)
        self.placed = placed

    def of(self, subject: str, size: Mapping[str, int] | None) -> list[dict[str, Any]]:
        """Camera dicts: width, height, fps, azimuth, intrinsics or None, orientation, translation (metres)."""
        if self.dataset == "custom":
            if size is None:
                raise DataError(f"No image size of {subject} is given. Add video_metadata ('w', 'h') to the 2D file.")
            return [self._finished({**self.table, "res_w": size["w"], "res_h": size["h"]}, self.table, 1000)]
        if self.dataset is None:
            outer = self.table["extrinsics"].get(subject)
            if outer is None:
                raise DataError(
                    f"{self.name} has no cameras of {subject}, only of {', '.join(self.table['extrinsics'])}. "
                    "Use the camera file that belongs to the recordings."
                )
            try:
                return [self._finished(a, b, 1) for a, b in zip(self.table["intrinsics"], outer, strict=True)]
            except DataError:
                raise
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{self.name}: the cameras of {subject} cannot be read ({error!r}). Use the original file."
                ) from error
        cameras = [recorded_camera(self.dataset, subject, index) for index in range(len(self.table["intrinsics"]))]
        if not self.placed:
            cameras = [self._to_draw_with(camera, index) for index, camera in enumerate(cameras)]
        if any(camera["orientation"] is None for camera in cameras):
            raise DataError(
                f"{self.name} has no cameras of subject {subject}. If these are other recordings, give their cameras: "
                "dataset.reader_options.cameras=<file>.json."
            )
        return [{**camera, "fps": self.fps, "azimuth": float(camera["azimuth"])} for camera in cameras]

    def _to_draw_with(self, camera: dict[str, Any], index: int) -> dict[str, Any]:
        """A camera of the shipped table, in the place of the first subject's where its own is not known."""
        if camera["orientation"] is not None:
            return camera
        assert self.dataset is not None
        known = next(subject for subject, places in self.table["extrinsics"].items() if places[index])
        place = recorded_camera(self.dataset, known, index)
        return {**camera, "orientation": place["orientation"], "translation": place["translation"]}

    def _finished(self, inner: Mapping[str, Any], outer: Mapping[str, Any], per_metre: int) -> dict[str, Any]:
        translation = np.asarray(outer["translation"], np.float32) / np.float32(per_metre)
        if np.linalg.norm(translation) > _FARTHEST:
            raise DataError(
                f"{self.name}: a camera {np.linalg.norm(translation):.0f} m away. Divide its translations by 1000: "
                "metres are expected."
            )
        return {
            "width": inner["res_w"],
            "height": inner["res_h"],
            "fps": self.fps,
            "azimuth": float(inner.get("azimuth", 0)),
            "intrinsics": intrinsics_vector(dict(inner)) if "focal_length" in inner else None,
            "orientation": np.asarray(outer["orientation"], np.float32),
            "translation": translation,
        }


def _json_table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is no readable json file ({error}). Use the original file.") from error
    if not {"intrinsics", "extrinsics"} <= set(table):
        raise DataError(f"{path} is no camera file: 'intrinsics' and 'extrinsics' expected. Use the original file.")
    return dict(table)

"""Reader of MotionBERT's Human3.6M pickle: detected 2D and image-space 3D, frame by frame, with the 2.5D targets.

The file holds {"train", "test"}, each a dict of columns with one row per frame, all videos one after another. One
sequence of the store is a run of frames with equal `source` (one video of one camera).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.camera import camera_table
from kinema.core.preprocess import preprocess
from kinema.core.skeleton import skeleton
from kinema.data import raw
from kinema.data.safe_pickle import load_pickle
from kinema.data.sequences import ArrayStore, Sequences
from kinema.errors import DataError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

SPLITS = ("train", "test")

# Frames that are normalised at once, to bound the memory of the float64 intermediates.
_BLOCK = 1 << 17

# The camera's part of a video's name: s_01_act_02_cam_01 (train), s_09_act_02_subact_01_ca_01 (test).
_CAMERA = re.compile(r"_cam?_(\d+)$")


@dataclass(frozen=True)
class Options:
    """Options of this reader, as in `dataset.reader_options`.

    Attributes:
        file: name of the pickle in the data set's folder.
        skeleton: of the joints.
        preprocess: way from pixels to network units (`core/preprocess.py`).
        fps: frames per second.
        source: the sentence that says where the file comes from.
    """

    file: str = "h36m_sh_conf_cam_source_final.pkl"
    skeleton: str = "h36m17"
    preprocess: str = "motionbert"
    fps: float = 50
    source: str = ""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        raw.known_options("motionbert_h36m", options, {entry.name: entry for entry in fields(cls)})
        return cls(**options)


def describe() -> str:
    """One paragraph about the format."""
    return (
        "MotionBERT's Human3.6M pickle: train and test, one row per frame: joint_2d and joint3d_image in pixels, "
        "confidence, camera_name, source; test also joints_2.5d_image (mm), 2.5d_factor (mm per pixel) and action."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens.

    Raises:
        DataError: the file is not there; says where it is expected and where it comes from.
    """
    chosen = Options.parse(options)
    return [raw.locate(Path(root), chosen.file, chosen.source)]


def read(root: Path, **options: Any) -> Sequences:
    """Read both splits, the training videos first.

    Args:
        root: the data set's folder.
        options: see `Options`.

    Returns:
        A store in image space with, for each frame, `pose2d` (N, 17, 3) normalised x, y and confidence; `pose3d`
        (N, 17, 3) normalised x, y and depth; `size` (N, 2) width and height; `factor` (N,) mm per pixel and
        `pose3d_eval` (N, 17, 3) mm (NaN in the training rows, which have none); `action` (N,) as a number of
        `meta["actions"]`, -1 where the file names none.
    """
    chosen = Options.parse(options)
    path = files(root, **options)[0]
    stored = load_pickle(path)
    if not isinstance(stored, dict) or not any(isinstance(stored.get(split), dict) for split in SPLITS):
        raise DataError(f"{path} holds no 'train' or 'test' dict. Use the file of the MotionBERT authors.")
    parts = [_Split(path, split, stored.pop(split), chosen) for split in SPLITS if split in stored]
    names = sorted(set().union(*(part.actions for part in parts)))
    arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    numbers = {name: number for number, name in enumerate(names)}
    arrays["action"] = np.concatenate([part.numbered(numbers) for part in parts])
    columns = [part.columns() for part in parts]
    table = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    table["start"] = np.cumsum(table["length"]) - table["length"]
    frame = skeleton(chosen.skeleton)
    return Sequences(
        ArrayStore(len(arrays["pose2d"]), arrays),
        table,
        skeleton=frame,
        skeleton2d=frame,
        space="image",
        meta={"actions": names, "preprocess": chosen.preprocess},
    )


class _Split:
    """The columns of one split, checked and brought into network units."""

    def __init__(self, path: Path, name: str, columns: Mapping[str, Any], options: Options) -> None:
        self.path = path
        self.name = name
        self.options = options
        self.joints = len(skeleton(options.skeleton))
        self.source = self._column(columns, "source", str)
        self.camera = self._column(columns, "camera_name", str)
        # Real training rows name no action.
        self.action = self._column(columns, "action", str) if "action" in columns else np.full(len(self), "")
        self.first = np.flatnonzero(np.append(True, self.source[1:] != self.source[:-1]))
        self.length = np.diff(np.append(self.first, len(self)))
        self.arrays = self._arrays(columns)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def actions(self) -> set[str]:
        """Names of the actions that occur."""
        return {str(name) for name in np.unique(self.action)} - {""}

    def numbered(self, numbers: Mapping[str, int]) -> np.ndarray:
        """Number of each frame's action, -1 for none."""
        names, inverse = np.unique(self.action, return_inverse=True)
        return np.asarray([numbers.get(str(name), -1) for name in names], dtype=np.int64)[inverse.reshape(-1)]

    def columns(self) -> dict[str, np.ndarray]:
        """Table of the sequences, without `start`."""
        source = self.source[self.first]
        matches = [_CAMERA.search(str(name)) for name in source]
        recorded = [
            str(name)[: match.start()] if match else str(name) for name, match in zip(source, matches, strict=True)
        ]
        size = self.arrays["size"][self.first]
        return {
            "length": self.length.astype(np.int64),
            "subject": np.asarray([_subject(str(name)) for name in source]),
            "action": self.action[self.first],
            "trial": np.asarray(recorded),
            # From the name: the test split's camera_name is said to be shuffled against the frames.
            "camera": np.asarray([str(int(match[1]) - 1) if match else "0" for match in matches]),
            "source": source,
            "split": np.full(len(source), self.name),
            "fps": np.full(len(source), float(self.options.fps)),
            "width": size[:, 0].astype(np.int64),
            "height": size[:, 1].astype(np.int64),
        }

    def _arrays(self, columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
        way = preprocess(self.options.preprocess)
        size = self._sizes()
        detected = self._column(columns, "joint_2d", np.float32)[..., :2]
        score = self._scores(columns)
        label = self._column(columns, "joint3d_image", np.float32)
        for key, pose, channels in (("joint_2d", detected, 2), ("joint3d_image", label, 3)):
            if pose.shape[1:] != (self.joints, channels):
                raise DataError(
                    f"{self.path.name}, {self.name}, {key}: shape {pose.shape}, expected (frames, {self.joints}, "
                    f"{channels}). Use the file of the MotionBERT authors, or set dataset.skeleton to its joints."
                )
        both = np.concatenate([detected, score], axis=-1)
        pose2d, pose3d = np.empty_like(both), np.empty_like(label)
        for start in range(0, len(self), _BLOCK):
            rows = slice(start, start + _BLOCK)
            # float64: the ratio of the sides must not be rounded to float32.
            width, height = size[rows].astype(np.float64).T
            pose2d[rows] = way.to_network(both[rows], width, height)
            pose3d[rows] = way.image_to_network(label[rows], width, height)
        return {"pose2d": pose2d, "pose3d": pose3d, "size": size, **self._targets(columns)}

    def _column(self, columns: Mapping[str, Any], key: str, kind: type) -> np.ndarray:
        """One column as an array of one row per frame; lists and float64 are welcome."""
        if key not in columns:
            raise DataError(
                f"{self.path.name}, {self.name}: no column {key!r}; there is {', '.join(columns)}. "
                "Use the file of the MotionBERT authors."
            )
        try:
            column: np.ndarray = np.asarray(columns[key], dtype=kind)
        except ValueError as error:
            raise DataError(f"{self.path.name}, {self.name}, {key}: {error}. Every row must be alike.") from error
        rows = len(columns["source"]) if "source" in columns else len(column)
        if len(column) != rows:
            raise DataError(
                f"{self.path.name}, {self.name}, {key}: {len(column)} rows, but source has {rows}. "
                "The file is damaged: copy it again."
            )
        return column

    def _scores(self, columns: Mapping[str, Any]) -> np.ndarray:
        """Detector scores (N, J, 1), 1 where the file has none."""
        if "confidence" not in columns:
            return np.ones((len(self), self.joints, 1), dtype=np.float32)
        score = self._column(columns, "confidence", np.float32)
        if score.shape[1:] not in ((self.joints,), (self.joints, 1)):
            raise DataError(f"{self.path.name}, {self.name}, confidence: shape {score.shape} for {self.joints} joints.")
        return score.reshape(len(self), self.joints, 1)

    def _sizes(self) -> np.ndarray:
        """Width and height of each frame's image (N, 2), from the name of its camera."""
        known = {camera["id"]: (camera["res_w"], camera["res_h"]) for camera in camera_table()["h36m"]["intrinsics"]}
        names, inverse = np.unique(self.camera, return_inverse=True)
        unknown = [str(name) for name in names if str(name) not in known]
        if unknown:
            raise DataError(
                f"{self.path.name}, {self.name}: camera_name {unknown[0]!r} has no known image size. "
                f"Known cameras: {', '.join(known)}."
            )
        return np.asarray([known[str(name)] for name in names], dtype=np.float32)[inverse.reshape(-1)]

    def _targets(self, columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Evaluation targets, which only the test split has."""
        if self.name == "train" and "2.5d_factor" not in columns:
            return {
                "factor": np.full(len(self), np.nan, dtype=np.float32),
                "pose3d_eval": np.full((len(self), self.joints, 3), np.nan, dtype=np.float32),
            }
        target = self._column(columns, "joints_2.5d_image", np.float32)
        if target.shape[1:] != (self.joints, 3):
            raise DataError(f"{self.path.name}, {self.name}, joints_2.5d_image: shape {target.shape}.")
        return {"factor": self._column(columns, "2.5d_factor", np.float32).reshape(len(self)), "pose3d_eval": target}


def _subject(source: str) -> str:
    """Subject of a video: S9 of s_09_act_02_subact_01_ca_01, S1 of S1_act_02_subact_01_ca_01."""
    match = re.match(r"[sS]_?0*(\d+)_", source)
    return f"S{match[1]}" if match else source

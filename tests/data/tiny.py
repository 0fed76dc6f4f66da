"""A reader for tests: a handful of short sequences in one npz file, found by its dotted path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import skeleton
from kinema.data.datamodule import MotionDataModule
from kinema.data.sequences import Sequences
from kinema.errors import DataError

LENGTHS = {"S1/Walk 1": 11, "S1/Walk": 7, "S5/Sit": 9, "S9/Walk": 8, "S9/Sit": 5}


def files(root: Path, **options: Any) -> list[Path]:
    path = root / "tiny.npz"
    if not path.is_file():
        raise DataError(f"tiny.npz not found in {root}. It is written by the tests.")
    return [path]


def read(root: Path, *, score: float | None = None, **columns: Any) -> Sequences:
    """`score` fills an array of detector scores; `columns` go into the table."""
    items = []
    with np.load(root / "tiny.npz") as file:
        for key in file.files:
            if key.endswith("2d"):
                continue
            subject, trial = key.split("/")
            items.append(
                {
                    "pose2d": file[key + "2d"], "pose3d": file[key], "subject": subject, "trial": trial,
                    "action": trial.split()[0], "camera": "0", "fps": 50.0, "width": 1000, "height": 1000,
                    "intrinsics": np.arange(1, 10, dtype=np.float32), **columns,
                }
            )  # fmt: skip
            if score is not None:
                items[-1]["score"] = np.full(file[key].shape[:2], score)
    body = skeleton("h36m17")
    return Sequences.from_arrays(items, skeleton=body, skeleton2d=body)


def describe() -> str:
    return "A few short sequences."


def sequences(lengths: dict[str, int] = LENGTHS, seed: int = 0, channels: int = 2) -> dict[str, np.ndarray]:
    """Arrays of the file: 3D of believable size, and 2D."""
    random = np.random.default_rng(seed)
    made = {}
    for key, length in lengths.items():
        made[key] = (random.normal(size=(length, 17, 3)) * 0.3).astype(np.float32)
        made[key + "2d"] = random.uniform(-1, 1, size=(length, 17, channels)).astype(np.float32)
    return made


def write(root: Path, arrays: dict[str, np.ndarray] | None = None) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "tiny.npz", **(sequences() if arrays is None else arrays))
    return root


def store(**options: Any) -> Sequences:
    """The sequences in memory."""
    body = skeleton("h36m17")
    arrays = sequences(**options)
    items = [
        {"pose2d": arrays[key + "2d"], "pose3d": arrays[key], "subject": key.split("/")[0], "action": key.split("/")[1],
         "intrinsics": np.arange(9, dtype=np.float32)}
        for key in arrays if not key.endswith("2d")
    ]  # fmt: skip
    return Sequences.from_arrays(items, skeleton=body, skeleton2d=body)


def datamodule(root: Path, kind: type[MotionDataModule] = MotionDataModule, **changes: Any) -> Any:
    """A DataModule over the written file; `changes` are constructor arguments."""
    options: dict[str, Any] = {
        "name": "tiny", "reader": "tests.data.tiny", "reader_options": {}, "root": root, "cache_dir": root / "cache",
        "preprocess": "videopose3d", "skeleton": "h36m17", "skeleton2d": "h36m17", "num_joints": 17,
        "num_joints_out": 17, "has_3d": True, "space": "camera", "unit": "m", "fps": 50.0, "tasks": ["lifting"],
        "protocol": "videopose3d", "subjects_train": ["S1", "S5"], "subjects_val": None, "subjects_test": ["S9"],
        "trials_val": ["S1/Walk"], "selection": "val", "actions": None, "subset": 1.0, "downsample": 1, "frames": 3,
        "context": [1, 1], "windows": {"kind": None, "stride": None, "both_views": True},
        "eval_windows": {"kind": "whole", "stride": None}, "limit_windows": None, "batch_size": 8,
        "eval_batch_size": 4, "num_workers": 0, "order": "seeded", "augment": [], "transforms": ["pose"],
        "confidence": True, "on_nan": "error", "store_mirrored": False, "seed": 0,
    }  # fmt: skip
    return kind(**{**options, **changes})

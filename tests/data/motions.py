"""Small files of motion in the layout of HumanMAC, and the DataModule over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import Skeleton, skeleton
from kinema.data.prediction import PredictionDataModule

HISTORY, HORIZON = 4, 6

# Ten frames make a window: S1/Sit is too short, S5/Walk is one window for training and none for a test.
LENGTHS = {
    "S1/Walk 1": 24, "S1/Walk": 17, "S1/Sit": 9, "S5/Walk": 10, "S5/Sit 2": 31,
    "S9/Walk": 22, "S9/Sit": 14, "S9/Box": 10,
}  # fmt: skip

BONE = 0.2


def motion(length: int, body: Skeleton, random: np.random.Generator) -> np.ndarray:
    """(T, J, 3) of a body whose bones are 0.2 m long and turn slowly while it walks away."""
    time = np.arange(length)[:, None]
    pose = np.zeros((length, len(body), 3))
    pose[:, body.root] = np.concatenate([0.02 * time, 0.01 * time, np.ones_like(time)], axis=1)
    for joint in sorted(range(len(body)), key=lambda joint: body.hops[body.root][joint]):
        if joint == body.root:
            continue
        angle = random.uniform(0, 6, 2) + random.uniform(-0.1, 0.1, 2) * time
        way = np.stack([np.cos(angle[:, 0]) * np.cos(angle[:, 1]), np.sin(angle[:, 0]) * np.cos(angle[:, 1]),
                        np.sin(angle[:, 1])], axis=-1)  # fmt: skip
        pose[:, joint] = pose[:, body.parents[joint]] + BONE * way
    return pose.astype(np.float32)


def positions(lengths: Mapping[str, int] = LENGTHS, name: str = "h36m17") -> dict[str, dict[str, np.ndarray]]:
    """The dict of such a file."""
    random, body = np.random.default_rng(0), skeleton(name)
    made: dict[str, dict[str, np.ndarray]] = {}
    for key, length in lengths.items():
        subject, trial = key.split("/")
        made.setdefault(subject, {})[trial] = motion(length, body, random)
    return made


def write(folder: Path, contents: Mapping[str, Mapping[str, np.ndarray]] | None = None) -> Path:
    """Write data_3d_tiny.npz; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    stored: Any = positions() if contents is None else contents
    np.savez(folder / "data_3d_tiny.npz", positions_3d=np.array(stored, dtype=object))
    return folder


def module(root: Path, **changes: Any) -> PredictionDataModule:
    """A DataModule over the file in a folder."""
    told = {"skeleton": "h36m17", "unit": "m", "fps": 50, "drop": []}
    reader = {"file": "data_3d_tiny.npz"} | {key: changes.get(key, value) for key, value in told.items()}
    options: dict[str, Any] = {
        "name": "tiny", "reader": "humanmac", "reader_options": reader, "root": root, "cache_dir": None,
        "skeleton": "h36m17", "num_joints": 17, "num_features": 48, "unit": "m", "fps": 50, "tasks": ["prediction"],
        "protocol": "prediction", "subjects_train": ["S1", "S5"], "subjects_val": None, "subjects_test": ["S9"],
        "trials_val": ["S1/Walk"], "selection": "val", "actions": None, "drop": [], "history": HISTORY,
        "horizon": HORIZON, "stride": None, "limit_windows": None, "val_windows": None, "windows_per_epoch": 40,
        "batch_size": 8, "eval_batch_size": 4, "num_workers": 0, "order": "balanced_sequences", "augment": [],
        "transforms": ["motion"], "on_nan": "error", "mean_motion": None, "seed": 0,
    }  # fmt: skip
    return PredictionDataModule(**{**options, **changes})

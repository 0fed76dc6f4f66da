"""Small folders of action clips in the layouts of the readers, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Split: clip -> label. Persons and recordings are only known where a test says so.
MA52 = {"train": {"0001_01": 0, "0001_02": 1, "0002_01": 2, "0002_02": 0}, "test": {"0003_01": 1, "0003_02": 2}}
CLASSES = ("nodding", "waving", "sitting")


def clip(seed: int, frames: int = 9, joints: int = 17, channels: int = 3, persons: int | None = None) -> np.ndarray:
    """Joints of a body that moves a little, metres."""
    random = np.random.default_rng(seed)
    shape = (joints, channels) if persons is None else (persons, 1, joints, channels)
    body = random.normal(size=shape) * 0.4
    axis = (frames, *([1] * 2)) if persons is None else (1, frames, 1, 1)
    way = np.linspace(0, 1, frames).reshape(axis)
    return (body + way * random.normal(size=shape) * 0.2 + 1.0).astype(np.float32)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def ma52(root: Path, splits: Mapping[str, Mapping[str, int]] = MA52, *, form: str = "{}_labels.txt") -> Path:
    """Write the layout of MA-52: a folder per clip below its split, and a list per split."""
    for number, (split, labels) in enumerate(splits.items()):
        for i, name in enumerate(labels):
            save(root / split / name / "pose_3d.npy", clip(100 * number + i, frames=9 + i))
        root.mkdir(parents=True, exist_ok=True)
        lines = [f"{name}.mp4 {label}" for name, label in labels.items()]
        (root / form.format(split)).write_text("\n".join(lines) + "\n")
    return root


def options(**changes: Any) -> dict[str, Any]:
    """Options that every reader of clips takes."""
    return {"classes": CLASSES, "num_classes": len(CLASSES), "preprocess": "ma52", "skeleton": "h36m17"} | changes

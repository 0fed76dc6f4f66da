"""Synthetic motion in the layout of data_3d_h36m.npz, a network of seconds, and how they stand on a command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.data.motion_layouts import walk

TRIALS = {"Walking": "walk", "Waving 1": "wave"}
SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
Motion = dict[str, dict[str, np.ndarray]]

NETWORK = ["model=humanmac_tiny", "model.dim=16", "model.ff_dim=16", "model.num_heads=2", "model.kept_coeffs=6"]
TASK = [
    "task=prediction", "task.ddim_timesteps=5", "task.num_samples=2", "task.validation.num_samples=2",
    "task.validation.ddim_timesteps=5", "task.variants.constant_velocity=null",
]  # fmt: skip
RUN = ["trainer=cpu", "trainer.max_epochs=1", "logger=none", "callbacks.figures=null"]


def save(root: Path, subjects: tuple[str, ...] = SUBJECTS, change: Callable[[Motion], object] | None = None) -> Path:
    """The archive with two recordings of 60 frames by each subject, after some change."""
    motion = {
        subject: {
            trial: np.array(walk(10 * number + i, 60, action)) for i, (trial, action) in enumerate(TRIALS.items())
        }
        for number, subject in enumerate(subjects)
    }
    if change is not None:
        change(motion)
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "data_3d_h36m.npz", positions_3d=np.array(motion, dtype=object))
    return root


def data(root: Path | str) -> list[str]:
    """Windows of 5 + 10 frames of it."""
    return [
        "dataset=h36m_motion", f"dataset.root={root}", "dataset.history=5", "dataset.horizon=10",
        "dataset.windows_per_epoch=16", "dataset.batch_size=8", "dataset.cache_dir=null",
    ]  # fmt: skip

"""Tiny files in the layout of MPI-INF-3DHP's lifting data: believable motion from the synthetic actors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.camera import world_to_camera
from kinema.core.keypoints import h36m_to_mpi_inf_3dhp
from kinema.data.readers.mpi_inf_3dhp import SIZE, SIZES
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.cameras import rig
from kinema.data.synthetic.skeleton import Body

TRAIN, TEST, LABELS = "data_train_3dhp.npz", "data_test_3dhp.npz", "activity_test_3dhp.npz"
_FOCAL = 1.1  # in image widths


def view(action: str, body: Body, random: np.random.Generator, frames: int, size: tuple[int, int]) -> dict[str, Any]:
    """One camera's poses: pixels, and millimetres of its own space."""
    camera = rig(random)[0]
    world = perform(action, body, random, frames, 25.0).astype(np.float32)
    pose = h36m_to_mpi_inf_3dhp(world_to_camera(world, camera.orientation, camera.translation)).astype(np.float64)
    points = pose[..., :2] / pose[..., 2:] * _FOCAL * size[1] + np.array(size) / 2
    return {"data_2d": points, "data_3d": pose * 1000}


def contents(frames: int = 30) -> dict[str, dict[str, Any]]:
    """The two pickled dicts, by file name; tests change them before `save`."""
    random = np.random.default_rng(0)
    train: dict[str, Any] = {}
    for name, action, fps in (("S1 Seq1", "walk", 25), ("S2 Seq2", "squat", 50)):
        body = Body.draw(random)
        train[name] = [{camera: view(action, body, random, frames + 1, SIZE) for camera in ("0", "4")}, fps]
    test: dict[str, Any] = {}
    for number in (1, 2, 5):
        name = f"TS{number}"
        test[name] = view("wave", Body.draw(random), random, frames - number, SIZES.get(name, SIZE))
        test[name]["valid"] = (np.arange(frames - number) % 3 != 1).astype(np.float64)
    return {TRAIN: train, TEST: test}


def labels(test: dict[str, Any]) -> dict[str, np.ndarray]:
    """Activities of every test frame: 1, 2, 0 (none) in turn."""
    return {name: np.array([1, 2, 0])[np.arange(len(views["valid"])) // 4 % 3] for name, views in test.items()}


def save(folder: Path, made: dict[str, dict[str, Any]], activities: dict[str, np.ndarray] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in made.items():
        np.savez(folder / name, data=np.array(values, dtype=object))
    if activities is not None:
        np.savez(folder / LABELS, **activities)  # type: ignore[arg-type]
    return folder

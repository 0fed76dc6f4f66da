"""Tiny files in the layouts in which owners hand out their data: believable motion from the synthetic actors."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.core.camera import recorded_camera, world_to_camera
from kinema.core.keypoints import h36m_to_mpi_inf_3dhp
from kinema.core.skeleton import skeleton
from kinema.data.convert.mpi_inf_3dhp import JOINTS
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.skeleton import Body

H36M17, H36M32 = skeleton("h36m17"), skeleton("h36m32")
H36M_ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "TakingPhoto", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Waiting", "WalkingDog", "Walking", "WalkTogether",
)  # fmt: skip


def walk(person: int, frames: int, take: int = 0) -> np.ndarray:
    """(T, 17, 3) metres of a person who walks in the middle of the room."""
    body = Body.draw(np.random.default_rng(person))
    motion = perform("walk", body, np.random.default_rng([person, take]), frames, 50.0)
    return np.asarray(motion - [*motion[:, 0, :2].mean(0), 0])


def h36m_pose(seed: int, frames: int) -> np.ndarray:
    """(T, 32, 3) millimetres; joints that the 17 lack lie on their parents."""
    motion = walk(seed, frames) * 1000
    pose = np.zeros((frames, len(H36M32), 3))
    for joint, name in enumerate(H36M32.joints):
        parent = H36M32.parents[joint]
        pose[:, joint] = motion[:, H36M17.index(name)] if name in H36M17.joints else pose[:, parent]
    return pose


def cdf(path: Path, pose: np.ndarray, variable: str = "Pose") -> Path:
    """One record of (T, 96), as the owners' files have it."""
    writer = pytest.importorskip("cdflib.cdfwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.asarray(pose, np.float32).reshape(1, len(pose), -1)
    file = writer.CDF(path, delete=True)
    spec = {
        "Variable": variable, "Data_Type": file.CDF_FLOAT, "Num_Elements": 1, "Rec_Vary": True,
        "Dim_Sizes": list(rows.shape[1:]), "Compress": 0,
    }  # fmt: skip
    file.write_var(spec, var_data=rows)
    file.close()
    return path


def h36m_takes() -> list[str]:
    """30 file names without ending; the second take of WalkingDog is called as in S5 of the archive."""
    return [name for action in H36M_ACTIONS for name in (action, f"{action} {2 if action == 'WalkingDog' else 1}")]


def h36m(folder: Path, subjects: tuple[str, ...], frames: int = 4, names: tuple[str, ...] = ()) -> Path:
    """Unpacked CDF files, all 30 of every subject or those named."""
    for number, subject in enumerate(subjects):
        for take, name in enumerate(names or h36m_takes()):
            pose = h36m_pose(number, frames + take % 2)
            cdf(folder / subject / "MyPoseFeatures" / "D3_Positions" / f"{name}.cdf", pose)
    return folder


def packed(folder: Path, subject: str, archive: Path, prefix: str = "") -> Path:
    """The files of a subject in a .tgz; `prefix` is the folder that its members stand in."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as file:
        for path in sorted((folder / subject).rglob("*.cdf")):
            name = f"{prefix}{path.relative_to(folder / subject).as_posix()}"
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return archive


def mat(path: Path, **variables: Any) -> Path:
    """A .mat file of version 5 to 7."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("scipy.io").savemat(str(path), variables, do_compression=True)
    return path


def mat73(path: Path, **variables: Any) -> Path:
    """A .mat file of version 7.3: HDF5 with MATLAB's header, axes in the other order, cells as references."""
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            if value.dtype != object:
                file[name] = value.T
                continue
            cells = file.create_dataset(name, value.T.shape, dtype=h5py.ref_dtype)
            for number, index in enumerate(np.ndindex(value.T.shape)):
                file[f"#refs#/{name}{number}"] = value.T[index].T
                cells[index] = file[f"#refs#/{name}{number}"].ref
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))
    return path


def cells(values: list[np.ndarray]) -> np.ndarray:
    """A column of cells."""
    column = np.empty((len(values), 1), dtype=object)
    for row, value in enumerate(values):
        column[row, 0] = value
    return column


HUMANEVA15 = skeleton("humaneva15")
HUMANEVA_FILES = [
    f"{split}/{person}/{action}_1.mat"
    for split in ("Train", "Validate")
    for person in ("S1", "S2", "S3")
    for action in ("Box", "Gestures", "Jog", "ThrowCatch", "Walking")
    if (person, action) != ("S3", "ThrowCatch")
]


def humaneva_pose(subject: str, frames: int, take: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Millimetres (T, 15, 3), and pixels (3, T, 15, 2) through lenses that are made up: none were released."""
    pose = walk(int(subject[-1]), frames, take)[:, [H36M17.index(name) for name in HUMANEVA15.joints]]
    views = []
    for index in range(3):
        camera = recorded_camera("humaneva15", subject, index)
        local = world_to_camera(pose.astype(np.float32), camera["orientation"], camera["translation"])
        views.append(local[..., :2] / local[..., 2:] * 500 + np.array([320, 240]))
    return pose * 1000, np.stack(views).astype(np.float64)


def humaneva(folder: Path, frames: int = 12) -> Path:
    """The 28 files of the export; every Walking loses frames 4 and 5, and its first one."""
    for number, name in enumerate(HUMANEVA_FILES):
        pose, views = humaneva_pose(name.split("/")[1], frames + number % 3, number)
        if "Walking" in name:
            for gap in (0, 4, 5):
                pose[gap], views[:, gap] = np.nan, np.nan
        mat(folder / name, poses_3d=pose, poses_2d=views)
    return folder


MPI17 = skeleton("mpi_inf_3dhp17")
# Names of the 28 joints of the training annotation, and of the 17 where they are among them.
MPI28 = (
    "spine3", "spine4", "spine2", "spine", "pelvis", "neck", "head", "head_top", "left_clavicle", "left_shoulder",
    "left_elbow", "left_wrist", "left_hand", "right_clavicle", "right_shoulder", "right_elbow", "right_wrist",
    "right_hand", "left_hip", "left_knee", "left_ankle", "left_foot", "left_toe", "right_hip", "right_knee",
    "right_ankle", "right_foot", "right_toe",
)  # fmt: skip


def mpi_view(seed: int, frames: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (T, 28, 2) and camera-space millimetres (T, 28, 3); joints beyond the 17 are somewhere near the pelvis."""
    random = np.random.default_rng(seed)
    motion = h36m_to_mpi_inf_3dhp(walk(seed, frames) * 1000)
    pose = np.stack(
        [
            motion[:, MPI17.index(name)] if name in MPI17.joints else motion[:, MPI17.root] + random.normal(0, 90, 3)
            for name in MPI28
        ],
        axis=1,
    )
    pose = pose[..., [0, 2, 1]] * [1, -1, 1] + [0, 900, 4000]
    return pose[..., :2] / pose[..., 2:] * size[1] + np.array(size) / 2, pose


def mpi_training(path: Path, seed: int, frames: int, **changes: Any) -> Path:
    """An annot.mat; `changes` replace variables."""
    views = [mpi_view(seed + camera, frames, (2048, 2048)) for camera in range(14)]
    values = {
        "annot2": cells([flat.reshape(frames, 56) for flat, _ in views]),
        "annot3": cells([solid.reshape(frames, 84) * 1.1 for _, solid in views]),
        "univ_annot3": cells([solid.reshape(frames, 84) for _, solid in views]),
        "cameras": np.arange(14, dtype=np.uint8)[None],
        "frames": np.arange(frames)[:, None],
    }
    return mat(path, **{**values, **changes})


def mpi_test(path: Path, seed: int, frames: int, size: tuple[int, int], **changes: Any) -> Path:
    """An annot_data.mat of version 7.3: arrays (axes, joints, 1, frames)."""
    flat, solid = (pose[:, list(JOINTS)] for pose in mpi_view(seed, frames, size))
    values = {
        "annot2": flat[:, None].T,
        "annot3": solid[:, None].T * 1.1,
        "univ_annot3": solid[:, None].T,
        "valid_frame": (np.arange(frames) % 3 != 1).astype(np.float64)[:, None],
        "activity_annotation": (1 + np.arange(frames) // 4 % 7).astype(np.float64)[:, None],
    }
    return mat73(path, **{**values, **changes})

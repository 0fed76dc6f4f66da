"""Motion in .npz and .npy files: which arrays are positions of joints, and what the file says about them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from kinema.data.raw import load_array
from kinema.errors import DataError

ENDINGS = (".npz", ".npy")
# Entries that say something about the motion; AMASS calls its rate mocap_framerate or mocap_frame_rate.
_RATES = ("fps", "mocap_framerate", "mocap_frame_rate")
_NAMES = ("joints", "names", "joint_names")
# Put before the name of every sequence by mode=predict.
_PREDICTED = "pose3d/"


@dataclass(frozen=True)
class MotionFile:
    """One file.

    Attributes:
        motions: name of the entry ("" in a .npy, and where there is one alone) -> positions (T, J, 3); those of an
            entry of several (M, T, J, 3) have a blank and a number behind it.
        parents: list of parents as it stands there, or None.
        joints: names of the joints, or None.
        fps: frames per second, or None.
    """

    motions: dict[str, np.ndarray]
    parents: np.ndarray | None = None
    joints: tuple[str, ...] | None = None
    fps: float | None = None

    def named(self, file: PurePosixPath, whole: bool) -> Iterator[tuple[PurePosixPath, np.ndarray]]:
        """Every motion with its place: the file's, or one in the file as in a folder.

        Args:
            file: place of the file below the data set's folder.
            whole: whether the file is the whole data set, so that its own name says nothing.
        """
        for entry, pose in self.motions.items():
            if not entry or entry.startswith(" "):  # of the file itself, by need with a number
                yield file.with_name(file.name + entry), pose
                continue
            inner = PurePosixPath(entry.removeprefix(_PREDICTED))
            yield (inner if whole or len(inner.parts) > 1 else file / inner), pose


def load_motions(path: Path, entries: Sequence[str] | None = None, *, still: bool = False) -> MotionFile:
    """Read a file.

    Args:
        path: of the .npz or .npy.
        entries: names of the entries that may hold the positions, the first one there being taken; None = all entries
            (T, J, 3) and (M, T, J, 3).
        still: one pose (J, 3) will do, as a motion of one frame; in a .npz where there is nothing longer.

    Raises:
        DataError: it is damaged, or holds no positions.
    """
    if path.suffix.lower() == ".npy":
        array = load_array(path)
        return MotionFile(_apart({"": array[None] if still and _is_pose(array) else array}, path))
    arrays, pickled = _load(path)
    found = {name: array for name, array in arrays.items() if _is_motion(array)}
    if still and not found:
        found = {name: array[None] for name, array in arrays.items() if _is_pose(array)}
    if entries is not None:
        found = {name: found[name] for name in entries if name in found}
        found = dict(list(found.items())[:1])
    if not found:
        shown = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        remedy = (
            f"{', '.join(pickled)} is pickled: for the layout of VideoPose3D use dataset=h36m_motion."
            if pickled
            else "Positions are an entry (frames, joints, 3)."
        )
        raise DataError(f"{path} holds no positions of joints, only {shown}. {remedy}")
    names = next((arrays[name] for name in _NAMES if name in arrays and arrays[name].dtype.kind in "US"), None)
    return MotionFile(
        _apart({"" if len(found) == 1 and "/" not in name else name: array for name, array in found.items()}, path),
        parents=arrays.get("parents"),
        joints=None if names is None else tuple(str(name) for name in names.astype(str).reshape(-1)),
        fps=_rate(arrays, path),
    )


def _load(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Plain arrays of a .npz, and the names of those that are pickled."""
    arrays: dict[str, np.ndarray] = {}
    pickled: list[str] = []
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                try:
                    arrays[name] = file[name]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    pickled.append(name)
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error}): it was cut off, or is no .npz. Copy it again.") from error
    return arrays, pickled


def _is_motion(array: np.ndarray) -> bool:
    return array.dtype.kind in "fiu" and array.ndim in (3, 4) and array.shape[-1] == 3


def _is_pose(array: np.ndarray) -> bool:
    return array.dtype.kind in "fiu" and array.ndim == 2 and array.shape[-1] == 3


def _apart(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Motions one by one: (M, T, J, 3) becomes M numbered ones; further dimensions of 1 are left out."""
    made: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if not array.size:
            raise DataError(f"{path} has shape {array.shape}: no frames. Make it again, or leave the file out.")
        while array.ndim > 4 and 1 in array.shape[:-2]:
            array = array.squeeze(axis=array.shape.index(1))
        if array.ndim == 4 and array.shape[-1] == 3:
            made |= {f"{name} {i}": motion for i, motion in enumerate(array)}
        elif array.ndim == 3 and array.shape[-1] == 3:
            made[name] = array
        else:
            raise DataError(
                f"{path} has shape {array.shape}, (frames, joints, 3) or several of them expected. Convert it."
            )
    return made


def _rate(arrays: dict[str, np.ndarray], path: Path) -> float | None:
    for name in _RATES:
        if name in arrays and arrays[name].size == 1 and arrays[name].dtype.kind in "fiu":
            fps = float(arrays[name].reshape(-1)[0])
            if not 1 <= fps <= 10_000:
                raise DataError(
                    f"{path}: {name}={fps:g} are no frames per second. Correct it, or state the rate of the files: "
                    "dataset.reader_options.file_fps=50."
                )
            return fps
    return None

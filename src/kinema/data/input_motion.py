"""Motions that somebody hands over to be continued: a file of joints in space, or every such file of a folder."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.data import motion_checks
from kinema.data.bvh import load
from kinema.data.input_clips import LIFTED_CLIP, OWN_FOLDER, lifted
from kinema.data.joint_map import joint_map
from kinema.data.motion_arrays import MotionFile, load_motions
from kinema.data.motion_files import AXES, BODY, resampled, upright
from kinema.data.motion_rows import UNITS
from kinema.data.raw import holes
from kinema.errors import ConfigError, DataError

log = logging.getLogger(__name__)

SUFFIXES = (".npy", ".npz", ".bvh")
# What is read again of a file that these modes wrote, and what mode=predict puts before names of lifted motions.
_OWN, _PREDICTED = ("truth", "history"), "pose3d/"
# What HumanMAC's retargeting script writes: left joints in the slots of the right ones (docs/datasets/amass_motion.md).
_EXCHANGED, _EXCHANGED_JOINTS = "amass_retargeted", 17
# Files whose up is not z unless they are said to have another one.
_UP = {".bvh": "y"}


@dataclass(frozen=True)
class InputMotion:
    """One motion, ready for a network.

    Attributes:
        name: for tables, files and messages.
        pose: (T, J, 3) float32 metres, z up, at the network's frame rate; a root that the file has not is the origin.
    """

    name: str
    pose: np.ndarray


@dataclass(frozen=True)
class Reading:
    """How files are to be read; None = as they say themselves.

    Attributes:
        unit: m, cm, mm, or metres per unit; metres where nobody says.
        fps: frames per second of the files; those of the network where nobody says.
        up: z, y, or -y (camera axes: x right, y down, z away); z where nobody says, y in .bvh.
        exchange_sides: whether left and right joints are exchanged; those of amass_retargeted.npy alone where nobody
            says.
    """

    unit: str | float | None = None
    fps: float | None = None
    up: str | None = None
    exchange_sides: bool | None = None

    def __post_init__(self) -> None:
        if self.up is not None and self.up not in AXES:
            raise ConfigError(f"predict.up={self.up} is no axis that can point up. Use one of {', '.join(AXES)}.")
        if self.fps is not None and not 1 <= self.fps <= 10_000:
            raise ConfigError(f"predict.fps={self.fps} are no frames per second. Use predict.fps=50.")
        if self.unit is not None:
            _metres(self.unit)
        if self.exchange_sides not in (None, True, False):
            raise ConfigError(f"predict.exchange_sides={self.exchange_sides} is none of true, false and null.")


@dataclass(frozen=True)
class _Raw:
    """Joints (T, J, 3) of a file before units, axes and speed are ours, and what the file says of them."""

    name: str
    pose: np.ndarray
    unit: str | None = None
    fps: float | None = None
    up: str | None = None


def sources(path: Path) -> list[tuple[str, Path]]:
    """Name and file of every motion at a place, in the order of the names.

    Raises:
        DataError: nothing is there.
    """
    if path.is_file():
        return [(_name(path, path.parent), path)]
    if not path.is_dir():
        raise DataError(
            f"{path} does not exist. Give a file of 3D joints ({', '.join(SUFFIXES)}), or a folder of them."
        )
    found = [
        (_name(one, path), one)
        for one in sorted(path.rglob("*"))
        if one.suffix.lower() in SUFFIXES
        and one.is_file()
        and not any(part.startswith(".") for part in one.relative_to(path).parts)
    ]
    if not found:
        raise DataError(f"{path} holds no motion: no {', '.join(SUFFIXES)} file. Give the folder that they lie in.")
    return found


def _name(path: Path, root: Path) -> str:
    """Name of a file below a folder; of a clip in a folder of its own the folder's."""
    name = path.relative_to(root).with_suffix("")
    if name.name in OWN_FOLDER:
        return name.parent.as_posix() if len(name.parts) > 1 else path.absolute().parent.name
    return name.as_posix()


def motions(
    path: Path, name: str, skeleton: Skeleton, rate: float | None, reading: Reading, *, still: bool = False
) -> list[InputMotion]:
    """Every motion of a file, in metres, z up, at the network's frame rate; what seems wrong with it is warned of.

    Args:
        path: .npy (T, J, 3), without the root (T, J - 1, 3), or several of them (M, T, J, 3); .npz with such an array
            and maybe fps, parents and joint names, or predictions of mode=predict; .bvh.
        name: of the motion; several are numbered.
        skeleton: that the network was trained on.
        rate: frames per second that it was trained on; None = unknown, frames are taken as they are.
        reading: what the user says of the file.
        still: one pose (J, 3) will do, as a motion of one frame.

    Raises:
        DataError: the file is damaged, has other joints, another unit, or holes.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist. Give a file of 3D joints ({', '.join(SUFFIXES)}).")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path} is no motion that can be read: 3D joints lie in {', '.join(SUFFIXES)} files. Keypoints of images "
            "are lifted first (mode=lift)."
        )
    found = _bvh(path, name, skeleton) if suffix == ".bvh" else _arrays(path, name, skeleton, still)
    up = reading.up or found[0].up or _UP.get(suffix, "z")
    poses = [_upright(raw, path, skeleton, reading, up) for raw in found]
    fps = reading.fps or found[0].fps
    if fps is None and rate is not None and max(map(len, poses)) > 1:
        log.info("%s does not say its frames per second: the network's %g are assumed (predict.fps)", path, rate)
    if reading.exchange_sides is None and _exchanged(path, skeleton, reading):
        log.info(
            "%s: left and right are exchanged back, as HumanMAC's script leaves them (predict.exchange_sides)", path
        )
    for doubt in motion_checks.doubts(poses, skeleton, fps or rate, up):
        log.warning("%s: %s", path, doubt)
    if fps is not None and rate is not None:
        poses = [resampled(pose, fps, rate) for pose in poses]
    return [InputMotion(raw.name, pose.astype(np.float32)) for raw, pose in zip(found, poses, strict=True)]


def _upright(raw: _Raw, path: Path, skeleton: Skeleton, reading: Reading, up: str) -> np.ndarray:
    """(T, J, 3) metres with z up, left on the left, as fast as it was recorded."""
    pose = np.asarray(raw.pose, np.float64)
    missing = holes(pose)
    if missing.any():
        first = int(missing.any(1).argmax())
        raise DataError(
            f"{path}: {int(missing.any(1).sum())} of {len(pose)} frames hold NaN (first {first}, joint "
            f"{skeleton.joints[int(missing[first].argmax())]}). Fill the gaps first; a history must be whole."
        )
    unit = (raw.unit or "m") if reading.unit is None else reading.unit
    pose = upright(pose * _metres(unit), up)
    _refuse_size(pose, path, unit)
    return pose[:, skeleton.flip_index] if _exchanged(path, skeleton, reading) else pose


def _exchanged(path: Path, skeleton: Skeleton, reading: Reading) -> bool:
    """Whether left and right joints of a file are exchanged before a network sees them."""
    if reading.exchange_sides is None:
        return path.stem == _EXCHANGED and len(skeleton) == _EXCHANGED_JOINTS
    if reading.exchange_sides and not skeleton.left:
        raise ConfigError(f"{skeleton.name} has no left and right joints. Leave predict.exchange_sides out.")
    return reading.exchange_sides


def _metres(unit: str | float) -> float:
    """Metres of one unit.

    Raises:
        ConfigError: for a name that is none, or a number that is no length.
    """
    if unit in UNITS:
        return UNITS[str(unit)]
    try:
        value = float(unit)
    except ValueError:
        value = 0.0
    if not 0 < value < np.inf:
        raise ConfigError(
            f"predict.unit={unit} is none of {', '.join(UNITS)}, and no number of metres. Use predict.unit=mm, or "
            "0.0254 for inches."
        )
    return value


def _refuse_size(pose: np.ndarray, path: Path, unit: str | float) -> None:
    """Refuse bodies (T, J, 3) that are no metres, with the unit that would make a person of them."""
    size = float(np.median(np.ptp(pose[:: max(1, len(pose) // 60)], axis=1).max(-1)))
    if BODY[0] <= size <= BODY[1]:
        return
    if size == 0:
        raise DataError(f"{path}: all joints lie on one point. Look at how the file was made.")
    there = size / _metres(unit)  # in the file's own numbers
    fits = next((key for key, factor in UNITS.items() if 1.0 <= there * factor <= 2.4), f"{1.7 / there:.3g}")
    raise DataError(
        f"{path}: the body is {size:.3g} m large with predict.unit={unit}. Use predict.unit={fits}, which makes a "
        "person of it."
    )


def _arrays(path: Path, name: str, skeleton: Skeleton, still: bool) -> list[_Raw]:
    """Motions of an .npy or .npz, with what is said of them: by the record of mode=lift, or beside predictions."""
    try:
        # Files that the modes of motion write are read again as the motion they were made of.
        file = load_motions(path, _OWN if _is_own(path) else None, still=still)
    except DataError as error:
        raise DataError(str(error).replace("dataset.reader_options.file_fps", "predict.fps")) from error
    record = lifted(path) if path.name == LIFTED_CLIP else None
    predicted = any(entry.startswith(_PREDICTED) for entry in file.motions)
    camera = predicted if record is None else record.camera
    fps = file.fps or (record.fps if record is not None else _meta(path).get("fps") if predicted else None)
    unit = "m" if predicted or (record is not None and record.unit == "metres") else None
    made = []
    for entry, pose in file.motions.items():
        own = name if len(file.motions) == 1 else f"{name}/{entry.removeprefix(_PREDICTED).strip()}"
        pose = _rooted(_in_order(pose, file, path, skeleton), path, skeleton)
        made.append(_Raw(own, pose, unit=unit, fps=fps, up="-y" if camera else None))
    return made


def _is_own(path: Path) -> bool:
    if path.suffix.lower() != ".npz":
        return False
    try:
        with np.load(path, allow_pickle=False) as file:
            return {"samples", "history", "meta"} <= set(file.files)
    except (OSError, ValueError, EOFError, TypeError):
        return False  # whoever reads the arrays says what is wrong


def _meta(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(json.loads(str(file["meta"]))) if "meta" in file.files else {}


def _in_order(pose: np.ndarray, file: MotionFile, path: Path, skeleton: Skeleton) -> np.ndarray:
    """Joints in the order of the skeleton, by the names or the tree that the file states."""
    if file.joints and len(file.joints) == pose.shape[-2] and set(skeleton.joints) <= set(file.joints):
        return pose[:, [file.joints.index(joint) for joint in skeleton.joints]]
    if file.parents is None or pose.shape[-2] != len(skeleton):
        return pose
    parents = tuple(int(parent) for parent in file.parents.ravel())
    if parents != skeleton.parents:
        raise DataError(
            f"{path} has the parents {list(parents)}, but the network was trained on {skeleton.name} with "
            f"{list(skeleton.parents)}. Convert the joints, or train a network on this skeleton (docs/own_data.md)."
        )
    return pose


def _bvh(path: Path, name: str, skeleton: Skeleton) -> list[_Raw]:
    motion = load(path)
    pick = joint_map(skeleton, motion.joints, motion.parents, motion.offsets, {}, str(path))
    return [_Raw(name, pick(motion.positions()), fps=motion.fps)]


def _rooted(pose: np.ndarray, path: Path, skeleton: Skeleton) -> np.ndarray:
    """Joints (T, J, 3); a root that is left out is put at the origin.

    Raises:
        DataError: it is another number of joints, or no frame.
    """
    count = len(skeleton)
    if pose.shape[-2] not in (count, count - 1):
        raise DataError(
            f"{path} has shape {pose.shape}, expected (frames, {count} joints, 3), or without the root "
            f"(frames, {count - 1}, 3), for the skeleton {skeleton.name} that the network was trained on. Convert it, "
            "or use a checkpoint of that skeleton."
        )
    if not len(pose):
        raise DataError(f"{path} has no frames. Give a file with a motion.")
    return np.insert(pose, skeleton.root, 0.0, axis=1) if pose.shape[-2] == count - 1 else pose

"""Reader of AMASS motion: retargeted clips as HumanMAC makes them (amass_retargeted.npy), or .npz files with positions.

AMASS itself stores rotations, and the SMPL body that turns them into positions is licensed: write the positions of its
joints into the files (docs/datasets/amass_motion.md). The first 22 joints of SMPL, SMPL-H and SMPL-X are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from kinema.core.skeleton import Skeleton, skeleton
from kinema.data import raw
from kinema.data.motion_arrays import ENDINGS, load_motions
from kinema.data.motion_files import InFile, MotionOptions, find, read_files
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

SMPL = skeleton("smpl22")
H36M = skeleton("h36m17")
# Entries under which people store the joints of a SMPL body.
_ENTRIES = ("joints", "Jtr", "jtr", "joints3d", "positions", "pose3d")
_LAYOUT = "Expected amass_retargeted.npy, or .npz files with positions of joints (docs/datasets/amass_motion.md)."
_ENDS = ("_poses", "_stageii")  # of AMASS's file names


@dataclass(frozen=True)
class Options(MotionOptions):
    """Options of this reader, as in `dataset.reader_options`, beside those of every reader of motion files.

    Attributes:
        sides: "correct": left is left; "published": exchanged, as in HumanMAC's zero-shot figures. 22 joints are taken
            to have SMPL's sides, 17 to be exchanged as its script writes them, and "correct" turns that round;
            "as_is": no file's sides are touched, for 17 joints with left on the left.
    """

    sides: str = "correct"

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        made = cls.parse("amass", options)
        raw.one_of("sides", made.sides, ("correct", "published", "as_is"))
        if made.body not in (SMPL, H36M):
            raise ConfigError(
                f"dataset.skeleton={made.skeleton} cannot be made of SMPL's joints. Use dataset.skeleton=h36m17, or "
                "dataset.skeleton=smpl22 dataset.num_joints=22 dataset.num_features=63."
            )
        if made.body == SMPL and made.sides == "published":
            raise ConfigError(
                "dataset.reader_options.sides=published exchanges the sides of h36m17, as published. "
                "Use dataset.skeleton=h36m17, or dataset.reader_options.sides=correct."
            )
        return made


def advice(options: Mapping[str, Any]) -> str:
    """What the doctor advises where knees bend backward."""
    sides = options.get("sides", "correct")
    if sides == "published":
        return "As in the published figures; dataset.reader_options.sides=correct puts left on the left."
    other, taken = ("as_is", "exchanged in the file") if sides == "correct" else ("correct", "right in the file")
    return (
        f"With sides={sides} those of 17 joints are taken to be {taken}: try dataset.reader_options.sides={other}. Of "
        "22 joints, check the axes (right-handed) and the order."
    )


def describe() -> str:
    """One paragraph about the format."""
    return (
        "AMASS motion as positions of joints: the 17 of Human3.6M, retargeted by copying joints of SMPL without "
        "changing bone lengths, or the first 22 of SMPL."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens.

    Raises:
        DataError: there are none.
    """
    return [path for _, path in _found(Path(root), Options.checked(options))]


def read(root: Path, *, report: raw.Report = raw.raise_fault, **options: Any) -> Sequences:
    """Read every file.

    Args:
        root: folder of the files, or one file.
        report: takes faults; by default the first one stops.
        options: see `Options`.

    Raises:
        DataError: nothing usable is there, or the first fault.
    """
    chosen = Options.checked(options)
    assert chosen.body is not None
    body = chosen.body

    def make(pose: np.ndarray, title: str, fps: float | None) -> tuple[Skeleton, np.ndarray, float | None]:
        return body, _joints(pose, chosen, title), fps

    def open_(name: PurePosixPath, path: Path) -> Iterator[InFile]:
        try:
            file = load_motions(path, _ENTRIES)
        except DataError as error:
            if _is_rotations(path):
                raise DataError(
                    f"{path} holds rotations of SMPL and no positions. Add an entry `joints` (T, 22, 3) with the "
                    "licensed body model: docs/datasets/amass_motion.md has the lines."
                ) from error
            raise
        for inner, pose in file.named(_plain(name), whole=False):
            title = str(path) if len(file.motions) == 1 else f"{path}, {inner.name}"
            yield inner, title, partial(make, pose, title, file.fps)

    return read_files(_found(Path(root), chosen), open_, chosen, report)


def retargeted(pose: np.ndarray, sides: str = "correct") -> np.ndarray:
    """Human3.6M's 17 joints out of the first 22 of SMPL, by copying; bones keep SMPL's lengths.

    Args:
        pose: (..., J, 3), J at least 22.
        sides: "published": left and right exchanged; else left is left.

    Returns:
        (..., 17, 3).

    Source: HumanMAC, the script that makes amass_retargeted.npy.
    """
    picked = [[SMPL.index(name) for name in _FROM_SMPL[joint]] for joint in H36M.joints]
    made = np.stack([pose[..., which, :].mean(-2) for which in picked], axis=-2)
    return made[..., H36M.flip_index, :] if sides == "published" else made


# Joints of SMPL that stand for those of Human3.6M; the others have the same name.
_RENAMED = {"spine": ("spine1", "spine2"), "thorax": ("spine3",), "nose": ("neck",), "head": ("head",)}
_FROM_SMPL = {joint: _RENAMED.get(joint, (joint,)) for joint in H36M.joints}


def _found(root: Path, options: Options) -> list[tuple[PurePosixPath, Path]]:
    found = find(root, ENDINGS, ".npz or .npy", options.source, _LAYOUT)
    # AMASS puts the shape of a person beside the motions.
    return [(name, path) for name, path in found if name.name not in ("shape", "neutral_stagei")] or found


def _plain(name: PurePosixPath) -> PurePosixPath:
    """ACCAD/Female1_c3d/walk_poses -> ACCAD/Female1_c3d/walk."""
    for end in _ENDS:
        if name.name.endswith(end) and name.name != end:
            return name.with_name(name.name.removesuffix(end))
    return name


def _joints(pose: np.ndarray, options: Options, name: str) -> np.ndarray:
    """The joints of `dataset.skeleton` out of a motion (T, J, 3) that is retargeted already, or of SMPL."""
    if pose.shape[1] == len(H36M):
        if options.body != H36M:
            raise DataError(f"{name} is retargeted to 17 joints. Use dataset.skeleton=h36m17 dataset.num_joints=17.")
        return pose[:, H36M.flip_index] if options.sides == "correct" else pose
    if pose.shape[1] < len(SMPL):
        raise DataError(
            f"{name} has {pose.shape[1]} joints: neither 17 retargeted ones nor at least 22 of SMPL. For another "
            "skeleton use dataset=npz_motion."
        )
    return pose[:, : len(SMPL)] if options.body == SMPL else retargeted(pose, options.sides)


def _is_rotations(path: Path) -> bool:
    """Whether a file is one of AMASS as it is distributed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return "poses" in file.files or "pose_body" in file.files
    except (OSError, ValueError, EOFError, TypeError):
        return False

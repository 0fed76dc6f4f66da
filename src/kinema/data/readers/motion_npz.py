"""Reader of anybody's motion: .npz and .npy files of joint positions, for any skeleton with a list of parents.

A file is a sequence, `[<train|val|test>/]<subject>/<trial>.npz`, or holds several as entries `<subject>/<trial>`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.data.joint_map import joint_map
from kinema.data.motion_arrays import ENDINGS, MotionFile, load_motions
from kinema.data.motion_files import InFile, MotionOptions, find, read_files
from kinema.data.motion_rows import own_skeleton
from kinema.data.raw import Report, raise_fault
from kinema.data.sequences import Sequences
from kinema.errors import DataError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

_LAYOUT = "Expected <subject>/<trial>.npz or .npy (docs/datasets/npz_motion.md)."

Pick = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Options(MotionOptions):
    """Options of this reader, as in `dataset.reader_options`, beside those of every reader of motion files.

    Attributes:
        entry: name of the entry that holds the positions of a .npz; None = every entry (T, J, 3).
        joint_map: joint of `skeleton` -> joint of the files, or a list whose middle it is, for files with names of
            their own; the others are guessed.
    """

    entry: str | None = None
    joint_map: Mapping[str, Any] | None = None


def describe() -> str:
    """One paragraph about the format."""
    return (
        "Motion as plain arrays (frames, joints, 3), one .npz or .npy per sequence or several in one file; any "
        "skeleton with a list of parents."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens.

    Raises:
        DataError: there are none.
    """
    return [path for _, path in _found(Path(root), Options.parse("motion_npz", options))]


def body(root: Path, **options: Any) -> Skeleton:
    """The skeleton of the sequences, from the first file.

    Raises:
        DataError: there is none, or it does not say.
    """
    chosen = Options.parse("motion_npz", options)
    path = _found(Path(root), chosen)[0][1]
    return _joints(_load(path, chosen), chosen, str(path))[0]


def read(root: Path, *, report: Report = raise_fault, **options: Any) -> Sequences:
    """Read every file.

    Args:
        root: folder of the files, or one file.
        report: takes faults; by default the first one stops.
        options: see `Options`.

    Raises:
        DataError: nothing usable is there, or the first fault.
    """
    chosen = Options.parse("motion_npz", options)

    def make(file: MotionFile, pose: np.ndarray, path: Path) -> tuple[Skeleton, np.ndarray, float | None]:
        skeleton, pick = _joints(file, chosen, str(path))
        return skeleton, pick(pose), file.fps

    def open_(name: PurePosixPath, path: Path) -> Iterator[InFile]:
        file = _load(path, chosen)
        for inner, pose in file.named(name, Path(root).is_file()):
            title = str(path) if len(file.motions) == 1 else f"{path}, {inner.name}"
            yield inner, title, partial(make, file, pose, path)

    return read_files(_found(Path(root), chosen), open_, chosen, report)


def _found(root: Path, options: Options) -> list[tuple[PurePosixPath, Path]]:
    return find(root, ENDINGS, ".npz or .npy", options.source, _LAYOUT)


def _load(path: Path, options: Options) -> MotionFile:
    return load_motions(path, None if options.entry is None else [options.entry])


def _joints(file: MotionFile, options: Options, name: str) -> tuple[Skeleton, Pick]:
    """Skeleton of what is kept of a file, and how it is picked."""
    told = None if file.parents is None else own_skeleton(file.parents, file.joints, name)
    _refuse_counts(file, name)
    stated = options.body
    if stated is None:
        if told is None:
            raise DataError(
                f"{name} does not say its skeleton. Add an entry `parents` (-1 for the root), state it: "
                "'dataset.skeleton={parents:[-1,0,1]}', or name one: dataset.skeleton=h36m17."
            )
        return told, _same
    reordered = file.joints is not None and file.joints != stated.joints and set(file.joints) == set(stated.joints)
    alike = told is None or told.parents == stated.parents
    if alike and not reordered and not options.joint_map:
        return stated, _same
    if file.joints is None:
        assert told is not None
        raise DataError(
            f"{name} has the parents {list(told.parents)}, the skeleton {stated.name} has {list(stated.parents)}. Use "
            "dataset.skeleton=null to keep the file's own, or name its joints (entry `joints`) so that they are found."
        )
    parents = (-1,) * len(file.joints) if told is None else told.parents
    first = next(iter(file.motions.values()))[0]
    rest = first - first[[max(parent, 0) for parent in parents]]
    return stated, joint_map(stated, file.joints, parents, rest, options.joint_map, name)


def _refuse_counts(file: MotionFile, name: str) -> None:
    for what, told in (("parents", file.parents), ("names of joints", file.joints)):
        for pose in file.motions.values():
            if told is not None and len(told) != pose.shape[1]:
                raise DataError(
                    f"{name} has positions of {pose.shape[1]} joints, but {len(told)} {what}. Give every joint one."
                )


def _same(pose: np.ndarray) -> np.ndarray:
    return pose

"""Reader of BVH motion: one file per sequence, `[<train|val|test>/]<subject>/<trial>.bvh`.

Positions follow from the hierarchy and its channels; joints are those of the file, or of a named skeleton found among
them by the names of common programs.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.data.bvh import Bvh, load
from kinema.data.joint_map import JointMap, joint_map
from kinema.data.motion_files import InFile, MotionOptions, find, read_files
from kinema.data.raw import Report, raise_fault
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

_LAYOUT = "Expected <subject>/<trial>.bvh (docs/datasets/bvh_motion.md)."


@dataclass(frozen=True)
class Options(MotionOptions):
    """Options of this reader, as in `dataset.reader_options`, beside those of every reader of motion files.

    Attributes:
        joint_map: joint of `skeleton` -> joint of the files, or a list whose middle it is; the others are guessed.
        joints: names or globs of the joints kept where the skeleton is the files' own; None = all but the ends of
            chains, which are called <joint>_end.
    """

    joint_map: Mapping[str, Any] | None = None
    joints: Sequence[str] | None = None

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        made = cls.parse("bvh", options)
        if made.skeleton is None and made.joint_map:
            raise ConfigError(
                "dataset.reader_options.joint_map says where the joints of a named skeleton are, and dataset.skeleton "
                "is null. Use dataset.skeleton=h36m17, or dataset.reader_options.joints to choose joints of the files."
            )
        if made.skeleton is not None and made.joints is not None:
            raise ConfigError(
                "dataset.reader_options.joints chooses joints of the files' own skeleton, but dataset.skeleton names "
                "another. Use dataset.skeleton=null."
            )
        return made


def describe() -> str:
    """One paragraph about the format."""
    return (
        "Motion in BVH files: joints posed by their rotations, in metres with z up, at one frame rate; subject and "
        "trial are the folder's and the file's name."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens.

    Raises:
        DataError: there are none.
    """
    return [path for _, path in _found(Path(root), Options.checked(options))]


def body(root: Path, **options: Any) -> Skeleton:
    """The skeleton of the sequences, from the first file.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    chosen = Options.checked(options)
    path = _found(Path(root), chosen)[0][1]
    return _joints(load(path), chosen, str(path))[0]


def read(root: Path, *, report: Report = raise_fault, **options: Any) -> Sequences:
    """Read every file.

    Args:
        root: folder of the files, or one file.
        report: takes faults; by default the first one stops.
        options: see `Options`.

    Raises:
        DataError: nothing usable is there, or the first fault.
    """
    chosen = Options.checked(options)

    def make(path: Path) -> tuple[Skeleton, np.ndarray, float]:
        motion = load(path)
        body, pick = _joints(motion, chosen, str(path))
        return body, pick(motion.positions()), motion.fps

    def open_(name: PurePosixPath, path: Path) -> list[InFile]:
        return [(name, str(path), partial(make, path))]

    return read_files(_found(Path(root), chosen), open_, chosen, report)


def _found(root: Path, options: Options) -> list[tuple[PurePosixPath, Path]]:
    return find(root, (".bvh",), "BVH", options.source, _LAYOUT)


def _joints(motion: Bvh, options: Options, name: str) -> tuple[Skeleton, JointMap]:
    """Skeleton of what is kept of a file, and how it is picked."""
    if options.body is not None:
        return options.body, joint_map(
            options.body, motion.joints, motion.parents, motion.offsets, options.joint_map, name
        )
    own = Skeleton.from_parents(motion.parents, motion.joints)
    kept = _kept(motion, options.joints, name)
    body = own.subset([motion.joints[joint] for joint in kept], name=f"custom{len(kept)}")
    return body, JointMap(tuple((joint,) for joint in kept))


def _kept(motion: Bvh, wanted: Sequence[str] | None, name: str) -> list[int]:
    if wanted is None:
        return np.flatnonzero(~motion.ends).tolist()
    for pattern in wanted:
        if not any(fnmatch.fnmatchcase(joint, pattern) for joint in motion.joints):
            raise ConfigError(
                f"dataset.reader_options.joints: {name} has no joint {pattern!r}. It has: {', '.join(motion.joints)}."
            )
    kept = [
        i for i, joint in enumerate(motion.joints) if any(fnmatch.fnmatchcase(joint, pattern) for pattern in wanted)
    ]
    if motion.parents.index(-1) not in kept:
        root = motion.joints[motion.parents.index(-1)]
        raise ConfigError(f"dataset.reader_options.joints leaves out the root {root}. Add it: all others hang on it.")
    return kept

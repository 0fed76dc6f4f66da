"""Faults of a data set that would otherwise show as a bad network: NaN, millimetres, another skeleton."""

from __future__ import annotations

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.data import raw
from kinema.data.sequences import ArrayStore, Sequences
from kinema.errors import ConfigError, DataError

_POSES = ("pose2d", "pose3d")

# No bone of a person is longer; millimetres are a thousand times as large.
_LONGEST_BONE = 10.0
# Above it a mean bone is in millimetres, below in centimetres.
_CENTIMETRES = 60.0
# Mean bone of a body that was divided by too much, in metres; those of a hand are five times as long.
_SHORTEST_BONE = 0.005


def count_nonfinite(sequences: Sequences) -> None:
    """Count NaN and infinite frames once, when the cache is built: columns `nonfinite` and `nonfinite_first`."""
    bad = np.zeros(sequences.arrays.rows, bool)
    for name in _POSES:
        if name in sequences.arrays:
            bad |= ~np.isfinite(sequences.arrays[name]).all(axis=(1, 2))
    start, length = sequences.table["start"], sequences.table["length"]
    before = np.concatenate([[0], np.cumsum(bad)])
    count = before[start + length] - before[start]
    # The frame at which the running count first exceeds what it was at the sequence's start.
    first = np.searchsorted(before, before[start], side="right") - 1 - start
    sequences.table["nonfinite"] = count.astype(np.int64)
    sequences.table["nonfinite_first"] = np.where(count > 0, first, -1).astype(np.int64)


def refuse_nonfinite(sequences: Sequences) -> None:
    """Refuse sequences that hold NaN.

    Raises:
        DataError: naming the first such sequence, how many frames and where they begin.
    """
    rows = np.flatnonzero(sequences.table["nonfinite"] > 0)
    if len(rows):
        row = int(rows[0])
        table = sequences.table
        others = f" ({len(rows) - 1} more sequences as well.)" if len(rows) > 1 else ""
        raise DataError(
            f"{sequences.label(row)}: {table['nonfinite'][row]} of {table['length'][row]} frames hold NaN "
            f"(first {table['nonfinite_first'][row]}).{others} Repair the file or allow masking: dataset.on_nan=mask."
        )


def mask_nonfinite(sequences: Sequences) -> Sequences:
    """Return the store with zeros for NaN, with score 0 in 2D and `valid` (N, J) false in 3D, and none counted."""
    arrays = {name: np.array(sequences.arrays[name]) for name in sequences.arrays}
    for name in _POSES:
        if name not in arrays:
            continue
        bad = ~np.isfinite(arrays[name]).all(axis=-1)  # (N, J)
        if name == "pose3d":
            known = arrays.get("valid", np.ones(len(bad), bool)).reshape(len(bad), -1)
            arrays["valid"] = ~bad & known
        elif bad.any() and arrays[name].shape[-1] == 2:
            score = np.ones((*bad.shape, 1), arrays[name].dtype)
            arrays[name] = np.concatenate([arrays[name], score], axis=-1)
        arrays[name][bad] = 0
    table = {**sequences.table, "nonfinite": np.zeros(len(sequences), np.int64)}
    return sequences.replace(arrays=ArrayStore(sequences.arrays.rows, arrays), table=table)


def fill_nonfinite(sequences: Sequences) -> Sequences:
    """Return the store with straight lines in time for points of `pose3d` that hold NaN, and none counted.

    Raises:
        DataError: for a joint that a whole sequence lacks, which nothing can fill.
    """
    arrays = {name: np.array(sequences.arrays[name]) for name in sequences.arrays}
    pose = arrays["pose3d"]
    for row in np.flatnonzero(sequences.table["nonfinite"] > 0):
        start, length = int(sequences.table["start"][row]), int(sequences.table["length"][row])
        hole = raw.holes(pose[start : start + length])
        if hole.all(0).any():
            raise DataError(
                f"{sequences.label(int(row))}: joint {int(hole.all(0).argmax())} is NaN in every frame, and cannot be "
                f"filled in. Repair the file, or leave it out: 'dataset.drop=[{sequences.label(int(row))}]'."
            )
        pose[start : start + length] = raw.filled(pose[start : start + length], hole)
    table = {**sequences.table, "nonfinite": np.zeros(len(sequences), np.int64)}
    return sequences.replace(arrays=ArrayStore(sequences.arrays.rows, arrays), table=table)


def refuse_joints(sequences: Sequences, skeleton: Skeleton | None, skeleton2d: Skeleton | None) -> None:
    """Refuse arrays with another number of joints than the yaml's skeletons have.

    Raises:
        DataError: with both numbers.
    """
    for name, option, wanted in (("pose3d", "skeleton", skeleton), ("pose2d", "skeleton2d", skeleton2d)):
        if wanted is None or name not in sequences.arrays:
            continue
        found = sequences.arrays[name].shape[1]
        if found != len(wanted):
            raise DataError(
                f"{name} has {found} joints, but dataset.{option}={wanted.name} has {len(wanted)}. "
                f"Convert the file, or name a skeleton of {found} joints in dataset.{option}."
            )


def refuse_millimetres(sequences: Sequences, *, motion: bool = False) -> None:
    """Refuse 3D in millimetres where metres are expected; looks at one frame in the middle of every sequence.

    Args:
        sequences: with `pose3d` or not.
        motion: the data may be in centimetres, too, and metres may have been read as something smaller.

    Raises:
        DataError: naming the first such subject and its mean bone length.
    """
    if "pose3d" not in sequences.arrays or sequences.skeleton is None or sequences.space == "image":
        return
    child, parent = np.array(sequences.skeleton.bones).T
    middle = sequences.table["start"] + sequences.table["length"] // 2 * sequences.step
    pose = np.asarray(sequences.arrays["pose3d"][middle], np.float64)
    bones = np.linalg.norm(pose[:, child] - pose[:, parent], axis=-1).mean(-1)
    long = np.flatnonzero(bones > _LONGEST_BONE)
    if len(long):
        subject = sequences.table["subject"][long[0]]
        average = bones[(sequences.table["subject"] == subject) & (bones > _LONGEST_BONE)].mean()
        unit, name = ("cm", "centimetres") if motion and average < _CENTIMETRES else ("mm", "millimetres")
        raise DataError(
            f"Bones of subject {subject} average {average:.0f}: these are {name}, metres expected. "
            f"Convert, or set dataset.unit={unit}."
        )
    if motion and len(bones) and np.median(bones) < _SHORTEST_BONE:
        raise DataError(
            f"Bones of subject {sequences.table['subject'][0]} average {np.median(bones):.2g} m: the file is in "
            "metres, or in a larger unit than dataset.unit says. Set dataset.unit=m."
        )


def refuse_other(option: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is not among the known ones.

    Raises:
        ConfigError: with the known values.
    """
    if value not in known:
        raise ConfigError(f"dataset.{option}={value} is none of {', '.join(known)}. Use dataset.{option}={known[0]}.")


def refuse_unequal(option: str, stated: int, skeleton: Skeleton | None) -> None:
    """Refuse a number of joints in yaml that contradicts the skeleton beside it.

    Raises:
        ConfigError: with the number to use.
    """
    if skeleton is not None and stated != len(skeleton):
        raise ConfigError(
            f"dataset.{option}={stated}, but its skeleton {skeleton.name} has {len(skeleton)} joints. "
            f"Use dataset.{option}={len(skeleton)}."
        )

"""What the readers of raw files share: where files lie, what to do about faults, options, gaps in tracks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kinema.errors import ConfigError, DataError

# Takes a fault that a reader can step over. Reading raises it; the doctor collects it and lets the reader go on.
Report = Callable[[DataError], None]


def raise_fault(fault: DataError) -> None:
    """Stop at the first fault."""
    raise fault


def locate(root: Path, name: str, source: str) -> Path:
    """Find a raw file in the data set's folder, or in the folder above for those who keep all files in one place.

    Args:
        root: the data set's folder.
        name: file name.
        source: where the file comes from, for the message.

    Raises:
        DataError: it lies in neither; says where it was expected and where it can be had.
    """
    for folder in (root, root.parent):
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{name} not found in {root} (nor in {root.parent}). {source} If it is elsewhere: paths.data_dir=/where/it/is."
    )


def load_array(path: Path) -> np.ndarray:
    """Numbers of one .npy file, float32 or float64.

    Raises:
        DataError: it is damaged or holds something else.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}). Make it again: it must be a plain .npy array.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise DataError(f"{path} holds no numbers. It must be a .npy array (T, joints, channels).")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def known_options(reader: str, options: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Refuse an option that a reader does not have."""
    for key in options:
        if key not in fields:
            raise ConfigError(
                f"The reader {reader} has no option {key!r}. Known in dataset.reader_options: {', '.join(fields)}."
            )


def one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value of an option that is not among its choices."""
    if value not in choices:
        raise ConfigError(
            f"dataset.reader_options.{key}={value} is not known. Choose one of {', '.join(choices)}, "
            f"for example dataset.reader_options.{key}={choices[0]}."
        )


def holes(x: np.ndarray) -> np.ndarray:
    """Points that hold NaN or infinity: (T, J, C) -> (T, J) bool."""
    return ~np.isfinite(x).all(-1)


def filled(x: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill missing points by straight lines in time between the nearest present ones, and hold the first and last.

    Args:
        x: (T, J, C).
        hole: (T, J) bool, true where a point is missing.

    Returns:
        (T, J, C) copy; a point that is missing in every frame becomes 0.
    """
    frames = len(x)
    time = np.arange(frames)[:, None]
    before = np.maximum.accumulate(np.where(hole, -1, time), axis=0)
    after = np.minimum.accumulate(np.where(hole, frames, time)[::-1], axis=0)[::-1]
    first, last = np.where(before < 0, after, before), np.where(after >= frames, before, after)
    first, last = first.clip(0, frames - 1), last.clip(0, frames - 1)
    share = ((time - first) / np.maximum(last - first, 1))[..., None].astype(x.dtype)
    low, high = (np.take_along_axis(x, index[..., None], axis=0) for index in (first, last))
    out = np.where(hole[..., None], low + (high - low) * share, x)
    out[:, hole.all(0)] = 0
    return out

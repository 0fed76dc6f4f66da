"""MATLAB files of all versions, as MATLAB shows them: numbers in its order of axes, cells as arrays of objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data.convert.files import AGAIN, BROKEN, needed
from kinema.data.safe_pickle import existing
from kinema.errors import DataError, KinemaError

_HDF5 = b"\x89HDF\r\n\x1a\n"
# MATLAB writes its own header of 512 bytes before the HDF5 file.
_MATLAB_HEADER = 512


def read_mat(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read variables of a .mat file, of version 7.3 (HDF5) or before.

    Args:
        path: the file.
        names: variables that must be there.
        optional: variables that are read where they are.

    Returns:
        Name -> array as MATLAB shows it, two axes at least. Cells are object arrays of such arrays.

    Raises:
        DataError: the file is missing, damaged or lacks a variable.
    """
    path = existing(path)
    read = _hdf5 if is_hdf5(path) else _before
    try:
        found = read(path, [*names, *optional])
    except KinemaError:
        raise
    except BROKEN as error:
        raise DataError(f"{path} cannot be read as a MATLAB file ({error}). {AGAIN}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"{path} has no variable {missing[0]!r}; found {', '.join(found) or 'none of those expected'}. "
            "It is another file than expected here."
        )
    return found


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, with MATLAB's header or without."""
    with path.open("rb") as file:
        start = file.read(_MATLAB_HEADER + len(_HDF5))
    return start.startswith(_HDF5) or start[_MATLAB_HEADER:] == _HDF5


def _before(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    library = needed("scipy.io", "SciPy")
    try:
        stored = library.loadmat(str(path), variable_names=list(names))
    except library.matlab.MatReadError as error:  # derives from no other exception
        raise ValueError(str(error)) from error
    return {name: np.asarray(stored[name]) for name in names if name in stored}


def _hdf5(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    with needed("h5py", "h5py").File(path, "r") as file:
        return {name: _value(file, file[name]) for name in names if name in file}


def _value(file: Any, entry: Any) -> np.ndarray:
    """An HDF5 data set in MATLAB's order of axes, the cells it points to likewise."""
    value = np.asarray(entry[()])
    if value.dtype != object:
        return value.T
    cells = np.empty(value.shape, dtype=object)
    for index in np.ndindex(value.shape):
        cells[index] = _value(file, file[value[index]])
    return cells.T

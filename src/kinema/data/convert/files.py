"""What the converters share: npz files of nested dicts in bounded memory, output that appears whole or not at all."""

from __future__ import annotations

import importlib
import mmap
import pickle
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from kinema.core.skeleton import Skeleton
from kinema.errors import ConfigError, DataError

# What the libraries behind us raise on damaged files; none of them has an error of its own for that.
BROKEN = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
AGAIN = "The file is damaged or incomplete: download it again."
# Mean bone in millimetres: a person's is 100 to 400; in metres it would be 0.1 to 0.4.
_MEAN_BONE = (30.0, 3000.0)

Place = tuple[int, tuple[int, ...], np.dtype[Any]]


def needed(module: str, package: str) -> ModuleType:
    """Import an optional package.

    Raises:
        ConfigError: it is not installed; says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"These files are read with {package}. Use pip install 'kinema[mat]'.") from error


class Spool:
    """Arrays that wait in one file on disk until they are packed, so that memory holds one recording at a time.

    Args:
        folder: where the file is made.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `__exit__`
        self._map: mmap.mmap | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, array: np.ndarray) -> Place:
        """Write an array and return the ticket for `take`."""
        place = (self._file.seek(0, 2), array.shape, array.dtype)
        self._file.write(np.ascontiguousarray(array).tobytes())
        self._map = None
        return place

    def take(self, place: Place) -> np.ndarray:
        """A read-only view of an array that was put."""
        start, shape, dtype = place
        if self._map is None:
            self._file.flush()
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        count = int(np.prod(shape))
        return np.frombuffer(self._map, dtype, count, start).reshape(shape)


def save_npz(path: Path, **entries: Any) -> None:
    """Write entries as `numpy.savez_compressed` writes dicts, without a second copy of everything in memory."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in entries.items():
            box = np.empty((), dtype=object)
            box[()] = value
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                header = {"descr": "|O", "fortran_order": False, "shape": ()}
                npy_format.write_array_header_1_0(file, header)
                pickler = pickle.Pickler(file, protocol=4)
                pickler.fast = True  # no memory of what was written: it would keep the bytes of every array
                pickler.dump(box)


@contextmanager
def staged(output: Path, names: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write in; its npz files move to `output` when the block ends well, else they vanish.

    Raises:
        DataError: one of `names` is there already and may not be overwritten.
    """
    present = [name for name in names if (output / name).exists()]
    if present and not overwrite:
        raise DataError(f"{output / present[0]} is there already. Use --overwrite, or another --output.")
    output.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".converting-", dir=output))
    try:
        yield folder
        for path in sorted(folder.glob("*.npz")):
            path.replace(output / path.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def existing_sources(paths: Sequence[Path]) -> None:
    """Refuse a source that is not there.

    Raises:
        DataError: naming it.
    """
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} not found. Name the folder that holds the downloaded files.")


def refuse_gaps(label: str, array: np.ndarray) -> None:
    """Refuse NaN and infinity in (T, ...), naming the first such frame.

    Raises:
        DataError: there is one.
    """
    holes = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
    if len(holes):
        raise DataError(
            f"{label}: {len(holes)} of {len(array)} frames hold NaN or infinity (first {holes[0]}). "
            f"The original has none. {AGAIN}"
        )


def refuse_other_units(label: str, pose: np.ndarray, body: Skeleton) -> None:
    """Refuse poses (T, J, 3) that cannot be millimetres.

    Raises:
        DataError: the mean bone is no person's.
    """
    child, parent = np.array(body.bones).T
    bone = float(np.linalg.norm(np.asarray(pose[:, child] - pose[:, parent], np.float64), axis=-1).mean())
    if not _MEAN_BONE[0] < bone < _MEAN_BONE[1]:
        raise DataError(
            f"{label}: bones average {bone:.3g}, but the original files hold millimetres (about 200). "
            "Use the file as its owners hand it out; metres have to be multiplied by 1000."
        )


def incomplete(sentence: str, *, partial: bool) -> None:
    """Refuse less than the complete data set, unless parts of it are wanted.

    Raises:
        DataError: `sentence`, and how to go on without.
    """
    if not partial:
        raise DataError(f"{sentence} Complete the download, or convert what there is: --partial.")


def nested(places: Mapping[tuple[str, str], Any], subjects: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Values by (subject, action) as a dict of dicts: subjects in the given order, actions by name."""
    out: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        actions = {action: value for (one, action), value in sorted(places.items()) if one == subject}
        if actions:
            out[subject] = actions
    return out

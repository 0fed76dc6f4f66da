"""Where Human3.6M recordings lie: folders and archives, as CDF, MATLAB's copy of it, or older HDF5."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kinema.core.skeleton import skeleton
from kinema.data.convert.files import AGAIN, BROKEN, needed, refuse_gaps, refuse_other_units
from kinema.data.convert.mat import read_mat
from kinema.errors import DataError, KinemaError

SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
BODY = skeleton("h36m32")
_AXES = 3
_RENAMED = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}
# The owners' files, the same as saved by MATLAB after cdfread, those of the withdrawn archive of 3d-pose-baseline.
_FORMS = {
    "cdf": ("MyPoseFeatures/D3_Positions", ".cdf"),
    "mat": ("MyPoseFeatures/D3_Positions", ".cdf.mat"),
    "h5": ("MyPoses/3D_positions", ".h5"),
}
_NAMES = {
    form: re.compile(rf"(?:^|/)(S\d+)/{folder}/([^/]+?){re.escape(end)}$") for form, (folder, end) in _FORMS.items()
}
_ARCHIVE = re.compile(r"^Poses_D3_Positions_(S\d+)\.(tgz|tar\.gz|tar)$")
_LAYOUT = (
    "Expected <folder>/S1/MyPoseFeatures/D3_Positions/*.cdf or <folder>/Poses_D3_Positions_S1.tgz; D3_Positions_mono "
    "and D3_Angles are something else (docs/datasets/h36m.md)."
)


@dataclass(frozen=True)
class Recording:
    """One take.

    Attributes:
        subject: such as "S1".
        action: name of the VideoPose3D format, such as "Photo 1".
        label: where it was found, for messages.
        pose: (T, 32, 3) float32, metres in world space.
    """

    subject: str
    action: str
    label: str
    pose: np.ndarray


def recordings(sources: Sequence[Path], scratch: Path) -> Iterator[Recording]:
    """Read every take of the seven subjects, one at a time.

    Args:
        sources: folders, .tgz archives as they are downloaded, or the older .zip.
        scratch: folder for the files of an archive, one at a time.

    Raises:
        DataError: a source holds no such file, or a damaged one.
    """
    for source in sources:
        found = False
        for name, path in _entries(source, scratch):
            form, subject, stem = _parsed(name)
            found = True
            if subject in SUBJECTS:
                base, _, take = stem.partition(" ")
                action = f"{_RENAMED.get(base, base)} {take}".rstrip()
                yield Recording(subject, action, name, _metres(name, path, form))
        if not found:
            raise DataError(f"{source} holds no 3D positions of Human3.6M. {_LAYOUT}")


def _parsed(name: str) -> tuple[str, str, str]:
    """Form, subject and file name without its end; empty strings for another file."""
    for form, pattern in _NAMES.items():
        match = pattern.search(name)
        if match:
            return form, match[1], match[2]
    return "", "", ""


def _entries(source: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Names of recordings with a path to read each from; one from an archive is gone when the next is asked for."""
    if source.is_dir():
        loose = _loose(source)
        yield from loose
        unpacked = {_parsed(name)[1] for name, _ in loose}
        for path in sorted(source.iterdir()):
            match = _ARCHIVE.match(path.name)
            if match and match[1] not in unpacked:
                yield from _tar(path, scratch)
    elif tarfile.is_tarfile(source) or source.name.endswith((".tgz", ".tar", ".gz")):
        yield from _tar(source, scratch)
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist()):
                if _parsed(name)[0]:
                    yield name, _written(scratch, name, archive.read(name))
    else:
        raise DataError(f"{source} is neither a folder nor an archive. {_LAYOUT}")


def _loose(source: Path) -> list[tuple[str, Path]]:
    """Unpacked recordings below a folder; where a subject lies there in several forms, the first form."""
    found: list[tuple[str, Path]] = []
    for form, (folder, end) in _FORMS.items():
        known = {_parsed(name)[1] for name, _ in found}
        for path in sorted(path for depth in ("", "*/") for path in source.glob(f"{depth}S*/{folder}/*{end}")):
            kind, subject, _ = _parsed(path.as_posix())
            if kind == form and subject not in known:
                found.append((path.as_posix(), path))
    return found


def _tar(source: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Recordings of a .tgz, read from its beginning to its end once."""
    named = _ARCHIVE.match(source.name)
    try:
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if not _parsed(name)[0] and named:  # the subject may stand in the archive's own name alone
                    name = f"{named[1]}/{name}"
                file = archive.extractfile(member) if member.isfile() and _parsed(name)[0] else None
                if file is not None:
                    yield f"{source.name}/{name}", _written(scratch, name, file.read())
    except KinemaError:
        raise
    except (tarfile.TarError, *BROKEN) as error:
        raise DataError(f"{source} cannot be unpacked ({error}). {AGAIN}") from error


def _written(scratch: Path, name: str, content: bytes) -> Path:
    """Put a file of an archive where libraries that want a path can read it."""
    path = scratch / f"entry{Path(name).suffix}"
    path.write_bytes(content)
    return path


def _metres(label: str, path: Path, form: str) -> np.ndarray:
    """Read one file: (T, 32, 3) float32 metres."""
    try:
        stored = {"cdf": _cdf, "mat": _cells, "h5": _h5}[form](path)
    except KinemaError as error:
        raise type(error)(str(error).replace(str(path), label)) from error
    except BROKEN as error:
        raise DataError(f"{label} cannot be read ({error}). {AGAIN}") from error
    width = len(BODY) * _AXES
    if stored.dtype.kind != "f" or stored.size == 0 or stored.shape[-1:] != (width,):
        raise DataError(
            f"{label}: {stored.dtype} {stored.shape}, expected rows of {width} numbers, 3 of each of {len(BODY)} "
            f"joints. {_LAYOUT}"
        )
    pose = stored.reshape(-1, len(BODY), _AXES)
    refuse_gaps(label, pose)
    refuse_other_units(label, pose, BODY)
    # In the precision of the file first: the order decides the last bit.
    return np.asarray(pose / pose.dtype.type(1000), dtype=np.float32)


def _cdf(path: Path) -> np.ndarray:
    file = needed("cdflib", "cdflib").CDF(path)
    info = file.cdf_info()
    names = [*info.zVariables, *info.rVariables]
    if "Pose" not in names:
        raise DataError(f"{path} has no variable 'Pose', only {', '.join(names) or 'none'}. {_LAYOUT}")
    return np.asarray(file.varget("Pose"))


def _cells(path: Path) -> np.ndarray:
    return np.asarray(read_mat(path, ["data"])["data"].reshape(-1)[0])


def _h5(path: Path) -> np.ndarray:
    with needed("h5py", "h5py").File(path, "r") as file:
        return np.asarray(file["3D_positions"][()]).T

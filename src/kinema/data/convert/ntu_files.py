"""The .skeleton files of NTU RGB+D: reading one, and choosing the persons of a clip among its tracked bodies."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from kinema.data.convert.files import AGAIN, BROKEN
from kinema.errors import DataError

JOINTS = 25
SUFFIX = ".skeleton"

# A line of a body: its number, six states, two angles of leaning, tracking state; then the number of its joints.
_BODY_WORDS = 10
# A line of a joint: x, y, z, its place in the depth and in the colour image, a quaternion, tracking state.
_JOINT_WORDS = 12

# Chosen by the authors of the data set's first skeleton pipelines; the published containers were made with them.
_SHORTEST = 11  # frames; tracks of at most so many are furniture and reflections
_WIDEST = 0.8  # width of a person relative to the height
_TOO_OFTEN_WIDE = 0.69754  # share of such frames at which a track is no person
_NOTHING = 1e-3  # sum of absolute metres below which a frame holds no person


@cache
def without_skeleton() -> frozenset[str]:
    """Names of the 535 clips (302 of them in NTU RGB+D) whose skeleton is missing or incomplete; nobody uses them."""
    names = []
    for line in resources.files(__package__).joinpath("ntu_missing.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            place, *performances = line.split()
            names += [place + performance for performance in performances]
    return frozenset(names)


def listed_names(path: Path) -> frozenset[str]:
    """Names of clips in a text file of the owners, which begins with sentences.

    Raises:
        DataError: it holds none.
    """
    names = frozenset(re.findall(r"\bS\d{3}C\d{3}P\d{3}R\d{3}A\d{3}\b", path.read_text()))
    if not names:
        raise DataError(f"{path} names no clip. Give the list samples_with_missing_skeletons.txt of the owners.")
    return names


@dataclass(frozen=True)
class Entry:
    """One .skeleton file.

    Attributes:
        name: of the clip.
        path: the file, or the archive it is in.
        member: its name in the archive, None outside one.
        size: bytes, unpacked.
        stamp: when it was changed: a file that is replaced is read again.
    """

    name: str
    path: Path
    member: str | None
    size: int
    stamp: str

    def read(self) -> bytes:
        """The bytes of the file."""
        if self.member is None:
            return self.path.read_bytes()
        return _archive(self.path).read(self.member)


@cache
def _archive(path: Path) -> zipfile.ZipFile:
    # One for each process: reading the list of 60,000 members takes a second.
    return zipfile.ZipFile(path)


def entries(sources: Sequence[Path]) -> list[Entry]:
    """Find the .skeleton files in folders (at any depth) and zip archives, by name.

    Raises:
        DataError: a clip that is there twice, an archive that cannot be read, or no file at all.
    """
    found: dict[str, Entry] = {}
    for source in sources:
        for entry in _in_archive(source) if source.is_file() else _in_folder(source):
            if entry.name in found:
                raise DataError(
                    f"{entry.name} is in {found[entry.name].path} and in {entry.path}. Name one copy of each clip."
                )
            found[entry.name] = entry
    if not found:
        raise DataError(
            f"There is no {SUFFIX} file in {', '.join(map(str, sources))}. Name the folder or the archives with the 3D "
            "skeletons of NTU RGB+D (docs/datasets/ntu.md)."
        )
    return [found[name] for name in sorted(found)]


def _in_folder(folder: Path) -> list[Entry]:
    files = [path for path in sorted(folder.rglob(f"*{SUFFIX}")) if path.is_file()]
    if not files:
        return [entry for path in sorted(folder.glob("*.zip")) for entry in _in_archive(path)]
    states = [path.stat() for path in files]
    return [
        Entry(path.stem, path, None, state.st_size, str(state.st_mtime_ns))
        for path, state in zip(files, states, strict=True)
    ]


def _in_archive(path: Path) -> list[Entry]:
    try:
        members = _archive(path).infolist()
    except (zipfile.BadZipFile, *BROKEN) as error:
        raise DataError(f"{path} is no readable zip archive ({error}). {AGAIN}") from error
    return [
        Entry(Path(member.filename).stem, path, member.filename, member.file_size, f"{member.CRC:08x}")
        for member in members
        if member.filename.endswith(SUFFIX) and not member.is_dir()
    ]


@dataclass
class Track:
    """One body as it was tracked.

    Attributes:
        start: frame in which it appears, frames without any body not counted.
        points: (T, 25, 3) metres, float32.
        motion: how much its joints move, by which persons are ranked.
    """

    start: int
    points: np.ndarray
    motion: float

    @property
    def end(self) -> int:
        """First frame after it; a body that was lost for a while is closed up."""
        return self.start + len(self.points)


def parse(data: bytes, label: str) -> list[Track]:
    """Read a .skeleton file: frames, bodies in them and 25 joints of each.

    Args:
        data: of the file.
        label: its name for messages.

    Returns:
        The tracked bodies in the order in which they appear; none where no frame has one.

    Raises:
        DataError: the file is damaged.
    """
    words = data.split()
    try:
        starts, places = _bodies(words, label)
        points = {body: _points(words, found) for body, found in places.items()}
    except (ValueError, IndexError) as error:
        raise DataError(f"{label} is no skeleton file of NTU RGB+D ({error}). {AGAIN}") from error
    for array in points.values():
        if not np.isfinite(array).all():
            raise DataError(f"{label} holds NaN or infinity. {AGAIN}")
    return [Track(starts[body], array, _motion(array)) for body, array in points.items()]


def _bodies(words: list[bytes], label: str) -> tuple[dict[bytes, int], dict[bytes, list[int]]]:
    """First frame of every body, and where the words of its joints begin."""
    starts: dict[bytes, int] = {}
    places: dict[bytes, list[int]] = {}
    at, seen = 1, 0
    for _ in range(int(words[0])):
        bodies = int(words[at])
        at += 1
        for _ in range(bodies):
            body, joints = words[at], int(words[at + _BODY_WORDS])
            if joints != JOINTS:
                raise ValueError(f"a body of {joints} joints")
            at += _BODY_WORDS + 1
            starts.setdefault(body, seen)
            places.setdefault(body, []).append(at)
            at += JOINTS * _JOINT_WORDS
        seen += bodies > 0
    if at != len(words):
        raise ValueError(f"{len(words)} words, {at} expected")
    return starts, places


def _points(words: list[bytes], places: list[int]) -> np.ndarray:
    """Joints (T, 25, 3) of a body whose words begin at the given places."""
    taken: list[bytes] = []
    for place in places:
        end = place + JOINTS * _JOINT_WORDS
        for axis in range(3):
            taken += words[place + axis : end : _JOINT_WORDS]
    numbers = np.array(list(map(float, taken)), dtype=np.float32)
    return np.ascontiguousarray(numbers.reshape(len(places), 3, JOINTS).transpose(0, 2, 1))


def _motion(points: np.ndarray) -> float:
    """Variance of the coordinates over all joints and frames, summed over the axes."""
    return float(np.var(points.reshape(-1, 3), axis=0).sum())


def persons(tracks: Sequence[Track]) -> np.ndarray | None:
    """Choose one or two persons among the tracked bodies, as the published 3D containers do.

    Args:
        tracks: of one clip.

    Returns:
        (M, T, 25, 3) metres, zeros where a person is not there; None where no track can be a person.

    Source: action.md 3.1; repo kennymckormick/pyskl, tools/data/ntu_preproc.py (which fails where we return None).
    """
    if not tracks:
        return None
    left = sorted(tracks, key=lambda track: -track.motion)
    if len(left) > 1:
        left = [track for track in left if len(track.points) > _SHORTEST]
    if len(left) > 1:
        left = _upright(left)
    if not left:
        return None
    if len(left) == 1:
        return left[0].points[None]
    out = np.zeros((2, max(track.end for track in left), JOINTS, 3), np.float32)
    spans = [(left[0].start, left[0].end), (0, 0)]
    out[0, slice(*spans[0])] = left[0].points
    for track in left[1:]:
        for person, (start, end) in enumerate(spans):
            if max(start, track.start) >= min(end, track.end):
                out[person, track.start : track.end] = track.points
                spans[person] = (min(start, track.start), max(end, track.end))
                break
    return _trimmed(out)


def _upright(tracks: list[Track]) -> list[Track]:
    """Tracks that are persons, the one that moves most first; frames in which they are wide do not count as motion."""
    kept = []
    for track in tracks:
        width, height = (np.ptp(track.points[..., axis], axis=1) for axis in (0, 1))
        good = width <= _WIDEST * height
        if good.all():
            kept.append(track)
        elif 1 - good.sum() / len(good) < _TOO_OFTEN_WIDE:
            kept.append(Track(track.start, track.points, min(track.motion, _motion(track.points[good]))))
    return sorted(kept, key=lambda track: -track.motion)


def _trimmed(points: np.ndarray) -> np.ndarray:
    """Without frames at both ends in which nobody is there; the one who is there at the beginning comes first."""
    present = np.flatnonzero(np.abs(points).sum((0, 2, 3)) >= _NOTHING)
    points = points[:, present[0] : present[-1] + 1]
    first, second = np.abs(points[:, 0, 1]).sum(-1)  # the middle of the spine
    return points[::-1] if first < _NOTHING < second else points

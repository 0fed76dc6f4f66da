"""Keypoints of one's own videos, as detectors and the field's tools write them: a registry of formats behind `read`.

A format is a module with NAME, `matches(content)` for parsed json, and `read(content, path, track)`; arrays are told by
the suffix. Every format becomes tracks in pixels, whose gaps are filled (`gaps.py`), which are looked at
(`core/keypoint_checks.py`) and brought to what the network takes (`conversion.py`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kinema.core.keypoint_checks import Verdict, examine, spread
from kinema.core.keypoints import LARGEST
from kinema.core.layouts import find, needed
from kinema.data.readers.detections import alphapose, arrays, coco, gaps, mediapipe, mmpose, openpose
from kinema.data.readers.detections.conversion import Conversion
from kinema.data.readers.detections.track import Track, frame_numbers
from kinema.data.safe_pickle import existing
from kinema.data.sequences import ArrayStore, Sequences
from kinema.errors import DataError, KinemaError

log = logging.getLogger(__name__)

SUFFIXES = (".npz", ".npy", ".json")
# In this order: what AlphaPose writes is also a list of entries with keypoints, as COCO's results are.
FORMATS: dict[str, ModuleType] = {module.NAME: module for module in (openpose, alphapose, coco, mmpose, mediapipe)}
_PART = 4096  # frames looked at together


@dataclass(frozen=True)
class Options:
    """How a file is read.

    Attributes:
        track: see `people.pick`.
        max_gap: frames that are bridged by a straight line at most, None = any number.
        check: whether faults that the checks find stop the run.
        fps: frames per second, for the table.
    """

    track: int | str | None = None
    max_gap: int | None = None
    check: bool = True
    fps: float | None = None


def read(path: Path, conversion: Conversion, options: Options | None = None) -> Sequences:
    """Read keypoints and bring them to network units.

    Args:
        path: a file of one of the formats, recognised by its content, or a folder with one json file per frame.
        conversion: what the points are, and what the network takes. A layout or size that it does not say comes from
            the file.
        options: see there.

    Returns:
        Sequences without 3D, one per track of the file.

    Raises:
        DataError: for a file of another kind, joints that do not fit, what the checks find, a missing image size.
    """
    options = options or Options()
    items = []
    for look in _looks(path, conversion, options):
        look.judge(path, options.check)
        track, own = look.track, look.conversion
        row = _row(track.name, options.fps, own.width, own.height) | {"trial": track.action, "camera": track.camera}
        items.append({"pose2d": own.network(look.points, path, look.layout), **row})
    if not items:
        raise DataError(f"{path} holds no sequences. Detect keypoints first.")
    return Sequences.from_arrays(items, skeleton2d=conversion.skeleton2d, space="camera")


def pixels(
    path: Path, conversion: Conversion, options: Options | None = None, found: Iterable[Track] | None = None
) -> Iterator[Track]:
    """Read keypoints and bring them to the joints that the network takes; they stay pixels.

    Args:
        path: as for `read`.
        conversion: what the points are, and which joints the network takes.
        options: how the file is read.
        found: its tracks where the caller has read them.

    Returns:
        Each track of the file with points (T, J, 3) without gaps, the score in the third channel (1 where the file has
        none), and the image size, 0 where nobody says it.

    Raises:
        DataError: as `read`.
    """
    options = options or Options()
    for look in _looks(path, conversion, options, found):
        look.judge(path, options.check)
        own = look.conversion
        points = own.joints(look.points, path, look.layout)
        if points.shape[-1] == 2:
            points = np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)
        width, height = int(own.width or 0), int(own.height or 0)
        body = own.skeleton2d.name
        yield replace(look.track, points=points, layout=body, unit="pixel", width=width, height=height)


def mapped(
    path: Path, conversion: Conversion, options: Options | None = None
) -> tuple[Sequences, Callable[[np.ndarray], np.ndarray]] | None:
    """Map the points of a .npy file as they are, for a program that converts them part by part.

    Returns:
        One sequence whose `pose2d` waits, and what converts a part of it; None where the file has to be read whole:
        another kind of file, columns first, gaps, or a box of the whole motion to be fitted.

    Raises:
        DataError: as `read`.
    """
    options = options or Options()
    if path.suffix != ".npy" or not conversion.by_frame:
        return None
    points = arrays.load(existing(path), mmap_mode="r")
    if not points.flags.c_contiguous:
        return None
    track = Track(path.stem, np.asarray(points))
    own, layout, gaps_in = _resolved(track, path, conversion)
    if gaps_in:
        return None
    sample = own.pixels(track.points[spread(len(points))], path, layout)
    verdicts = examine(sample, layout, width=own.width, height=own.height)
    Look(track, sample, own, layout, 0, verdicts).judge(path, options.check)
    row = _row(path.stem, options.fps, own.width, own.height)
    made = Sequences.from_arrays([{"pose2d": track.points[:1], **row}], skeleton2d=own.skeleton2d, space="camera")
    made.table["length"][0] = len(points)
    whole = made.replace(arrays=ArrayStore(len(points), {"pose2d": track.points}))
    return whole, lambda part: own(part, path)


def findings(path: Path, conversion: Conversion, options: Options | None = None) -> Iterator[tuple[str, list[Verdict]]]:
    """What the checks say about every track of a file: a description of it and the verdicts."""
    for look in _looks(path, conversion, options or Options()):
        own = look.conversion
        size = f", images of {own.width} x {own.height}" if own.by_frame else ""
        yield (
            f"{look.track.name}: {len(look.points)} frames of {look.layout}{size}, {look.gaps} with gaps",
            look.verdicts,
        )


def tracks(path: Path, track: int | str | None) -> Iterator[Track]:
    """Every sequence of a file or folder, as it is stored.

    Raises:
        DataError: none of the formats.
    """
    if path.is_dir():
        yield _folder(path, track)
    elif path.suffix == ".json":
        content = _json(path)
        for module in FORMATS.values():
            with _readable(path, module.NAME):
                fits = module.matches(content)
                if fits:
                    log.info("%s: %s keypoints", path.name, module.NAME)
                    found = module.read(content, path, track)
            if fits:
                yield from found
                return
        raise DataError(
            f"{path} is none of the known keypoint files ({', '.join(FORMATS)}). Write the points into an array: "
            "docs/own_data.md."
        )
    elif path.suffix in SUFFIXES:
        yield from arrays.read(existing(path))
    else:
        raise DataError(
            f"{path} has an unknown suffix. Known keypoint files: {', '.join(SUFFIXES)}, or a folder of json files."
        )


@dataclass(frozen=True)
class Look:
    """A track after it was looked at: points in pixels without gaps, and what the checks say."""

    track: Track
    points: np.ndarray
    conversion: Conversion
    layout: str
    gaps: int
    verdicts: list[Verdict]

    def judge(self, path: Path, strict: bool) -> None:
        """Stop at a fault, warn of the rest, and say what was assumed.

        Raises:
            DataError: the first fault.
        """
        for verdict in self.verdicts:
            if verdict.fault and strict:
                raise DataError(f"{path}: {self.track.name}: {verdict} predict.check=false goes on all the same.")
            log.warning("%s: %s: %s", path, self.track.name, verdict)
        if self.layout == self.conversion.skeleton2d.name:
            return
        way = find(self.layout, self.conversion.skeleton2d.name, self.conversion.rule)
        made = f"; {', '.join(way.invented)} placed by rule, score 0" if way.invented else ""
        log.info("%s: %s points become %s%s", self.track.name, self.layout, way.target, made)


def _looks(
    path: Path, conversion: Conversion, options: Options, found: Iterable[Track] | None = None
) -> Iterator[Look]:
    for track in tracks(path, options.track) if found is None else found:
        own, layout, _ = _resolved(track, path, conversion)
        rule = "plain" if layout == own.skeleton2d.name else own.rule
        points = own.columns(track.points, layout)
        empty = int(gaps.holes(points).any(1).sum())
        used = needed(layout, own.skeleton2d.name, rule)
        points, never = gaps.filled(points, layout, used, options.max_gap, f"{path}: {track.name}")
        points = own.pixels(points, path, layout)
        shown = points[spread(len(points))]
        shown[:, never] = np.nan
        verdicts = examine(shown, layout, width=own.width, height=own.height)
        yield Look(track, points, own, layout, empty, verdicts)


def _resolved(track: Track, path: Path, conversion: Conversion) -> tuple[Conversion, str, bool]:
    """The conversion of a track with what its file says, its layout, and whether it has gaps.

    Raises:
        DataError: it is no array of points, or numbers that no image has.
    """
    points, name = track.points, track.name
    real = np.issubdtype(points.dtype, np.integer) or np.issubdtype(points.dtype, np.floating)
    if points.ndim != 3 or not 2 <= points.shape[-1] <= 5 or not points.shape[1] or not real:
        raise DataError(f"{path}: {name} has shape {points.shape} of {points.dtype}, {_EXPECTED}")
    if not len(points):
        raise DataError(f"{path}: {name} holds no frames. Detect keypoints first.")
    layout = replace(conversion, layout=conversion.layout or track.layout).order(points.shape[1], path)
    if points.shape[-1] > 3 and layout != "mediapipe33":
        raise DataError(f"{path}: {name} has shape {points.shape}, {_EXPECTED}")
    gapped, reach = False, 0.0
    for start in range(0, len(points), _PART):  # a mapped file is never held whole
        part = points[start : start + _PART, :, :2]
        gapped = gapped or bool(gaps.holes(part).any())
        reach = max(reach, float(np.abs(np.nan_to_num(part, posinf=0, neginf=0)).max()))
    if reach > LARGEST:
        raise DataError(
            f"{path}: {name} reaches {reach:.3g} pixels, no image is that large. Look for faults of the detector."
        )
    guess = "normalised" if layout == "mediapipe33" and reach <= mediapipe.NORMALISED else "pixel"
    sized = conversion if conversion.by_frame else conversion.of_size(track.width, track.height)
    return replace(sized, layout=layout, unit=conversion.unit or track.unit or guess), layout, gapped


_EXPECTED = (
    "expected (frames, joints, 2) or (frames, joints, 3): x and y in pixels and a score. Choose or reshape the array."
)


def _folder(path: Path, track: int | str | None) -> Track:
    """One json file per frame, as OpenPose and MMPose write them."""
    files = sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"{path} holds no .json files. Give the folder with one file of keypoints per frame.")
    frames = [_json(file) for file in files]
    for module in (openpose, mmpose):
        if all(module.is_frame(frame) for frame in frames):
            log.info("%s: %d files of %s keypoints", path.name, len(files), module.NAME)
            with _readable(path, module.NAME):
                return module.by_frames(frames, frame_numbers([file.name for file in files], path), path, track)
    raise DataError(
        f"{path}: its .json files are no frames of OpenPose or MMPose. Give another tool's file itself: input=FILE."
    )


@contextmanager
def _readable(path: Path, name: str) -> Iterator[None]:
    """Turn what a malformed entry raises into a sentence.

    Raises:
        DataError: in place of any of these.
    """
    try:
        yield
    except KinemaError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, MemoryError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise DataError(
            f"{path} looks like {name}, but an entry cannot be read ({reason}). Write the file again."
        ) from error


def _json(path: Path) -> Any:
    existing(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no json file ({error}). Pass the file that the detector wrote.") from None


def _row(name: str, fps: float | None, width: int | None, height: int | None) -> dict[str, Any]:
    return {
        "subject": name,
        "action": "custom",
        "camera": "0",
        "fps": float(fps or 0.0),
        "width": int(width or 0),
        "height": int(height or 0),
    }

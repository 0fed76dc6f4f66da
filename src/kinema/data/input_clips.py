"""Clips that somebody hands over to be recognised or lifted: a file, or every file of a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data.readers import detections
from kinema.data.readers.clip_folder import load_clip
from kinema.data.readers.detections import mmpose, openpose
from kinema.data.readers.detections.conversion import Conversion
from kinema.data.readers.detections.track import Track
from kinema.data.safe_pickle import existing
from kinema.errors import DataError

# Arrays that have the name of the folder they lie in, as in MA-52.
OWN_FOLDER = ("pose_3d", "pose_2d", "keypoints")
# Files beside the clips that are none: what readers of action clips and the converter write or look for.
LIFTED = "lifted.json"
NO_CLIPS = ("class_names.json", "classes.json", "segments.json", LIFTED)
# What mode=lift calls its clips, in folders below its record.
LIFTED_CLIP = "pose_3d.npy"
# Joints further from the origin are no metres of a body.
_PIXELS = 20.0
_LIFT = (
    "This network takes 3D poses. Lift them: predict.lifter=lifting.ckpt, or mode=lift for many files; or use a "
    "network of 2D keypoints."
)


@dataclass(frozen=True)
class InputClip:
    """One clip as it came.

    Attributes:
        name: for tables and messages.
        keypoints: (M, T, J, 3) joints in space, or (M, T, J, 2) pixels.
        score: (M, T, J) of pixels, else None.
        size: width and height of the image; None = unknown.
        fps: frames per second; None = unknown.
        camera: whether the joints are known to be in camera axes (x right, y down, z away).
        unit: of joints in space as far as it is stated, "metres" for example; empty = unknown.
    """

    name: str
    keypoints: np.ndarray
    score: np.ndarray | None = None
    size: tuple[int, int] | None = None
    fps: float | None = None
    camera: bool = False
    unit: str = ""


def sources(path: Path) -> list[tuple[str, Path]]:
    """Name and file of every clip at a place, in the order of the names.

    A folder of json files that are frames of one video is one clip; below any other folder every .npy, .npz and .json
    file, and every such folder of frames, is one.

    Raises:
        DataError: nothing is there.
    """
    if path.is_file():
        return [(Path(_own_name(path)).name, path)]
    if not path.is_dir():
        raise DataError(f"{path} does not exist. Give a file of poses or keypoints, or a folder of such files.")
    found = [(path.name, path)] if _frames(path) else sorted(_below(path, path))
    if not found:
        raise DataError(
            f"{path} holds no clips: no {', '.join(detections.SUFFIXES)} file. Give the folder that they lie in."
        )
    return found


def _below(folder: Path, root: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):  # half-written, or of the system
            continue
        if path.is_dir():
            if _frames(path):
                yield path.relative_to(root).as_posix(), path
            else:
                yield from _below(path, root)
        elif path.suffix in detections.SUFFIXES and path.name not in NO_CLIPS:
            relative = path.relative_to(root)
            own = len(relative.parts) == 1 and relative.stem in OWN_FOLDER  # the folder of one clip was given
            yield root.name if own else _own_name(relative), path


def _own_name(path: Path) -> str:
    name = path.with_suffix("")
    return (name.parent if name.name in OWN_FOLDER and len(name.parts) > 1 else name).as_posix()


def _frames(folder: Path) -> bool:
    """Whether the json files of a folder are frames of one video."""
    first = min(folder.glob("*.json"), default=None)
    if first is None or first.name in NO_CLIPS:
        return False
    try:
        content = json.loads(first.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return bool(content) and (openpose.is_frame(content) or mmpose.is_frame(content))


def poses(path: Path, name: str) -> list[InputClip]:
    """Joints in space of a .npy or .npz file, or of the predictions that mode=predict writes.

    Raises:
        DataError: the file is damaged, or holds keypoints of images.
    """
    if path.is_dir() or path.suffix == ".json":
        raise DataError(f"{path} holds keypoints of images. {_LIFT}")
    existing(path)
    predictions = _predictions(path, name) if path.suffix == ".npz" else []
    if predictions:
        return predictions
    keypoints, score, stated = load_clip(path, has_3d=True)
    if score is not None or keypoints.shape[-1] == 2 or _in_image(keypoints):
        raise DataError(f"{path} holds keypoints of images, not joints in space. {_LIFT}")
    fps = _number(stated.get("fps"))
    record = lifted(path) if path.name == LIFTED_CLIP else None
    if record is None:
        return [InputClip(name, keypoints, fps=fps)]
    return [InputClip(name, keypoints, fps=record.fps, camera=record.camera, unit=record.unit)]


@dataclass(frozen=True)
class Lifted:
    """What mode=lift wrote about its clips.

    Attributes:
        path: of the record.
        camera: whether they are in camera axes; else z points up.
        unit: of their joints.
        fps: frames per second; None = unknown.
    """

    path: Path
    camera: bool
    unit: str
    fps: float | None


def lifted(path: Path) -> Lifted | None:
    """The nearest record of mode=lift at a place, or above it; None where clips come from elsewhere.

    Raises:
        DataError: it is damaged.
    """
    place = path.resolve()
    record = next((folder / LIFTED for folder in (place, *place.parents) if (folder / LIFTED).is_file()), None)
    if record is None:
        return None
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        axes, unit, fps = str(content["axes"]), str(content["unit"]), content.get("fps")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{record} is damaged ({error}): the axes of the clips below it are unknown. Lift them again with "
            "mode=lift lift.overwrite=true."
        ) from error
    return Lifted(record, axes.startswith("camera"), unit, fps)


def _predictions(path: Path, name: str) -> list[InputClip]:
    """Every sequence of a file of mode=predict; none where it is another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {entry: file[entry] for entry in file.files if entry.startswith("pose3d/")}
            meta = json.loads(str(file["meta"])) if found and "meta" in file.files else {}
    except (OSError, ValueError, EOFError, TypeError):
        return []  # the reader of clips says what is wrong with it
    names = {entry: name if len(found) == 1 else f"{name}/{entry.partition('/')[2]}" for entry in found}
    fps, unit = meta.get("fps"), str(meta.get("unit", ""))
    return [InputClip(names[entry], pose[None], fps=fps, camera=True, unit=unit) for entry, pose in found.items()]


def _in_image(keypoints: np.ndarray) -> bool:
    """Whether points (M, T, J, 3) are pixels with a score."""
    values = keypoints.astype(np.float64)
    known = values[np.isfinite(values).all(-1)]
    if not len(known):
        return False
    scores = (known[:, 2] >= 0).all() and (known[:, 2] <= 1).all()
    return bool(scores and np.abs(known[:, :2]).max() > _PIXELS)


def keypoints(
    path: Path,
    name: str,
    conversion: Conversion,
    options: detections.Options,
    persons: Sequence[int | str] | None = None,
) -> list[InputClip]:
    """Keypoints of a file of any format, or a folder of frames, as clips of pixels.

    Args:
        path: the file; arrays (M, T, J, 2 or 3) and an .npz with `keypoints` are one clip of M persons.
        name: of its clip.
        conversion: what the points are, and the joints that the network takes.
        options: how the file is read.
        persons: tracks that are the persons of one clip; None = the one person that `options.track` says.

    Raises:
        DataError: as `detections.read`; several persons of a file that has several videos.
    """
    if persons is not None:
        people = []
        for person in persons:
            one = list(detections.pixels(path, conversion, replace(options, track=person)))
            if len(one) != 1:
                raise DataError(f"{path} holds {len(one)} sequences; persons are told apart in one video. Give one.")
            people += one
        return [_clip(name, people)]
    together, fps = _persons(path)
    if together:
        return [replace(_clip(name, list(detections.pixels(path, conversion, options, together))), fps=fps)]
    found = list(detections.pixels(path, conversion, options))
    names = [name] if len(found) == 1 else [f"{name}/{track.name}_{i}" for i, track in enumerate(found)]
    return [_clip(each, [track]) for each, track in zip(names, found, strict=True)]


def _clip(name: str, people: Sequence[Track]) -> InputClip:
    points = np.stack([track.points for track in people])
    width, height = people[0].width, people[0].height
    size = (width, height) if width and height else None
    return InputClip(name, points[..., :2], score=points[..., 2], size=size)


def _persons(path: Path) -> tuple[list[Track], float | None]:
    """The persons of an array of clips, and its speed; nobody where the file is another one.

    A person of whom nothing is seen is left out.
    """
    if path.is_dir() or not _of_persons(path):
        return [], None
    points, score, stated = load_clip(path, has_3d=False)
    if score is not None:
        points = np.concatenate([points, score[..., None]], axis=-1)
    size: dict[str, Any] = {key: int(float(stated.get(key, 0))) for key in ("width", "height")}
    there = [person for person in points if np.nan_to_num(person[..., :2]).any()]
    return [Track(path.stem, person, **size) for person in there], _number(stated.get("fps"))


def _of_persons(path: Path) -> bool:
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False).ndim == 4
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return "keypoints" in file.files and not {"scores", "boxes"} & set(file.files)
    except (OSError, ValueError, EOFError, TypeError):
        return False  # the reader of keypoint files says what is wrong with it
    return False


def _number(text: str | None) -> float | None:
    value = float(text) if text else 0.0
    return value if np.isfinite(value) and value > 0 else None

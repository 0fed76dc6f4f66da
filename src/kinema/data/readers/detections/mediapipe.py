"""MediaPipe Pose written as json: per frame 33 landmarks with x, y from 0 to 1 and a visibility.

MediaPipe has no file format of its own; what people write is a list of frames, and a frame is a list of landmarks, or
has it under one of the names of MediaPipe's results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import skeleton
from kinema.data.readers.detections.people import Person, pick
from kinema.data.readers.detections.track import Track
from kinema.errors import DataError

NAME = "MediaPipe"
KEYS = ("pose_landmarks", "landmarks", "landmark", "keypoints")
FRAMES = ("frames", "results")
NORMALISED = 4.0  # coordinates within are shares of the image; landmarks outside of it go beyond 0 and 1


def matches(content: Any) -> bool:
    """Whether parsed json holds frames of landmarks."""
    frames = _frames(content)
    return frames is not None and any(_persons(frame) for frame in frames)


def read(content: Any, path: Path, track: int | str | None) -> list[Track]:
    """The person wanted; where the file gives `width` and `height`, they are taken.

    Raises:
        DataError: a frame with another number of landmarks.
    """
    frames = _frames(content) or []
    people = []
    for number, frame in enumerate(frames):
        for person in _persons(frame):
            people.append(Person.seen(number, _points(person, path, number)))
    head = content if isinstance(content, dict) else {}
    width, height = (int(head.get(key) or head.get(f"image_{key}") or 0) for key in ("width", "height"))
    points = pick(people, len(frames), track, path)
    unit = "normalised" if np.nanmax(np.abs(points[..., :2])) <= NORMALISED else "pixel"
    return [Track(path.stem, points, "mediapipe33", width, height, unit)]


def _frames(content: Any) -> list[Any] | None:
    if isinstance(content, dict):
        for key in FRAMES:
            if isinstance(content.get(key), list):
                return list(content[key])
        return [content] if any(key in content for key in KEYS) else None
    return content if isinstance(content, list) else None


def _persons(frame: Any) -> list[list[dict[str, Any]]]:
    """Lists of landmarks of a frame: none, one, or one per person."""
    if isinstance(frame, dict):
        frame = next((frame[key] for key in KEYS if key in frame), None)
        if isinstance(frame, dict):  # a protobuf message written by MessageToDict
            frame = frame.get("landmark")
    if not isinstance(frame, list) or not frame:
        return []
    if isinstance(frame[0], list):
        return [person for person in frame if isinstance(person, list) and person and _is_landmark(person[0])]
    return [frame] if _is_landmark(frame[0]) else []


def _is_landmark(value: Any) -> bool:
    return isinstance(value, dict) and "x" in value and "y" in value


def _points(landmarks: list[dict[str, Any]], path: Path, number: int) -> np.ndarray:
    count = len(skeleton("mediapipe33"))
    if len(landmarks) != count:
        raise DataError(
            f"{path}: frame {number} has {len(landmarks)} landmarks, MediaPipe Pose has {count}. Write pose landmarks, "
            "not those of hands or faces."
        )
    try:
        rows = [(one["x"], one["y"], one.get("visibility", one.get("score", 1.0))) for one in landmarks]
        return np.asarray(rows, np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: frame {number}: {error} in a landmark. Each needs x, y and visibility.") from None

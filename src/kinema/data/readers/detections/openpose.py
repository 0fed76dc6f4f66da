"""OpenPose's json: one file per frame, a list of people with BODY_25 points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinema.data.readers.detections.people import Person, pick
from kinema.data.readers.detections.track import Track, body_points
from kinema.errors import DataError

NAME = "OpenPose"
COCO18 = 18  # points of OpenPose's older model


def matches(content: Any) -> bool:
    """Whether parsed json is a frame, or a list of frames."""
    frames = content if isinstance(content, list) else [content]
    return bool(frames) and all(is_frame(frame) for frame in frames)


def is_frame(frame: Any) -> bool:
    """Whether a value is a frame: a dict with a list of people."""
    return isinstance(frame, dict) and isinstance(frame.get("people"), list)


def read(content: Any, path: Path, track: int | str | None) -> list[Track]:
    """The person wanted, of one frame or of a list of frames."""
    frames = content if isinstance(content, list) else [content]
    return [by_frames(frames, np.arange(len(frames)), path, track)]


def by_frames(frames: list[Any], numbers: np.ndarray, path: Path, track: int | str | None) -> Track:
    """The person wanted of parsed frames and their numbers.

    Raises:
        DataError: another model than BODY_25, or a person that is none.
    """
    people, layout = [], "body25"
    for frame, number in zip(frames, numbers, strict=True):
        for person in frame["people"]:
            if not isinstance(person, dict):
                raise DataError(
                    f"{path}: frame {number} lists {str(person)[:20]!r} among its people, which has no keypoints. "
                    "Write the file again."
                )
            flat = person.get("pose_keypoints_2d", person.get("pose_keypoints"))
            if not flat:
                continue
            if isinstance(flat, list) and len(flat) == 3 * COCO18:
                raise DataError(
                    f"{path} holds OpenPose's 18 points. Run OpenPose with --model_pose BODY_25, its default, and "
                    "AlphaPose without --format."
                )
            points, layout = body_points(flat, path, f"frame {number}")
            people.append(Person.seen(int(number), points, None, person.get("person_id")))
    return Track(path.stem, pick(people, int(numbers.max()) + 1, track, path), layout)

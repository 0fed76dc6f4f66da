"""MMPose's and rtmlib's json: per frame a list of instances with keypoints [[x, y], ...] and their scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinema.data.readers.detections.people import Person, pick
from kinema.data.readers.detections.track import Track, frame_numbers, named_points
from kinema.errors import DataError

NAME = "MMPose"
# Names of data sets in the files' metadata whose order differs from what the number of points suggests.
DATASETS = {"coco": "coco17", "halpe26": "halpe26", "h36m": "h36m17", "posetrack18": "posetrack17",
            "mpi_inf_3dhp": "mpi_inf_3dhp17"}  # fmt: skip


def matches(content: Any) -> bool:
    """Whether parsed json holds frames of instances, or rtmlib's arrays per frame."""
    if isinstance(content, dict):
        content = content.get("instance_info")
    if not isinstance(content, list) or not content:
        return False
    return all(is_frame(frame) for frame in content) or all(_is_instance(one) for one in content)


def is_frame(frame: Any) -> bool:
    """Whether a value is a frame: `instances`, a bare list of instances, or arrays of keypoints and scores."""
    if isinstance(frame, dict) and isinstance(frame.get("instances"), list):
        return True
    if isinstance(frame, list):
        return all(_is_instance(one) for one in frame)
    return isinstance(frame, dict) and "scores" in frame and "keypoints" in frame


def read(content: Any, path: Path, track: int | str | None) -> list[Track]:
    """The person wanted, of all frames."""
    frames, layout = content, None
    if isinstance(content, dict):
        meta = content.get("meta_info")
        layout = DATASETS.get(str(meta.get("dataset_name"))) if isinstance(meta, dict) else None
        frames = content["instance_info"]
    if all(_is_instance(one) for one in frames):
        frames = [frames]
    # MMPose counts from 0 or 1, other writers name the image; frames that were left out stay gaps.
    given = [frame.get("frame_id") if isinstance(frame, dict) else None for frame in frames]
    numbers = np.arange(len(frames)) if any(name is None for name in given) else frame_numbers(given, path)
    return [by_frames(frames, numbers, path, track, layout)]


def by_frames(
    frames: list[Any], numbers: np.ndarray, path: Path, track: int | str | None, layout: str | None = None
) -> Track:
    """The person wanted of parsed frames and their numbers; `layout` is what the file says."""
    people, known = [], layout
    for frame, number in zip(frames, numbers, strict=True):
        for keypoints, scores, score, person in _instances(frame, path, int(number)):
            try:
                points = np.asarray(keypoints, np.float64)[:, :2]
                points = np.concatenate([points, np.asarray(scores, np.float64).reshape(-1, 1)], axis=1)
            except (TypeError, ValueError, IndexError) as error:
                raise DataError(
                    f"{path}: frame {number}: keypoints and scores do not fit ({error}). Write the file again."
                ) from None
            points, known = named_points(points, path, f"frame {number}")
            people.append(Person.seen(int(number), points, score, person))
    return Track(path.stem, pick(people, int(numbers.max()) + 1, track, path), layout or known)


def _is_instance(value: Any) -> bool:
    return isinstance(value, dict) and "keypoints" in value and "keypoint_scores" in value


def _instances(frame: Any, path: Path, number: int) -> list[tuple[Any, Any, Any, Any]]:
    """Keypoints, their scores, the person's score and track of each instance.

    Raises:
        DataError: another number of persons with keypoints than with scores.
    """
    if isinstance(frame, dict) and "instances" not in frame:
        people, scores = frame["keypoints"] or [], frame["scores"] or []  # null is written where nobody is
        if not isinstance(people, list) or not isinstance(scores, list) or len(people) != len(scores):
            raise DataError(
                f"{path}: frame {number}: keypoints and scores do not fit, they are not of as many persons. Write the "
                "file again."
            )
        return [(keypoints, score, None, None) for keypoints, score in zip(people, scores, strict=True)]
    instances = frame["instances"] if isinstance(frame, dict) else frame
    # The detector's score is of the box; MMPose may write it as a list.
    return [
        (one["keypoints"], one["keypoint_scores"], None, one.get("track_id")) for one in instances if _is_instance(one)
    ]

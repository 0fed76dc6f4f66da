"""AlphaPose's result list: one flat entry per detected person, with the name of its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kinema.data.readers.detections.people import Person, pick
from kinema.data.readers.detections.track import Track, body_points, frame_numbers, listed_numbers
from kinema.errors import DataError

NAME = "AlphaPose"


def matches(content: Any) -> bool:
    """Whether parsed json is such a list: entries with flat keypoints and a file name (COCO's results have numbers)."""
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return False
    first = content[0]
    return is_flat(first) and (isinstance(first.get("image_id"), str) or "idx" in first)


def read(content: Any, path: Path, track: int | str | None) -> list[Track]:
    """The person wanted; `idx` is who the tracker says it is, where it ran."""
    return [by_entries(content, path, track, "idx")]


def is_flat(entry: dict[str, Any]) -> bool:
    """Whether an entry has keypoints as one list of numbers."""
    points = entry.get("keypoints")
    return isinstance(points, list) and len(points) > 0 and isinstance(points[0], (int, float))


def by_entries(
    entries: list[Any], path: Path, track: int | str | None, person: str, images: list[Any] | None = None
) -> Track:
    """The person wanted of a list of flat detections.

    Args:
        entries: detections with `image_id`, `keypoints`, and mostly `score`.
        path: for messages.
        track: see `people.pick`.
        person: key of who the tracker says it is.
        images: ids of all images in order, those without anybody included; None = those of the entries.

    Raises:
        DataError: an entry is no detection, or detections differ in their number of points.
    """
    if not all(isinstance(entry, dict) and is_flat(entry) for entry in entries):
        raise DataError(f"{path} has entries without keypoints. Pass the results as the detector wrote them.")
    sizes = sorted({len(entry["keypoints"]) for entry in entries})
    if len(sizes) > 1:
        raise DataError(f"{path} holds {sizes} numbers per detection. Give the detections of one model.")
    names = [i if entry.get("image_id") is None else entry["image_id"] for i, entry in enumerate(entries)]
    if images and {str(name) for name in names} <= {str(image) for image in images}:
        frames = listed_numbers([*names, *images], images, path)
    else:  # a list that lacks some of the images says nothing about their order
        frames = frame_numbers([*names, *(images or [])], path)
    people, layout = [], ""
    for i, entry in enumerate(entries):
        points, layout = body_points(entry["keypoints"], path, f"entry {i}")
        people.append(Person.seen(int(frames[i]), points, entry.get("score"), entry.get(person)))
    return Track(path.stem, pick(people, int(frames.max()) + 1, track, path), layout)

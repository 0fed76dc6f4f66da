"""COCO's json: a result list (image_id, category_id, 51 numbers, score), or annotations with their images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kinema.data.readers.detections.alphapose import by_entries, is_flat
from kinema.data.readers.detections.track import Track
from kinema.errors import DataError

NAME = "COCO"
SEEN = 2  # the visibility of a point that was seen; 1 is a hidden point that was guessed, 0 is none


def matches(content: Any) -> bool:
    """Whether parsed json is a result list with numbered images, or has `annotations`."""
    if isinstance(content, dict):
        return isinstance(content.get("annotations"), list)
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and is_flat(content[0])


def read(content: Any, path: Path, track: int | str | None) -> list[Track]:
    """The person wanted; frames are images in the order of `images`, of their numbers where there is no such list.

    Visibilities 0, 1, 2 of annotations become scores 0, 0.5, 1.
    """
    if isinstance(content, list):
        return [by_entries(content, path, track, "track_id")]
    entries = [entry for entry in content["annotations"] if isinstance(entry, dict) and _has_points(entry)]
    if not entries:
        raise DataError(f"{path} has annotations without keypoints. Pass keypoint annotations.")
    listed = content.get("images") or []
    images = {str(image["id"]): image for image in listed if isinstance(image, dict) and "id" in image}
    entries = [entry | {"keypoints": _scored(entry["keypoints"])} for entry in entries]
    made = by_entries(entries, path, track, "track_id", [image["id"] for image in images.values()])
    size = images.get(str(entries[0].get("image_id")), {})
    return [replace(made, width=int(size.get("width") or 0), height=int(size.get("height") or 0))]


def _has_points(entry: dict[str, Any]) -> bool:
    points = entry.get("keypoints")
    return isinstance(points, list) and any(points)


def _scored(flat: list[Any]) -> list[Any]:
    return [value / SEEN if i % 3 == 2 and isinstance(value, (int, float)) else value for i, value in enumerate(flat)]

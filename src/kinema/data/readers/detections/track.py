"""What every format is read into: one person's points in the frames of one video."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kinema.errors import DataError

log = logging.getLogger(__name__)

# Images of one video leave out so many numbers at most: per image, and besides.
_SPARSE, _SLACK = 50, 1000
# Layouts by number of points, and how many of them are the body's: the rest of the whole-body sets are hands and faces.
BY_COUNT = {
    17: ("coco17", 17), 26: ("halpe26", 26), 25: ("body25", 25), 33: ("mediapipe33", 33),
    133: ("coco17", 17), 136: ("halpe26", 26),
}  # fmt: skip


@dataclass(frozen=True)
class Track:
    """One sequence of a file.

    Attributes:
        name: for messages and for the table.
        points: (T, J, 2 or 3) as in the file; NaN, or a point at exactly (0, 0), is a gap.
        layout: what the file says its points are, None where it says nothing.
        width, height: of the image, 0 where the file says nothing.
        unit: "pixel", "normalised" for coordinates from 0 to 1, or None where the file says nothing.
        action, camera: for the table.
    """

    name: str
    points: np.ndarray
    layout: str | None = None
    width: int = 0
    height: int = 0
    unit: str | None = None
    action: str = "custom"
    camera: str = "0"


def body_points(flat: Any, path: Path, where: str) -> tuple[np.ndarray, str]:
    """Numbers x, y, score, x, y, ... of one person as (J, 3), and their layout by their number.

    Raises:
        DataError: no numbers, or a number of points that no layout has.
    """
    try:
        points = np.asarray(flat, np.float64).reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: the keypoints of {where} are no list of x, y, score ({error}). Write the file again."
        ) from None
    return named_points(points, path, where)


def named_points(points: np.ndarray, path: Path, where: str) -> tuple[np.ndarray, str]:
    """The body's points (J, C) among those of one person, and their layout by their number.

    Raises:
        DataError: no layout has so many points.
    """
    if len(points) not in BY_COUNT:
        known = ", ".join(f"{name} ({count})" for count, (name, _) in BY_COUNT.items())
        raise DataError(
            f"{path} has {len(points)} points per person ({where}). Known: {known}; run the detector with one of "
            "these models, or bring the points into an array and name its order: predict.layout."
        )
    layout, count = BY_COUNT[len(points)]
    return points[:count], layout


def frame_numbers(names: Sequence[Any], path: Path) -> np.ndarray:
    """Frame of each entry from 0, by the last number in the name of its image; gaps in the numbers stay gaps.

    Numbers that mostly rise by the same step, which divides all of them, are taken for every so many-th frame of a
    video, with a warning.

    Args:
        names: per entry, image ids or file names; names without numbers count in order of their first appearance.
        path: for messages.

    Raises:
        DataError: the numbers are no frames of one video.
    """
    numbers = [_number(name) for name in names]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return _places(names, names)
    step, first = _step(known, path), min(known)
    frames = np.array([(number - first) // step for number in known], np.int64)
    if first > 1:
        log.info("%s: frame 0 of the result is image %d", path, first)
    if step > 1:
        log.warning(
            "%s: frames are numbered in steps of %d from %d on, so they are taken for every frame of a video of that "
            "much lower rate, %d frames in all: divide dataset.fps by it. If the frames between were searched and show "
            "nobody, give an array of all frames instead, with NaN there (docs/own_data.md).",
            path, step, first, int(frames.max()) + 1,
        )  # fmt: skip
    return frames


def listed_numbers(names: Sequence[Any], images: Sequence[Any], path: Path) -> np.ndarray:
    """Frame of each entry from 0: the place of its image among all images of the video.

    Args:
        names: per entry, the id of its image.
        images: ids of all images in order.
        path: for messages.

    Raises:
        DataError: the ids are no frames of one video.
    """
    numbers = [_number(image) for image in images]
    known = [number for number in numbers if number is not None]
    if len(known) == len(numbers):
        _step(known, path)
        rises = {after - before for before, after in pairwise(known)}
        if len(rises) > 1 or min(rises, default=1) < 0:
            log.warning(
                "%s: the images are taken for consecutive frames in the order of `images`, but their numbers do not "
                "rise evenly. If some are missing or out of order, list every image of the video in order.", path,
            )  # fmt: skip
    return _places(names, images)


def _places(names: Sequence[Any], order: Sequence[Any]) -> np.ndarray:
    places = {name: i for i, name in enumerate(dict.fromkeys(str(name) for name in order))}
    return np.array([places[str(name)] for name in names], np.int64)


def _number(name: Any) -> int | None:
    """The number of an image: an integer itself, or the last number in a name; None where there is none."""
    if isinstance(name, (int, float)) and not isinstance(name, bool):
        return int(name) if math.isfinite(name) else None
    digits = re.findall(r"\d+", Path(str(name)).stem)
    return int(digits[-1]) if digits else None


def _step(numbers: Sequence[int], path: Path) -> int:
    """By how much the numbers of consecutive frames differ.

    Two numbers, or numbers whose usual distance is another than what divides them all, say nothing about a step.

    Raises:
        DataError: far more numbers are left out than given; frames for all of them could fill the memory.
    """
    distinct = sorted(set(numbers))
    distances = sorted(after - before for before, after in pairwise(distinct))
    step = math.gcd(*distances)
    if len(distances) < 2 or distances[(len(distances) - 1) // 2] != step:
        step = 1
    if (distinct[-1] - distinct[0]) // step > _SPARSE * len(distinct) + _SLACK:
        raise DataError(
            f"{path}: {len(distinct)} images are numbered from {distinct[0]} to {distinct[-1]}: these are no frames of "
            "one video. Give one video's detections."
        )
    return step

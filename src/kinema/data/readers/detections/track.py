"""What every format is read into: one person's points in the frames of one video."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.errors import DataError

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

    Args:
        names: per entry, image ids or file names; names without numbers count in order of their first appearance.
        path: for messages.

    Raises:
        DataError: the numbers are no frames of one video.
    """
    found = [re.findall(r"\d+", Path(str(name)).stem) for name in names]
    if not all(found):
        order = {name: i for i, name in enumerate(dict.fromkeys(str(name) for name in names))}
        return np.array([order[str(name)] for name in names], np.int64)
    numbers = np.array([int(digits[-1]) for digits in found], np.int64)
    numbers -= numbers.min()
    distinct = np.unique(numbers)
    step = int(np.gcd.reduce(distinct)) or 1
    if distinct[-1] // step > 50 * len(distinct) + 1000:
        raise DataError(
            f"{path}: {len(distinct)} images are numbered from {distinct[0]} to {distinct[-1]}: these are no frames of "
            "one video. Give one video's detections."
        )
    return np.asarray(numbers // step)

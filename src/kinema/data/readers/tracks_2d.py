"""2D tracks as detectors write them; only AlphaPose's result list so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import skeleton
from kinema.errors import DataError


def alphapose(path: Path, track: int | None = None) -> np.ndarray:
    """Read AlphaPose results with Halpe-26 keypoints.

    Entries are taken in file order as consecutive frames; image names are not looked at (published behaviour), so
    without `track` several persons of a video follow one another in one motion.

    Args:
        path: json list of detections, each with `keypoints` (78 numbers: x, y in pixels, score) and, where the tracker
            ran, `idx`.
        track: keep the detections of this person only.

    Returns:
        (T, 26, 3) float64.

    Raises:
        DataError: naming the file and what is wrong with it.

    Source: MotionBERT, lib/data/dataset_wild.py (read_input).
    """
    layout = skeleton("halpe26")
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} not found. Run AlphaPose with the Halpe-26 model and pass its result file.") from None
    except ValueError as error:
        raise DataError(f"{path} is no json file ({error}). Pass the results file that AlphaPose wrote.") from None
    if (
        not isinstance(entries, list)
        or not entries
        or not all(isinstance(entry, dict) and "keypoints" in entry for entry in entries)
    ):
        raise DataError(f"{path} is no list of detections with keypoints. Pass the results file that AlphaPose wrote.")
    if track is not None:
        known = sorted({str(entry.get("idx")) for entry in entries})
        entries = [entry for entry in entries if entry.get("idx") == track]
        if not entries:
            raise DataError(f"{path} has no detection of track {track}. Tracks in the file: {', '.join(known)}.")
    sizes = {len(entry["keypoints"]) for entry in entries}
    if sizes != {len(layout) * 3}:
        raise DataError(
            f"{path} holds {sorted(sizes)} numbers per detection, {len(layout) * 3} expected (Halpe-26: x, y, score). "
            "Run AlphaPose with a Halpe-26 model."
        )
    return np.array([entry["keypoints"] for entry in entries], np.float64).reshape(-1, len(layout), 3)

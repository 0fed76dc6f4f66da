"""Frames and joints that were not found: straight lines in time between those that were, marked by score 0."""

from __future__ import annotations

import logging

import numpy as np

from kinema.core.skeleton import skeleton
from kinema.data import raw
from kinema.errors import DataError

log = logging.getLogger(__name__)


def holes(points: np.ndarray) -> np.ndarray:
    """Points that were not found, (T, J, 2 or 3) to (T, J) bool: NaN, or exactly (0, 0), as detectors write them."""
    xy = points[..., :2]
    return np.asarray(~np.isfinite(xy).all(-1) | (xy == 0).all(-1))


def filled(
    points: np.ndarray, layout: str, needed: tuple[int, ...], max_gap: int | None, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Fill gaps by straight lines, hold the first and the last point, and give what was filled score 0.

    Args:
        points: (T, J, 2 or 3).
        layout: of the points, for messages.
        needed: joints that the network's are made of; the others may be missing altogether.
        max_gap: frames that a straight line may bridge, None = any number. The ends are held however long.
        where: file and sequence, for messages.

    Returns:
        (T, J, C) without gaps, and (J,) bool: joints that were never seen, which lie at 0 with score 0.

    Raises:
        DataError: nobody, or a needed joint, is in no frame, or a gap is too long.
    """
    points = np.asarray(points, np.result_type(points, np.float32))
    hole = holes(points)
    never = np.asarray(hole.all(0))
    if never.all():
        raise DataError(f"{where}: nobody was found in any of {len(points)} frames. Look at the detector's settings.")
    if not hole.any():
        return _scored(points).copy(), never
    names = skeleton(layout).joints
    lost = [names[joint] for joint in needed if never[joint]]
    if lost:
        raise DataError(
            f"{where}: {', '.join(lost)} {'is' if len(lost) == 1 else 'are'} seen in no frame, and the network's input "
            "is made of it. Use a detector that guesses hidden joints (RTMPose, MediaPipe), or a video that shows them."
        )
    used = hole[:, list(needed)]
    length, first, joint = _longest(used)
    if max_gap is not None and length > max_gap:
        raise DataError(
            f"{where}: {names[needed[joint]]} is missing for {length} frames from frame {first} on, more than "
            f"predict.max_gap={max_gap}. Cut the video there, or allow it: predict.max_gap=null."
        )
    out = raw.filled(np.where(hole[..., None], 0.0, _scored(points)), hole)
    out[..., 2:][hole] = 0
    empty = int(used.all(1).sum())
    if used.any():
        log.info(
            "%s: %d of %d frames had gaps, filled by straight lines (%d without anybody, %d points, longest gap "
            "%d frames)%s", where, int(used.any(1).sum()), len(points), empty, int(used.sum()), length,
            ", score 0" if points.shape[-1] > 2 else "",
        )  # fmt: skip
    return out, never


def _scored(points: np.ndarray) -> np.ndarray:
    """The same with score 0 where a score is NaN."""
    if points.shape[-1] < 3 or np.isfinite(points[..., 2]).all():
        return points
    return np.concatenate([points[..., :2], np.nan_to_num(points[..., 2:], posinf=0, neginf=0)], axis=-1)


def _longest(hole: np.ndarray) -> tuple[int, int, int]:
    """Longest run of gaps between two frames that were seen: frames, first frame, column."""
    best = (0, 0, 0)
    for joint in range(hole.shape[1]):
        seen = np.flatnonzero(~hole[:, joint])
        run = np.diff(seen) - 1
        if len(run) and run.max() > best[0]:
            best = (int(run.max()), int(seen[run.argmax()]) + 1, joint)
    return best

"""A live stream as text: one line of JSON in per frame, one out per pose, each flushed at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TextIO

import numpy as np
from torch import Tensor

from kinema.core.keypoints import LARGEST
from kinema.errors import DataError
from kinema.inference.stream import Stopwatch, Stream


def lift_lines(
    lines: Iterable[str], stream: Stream, prepare: Callable[[np.ndarray, int], Tensor], out: TextIO
) -> Stopwatch:
    """Lift the frames of a stream until it ends.

    Args:
        lines: each `[[x, y], ...]` or `[[x, y, score], ...]`, pixels, or an object with that under "pose2d"; empty
            lines are skipped.
        stream: for one video.
        prepare: from points (J, 2 or 3) and the number of the frame to what the network takes, (J, C).
        out: gets `{"frame": number, "pose3d": [[x, y, z], ...]}` per frame, in order; those of the last
            `stream.latency` frames when the input has ended.

    Returns:
        The time per frame, reading the line and writing the pose included.

    Raises:
        DataError: for a line that is no frame, by its number.
    """
    watch = Stopwatch()
    done = 0
    for number, (place, line) in enumerate((i, line) for i, line in enumerate(lines, 1) if line.strip()):
        with watch.frame():
            pose = stream.push(prepare(_points(line, place), number))
            if pose is not None:
                _write(out, done, pose)
                done += 1
    for pose in stream.flush():
        _write(out, done, pose)
        done += 1
    return watch


def _points(line: str, place: int) -> np.ndarray:
    """(J, 2 or 3) pixels of a line."""
    try:
        content = json.loads(line)
        points = np.asarray(content["pose2d"] if isinstance(content, dict) else content, dtype=np.float64)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"stdin, line {place}: {type(error).__name__}: {error}. {_WANTED}") from None
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise DataError(f"stdin, line {place}: shape {points.shape}. {_WANTED}")
    if not (np.abs(points) <= LARGEST).all():  # NaN as well
        raise DataError(f"stdin, line {place}: a number that is not finite, or beyond {LARGEST:.0e}. {_WANTED}")
    return points


_WANTED = "Write one line per frame: [[x, y], ...] or [[x, y, score], ...], pixels; repeat the last for a lost person."


def _write(out: TextIO, frame: int, pose: Tensor) -> None:
    # Micrometres: more digits would be noise.
    values = np.round(pose.detach().cpu().double().numpy(), 6).tolist()
    out.write(json.dumps({"frame": frame, "pose3d": values}) + "\n")
    out.flush()

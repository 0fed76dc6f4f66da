"""Several persons in one video: who is who from frame to frame, and which of them is wanted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.errors import ConfigError, DataError

log = logging.getLogger(__name__)

# A person of whom this share of the leading one's scores is seen could as well be meant.
RIVAL = 0.8
# A detection continues a track that ended at most so many frames before, within so many body sizes.
LOST, NEAR = 30, 0.75


@dataclass(frozen=True)
class Person:
    """One detection.

    Attributes:
        frame: number of the frame, from 0.
        points: (J, 3) x, y, score.
        score: of the whole person.
        track: what a tracker called the person, None where none ran.
    """

    frame: int
    points: np.ndarray
    score: float
    track: Any = None

    @classmethod
    def seen(cls, frame: int, points: np.ndarray, score: Any = None, track: Any = None) -> Person:
        """A detection; without a score of its own it has the mean of its points'.

        Raises:
            TypeError: the score is no number.
        """
        try:
            score = None if score is None else float(score)
        except (TypeError, ValueError):
            raise TypeError(f"score {str(score)[:20]} of a person in frame {frame} is no number") from None
        if isinstance(track, (list, tuple)):
            track = track[0] if track else None
        if isinstance(track, float) and track.is_integer():
            track = int(track)
        mean = float(np.nan_to_num(points[:, 2]).mean())
        return cls(frame, points, mean if score is None else score, None if track == -1 else track)


def pick(people: Iterable[Person], frames: int, track: int | str | None, path: Path) -> np.ndarray:
    """Points of one person in every frame.

    Args:
        people: detections in any order, at least one.
        frames: number of frames, those without anybody included.
        track: number of a person; "best" for the best scored person of each frame, whoever it is; "all" for every
            detection in file order as consecutive frames; None for the person that is seen most, if it is clear who.
        path: for messages.

    Returns:
        (T, J, 3), NaN where the person is not seen.

    Raises:
        DataError: no such person, or several and none leads.
    """
    found = list(people)
    if not found:
        raise DataError(f"{path}: nobody was found in any of {frames} frames. Look at the detector's settings.")
    if isinstance(track, str) and track.isdigit():
        track = int(track)
    if track == "all":
        return np.stack([person.points for person in found])
    if track == "best":
        return _placed(_best(found), frames)
    if isinstance(track, str):
        raise ConfigError(f"predict.track={track} is not known. Use a person's number, best, all or null.")
    crowded = len({person.frame for person in found}) < len(found)
    if not crowded and track is None:
        names = list(dict.fromkeys(str(person.track) for person in found if person.track is not None))
        if len(names) > 1:
            log.info("%s: tracks %s never meet, so they are taken for one person", path.name, ", ".join(names[:5]))
        return _placed(found, frames)
    if any(person.track is None for person in found):
        found = list(_linked(found))
    return _placed(_chosen(found, track, path), frames)


def _chosen(found: list[Person], track: int | None, path: Path) -> list[Person]:
    by_track: dict[str, list[Person]] = {}
    for person in found:
        by_track.setdefault(str(person.track), []).append(person)
    weight = {name: sum(person.score for person in seen) for name, seen in by_track.items()}
    order = sorted(weight, key=weight.__getitem__, reverse=True)
    listing = ", ".join(f"{name} ({len(by_track[name])} frames)" for name in order[:6])
    if track is not None:
        if str(track) not in by_track:
            raise DataError(f"{path} has no detection of track {track}. Tracks in the file: {listing}.")
        return _best(by_track[str(track)])
    if len(order) > 1 and weight[order[1]] > RIVAL * weight[order[0]]:
        raise DataError(
            f"{path} shows several persons about as long: {listing}. Say who is meant: predict.track={order[0]}, or "
            "predict.track=best for the best scored one of each frame."
        )
    if len(order) > 1:
        log.info("%s: person %s is taken, who is seen most, of %s (predict.track)", path.name, order[0], listing)
    return _best(by_track[order[0]])


def _best(found: list[Person]) -> list[Person]:
    """The best scored detection of each frame."""
    best: dict[int, Person] = {}
    for person in found:
        if person.frame not in best or person.score > best[person.frame].score:
            best[person.frame] = person
    return list(best.values())


def _placed(found: list[Person], frames: int) -> np.ndarray:
    out = np.full((frames, *found[0].points.shape), np.nan)
    for person in found:
        out[person.frame] = person.points
    return out


def _linked(found: list[Person]) -> Iterator[Person]:
    """The same detections with numbers for persons: who is nearest to whom in the frame before."""
    last: dict[int, Person] = {}
    by_frame: dict[int, list[Person]] = {}
    for person in found:
        by_frame.setdefault(person.frame, []).append(person)
    count = 0
    for frame in sorted(by_frame):
        here = sorted(by_frame[frame], key=lambda person: -person.score)
        last = {number: before for number, before in last.items() if frame - before.frame <= LOST}
        given: dict[int, int] = {}
        for i, number in _nearest(here, last) if last else ():
            if i not in given and number not in given.values():
                given[i] = number
        for i, person in enumerate(here):
            if i not in given:
                given[i], count = count, count + 1
            last[given[i]] = person
            yield Person(frame, person.points, person.score, given[i])


def _nearest(here: list[Person], last: dict[int, Person]) -> list[tuple[int, int]]:
    """Detections (their place in `here`) and the tracks near to them, the nearest pair first."""
    numbers = list(last)
    apart = _apart(np.stack([person.points for person in here]), np.stack([before.points for before in last.values()]))
    pairs = np.argwhere(apart <= NEAR).tolist()
    return [(i, number) for _, i, number in sorted((apart[i, column], i, numbers[column]) for i, column in pairs)]


def _apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances between detections (N, J, 3) and (M, J, 3) in sizes of the body: (N, M), inf where no joint is in both.

    A distance is the median over the joints that both have.
    """
    a, b = first[:, None, :, :2], second[None, :, :, :2]
    both = np.isfinite(a).all(-1) & np.isfinite(b).all(-1) & a.any(-1) & b.any(-1)
    count, used = both.sum(-1), both[..., None]
    # Joints that one of them lacks are 0 in the distances, and infinite where they must sort last.
    way = np.linalg.norm(np.where(used, a, 0) - np.where(used, b, 0), axis=-1)
    ordered = np.sort(np.where(both, way, np.inf), axis=-1)
    middle = [np.take_along_axis(ordered, np.maximum(at, 0)[..., None], -1) for at in ((count - 1) // 2, count // 2)]
    sizes = [np.where(used, x, -np.inf).max(-2) + np.where(used, -x, -np.inf).max(-2) for x in (a, b)]
    size = np.maximum(np.maximum(*sizes).max(-1), 1e-9)
    return np.where(count > 0, (middle[0] + middle[1])[..., 0] / 2 / size, np.inf)

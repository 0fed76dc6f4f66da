"""Whether motion can be that of people: how fast it is, whether frames repeat, which way is up, how knees bend."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.data.anatomy import KNEES, knee_bend

# Speed in m/s of the fastest joint, seen from the root, that a sequence reaches in a tenth of its frames; the median
# over sequences. On the CMU motions (walking, sports, dancing) it is 2.5, and 3.6 at most.
PACE = (0.05, 8.0)
_USUAL_PACE = 2.5
# Share of frames equal to the one before, from which a recording was stretched by repeating.
REPEATED = 0.2
# Cosine between z and the trunk of most people, from hips to shoulders, below which they do not stand along z.
STANDING = 0.5
_TRUNK = (("left_hip", "right_hip"), ("left_shoulder", "right_shoulder"))
# Frames of a motion whose posture is looked at.
_FRAMES = 60
# Axis that was taken to point up, and where the trunk points then -> the axis that would make the body stand.
_FITTING = {("z", "y"): "y", ("z", "-y"): "-y", ("y", "z"): "-y", ("y", "-z"): "-y", ("-y", "-z"): "y"}


def pace(pose: np.ndarray, body: Skeleton, fps: float) -> float | None:
    """Speed that the fastest joint of (T, J, 3) metres, seen from the root, reaches in a tenth of the frames, m/s.

    None where no two frames that follow each other are whole.
    """
    pose = np.asarray(pose, np.float64)
    fastest = np.linalg.norm(np.diff(pose - pose[:, [body.root]], axis=0), axis=-1).max(-1) * fps
    fastest = fastest[np.isfinite(fastest)]
    return float(np.quantile(fastest, 0.9)) if len(fastest) else None


def repeated(pose: np.ndarray) -> float:
    """Share of the frames (T, J, 3) that equal the one before."""
    return float((pose[1:] == pose[:-1]).all((1, 2)).sum()) / max(1, len(pose))


def trunks(pose: np.ndarray, body: Skeleton) -> np.ndarray | None:
    """Directions (M, 3) from the hips to the shoulders of poses (M, J, 3); None for a skeleton without them."""
    if not {*_TRUNK[0], *_TRUNK[1]} <= set(body.joints):
        return None
    hips, shoulders = (pose[:, [body.index(joint) for joint in pair]].mean(1) for pair in _TRUNK)
    trunk = shoulders - hips
    return np.asarray(trunk / np.linalg.norm(trunk, axis=-1, keepdims=True).clip(1e-9))


def doubts(motions: Sequence[np.ndarray], body: Skeleton, fps: float | None, up: str) -> Iterator[str]:
    """What speaks against motions that were handed over in one file, each with the option that would help.

    Args:
        motions: (T, J, 3) metres as they were recorded, z up as far as is known.
        body: skeleton.
        fps: frames per second that they are taken to have; None = unknown.
        up: axis of the file that was taken to point up.
    """
    most = max(repeated(motion) for motion in motions)
    speeds = [] if fps is None else [pace(motion, body, fps) for motion in motions]
    usual = float(np.median([speed for speed in speeds if speed is not None] or [0.0]))
    if most > REPEATED:  # and whatever seems fast is a leap over the copies
        remains = "" if fps is None else f": predict.fps={fps * (1 - most):.3g}"
        yield (
            f"{100 * most:.0f} % of the frames equal the one before: it stands still, or was stretched by repeating "
            f"frames. Then leave out the copies and state the rate that remains{remains}"
        )
    elif fps is not None and usual > PACE[1]:
        times = usual / _USUAL_PACE
        yield (
            f"it moves {times:.0f} times faster than people at {fps:g} frames per second (hands and feet pass the "
            f"root at {usual:.1f} m/s): state its own rate, predict.fps={max(1, round(fps / times))} perhaps"
        )
    looked = np.concatenate([motion[:: max(1, len(motion) // _FRAMES)] for motion in motions]).astype(np.float64)
    yield from itertools.chain(_lying(looked, body, up), _bending(looked, body))


def _lying(pose: np.ndarray, body: Skeleton, up: str) -> Iterator[str]:
    trunk = trunks(pose, body)
    if trunk is None or np.median(trunk[:, 2]) >= STANDING:
        return
    towards = np.median(trunk, axis=0)
    axis = int(np.abs(towards).argmax())
    fitting = _FITTING.get((up, f"{'-' if towards[axis] < 0 else ''}{'xyz'[axis]}"))
    posture = "stands on its head" if np.median(trunk[:, 2]) <= -STANDING else "lies on its side"
    remedy = f": predict.up={fitting} would make it stand" if fitting else ": turn it if that is wrong"
    yield f"with {up} up the body {posture}{remedy}"


def _bending(pose: np.ndarray, body: Skeleton) -> Iterator[str]:
    bend = knee_bend(pose, body)
    if bend is not None and bend.mean() < KNEES:
        yield (
            "knees bend backward: left and right are exchanged (turn predict.exchange_sides the other way round), or "
            "the axes are mirrored"
        )

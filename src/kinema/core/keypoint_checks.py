"""Whether keypoints can be what they are said to be: order of the joints, units, axes, sides.

A network does not notice a wrong order, it only gives nonsense. What is measured here is chosen to be blind to what
people do: bones are judged by distances alone, which a person upside down or turning a cartwheel does not change. A
fault is stated only where another order of the same points makes the body's bones much shorter; whatever a picture
could show as well (somebody lying, somebody on their hands) is a warning. Exchanged sides of a whole body cannot be
told from 2D geometry: a body with its sides exchanged looks like one that has turned its back. The only evidence there
is are scores of faces, see `_sides`.

The limits are measured on real motion (docs/own_data.md, "How sure the checks are").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

from kinema.core.skeleton import Skeleton, skeleton

FRAMES = 200  # frames looked at, evenly spaced
# Layouts that are taken for one another, because they have 17 points each. (PoseTrack's differs from COCO's in two
# points of the head only, which distances cannot tell.)
RIVALS = ("coco17", "h36m17", "mpi_inf_3dhp17")
LONGER = 1.15  # mean bone by the stated layout against that by a rival; true layouts stay below 0.99
SHORTENED = 0.75  # bones after the best exchanges of joints; true orders stay above 0.80, shuffled ones below 0.72
SUSPECT = 0.82  # a warning
SIDES = -0.5  # agreement of the shoulders' and the hips' direction; true bodies stay above 0.1
NORMALISED = 2.0  # coordinates within are no pixels
INSIDE = (0.5, 0.8)  # share of points inside their image: a fault below the first, a warning below the second
TURNED = 0.9  # share of frames that make an odd posture suspicious
BACKWARD = 0.8  # share of clear views whose sides contradict the face
SCORES = (-0.5, 12.0)  # some detectors' scores go beyond 1
SMALL = 0.02  # box of the whole motion, in image widths


@dataclass(frozen=True)
class Verdict:
    """One thing that is wrong, or may be.

    Attributes:
        fault: whether lifting makes no sense; else it is a warning.
        check: what was looked at.
        text: what is wrong, a sentence.
        remedy: what to do, a sentence.
    """

    fault: bool
    check: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text} {self.remedy}"


def examine(
    points: np.ndarray, layout: str, *, width: float | None = None, height: float | None = None
) -> list[Verdict]:
    """Examine one person's keypoints.

    Args:
        points: (T, J, 2 or 3) pixels, and scores; a joint that holds NaN in every frame is left out.
        layout: name of the skeleton they are said to follow.
        width, height: of the image, where known.

    Returns:
        Verdicts, faults first; none where all is well.
    """
    body = skeleton(layout)
    picked = np.asarray(points[spread(len(points))], np.float64)
    found = list(_channels(picked))
    if not found:
        found = list(_units(picked))
    if not found:
        found = [*_still(picked), *_inside(picked, width, height)]
    if not any(verdict.fault for verdict in found):
        order = list(_order(picked, body))
        found += order
        # By wrong names, hips and shoulders would be anything.
        if not any(verdict.fault or verdict.remedy.startswith("Use predict.layout") for verdict in order):
            found += [*_posture(picked, body), *_sides(picked, body)]
    return sorted(found, key=lambda verdict: not verdict.fault)


def spread(frames: int) -> np.ndarray:
    """Frames that are looked at, evenly spaced."""
    return np.unique(np.linspace(0, frames - 1, min(frames, FRAMES)).astype(np.int64))


def _channels(points: np.ndarray) -> Iterator[Verdict]:
    if points.shape[-1] == 3:
        low, high = np.nanmin(points[..., 2]), np.nanmax(points[..., 2])
        if low < SCORES[0] or high > SCORES[1]:
            yield Verdict(
                True,
                "scores",
                f"The third channel runs from {low:.3g} to {high:.3g}: no scores, but depths or points in 3D.",
                "Keep x and y in pixels, and scores from 0 to 1 as the third channel or none.",
            )


def _units(points: np.ndarray) -> Iterator[Verdict]:
    low, high = np.nanmin(points[..., :2]), np.nanmax(points[..., :2])
    reach = max(abs(low), abs(high))
    if reach > NORMALISED:
        return
    unit, meaning = ("normalised", "0 to 1 of width and height") if low >= -0.25 else ("screen", "-1 to 1 of the width")
    yield Verdict(
        True,
        "units",
        f"The points reach {reach:.2f} only: these are normalised coordinates, pixels are expected.",
        f"If they are {meaning}: predict.unit={unit}, with predict.width=1920 predict.height=1080 and your numbers.",
    )


def _still(points: np.ndarray) -> Iterator[Verdict]:
    spread = np.nanmax(points[..., :2].reshape(-1, 2), 0) - np.nanmin(points[..., :2].reshape(-1, 2), 0)
    within = np.nanmax(points[..., :2], 1) - np.nanmin(points[..., :2], 1)
    if within.max() <= 0:
        yield Verdict(
            True, "extent", "All joints lie on one point.", "Look at the file; the detector may have found nobody."
        )  # fmt: skip
    elif len(points) > 1 and not (np.nan_to_num(points[..., :2]) - np.nan_to_num(points[:1, :, :2])).any():
        yield Verdict(
            False, "motion", f"All {len(points)} frames looked at are the same, down to the last digit.",
            "If the person moves in the video, check how the file was written.",
        )  # fmt: skip
    elif spread.max() <= NORMALISED * 5:
        yield Verdict(
            False, "extent", f"The whole motion fits into {spread[0]:.1f} x {spread[1]:.1f} pixels.",
            "If the points are in another unit, multiply them so that they are pixels.",
        )  # fmt: skip


def _inside(points: np.ndarray, width: float | None, height: float | None) -> Iterator[Verdict]:
    if not width or not height:
        return
    x, y = points[..., 0], points[..., 1]
    known = np.isfinite(x)

    def share(x: np.ndarray, y: np.ndarray) -> float:
        return float(((x >= 0) & (x <= width) & (y >= 0) & (y <= height))[known].mean())

    here = share(x, y)
    if here >= INSIDE[1]:
        return
    fault = here < INSIDE[0]
    text = f"Only {100 * here:.0f} % of the points lie inside the image of {width:g} x {height:g}"
    if share(y, x) > 0.95:
        yield Verdict(
            fault, "image", f"{text}, but {100 * share(y, x):.0f} % do once x and y are exchanged.",
            "Exchange them: points[..., [1, 0]].",
        )  # fmt: skip
    elif share(x, -y) > 0.95:
        yield Verdict(fault, "image", f"{text}: y is negative, so it grows upwards.", "Turn it: y = -y.")
    else:
        yield Verdict(
            fault, "image", f"{text}: they run from ({np.nanmin(x):.4g}, {np.nanmin(y):.4g}) to ({np.nanmax(x):.4g}, "
            f"{np.nanmax(y):.4g}).", "Give the size of the images that the detector saw (predict.width, "
            "predict.height), and pixels, not millimetres.",
        )  # fmt: skip


def distances(points: np.ndarray) -> np.ndarray:
    """Usual distance between joints, (T, J, 2) to (J, J), in units of each frame's mean distance."""
    apart = np.linalg.norm(points[:, :, None, :2] - points[:, None, :, :2], axis=-1)
    size = np.nanmean(apart, axis=(1, 2), keepdims=True)
    kept = np.isfinite(size[:, 0, 0]) & (size[:, 0, 0] > 0)
    return np.asarray(np.median(apart[kept] / size[kept], axis=0))


@cache
def links(body: Skeleton) -> np.ndarray:
    """Pairs of joints (K, 2) that stay near one another: limbs, trunk, and the bones of the layout's tree."""
    head = "nose" if "nose" in body.joints else "head"
    names = [(f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in _LIMBS]
    names += [("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")]
    names += [(head, "left_shoulder"), (head, "right_shoulder")]
    pairs = {(body.index(a), body.index(b)) for a, b in names}
    pairs |= {bone for bone in body.bones if bone[::-1] not in pairs}
    return np.array(sorted(pairs))


_LIMBS = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"), ("shoulder", "hip"))


def length(apart: np.ndarray, pairs: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """Sum of distances over pairs of joints (K, 2); one value, or one per order of the joints (N, J)."""
    place = np.arange(len(apart)) if order is None else order
    return np.asarray(np.nansum(apart[place[..., pairs[:, 0]], place[..., pairs[:, 1]]], axis=-1))


def exchanged(apart: np.ndarray, body: Skeleton) -> tuple[float, list[tuple[int, int]]]:
    """The exchanges of two joints that shorten the bones most, one after the other.

    Exchanges of a joint with its opposite are left out: they say little where sides are seen one behind the other.

    Returns:
        Length that remains, relative to that of the order as it is, and the exchanges.
    """
    known = np.isfinite(apart).sum(1) > 1
    pairs = [
        pair
        for pair in combinations(range(len(body)), 2)
        if known[list(pair)].all() and body.flip_index[pair[0]] != pair[1]
    ]
    order, steps = np.arange(len(body)), []
    near = links(body)
    before = now = float(length(apart, near))
    a, b = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    for _ in range(2 * len(body)):
        tried = np.repeat(order[None], len(pairs), axis=0)
        rows = np.arange(len(pairs))
        tried[rows, a], tried[rows, b] = order[b], order[a]
        lengths = length(apart, near, tried)
        best = int(lengths.argmin())
        if lengths[best] > 0.995 * now:
            break
        order, now = tried[best], float(lengths[best])
        steps.append(pairs[best])
    return now / before, steps


def _order(points: np.ndarray, body: Skeleton) -> Iterator[Verdict]:
    apart = distances(points)
    if not np.isfinite(apart).any():
        return
    if body.name in RIVALS and np.isfinite(apart).all():
        mean = {name: float(length(apart, links(skeleton(name)))) / len(links(skeleton(name))) for name in RIVALS}
        by_rival = {name: mean[body.name] / mean[name] for name in RIVALS if name != body.name}
        name = max(by_rival, key=by_rival.__getitem__)
        # A shuffled order suits no layout; then the exchanges below have the word.
        if by_rival[name] > 1 and exchanged(apart, skeleton(name))[0] > SHORTENED:
            yield Verdict(
                by_rival[name] > LONGER, "order", f"The points are not in the order of {body.name}: its bones would be "
                f"{100 * (by_rival[name] - 1):.0f} % longer than those of {name}.", f"Use predict.layout={name}.",
            )  # fmt: skip
            return
    left, steps = exchanged(apart, body)
    if left >= SUSPECT:
        return
    names = [f"{body.joints[a]} with {body.joints[b]}" for a, b in steps]
    if len(steps) <= 2:
        what, remedy = " and ".join(names), "Exchange them, if a picture shows that they are wrong."
    else:
        what = f"{len(steps)} pairs, first {names[0]}"
        remedy = f"Bring the points into the order {', '.join(body.joints)}, or name theirs: predict.layout."
    yield Verdict(
        left < SHORTENED, "order",
        f"The joints seem to be shuffled: the bones of {body.name} get {100 * (1 - left):.0f} % shorter by exchanging "
        f"{what}.", remedy,
    )  # fmt: skip


def _between(points: np.ndarray, body: Skeleton, names: tuple[str, ...]) -> np.ndarray:
    """Middle of some joints, (T, 2)."""
    return np.asarray(points[:, [body.index(name) for name in names], :2].mean(1))


def _posture(points: np.ndarray, body: Skeleton) -> Iterator[Verdict]:
    down = _between(points, body, ("left_hip", "right_hip")) - _between(
        points, body, ("left_shoulder", "right_shoulder")
    )
    down = down[np.isfinite(down).all(1)]
    if not len(down):
        return
    # Beyond 45 degrees from upright either way.
    below = (-down[:, 1] > np.abs(down[:, 0])).mean()
    aside = (np.abs(down[:, 0]) > np.abs(down[:, 1])).mean()
    if below > TURNED:
        yield Verdict(
            False, "axes", f"The shoulders are below the hips in {100 * below:.0f} % of the frames.",
            "If nobody stands on their hands, y grows upwards in this file: use y = height - y.",
        )  # fmt: skip
    elif aside > TURNED:
        yield Verdict(
            False, "axes", f"The trunk lies across the image in {100 * aside:.0f} % of the frames.",
            "If nobody lies down, x and y are exchanged (use points[..., [1, 0]]) or the video is turned by 90°.",
        )  # fmt: skip


def _sides(points: np.ndarray, body: Skeleton) -> Iterator[Verdict]:
    shoulders, hips = (
        points[:, body.index(f"left_{joint}"), :2] - points[:, body.index(f"right_{joint}"), :2]
        for joint in ("shoulder", "hip")
    )
    seen = np.isfinite(shoulders + hips).all(1)
    shoulders, hips = shoulders[seen], hips[seen]
    size = np.sqrt((shoulders**2).sum() * (hips**2).sum())
    agreement = (shoulders * hips).sum() / size if size > 0 else 1.0
    if agreement < 0:
        yield Verdict(
            bool(agreement < SIDES), "sides",
            "Left and right of the legs are exchanged against the arms: hips point the other way than shoulders.",
            "Exchange the left and right joints of the legs, or of the arms.",
        )  # fmt: skip
        return
    # The one sign of a mirrored image or of exchanged labels: a face that is well seen, so turned to the camera, has
    # its left side, and the left shoulder, on the right in the image. (A body that hangs head down has not.)
    if "left_eye" not in body.joints or points.shape[-1] < 3:
        return
    scores = points[seen][:, :, 2]
    face, ears = (scores[:, [body.index(joint) for joint in names]] for names in (_FACE, _EARS))
    # From behind, detectors see ears and guess the face with low scores, or not at all.
    facing = (face.min(1) > 0.5) & (face.min(1) > ears.min(1) - 0.2)
    height = np.linalg.norm(
        _between(points[seen], body, ("left_hip", "right_hip"))
        - _between(points[seen], body, ("left_shoulder", "right_shoulder")), axis=-1,
    )  # fmt: skip
    upright = (
        _between(points[seen], body, ("left_hip", "right_hip"))[:, 1]
        > (_between(points[seen], body, ("left_shoulder", "right_shoulder"))[:, 1])
    )
    clear = facing & upright & (np.abs(shoulders[:, 0]) > 0.4 * height)
    given = scores[(scores > 0).all(1)]  # without frames that were filled
    varied = len(given) > 0 and (given.std(0) > 0.02).any()  # scores that are all alike say nothing about faces
    if varied and clear.sum() >= 5 and (shoulders[clear, 0] < 0).mean() > BACKWARD:
        yield Verdict(
            False, "sides", "Left and right seem to be exchanged: where the face is seen best, the left shoulder is on "
            "the left of the image.", "If the video is not mirrored and nobody is seen from behind, exchange left and "
            "right joints.",
        )  # fmt: skip


_FACE = ("nose", "left_eye", "right_eye")
_EARS = ("left_ear", "right_ear")

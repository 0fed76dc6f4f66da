"""From one layout of keypoints to another: a registry of the ways, for detectors' points as for lifters' inputs.

Confidence: a joint that is made of two (the hips' middle) gets the mean of their scores, as MotionBERT does; those of
PoseTrack get the lower of the two. A joint that the source has nothing for is placed where the table below says, with
score 0, so a pose without scores is refused there: nothing would tell the invented point from a seen one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from kinema.core import keypoints
from kinema.core.shapes import expect
from kinema.core.skeleton import SKELETONS, Skeleton, skeleton
from kinema.errors import ConfigError, DataError

Array = TypeVar("Array", np.ndarray, Tensor)
Convert = Callable[[Any], Any]

# Detectors that name every point of COCO-17.
_FACES = ("halpe26", "body25", "mediapipe33")
# Where a joint goes that the source lacks: the middle of these. The head of Human3.6M is the top of the head, its nose
# is where the face begins, and eyes and ears lie half way; what PoseTrack has of them is taken as it is.
_INVENTED = {
    "left_eye": ("nose", "head"),
    "right_eye": ("nose", "head"),
    "left_ear": ("nose", "head"),
    "right_ear": ("nose", "head"),
}
_ALIASES = {"posetrack17": {"head": "head_top"}}

RULES = ("plain", "demo")


@dataclass(frozen=True)
class Converter:
    """One way between two layouts.

    Attributes:
        source, target: names of skeletons.
        apply: (..., J, C) to (..., J', C), numpy or torch.
        rule: "plain", or "demo" for the corrections of the published video demos (`coco_to_h36m_demo`).
        invented: target joints that the source has nothing for.
    """

    source: str
    target: str
    apply: Convert
    rule: str = "plain"
    invented: tuple[str, ...] = ()


CONVERTERS: dict[tuple[str, str, str], Converter] = {}


def register(
    source: str, target: str, apply: Convert, *, rule: str = "plain", invented: tuple[str, ...] = ()
) -> Converter:
    """Add a way; a way that is there already is replaced."""
    made = Converter(source, target, apply, rule, invented)
    CONVERTERS[source, target, rule] = made
    find.cache_clear()
    needed.cache_clear()
    return made


def convert(pose: Array, source: str, target: str, *, rule: str = "plain") -> Array:
    """Bring keypoints into another layout.

    Args:
        pose: (..., J, 2) or (..., J, 3): x, y (y downwards for rule "demo") and a score.
        source, target: names of skeletons.
        rule: "plain" or "demo".

    Returns:
        (..., J', C); the pose itself where source and target are one.

    Raises:
        ConfigError: there is no such way.
        DataError: joints do not fit, or a joint would be invented that no score can mark.
    """
    expect(pose, "... J C", f"{source} keypoints", J=len(skeleton(source)))
    if source == target:
        return pose
    way = find(source, target, rule)
    if way.invented and pose.shape[-1] < 3:
        raise DataError(
            f"{source} has no {', '.join(way.invented)}, and these points have no scores that could say so. Add a "
            f"third channel of scores, or use a network that takes {source}."
        )
    out: Array = way.apply(pose)
    return out


@cache
def find(source: str, target: str, rule: str = "plain") -> Converter:
    """The way between two layouts.

    Raises:
        ConfigError: there is none; says which there are.
    """
    for name in (source, target):
        skeleton(name)
    if rule not in RULES:
        near = difflib.get_close_matches(rule, RULES, n=1)
        raise ConfigError(f"There is no conversion {rule!r}. Use predict.conversion={near[0] if near else RULES[0]}.")
    if source == target:
        return Converter(source, target, lambda pose: pose, rule)
    if (source, target, rule) in CONVERTERS:
        return CONVERTERS[source, target, rule]
    if rule != "plain" and (source, target, "plain") in CONVERTERS:
        raise ConfigError(
            f"The demos' conversion is for detectors' points to h36m17, not from {source} to {target}. "
            "Use predict.conversion=plain."
        )
    known = sorted({key[0] for key in CONVERTERS if key[1] == target})
    if known:
        raise ConfigError(
            f"Nothing converts {source} to {target}. Keypoints that can be: {', '.join(known)}; name the file's with "
            f"predict.layout={known[0]}."
        )
    targets = sorted({key[1] for key in CONVERTERS})
    raise ConfigError(f"Nothing converts to {target}. Use a network that takes one of {', '.join(targets)}.")


@cache
def needed(source: str, target: str, rule: str = "plain") -> tuple[int, ...]:
    """Source joints that the target is made of; a file may lack the others."""
    joints = len(skeleton(source))
    probe = np.ones((joints, joints, 3))
    probe[np.arange(joints), np.arange(joints)] = np.nan
    spoilt = np.isnan(find(source, target, rule).apply(probe)).any((1, 2))
    return tuple(np.flatnonzero(spoilt).tolist())


def layout_of(joints: int, expected: Skeleton) -> str:
    """Name of the layout of a file that says nothing but its number of points; that of the network where both fit.

    Raises:
        DataError: no layout has so many points.
    """
    if joints == len(expected):
        return expected.name
    names = [name for name, known in SKELETONS.items() if len(known) == joints and _leads(name, expected.name)]
    if len(names) == 1:
        return names[0]
    if names:
        raise DataError(f"{joints} points can be {' or '.join(names)}. Say which: predict.layout={names[0]}.")
    sizes = sorted({(len(skeleton(key[0])), key[0]) for key in CONVERTERS if key[1] == expected.name})
    known = ", ".join(f"{name} ({size})" for size, name in sizes)
    raise DataError(
        f"{joints} joints, {len(expected)} expected ({expected.name}). Layouts that are converted: {known or 'none'}; "
        "leave out the points that are in none of them."
    )


def _leads(source: str, target: str) -> bool:
    return (source, target, "plain") in CONVERTERS


def _chosen(source: str, target: str, invented: tuple[str, ...]) -> Convert:
    """Pick joints by name, and place those that are missing."""
    layout, wanted = skeleton(source), skeleton(target)
    alias = _ALIASES.get(source, {})

    def sources(joint: str) -> tuple[int, int]:
        names = _INVENTED[joint] if joint in invented else (joint,)
        own = [layout.index(alias.get(name, name)) for name in names]
        return own[0], own[-1]

    first, second = ([sources(joint)[side] for joint in wanted.joints] for side in (0, 1))
    unseen = [wanted.index(joint) for joint in invented]

    def apply(pose: Array) -> Array:
        if not unseen:
            return pose[..., first, :]
        out: Array = (pose[..., first, :] + pose[..., second, :]) / 2
        out[..., unseen, 2:] = 0 * out[..., unseen, 2:]
        return out

    return apply


def _demo(source: str) -> Convert:
    coco = find(source, "coco17").apply

    def apply(pose: Array) -> Array:
        if pose.shape[-1] == 3:
            return keypoints.coco_to_h36m_demo(coco(pose))
        one = pose[..., :1] * 0 + 1
        scored: Any = torch.cat([pose, one], -1) if isinstance(pose, Tensor) else np.concatenate([pose, one], -1)
        return keypoints.coco_to_h36m_demo(coco(scored))[..., :2]

    return apply


def _after(first: Convert, second: Convert) -> Convert:
    return lambda pose: second(first(pose))


def _fill() -> None:
    to_h36m: dict[str, Convert] = {
        "coco17": keypoints.coco_to_h36m,
        "halpe26": keypoints.halpe_to_h36m,
        "body25": keypoints.body25_to_h36m,
        "mediapipe33": keypoints.mediapipe_to_h36m,
        "posetrack17": keypoints.posetrack_to_h36m,
        "mpi_inf_3dhp17": keypoints.mpi_inf_3dhp_to_h36m,
    }
    for source, apply in to_h36m.items():
        register(source, "h36m17", apply)
    for source in _FACES:
        register(source, "coco17", _chosen(source, "coco17", ()))
    eyes, ears = tuple(_INVENTED)[:2], tuple(_INVENTED)[2:]
    face = _chosen("h36m17", "coco17", eyes + ears)
    register("h36m17", "coco17", face, invented=eyes + ears)
    register("mpi_inf_3dhp17", "coco17", _after(to_h36m["mpi_inf_3dhp17"], face), invented=eyes + ears)
    register("posetrack17", "coco17", _chosen("posetrack17", "coco17", eyes), invented=eyes)
    others: dict[str, Convert] = {
        "mpi_inf_3dhp17": keypoints.h36m_to_mpi_inf_3dhp,
        "humaneva15": _chosen("h36m17", "humaneva15", ()),
    }
    for target, last in others.items():
        register("h36m17", target, last)
        for source, apply in to_h36m.items():
            if source != target:
                register(source, target, _after(apply, last))
    for source in ("coco17", *_FACES):
        register(source, "h36m17", _demo(source), rule="demo")


_fill()

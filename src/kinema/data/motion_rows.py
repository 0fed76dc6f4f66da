"""What the readers of plain motion share: skeletons from yaml, names of actions, units, and the store they make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.core.skeleton import skeleton as named_skeleton
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError

# Metres of one unit of a file.
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}

Body = str | Mapping[str, Any] | None


def body(value: Body) -> Skeleton | None:
    """Skeleton of `dataset.skeleton`: a registered name, or a mapping with a parents list; None where the file tells.

    Args:
        value: name; {parents: [-1, 0, ...], joints: [names]} with optional names; or what `Skeleton.to_dict` gave.

    Raises:
        ConfigError: for an unknown name, or a mapping without a usable parents list.
    """
    if value is None or isinstance(value, Skeleton):
        return value
    if isinstance(value, str):
        return named_skeleton(value)
    known = ("name", "joints", "parents", "left", "right", "root")
    unknown = [key for key in value if key not in known]
    parents = value.get("parents")
    if unknown or not isinstance(parents, Sequence) or isinstance(parents, str):
        fault = f"has no key {unknown[0]!r}" if unknown else "has no list of parents"
        raise ConfigError(
            f"dataset.skeleton {fault}. Use a registered name, or "
            "'dataset.skeleton={parents:[-1,0,1],joints:[a,b,c]}'."
        )
    parents = [int(parent) for parent in parents]
    for joint, parent in enumerate(parents):
        if not -1 <= parent < len(parents) or parent == joint:
            raise ConfigError(
                f"dataset.skeleton.parents: joint {joint} has parent {parent}, which is no other joint of "
                f"{len(parents)}. Use -1 for the root and indices from 0 for the others."
            )
    made = Skeleton.from_parents(parents, value.get("joints"))
    stated = {key: value[key] for key in ("name", "left", "right", "root") if value.get(key) is not None}
    return Skeleton.from_dict({**made.to_dict(), **stated})


def own_skeleton(parents: Any, joints: Any, name: str) -> Skeleton:
    """A skeleton from a list of parents and, by need, names.

    Args:
        parents: (J,) index of each joint's parent, -1 for the root.
        joints: J names, or None.
        name: where the list stands, for messages.

    Raises:
        DataError: the list is no tree, or has another length than the names.
    """
    try:
        above = [int(parent) for parent in parents]
    except (TypeError, ValueError):
        raise DataError(
            f"{name}: parents={parents} is no list of joint numbers. Write parents=[-1, 0, 1, ...]."
        ) from None
    count = len(above)
    if joints is not None and len(joints) != count:
        raise DataError(f"{name}: {len(joints)} joint names, but {count} parents. Give every joint one of each.")
    roots = [joint for joint, parent in enumerate(above) if parent == -1]
    if len(roots) != 1:
        raise DataError(
            f"{name}: {len(roots)} joints have the parent -1. Exactly one is the root; the others hang on it."
        )
    wrong = next((joint for joint, parent in enumerate(above) if not -1 <= parent < count), None)
    if wrong is not None:
        raise DataError(
            f"{name}: joint {wrong} has the parent {above[wrong]}, but there are the joints 0 to {count - 1}. Count "
            "joints from 0; the root has -1."
        )
    for joint in range(count):
        at, steps = joint, 0
        while above[at] >= 0 and steps <= count:
            at, steps = above[at], steps + 1
        if steps > count:
            raise DataError(
                f"{name}: joint {joint} is its own ancestor. Correct the list: every way up ends at the root."
            )
    return Skeleton.from_parents(above, None if joints is None else [str(joint) for joint in joints])


def base_action(trial: str) -> str:
    """Action of a trial: its name without trailing numbers ("Walking 1" -> Walking, "Box 1 chunk3" -> Box)."""
    return re.sub(r"(\s+(chunk)?\d+)+$", "", trial)


def store(items: Sequence[Mapping[str, Any]], skeleton: Skeleton | None, *, meta: dict[str, Any]) -> Sequences:
    """Store of motion, one row per recording.

    Args:
        items: of each recording `pose3d` (T, J, 3) in metres, `subject`, `trial`, and any other column: `action` (else
            it is made of `trial`), `split` ("train", "test"), `fps`, ...; the same keys in every one.
        skeleton: of all.
        meta: plain values a reader wants to keep.

    Returns:
        Sequences in world space with the array `pose3d` (N, J, 3) float32.

    Raises:
        DataError: without recordings, or where shapes differ from (T, J, 3) with the skeleton's J.
    """
    made = []
    for item in items:
        pose = np.asarray(item["pose3d"], np.float32)
        label = f"{item['subject']}/{item['trial']}"
        wanted = pose.shape[1] if skeleton is None and pose.ndim == 3 else len(skeleton or ())
        if pose.ndim != 3 or pose.shape[1:] != (wanted, 3):
            raise DataError(
                f"{label}: shape {pose.shape}, expected (frames, {wanted or 'joints'}, 3). Set dataset.skeleton to the "
                "skeleton of the file."
            )
        if len(pose) == 0:
            raise DataError(f"{label} has no frames. Remove it, or leave it out: 'dataset.drop=[{label}]'.")
        told = {"camera": "", "split": "", "fps": np.nan, "action": base_action(str(item["trial"]))}
        made.append({**told, **item, "pose3d": pose})
    if not made:
        raise DataError("There is no recording to use.")
    return Sequences.from_arrays(made, skeleton=skeleton, space="world", meta=meta)

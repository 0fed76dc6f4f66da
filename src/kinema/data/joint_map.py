"""Joints of one skeleton out of those of another: by equal names, by the names of common programs, or as stated."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.errors import ConfigError, DataError

# A joint stands for one of these, or for the middle of several.
Names = tuple[str, ...]

# How programs call the three joints of a leg and of an arm: mostly by the bone that begins there.
_LEGS = (
    ("upleg", "leg", "foot"),  # Mixamo, MotionBuilder, CMU, LaFAN1
    ("hip", "knee", "ankle"),  # SMPL, 100STYLE, Xsens
    ("thigh", "shin", "foot"),  # Poser
    ("thigh", "calf", "foot"),  # 3ds Max, Unreal
    ("upperleg", "lowerleg", "foot"),
    ("femur", "tibia", "foot"),  # Acclaim
)
_ARMS = (
    ("arm", "forearm", "hand"),
    ("shoulder", "elbow", "wrist"),
    ("shldr", "forearm", "hand"),
    ("upperarm", "forearm", "hand"),
    ("upperarm", "lowerarm", "hand"),
    ("humerus", "radius", "wrist"),
)
_LEG_SLOTS, _ARM_SLOTS = ("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")
_TOPS = ("top", "end", "nub")


@dataclass(frozen=True)
class JointMap:
    """Which joints of a file every joint of a skeleton is the middle of.

    Attributes:
        sources: of every joint, indices in the file.
    """

    sources: tuple[tuple[int, ...], ...]

    def __call__(self, pose: np.ndarray) -> np.ndarray:
        """Pick the joints: (T, J', 3) -> (T, J, 3)."""
        return np.stack([pose[:, list(picked)].mean(1) for picked in self.sources], axis=1)


def joint_map(
    skeleton: Skeleton,
    joints: Sequence[str],
    parents: Sequence[int],
    rest: np.ndarray,
    stated: Mapping[str, str | Sequence[str]] | None,
    name: str,
) -> JointMap:
    """Find the joints of `skeleton` among those of a file.

    Args:
        skeleton: what is wanted.
        joints, parents: of the file.
        rest: (J', 3) offsets from the parents, any unit.
        stated: wanted joint -> name in the file, or several names whose middle it is; it goes before what is guessed.
        name: of the file, for messages.

    Raises:
        ConfigError: `stated` names a joint that does not exist.
        DataError: a joint is found by no name.
    """
    found = _equal(skeleton, joints)
    if skeleton.name == "h36m17":
        found |= {slot: names for slot, names in _guess(joints, parents, rest).items() if slot not in found}
    for slot, given in (stated or {}).items():
        skeleton.index(slot)
        found[slot] = (given,) if isinstance(given, str) else tuple(given)
    lacking = [slot for slot in skeleton.joints if slot not in found]
    if lacking:
        raise DataError(
            f"{name}: no joint stands for {', '.join(lacking[:4])}{', ...' * (len(lacking) > 4)} of {skeleton.name}; "
            f"it has {', '.join(joints)}. Say which: 'dataset.reader_options.joint_map={{{lacking[0]}: NAME}}', or "
            "keep its own joints: dataset.skeleton=null."
        )
    return JointMap(tuple(tuple(_index(joints, one, slot, name) for one in found[slot]) for slot in skeleton.joints))


def _index(joints: Sequence[str], wanted: str, slot: str, name: str) -> int:
    if wanted in joints:
        return joints.index(wanted)
    near = difflib.get_close_matches(wanted, joints, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(joints)}."
    raise ConfigError(f"dataset.reader_options.joint_map.{slot}: {name} has no joint {wanted!r}. {hint}")


def _plain(name: str) -> str:
    """A name without what programs put before and between its words."""
    name = re.sub(r"^(bip\d+|def[-_])", "", name.rpartition(":")[2], flags=re.IGNORECASE)
    return re.sub(r"[\s_\-.]", "", name).lower()


def _equal(skeleton: Skeleton, joints: Sequence[str]) -> dict[str, Names]:
    """Joints called alike, which is trusted where all of them are."""
    plain = {_plain(joint): joint for joint in reversed(joints)}
    slots: dict[str, Names] = {slot: (plain[_plain(slot)],) for slot in skeleton.joints if _plain(slot) in plain}
    return slots if len(slots) == len(skeleton) else {}


def _sided(name: str) -> tuple[str, str] | None:
    """Side and rest of a name: LeftUpLeg -> left, upleg; thigh_l -> left, thigh."""
    sides = {"l": "left", "r": "right", "left": "left", "right": "right"}
    last = re.fullmatch(r"(.+)[\s_.\-]([lr]|left|right)", name, flags=re.IGNORECASE)
    if last:
        return sides[last[2].lower()], _plain(last[1])
    begin = re.fullmatch(r"(left|right|l|r)(.+)", _plain(name))
    return (sides[begin[1]], begin[2]) if begin else None


def _guess(joints: Sequence[str], parents: Sequence[int], rest: np.ndarray) -> dict[str, Names]:
    """The joints of h36m17 that a file names as common programs do: limbs by their names, the trunk by its tree."""
    sided = {found: joint for joint in reversed(joints) if (found := _sided(joint)) is not None}
    made: dict[str, Names] = {}
    for slots, families in ((_LEG_SLOTS, _LEGS), (_ARM_SLOTS, _ARMS)):
        for family in families:
            limbs = {
                f"{side}_{slot}": sided.get((side, part))
                for side in ("left", "right")
                for slot, part in zip(slots, family, strict=True)
            }
            if all(limbs.values()):
                made |= {slot: (joint,) for slot, joint in limbs.items() if joint is not None}
                break
    heads = [i for i, joint in enumerate(joints) if _plain(joint) == "head"]
    if "left_hip" not in made or not heads:
        return made
    return made | _trunk(joints, parents, rest, heads[0], made)


def _trunk(
    joints: Sequence[str], parents: Sequence[int], rest: np.ndarray, head: int, limbs: Mapping[str, Names]
) -> dict[str, Names]:
    """Pelvis where the legs meet, thorax at the root of the neck, the spine between them, neck and top of the head."""
    hips = [_ancestors(joints.index(limbs[f"{side}_hip"][0]), parents) for side in ("left", "right")]
    pelvis = next((joint for joint in hips[0] if joint in hips[1]), None)
    above = _ancestors(head, parents)  # the head, its neck, ..., the root
    if pelvis is None or pelvis not in above:
        return {}
    trunk = above[: above.index(pelvis) + 1][::-1]  # pelvis, ..., head
    necks = [joint for joint in trunk[1:-1] if _plain(joints[joint]).startswith("neck")]
    thorax = necks[0] if necks else trunk[-2]
    made: dict[str, Names] = {"pelvis": (joints[pelvis],), "thorax": (joints[thorax],), "nose": (joints[head],)}
    between = trunk[1 : trunk.index(thorax)]
    if between:
        steps = np.linalg.norm(rest[trunk[1 : trunk.index(thorax) + 1]], axis=-1)
        share = np.cumsum(steps) / max(float(steps.sum()), 1e-9)
        made["spine"] = (joints[between[int(np.abs(share[:-1] - 0.5).round(6).argmin())]],)
    elif thorax != pelvis:
        made["spine"] = (joints[pelvis], joints[thorax])
    below = [i for i, parent in enumerate(parents) if parent == head]
    tops = [i for i in below if any(word in _plain(joints[i]) for word in _TOPS)] or below
    if len(tops) == 1:
        made["head"] = (joints[tops[0]],)
    return made


def _ancestors(joint: int, parents: Sequence[int]) -> list[int]:
    """A joint and all above it, up to the root."""
    way = [joint]
    while parents[way[-1]] >= 0:
        way.append(parents[way[-1]])
    return way

"""Skeletons of the field as trees of joints; the named ones are those of `skeleton_tables.py`.

No joint index stands anywhere but in the tables, `layouts.py` and `graphs.py`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kinema.core.skeleton_tables import BODIES
from kinema.errors import ConfigError, DataError

# What a left joint's name says, and the right one's instead: a word, or the letter that a word begins with.
_RIGHT = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
_LEFT = r"left|Left|LEFT|(?<![A-Za-z0-9])[lL]"


@dataclass(frozen=True)
class Skeleton:
    """Joints of a body as a tree.

    Attributes:
        name: registered name such as "h36m17", or any name for a user's own skeleton.
        joints: joint names, in storage order.
        parents: index of each joint's parent, -1 for the root.
        left: indices of left joints.
        right: indices of right joints, paired with `left` in order.
        root: index of the root joint.
        tables: published index tables of this skeleton by name (limbs, angle pairs, body parts, joint weights).
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    root: int = 0
    tables: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.joints) != len(self.parents):
            raise DataError(f"Skeleton {self.name}: {len(self.joints)} joint names but {len(self.parents)} parents.")
        if len(self.left) != len(self.right):
            raise DataError(f"Skeleton {self.name}: {len(self.left)} left but {len(self.right)} right joints.")
        if self.parents[self.root] != -1:
            raise DataError(f"Skeleton {self.name}: the root joint {self.root} has parent {self.parents[self.root]}.")

    def __len__(self) -> int:
        return len(self.joints)

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """Pairs (child, parent) for every joint but the root."""
        return tuple((joint, parent) for joint, parent in enumerate(self.parents) if parent >= 0)

    @cached_property
    def flip_index(self) -> tuple[int, ...]:
        """Joint order of the mirrored body: `x[..., flip_index, :]` exchanges left and right."""
        order = list(range(len(self)))
        for a, b in zip(self.left, self.right, strict=True):
            order[a], order[b] = b, a
        return tuple(order)

    def index(self, joint: str) -> int:
        """Return the index of a joint by name; a wrong name raises ConfigError with the nearest one."""
        if joint in self.joints:
            return self.joints.index(joint)
        near = difflib.get_close_matches(joint, self.joints, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(self.joints)}."
        raise ConfigError(f"Skeleton {self.name} has no joint {joint!r}.{hint}")

    def subset(self, names: Sequence[str], name: str | None = None) -> Skeleton:
        """Keep some joints; a joint whose parent is left out hangs on the nearest kept ancestor."""
        kept = [self.index(joint) for joint in names]
        parents = []
        for joint in kept:
            parent = self.parents[joint]
            while parent >= 0 and parent not in kept:
                parent = self.parents[parent]
            parents.append(kept.index(parent) if parent >= 0 else -1)
        pairs = [(a, b) for a, b in zip(self.left, self.right, strict=True) if a in kept and b in kept]
        return Skeleton(
            name=name or f"{self.name}-{len(kept)}",
            joints=tuple(names),
            parents=tuple(parents),
            left=tuple(kept.index(a) for a, _ in pairs),
            right=tuple(kept.index(b) for _, b in pairs),
            root=kept.index(self.root),
        )

    def map_to(self, other: Skeleton) -> tuple[int, ...]:
        """Indices that pick the joints of `other` (equal names) out of this skeleton."""
        return tuple(self.index(joint) for joint in other.joints)

    def part(self, name: str) -> tuple[int, ...]:
        """Joint indices of a body part named in `tables["parts"]`."""
        parts: dict[str, tuple[int, ...]] = self.tables.get("parts", {})
        if name not in parts:
            raise ConfigError(f"Skeleton {self.name} has no part {name!r}. Known: {', '.join(parts) or 'none'}.")
        return parts[name]

    def partition(self) -> dict[str, tuple[int, ...]]:
        """The body parts of `tables["parts"]`, which together hold every joint once.

        Raises:
            ConfigError: for a skeleton that nobody has divided, or not so.
        """
        parts: dict[str, tuple[int, ...]] = self.tables.get("parts", {})
        if sorted(joint for part in parts.values() for joint in part) != list(range(len(self))):
            divided = ", ".join(name for name, one in SKELETONS.items() if "parts" in one.tables)
            raise ConfigError(f"Skeleton {self.name} is not divided into body parts. Use one of {divided}.")
        return parts

    @cached_property
    def hops(self) -> tuple[tuple[int, ...], ...]:
        """Number of bones on the way from each joint to each other one, (J, J)."""
        reach = [{joint: 0} for joint in range(len(self))]  # ancestors of each joint, itself included
        for joint, way in enumerate(reach):
            above = self.parents[joint]
            while above >= 0:
                way[above] = len(way)
                above = self.parents[above]
        return tuple(tuple(min(a[x] + b[x] for x in a.keys() & b.keys()) for b in reach) for a in reach)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for checkpoints and caches."""
        return {
            "name": self.name,
            "joints": list(self.joints),
            "parents": list(self.parents),
            "left": list(self.left),
            "right": list(self.right),
            "root": self.root,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Skeleton:
        """Inverse of `to_dict`; a registered name gives the registered skeleton with its tables."""
        made = cls(
            name=values["name"],
            joints=tuple(values["joints"]),
            parents=tuple(values["parents"]),
            left=tuple(values["left"]),
            right=tuple(values["right"]),
            root=values["root"],
        )
        known = SKELETONS.get(made.name)
        return known if known == made else made

    @classmethod
    def from_parents(cls, parents: Sequence[int], names: Sequence[str] | None = None) -> Skeleton:
        """Describe a user's own skeleton by its parents list; left and right are read from the names if given.

        A name that says left, or begins a word with l, pairs with its opposite: LeftArm, left_arm, lfemur, thigh_l.
        """
        joints = tuple(names) if names is not None else tuple(f"joint{i}" for i in range(len(parents)))
        roots = [i for i, parent in enumerate(parents) if parent < 0]
        if len(roots) != 1:
            raise DataError(f"A skeleton needs exactly one root (parent -1), found {len(roots)}.")
        pairs = _sides(joints)
        return cls(
            name=f"custom{len(parents)}",
            joints=joints,
            parents=tuple(parents),
            left=tuple(a for a, _ in pairs),
            right=tuple(b for _, b in pairs),
            root=roots[0],
        )


def _sides(joints: Sequence[str]) -> list[tuple[int, int]]:
    """Left joints and the right ones paired with them, by their names."""
    pairs = []
    for i, joint in enumerate(joints):
        for found in re.finditer(_LEFT, joint):
            other = _RIGHT[found[0]]
            once = joint[: found.start()] + other + joint[found.end() :]
            name = next((name for name in (once, joint.replace(found[0], other)) if name in joints), None)
            if name is not None:
                pairs.append((i, joints.index(name)))
                break
    return pairs


SKELETONS: dict[str, Skeleton] = {body["name"]: Skeleton(**body) for body in BODIES}


def skeleton(name: str) -> Skeleton:
    """Return a registered skeleton.

    Raises:
        ConfigError: for an unknown name, with the nearest known one.
    """
    if name in SKELETONS:
        return SKELETONS[name]
    near = difflib.get_close_matches(name, SKELETONS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(SKELETONS)}."
    raise ConfigError(f"No skeleton is called {name!r}. {hint}")

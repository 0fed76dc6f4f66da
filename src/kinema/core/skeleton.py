"""Skeletons of the field: joint names, parents and left/right pairs; the only place where joint indices stand."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kinema.errors import ConfigError, DataError


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

        A name that begins or ends with left/right (or l_/r_) pairs with its opposite.
        """
        joints = tuple(names) if names is not None else tuple(f"joint{i}" for i in range(len(parents)))
        roots = [i for i, parent in enumerate(parents) if parent < 0]
        if len(roots) != 1:
            raise DataError(f"A skeleton needs exactly one root (parent -1), found {len(roots)}.")
        pairs = []
        for a, b in (("left", "right"), ("l_", "r_"), ("Left", "Right"), ("L_", "R_")):
            pairs += [
                (i, joints.index(joint.replace(a, b)))
                for i, joint in enumerate(joints)
                if a in joint and joint.replace(a, b) in joints
            ]
        return cls(
            name=f"custom{len(parents)}",
            joints=joints,
            parents=tuple(parents),
            left=tuple(a for a, _ in pairs),
            right=tuple(b for _, b in pairs),
            root=roots[0],
        )


_H36M17_TABLES: dict[str, Any] = {
    # MotionBERT, lib/model/loss.py: limb vectors (start, end) and pairs of limbs whose angle is measured.
    "limbs": (
        (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8),
        (8, 9), (9, 10), (8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16),
    ),
    "angle_pairs": (
        (0, 3), (0, 6), (3, 6), (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 10),
        (7, 13), (8, 13), (10, 13), (7, 8), (8, 9), (10, 11), (11, 12), (13, 14), (14, 15),
    ),
    "parts": {
        "torso": (0, 7, 8, 9, 10),
        "right_leg": (1, 2, 3),
        "left_leg": (4, 5, 6),
        "left_arm": (11, 12, 13),
        "right_arm": (14, 15, 16),
    },
    # Pairs (child, parent) of the bone stream: ours, the graph's edges (core/graphs.py); the thorax has none.
    "bone_stream": (
        (7, 8), (0, 7), (1, 0), (2, 1), (3, 2), (4, 0), (5, 4), (6, 5),
        (9, 8), (10, 9), (11, 8), (12, 11), (13, 12), (14, 8), (15, 14), (16, 15),
    ),
    # First frame's centre, spine (lower, upper) and shoulders (turned to z and x) of clip_preprocess "pyskl_3d": ours.
    "prenormalise": {"centre": 7, "spine": (0, 8), "shoulders": (14, 11)},
    # Weights of joints in losses (MotionAGFormer and PoseMamba, loss/pose3d.py): outer joints count more.
    "joint_weights": (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4),
}  # fmt: skip

_SKELETONS = (
    # Human3.6M reduced to 17 joints (VideoPose3D, MotionBERT).
    Skeleton(
        name="h36m17",
        joints=(
            "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "thorax",
            "nose", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
        ),
        parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
        left=(4, 5, 6, 11, 12, 13),
        right=(1, 2, 3, 14, 15, 16),
        tables=_H36M17_TABLES,
    ),
    # The 32 joints of the Human3.6M archive, with its parents (VideoPose3D, common/h36m_dataset.py).
    Skeleton(
        name="h36m32",
        joints=(
            "pelvis", "right_hip", "right_knee", "right_ankle", "right_toe_base", "right_toe_end",
            "left_hip", "left_knee", "left_ankle", "left_toe_base", "left_toe_end",
            "spine_base", "spine", "thorax", "nose", "head",
            "left_collar", "left_shoulder", "left_elbow", "left_wrist", "left_hand", "left_thumb", "left_fist", "left_end",
            "right_collar", "right_shoulder", "right_elbow", "right_wrist", "right_hand", "right_thumb", "right_fist",
            "right_end",
        ),
        parents=(
            -1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 13, 14,
            12, 16, 17, 18, 19, 20, 19, 22, 12, 24, 25, 26, 27, 28, 27, 30,
        ),
        left=(6, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23),
        right=(1, 2, 3, 4, 5, 24, 25, 26, 27, 28, 29, 30, 31),
    ),
    # HumanEva-I, 15 joints (VideoPose3D).
    Skeleton(
        name="humaneva15",
        joints=(
            "pelvis", "thorax", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
            "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "head",
        ),
        parents=(-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1),
        left=(2, 3, 4, 8, 9, 10),
        right=(5, 6, 7, 11, 12, 13),
        tables={
            "parts": {
                "torso": (0, 1, 14),
                "left_arm": (2, 3, 4),
                "right_arm": (5, 6, 7),
                "left_leg": (8, 9, 10),
                "right_leg": (11, 12, 13),
            }
        },
    ),
    # MPI-INF-3DHP, the 17 joints of its test set in the order of the lifting files (P-STMO, MotionAGFormer).
    Skeleton(
        name="mpi_inf_3dhp17",
        joints=(
            "head_top", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
            "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "pelvis", "spine", "head",
        ),
        parents=(16, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1),
        left=(5, 6, 7, 11, 12, 13),
        right=(2, 3, 4, 8, 9, 10),
        root=14,
        tables={
            # For each Human3.6M joint (h36m17) the one here that stands for it: nose and head are head and head_top.
            "h36m17": (14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4),
            # Columns of the official PCK report (mpii_get_pck_auc.m); pelvis, spine and head are in none of them.
            "pck_groups": {
                "Head": (0,), "Neck": (1,), "Shou": (2, 5), "Elbow": (3, 6),
                "Wrist": (4, 7), "Hip": (8, 11), "Knee": (9, 12), "Ankle": (10, 13),
            },
            "parts": {
                "torso": (0, 1, 14, 15, 16),
                "right_arm": (2, 3, 4),
                "left_arm": (5, 6, 7),
                "right_leg": (8, 9, 10),
                "left_leg": (11, 12, 13),
            },
        },
    ),
    # COCO keypoints; the tree is ours (COCO itself defines none), rooted at the nose.
    Skeleton(
        name="coco17",
        joints=(
            "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
            "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
            "right_ankle",
        ),
        parents=(-1, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
        left=(1, 3, 5, 7, 9, 11, 13, 15),
        right=(2, 4, 6, 8, 10, 12, 14, 16),
        tables={
            "parts": {
                "head": (0, 1, 2, 3, 4),
                "left_arm": (5, 7, 9),
                "right_arm": (6, 8, 10),
                "left_leg": (11, 13, 15),
                "right_leg": (12, 14, 16),
            },
            # pyskl, JointToBone (coco): the hips hang on the nose here.
            "bone_stream": (
                (1, 0), (2, 0), (3, 1), (4, 2), (5, 0), (6, 0), (7, 5), (8, 6),
                (9, 7), (10, 8), (11, 0), (12, 0), (13, 11), (14, 12), (15, 13), (16, 14),
            ),
        },
    ),
    # NTU RGB+D, the 25 joints of Kinect v2; the tree is Kinect's, rooted at the base of the spine.
    Skeleton(
        name="ntu25",
        joints=(
            "spine_base", "spine_middle", "neck", "head", "left_shoulder", "left_elbow", "left_wrist", "left_hand",
            "right_shoulder", "right_elbow", "right_wrist", "right_hand", "left_hip", "left_knee", "left_ankle",
            "left_foot", "right_hip", "right_knee", "right_ankle", "right_foot", "spine_shoulder", "left_hand_tip",
            "left_thumb", "right_hand_tip", "right_thumb",
        ),
        parents=(-1, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 7, 7, 11, 11),
        left=(4, 5, 6, 7, 12, 13, 14, 15, 21, 22),
        right=(8, 9, 10, 11, 16, 17, 18, 19, 23, 24),
        tables={
            "parts": {
                "torso": (0, 1, 2, 3, 20),
                "left_arm": (4, 5, 6, 7, 21, 22),
                "right_arm": (8, 9, 10, 11, 23, 24),
                "left_leg": (12, 13, 14, 15),
                "right_leg": (16, 17, 18, 19),
            },
            # pyskl, JointToBone (nturgb+d): tips of hands hang on thumbs here.
            "bone_stream": (
                (0, 1), (1, 20), (2, 20), (3, 2), (4, 20), (5, 4), (6, 5), (7, 6), (8, 20), (9, 8), (10, 9), (11, 10),
                (12, 0), (13, 12), (14, 13), (15, 14), (16, 0), (17, 16), (18, 17), (19, 18), (21, 22), (22, 7),
                (23, 24), (24, 11),
            ),
            # pyskl, PreNormalize3D.
            "prenormalise": {"centre": 1, "spine": (0, 1), "shoulders": (8, 4)},
        },
    ),
    # PoseTrack18; the tree is ours, rooted at the bottom of the head.
    Skeleton(
        name="posetrack17",
        joints=(
            "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
            "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
            "right_ankle",
        ),
        parents=(1, -1, 0, 0, 0, 1, 1, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
        left=(3, 5, 7, 9, 11, 13, 15),
        right=(4, 6, 8, 10, 12, 14, 16),
        root=1,
    ),
    # Halpe-26 of AlphaPose (Halpe-FullBody); tree rooted at the hip.
    Skeleton(
        name="halpe26",
        joints=(
            "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
            "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
            "right_ankle", "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
            "left_heel", "right_heel",
        ),
        parents=(17, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 19, 19, 11, 12, 13, 14, 18, 19, -1, 15, 16, 15, 16, 15, 16),
        left=(1, 3, 5, 7, 9, 11, 13, 15, 20, 22, 24),
        right=(2, 4, 6, 8, 10, 12, 14, 16, 21, 23, 25),
        root=19,
    ),
    # MMN, MA-52: Halpe-26 with six points of the face and of each hand. The tree is ours, rooted at the hip; which side
    # of the face a point is on is not published, so the face has no pairs.
    Skeleton(
        name="mmn44",
        joints=(
            "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
            "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
            "right_ankle", "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
            "left_heel", "right_heel", *(f"face_{i}" for i in range(1, 7)),
            *(f"right_hand_{i}" for i in range(1, 7)), *(f"left_hand_{i}" for i in range(1, 7)),
        ),
        parents=(
            17, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 19, 19, 11, 12, 13, 14, 18, 19, -1, 15, 16, 15, 16, 15, 16,
            *[0] * 6, *[10] * 6, *[9] * 6,
        ),
        left=(1, 3, 5, 7, 9, 11, 13, 15, 20, 22, 24, *range(38, 44)),
        right=(2, 4, 6, 8, 10, 12, 14, 16, 21, 23, 25, *range(32, 38)),
        root=19,
        tables={
            "parts": {
                "torso": (0, 1, 2, 3, 4, 17, 18, 19, *range(26, 32)),
                "left_arm": (5, 7, 9, *range(38, 44)),
                "right_arm": (6, 8, 10, *range(32, 38)),
                "left_leg": (11, 13, 15, 20, 22, 24),
                "right_leg": (12, 14, 16, 21, 23, 25),
            }
        },
    ),
    # PCAN, MA-52: the 18 points of OpenPose's COCO model and five of each hand; the tree is PCAN's, rooted at the neck.
    Skeleton(
        name="openpose28",
        joints=(
            "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
            "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
            "right_ear", "left_ear", *(f"left_hand_{i}" for i in range(1, 6)), *(f"right_hand_{i}" for i in range(1, 6)),
        ),
        parents=(1, -1, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15, *[7] * 5, *[4] * 5),
        left=(5, 6, 7, 11, 12, 13, 15, 17, *range(18, 23)),
        right=(2, 3, 4, 8, 9, 10, 14, 16, *range(23, 28)),
        root=1,
        tables={
            "parts": {
                "head": (0, 1, 14, 15, 16, 17),
                "left_arm": (5, 6, 7, *range(18, 23)),
                "right_arm": (2, 3, 4, *range(23, 28)),
                "left_leg": (11, 12, 13),
                "right_leg": (8, 9, 10),
            }
        },
    ),
    # OpenPose BODY_25; the tree is that of its part affinity fields.
    Skeleton(
        name="body25",
        joints=(
            "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
            "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye",
            "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
            "right_small_toe", "right_heel",
        ),
        parents=(1, 8, 1, 2, 3, 1, 5, 6, -1, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 19, 14, 11, 22, 11),
        left=(5, 6, 7, 12, 13, 14, 16, 18, 19, 20, 21),
        right=(2, 3, 4, 9, 10, 11, 15, 17, 22, 23, 24),
        root=8,
    ),
    # MediaPipe Pose (BlazePose); the tree is ours, rooted at the nose.
    Skeleton(
        name="mediapipe33",
        joints=(
            "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
            "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
            "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
            "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
            "right_ankle", "left_heel", "right_heel", "left_foot_index", "right_foot_index",
        ),
        parents=(
            -1, 0, 1, 2, 0, 4, 5, 3, 6, 0, 0, 0, 0, 11, 12, 13, 14, 15, 16, 15, 16, 15, 16, 11, 12, 23, 24, 25, 26,
            27, 28, 27, 28,
        ),
        left=(1, 2, 3, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31),
        right=(4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32),
    ),
)  # fmt: skip

SKELETONS: dict[str, Skeleton] = {skeleton.name: skeleton for skeleton in _SKELETONS}


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

"""A human body as an articulated 17-joint skeleton: bone lengths, joint angles and the pose they make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from kinema.core.skeleton import skeleton

SKELETON = skeleton("h36m17")
SIDES = ("left", "right")

# Rest offsets from the parent for a person of 1.73 m, metres: x forward, y left, z up, arms hanging. Left and middle
# joints only; the right ones mirror them. Lengths follow the mean bones of adults in the Human3.6M recordings.
_REST = {
    "left_hip": (0.0, 0.132, 0.0),
    "left_knee": (0.0, 0.0, -0.445),
    "left_ankle": (0.0, 0.0, -0.450),
    "spine": (-0.015, 0.0, 0.235),
    "thorax": (0.005, 0.0, 0.255),
    "nose": (0.065, 0.0, 0.105),
    "head": (-0.035, 0.0, 0.110),
    "left_shoulder": (-0.010, 0.150, -0.020),
    "left_elbow": (0.0, 0.0, -0.280),
    "left_wrist": (0.0, 0.0, -0.252),
}
_STATURE = 1.73
_ANKLE = 0.080  # height of the ankle over the floor in standing
_REACH = 0.995  # the part of a leg's length that a standing person uses: knees are never locked

# Angles of relaxed standing, degrees; an angle that is not listed rests at 0.
_RELAXED = {"flex": 2.0, "abduct": 9.0, "elbow": 16.0, "twist": 12.0, "toe_out": 8.0}
ANGLES = (
    "pelvis_turn", "pelvis_pitch", "pelvis_roll",
    "spine_turn", "spine_bend", "spine_side",
    "head_turn", "head_nod", "head_tilt",
    *(f"{side}_{name}" for side in SIDES for name in ("flex", "abduct", "across", "twist", "elbow", "toe_out")),
)  # fmt: skip


@dataclass(frozen=True)
class Body:
    """Bones of one person.

    Attributes:
        offsets: (17, 3) of each joint from its parent at rest, metres: x forward, y left, z up, arms hanging.
        ankle: height of the ankles over the floor in standing, metres.
    """

    offsets: np.ndarray
    ankle: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Body:
        """Draw a person: stature, and the proportions of torso, arms, legs and width, equal on both sides."""
        size = float(np.clip(rng.normal(_STATURE, 0.09), 1.50, 1.95)) / _STATURE
        torso, arm, leg, width = np.clip(rng.normal(1.0, 0.03, 4), 0.93, 1.07)
        factor = {"spine": torso, "thorax": torso, "nose": torso, "head": torso, "shoulder": width, "hip": width,
                  "elbow": arm, "wrist": arm, "knee": leg, "ankle": leg}  # fmt: skip
        offsets = np.zeros((len(SKELETON), 3))
        for name, rest in _REST.items():
            offset = np.array(rest) * size * factor[name.removeprefix("left_")]
            offsets[SKELETON.index(name)] = offset
            if name.startswith("left"):
                offsets[SKELETON.index(name.replace("left", "right"))] = offset * (1.0, -1.0, 1.0)
        return cls(offsets, _ANKLE * size)

    def bone(self, joint: str) -> float:
        """Length of the bone that ends at a joint, metres."""
        return float(np.linalg.norm(self.offsets[SKELETON.index(joint)]))

    @property
    def leg(self) -> float:
        """Thigh and shank together, metres."""
        return self.bone("left_knee") + self.bone("left_ankle")

    @property
    def hip_height(self) -> float:
        """Height of the pelvis over the floor in standing, metres."""
        return self.ankle + _REACH * self.leg

    @property
    def hip_width(self) -> float:
        """Distance of a hip from the pelvis, metres."""
        return self.bone("left_hip")


@dataclass
class Motion:
    """What an action says of every frame; `solve` turns it into joint positions.

    Attributes:
        body: whose bones.
        root: (T, 3) pelvis, metres, z up, floor at 0.
        heading: (T,) direction the body faces, radians about z.
        ankles: side -> (T, 3) where the ankles should be, metres.
        angles: name of `ANGLES` -> (T,) degrees. Of an arm: `flex` swings forward, `abduct` lifts sideways, `across`
            turns about the vertical toward the other side, `twist` turns the upper arm about itself (inward positive),
            `elbow` bends; of a foot: `toe_out`. Of the trunk: `turn` to the left, `bend`, `pitch` and `nod` forward,
            `side`, `roll` and `tilt` to the right.
    """

    body: Body
    root: np.ndarray
    heading: np.ndarray
    ankles: dict[str, np.ndarray]
    angles: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def standing(cls, body: Body, place: Iterable[float], heading: float, frames: int, width: float = 1.0) -> Motion:
        """Stand relaxed at a place (x, y) for a number of frames; `width` is the foot distance in hip widths."""
        x, y = place
        root = np.tile((x, y, body.hip_height), (frames, 1))
        facing = np.full(frames, heading)
        ankles = {
            side: root
            + about("z", facing) @ np.array((0.0, sign * width * body.hip_width, body.ankle - body.hip_height))
            for side, sign in (("left", 1.0), ("right", -1.0))
        }
        angles = {name: np.full(frames, _RELAXED.get(name.split("_", 1)[1], 0.0)) for name in ANGLES}
        return cls(body, root, facing, ankles, angles)

    def both(self, name: str, value: np.ndarray | float) -> None:
        """Set an angle of both sides, degrees."""
        for side in SIDES:
            self.angles[f"{side}_{name}"] = np.broadcast_to(np.asarray(value, float), self.heading.shape).copy()

    def shift(
        self, forward: np.ndarray | float = 0.0, left: np.ndarray | float = 0.0, up: np.ndarray | float = 0.0
    ) -> None:
        """Move the pelvis in the frame of the heading, metres."""
        self.root = self.root + in_frame(self.heading, forward, left, up)


def in_frame(
    heading: np.ndarray, forward: np.ndarray | float, left: np.ndarray | float, up: np.ndarray | float
) -> np.ndarray:
    """World vectors (T, 3) of offsets given in the frame of a heading (T,)."""
    cos, sin = np.cos(heading), np.sin(heading)
    return np.stack(np.broadcast_arrays(forward * cos - left * sin, forward * sin + left * cos, up), -1)


def about(axis: str, angle: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) about a coordinate axis by an angle (...) in radians."""
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.zeros((*np.shape(angle), 3, 3))
    matrix[..., range(3), range(3)] = 1.0
    cos, sin = np.cos(angle), np.sin(angle)
    matrix[..., first, first] = matrix[..., second, second] = cos
    matrix[..., second, first], matrix[..., first, second] = sin, -sin
    return matrix


def solve(motion: Motion) -> np.ndarray:
    """Pose a motion: trunk and arms by forward kinematics, legs so that the ankles are where they should be.

    Bones keep their lengths in every frame. Where the ankles are farther from the hips than a leg is long, the pelvis
    is lowered (smoothly in time).

    Returns:
        (T, 17, 3) metres in the world, z up.
    """
    body, angle = motion.body, {name: np.deg2rad(value) for name, value in motion.angles.items()}
    place = np.zeros((len(motion.root), len(SKELETON), 3))

    def put(joint: str, frame: np.ndarray) -> None:
        index = SKELETON.index(joint)
        place[:, index] = place[:, SKELETON.parents[index]] + frame @ body.offsets[index]

    def bent(prefix: str, names: tuple[str, str, str], part: float = 1.0) -> np.ndarray:
        turn, bend, side = (angle[f"{prefix}_{name}"] * part for name in names)
        return about("z", turn) @ about("y", bend) @ about("x", side)

    pelvis = about("z", motion.heading) @ bent("pelvis", ("turn", "pitch", "roll"))
    place[:, SKELETON.root] = _lowered(motion, pelvis)
    spine = pelvis @ bent("spine", ("turn", "bend", "side"), 0.5)
    chest = spine @ bent("spine", ("turn", "bend", "side"), 0.5)
    neck = chest @ bent("head", ("turn", "nod", "tilt"), 0.5)
    put("spine", spine)
    put("thorax", chest)
    put("nose", neck)
    put("head", neck @ bent("head", ("turn", "nod", "tilt"), 0.5))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        upper = _upper_arm(angle, side, sign)
        # The shoulder girdle rises with the arm beyond 60 degrees of elevation (scapulohumeral rhythm, about 1 : 3).
        elevation = np.arccos(np.clip(upper[:, 2, 2], -1.0, 1.0))
        put(f"{side}_shoulder", chest @ about("x", sign * 0.25 * np.clip(elevation - np.pi / 3, 0.0, None)))
        put(f"{side}_elbow", chest @ upper)
        put(f"{side}_wrist", chest @ upper @ about("y", -angle[f"{side}_elbow"]))
        put(f"{side}_hip", pelvis)
        axis = pelvis @ about("z", sign * angle[f"{side}_toe_out"]) @ np.array((0.0, 1.0, 0.0))
        _leg(place, body, side, motion.ankles[side], axis)
    return place


def _upper_arm(angle: dict[str, np.ndarray], side: str, sign: float) -> np.ndarray:
    """Rotation (T, 3, 3) of an upper arm in the frame of the chest."""
    return (
        about("z", -sign * angle[f"{side}_across"])
        @ about("y", -angle[f"{side}_flex"])
        @ about("x", sign * angle[f"{side}_abduct"])
        @ about("z", -sign * angle[f"{side}_twist"])
    )


def _lowered(motion: Motion, pelvis: np.ndarray) -> np.ndarray:
    """Pelvis positions (T, 3), lowered where a leg would have to be longer than it is."""
    body = motion.body
    excess = np.zeros(len(motion.root))
    for side in SIDES:
        hip = motion.root + pelvis @ body.offsets[SKELETON.index(f"{side}_hip")]
        gap = hip - motion.ankles[side]
        free = np.square(_REACH * body.leg) - np.square(gap[:, :2]).sum(-1)
        excess = np.maximum(excess, gap[:, 2] - np.sqrt(np.maximum(free, 0.0)))
    # The widened maximum, once smoothed, is still at least the excess itself in almost every frame.
    return motion.root - smooth(_widened(excess, 3), 2.0)[:, None] * np.array((0.0, 0.0, 1.0))


def _leg(place: np.ndarray, body: Body, side: str, ankle: np.ndarray, axis: np.ndarray) -> None:
    """Put knee and ankle of one leg (two-bone inverse kinematics); the knee bends forward about `axis` (T, 3)."""
    hip = place[:, SKELETON.index(f"{side}_hip")]
    thigh, shank = body.bone(f"{side}_knee"), body.bone(f"{side}_ankle")
    gap = ankle - hip
    far = np.linalg.norm(gap, axis=-1, keepdims=True)
    direction = gap / far
    # Near full stretch the distance approaches the limit instead of hitting it: no snap of the knee.
    limit, soft = 0.999 * body.leg, 0.02 * body.leg
    far = np.where(far > limit - soft, limit - soft * np.exp(-np.maximum(far - limit + soft, 0.0) / soft), far)
    bend = np.cross(direction, axis)
    bend /= np.linalg.norm(bend, axis=-1, keepdims=True)
    cos = (thigh**2 + far**2 - shank**2) / (2 * thigh * far)
    sin = np.sqrt(np.clip(1.0 - cos**2, 0.0, None))
    place[:, SKELETON.index(f"{side}_knee")] = hip + thigh * (cos * direction + sin * bend)
    place[:, SKELETON.index(f"{side}_ankle")] = hip + far * direction


def smooth(values: np.ndarray, width: float) -> np.ndarray:
    """Smooth (T, ...) over time by a Gaussian of a width in frames; the ends are held."""
    reach = int(np.ceil(3 * width))
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / width))
    padded = np.concatenate((np.repeat(values[:1], reach, 0), values, np.repeat(values[-1:], reach, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=0)
    return np.asarray(windows @ (kernel / kernel.sum()))


def _widened(values: np.ndarray, reach: int) -> np.ndarray:
    """Running maximum of (T,) over `reach` frames to both sides."""
    padded = np.pad(values, reach, mode="edge")
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(-1))

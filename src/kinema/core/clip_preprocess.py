"""Ways from recorded clips of skeletons to the input of action models, by the name that yaml and checkpoints state.

A clip is prepared once, whole, when a dataset is stored; frames are chosen and augmented afterwards. "compat" ways
repeat a published program with its defects, because released weights expect them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kinema.core.heading import LEVEL
from kinema.core.keypoints import coco_to_h36m
from kinema.core.motion import repair_identities, switched_identities
from kinema.core.preprocess import preprocess
from kinema.core.shapes import expect
from kinema.core.skeleton import Skeleton
from kinema.core.skeleton import skeleton as skeleton_named
from kinema.errors import ConfigError, DataError

Size = tuple[float, float]
# (keypoints (M, T, V, C), score (M, T, V) or None, (width, height) or None, skeleton) -> (M, T', J, 3).
Way = Callable[[np.ndarray, "np.ndarray | None", "Size | None", Skeleton], np.ndarray]

# Spreads and lengths below this count as none.
_SMALLEST = 1e-8
_HIPS = ("right_hip", "left_hip")
# pyskl: points with a lower score are put into the middle of the image.
_SEEN = 0.01


@dataclass(frozen=True)
class ClipPreprocess:
    """One way from a recorded clip to network units.

    Attributes:
        name: in yaml and checkpoints.
        way: what it does.
        channels: coordinates of the points it takes: 3, or 2 beside a score.
        source: skeleton it takes, None = any.
        result: skeleton it gives, None = that of its input.
        published: it belongs to a published program whose defects released weights expect, in what follows too: absent
            persons are moved and boxed like present ones, and a third channel of 0 means "not seen".
        joints: names of joints that a skeleton of any kind must have.
        table: published index table that it must have.
        vertical: whether the third axis must point upwards.
    """

    name: str
    way: Way
    channels: int
    source: str | None = None
    result: str | None = None
    published: bool = False
    joints: tuple[str, ...] = ()
    table: str | None = None
    vertical: bool = False

    def apply(
        self,
        keypoints: np.ndarray,
        score: np.ndarray | None = None,
        size: Size | None = None,
        *,
        skeleton: Skeleton | str | None = None,
    ) -> np.ndarray:
        """Prepare a clip.

        Args:
            keypoints: (M, T, V, C) persons, frames, joints, coordinates: pixels for C = 2.
            score: (M, T, V) of 2D points.
            size: (width, height) of the image in pixels, for ways that need it.
            skeleton: of the keypoints; may be left out where the way takes only one.

        Returns:
            (M, T, J, 3) float32: x, y, z, or x, y, score. "pyskl_3d" leaves frames without a person out, so that T may
            be smaller than before.

        Raises:
            DataError: the clip has other joints, coordinates or persons, or lacks its scores or size.
            ConfigError: a way that is not defined for the skeleton.
        """
        body = self.body(skeleton)
        expect(keypoints, "M T V C", f"keypoints for preprocess={self.name}", V=len(body))
        if keypoints.shape[-1] != self.channels:
            other = ", ".join(way.name for way in PREPROCESSES.values() if way.channels == keypoints.shape[-1])
            raise DataError(
                f"preprocess={self.name} takes points of {self.channels} coordinates, these have "
                f"{keypoints.shape[-1]}. Ways that take them: dataset.preprocess={other or 'none'}."
            )
        if not keypoints.shape[0] or not keypoints.shape[1]:
            raise DataError(
                f"A clip of {keypoints.shape[0]} persons and {keypoints.shape[1]} frames is empty. Drop it."
            )
        if score is not None and score.shape != keypoints.shape[:3]:
            raise DataError(f"Scores have shape {score.shape}, one for each point expected: {keypoints.shape[:3]}.")
        return np.ascontiguousarray(self.way(keypoints, score, size, body), dtype=np.float32)

    def body(self, skeleton: Skeleton | str | None = None) -> Skeleton:
        """Skeleton of the input.

        Raises:
            ConfigError: the way takes another one, is not defined for it, or takes any and none is named.
        """
        named = skeleton_named(skeleton) if isinstance(skeleton, str) else skeleton
        if self.source is None:
            if named is None:
                raise ConfigError(f"preprocess={self.name} takes any skeleton. Name it: dataset.skeleton=h36m17.")
            lacking = [joint for joint in self.joints if joint not in named.joints]
            if lacking or self.table not in (None, *named.tables):
                raise ConfigError(
                    f"preprocess={self.name} is not defined for {named.name}, which has no "
                    f"{' and no '.join(lacking) or 'joints named as spine and shoulders'}. Use dataset.preprocess=ma52."
                )
            return named
        wanted = skeleton_named(self.source)
        if named is not None and named != wanted:
            fits = [way.name for way in PREPROCESSES.values() if way.source in (None, named.name) and not way.published]
            raise ConfigError(
                f"preprocess={self.name} takes {self.source}, not {named.name}. Use dataset.preprocess={fits[0]}."
            )
        return wanted

    def skeleton(self, skeleton: Skeleton | str | None = None) -> Skeleton:
        """Skeleton of the prepared clip."""
        body = self.body(skeleton)
        return body if self.result is None else skeleton_named(self.result)


def clip_preprocess(name: str) -> ClipPreprocess:
    """Return a way by name.

    Raises:
        ConfigError: for an unknown name, with the nearest known one.
    """
    if name in PREPROCESSES:
        return PREPROCESSES[name]
    near = difflib.get_close_matches(name, PREPROCESSES, n=1)
    raise ConfigError(
        f"No preparation of clips is called {name!r}. Use dataset.preprocess={near[0] if near else 'ma52'}; known: "
        f"{', '.join(PREPROCESSES)}."
    )


def per_axis_scale(keypoints: np.ndarray, score: np.ndarray | None, size: Size | None, body: Skeleton) -> np.ndarray:
    """Root-relative in every frame, each axis of each person divided by its own standard deviation over the clip.

    Published behaviour: all axes get the same spread, so bodies lose their proportions.

    Source: MotionBERTForMicroActions, lib/data/dataset_custom.py (normalize).
    """
    centred = _root_relative(keypoints, body)
    return centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), _SMALLEST)


def one_scale(keypoints: np.ndarray, score: np.ndarray | None, size: Size | None, body: Skeleton) -> np.ndarray:
    """Root-relative in every frame, divided by one standard deviation of all axes, so that proportions stay.

    Persons of a clip share it, so that they keep their sizes.
    """
    centred = _root_relative(keypoints.astype(np.float64), body)
    return centred / max(centred.std(), _SMALLEST)


def heading(keypoints: np.ndarray, score: np.ndarray | None, size: Size | None, body: Skeleton) -> np.ndarray:
    """Root-relative in every frame and turned to one heading (`_headed`); metres stay metres."""
    return _headed(_root_relative(keypoints.astype(np.float64), body), body)


def heading_path(keypoints: np.ndarray, score: np.ndarray | None, size: Size | None, body: Skeleton) -> np.ndarray:
    """As `heading`, with the way through the room and the height above the floor left in.

    Only the place on the floor of the first person in the middle frame is subtracted.
    """
    start = keypoints[0, keypoints.shape[1] // 2, body.root].astype(np.float64)
    return _headed(keypoints - np.append(start[:2], 0), body)


def ntu_published(keypoints: np.ndarray, score: np.ndarray | None, size: Size | None, body: Skeleton) -> np.ndarray:
    """Input of MotionBERT's released action models.

    Published behaviour: half-precision arithmetic where the file is half precise; scores stay in the order of COCO and
    with the person that the detector gave them to.

    Source: MotionBERT, lib/data/dataset_action.py.
    """
    points, score = _in_image(keypoints, size, "ntu_compat"), _scores(score, "ntu_compat")
    if len(points) > 1:
        points = repair_identities(points).astype(np.float64)
    converted = coco_to_h36m(points).astype(np.float64)
    # The published program stores its first midpoints in half precision, and takes the spine from what it stored.
    pelvis, spine, thorax = (skeleton_named("h36m17").index(joint) for joint in ("pelvis", "spine", "thorax"))
    converted[..., spine, :] = (converted[..., pelvis, :] + converted[..., thorax, :]) / 2
    return np.concatenate([converted, score[..., None]], axis=-1)


def ntu(keypoints: np.ndarray, score: np.ndarray | None, size: Size | None, body: Skeleton) -> np.ndarray:
    """As `ntu_published` in single precision, with scores that go with their joints.

    A joint that is made of two has the mean of their scores; where identities are exchanged, so are scores.
    """
    points, score = _in_image(keypoints.astype(np.float32), size, "ntu"), _scores(score, "ntu")
    scored = np.concatenate([points, score[..., None].astype(np.float32)], axis=-1)
    if len(points) > 1:
        exchanged = switched_identities(points)[None, :, None, None]
        scored = np.where(exchanged, scored[::-1], scored)
    return coco_to_h36m(scored)


def centred_image(keypoints: np.ndarray, score: np.ndarray | None, size: Size | None, body: Skeleton) -> np.ndarray:
    """Both axes of the image to [-1, 1]; points that were not seen stand in the middle.

    Source: pyskl, datasets/pipelines/pose_related.py (PreNormalize2D).
    """
    half = np.array(_needed(size, "pyskl_2d"), np.float32) / 2
    score = _scores(score, "pyskl_2d").astype(np.float32)[..., None]
    points = (keypoints.astype(np.float32) - half) / half
    return np.concatenate([np.where(score > _SEEN, points, 0), score], axis=-1)


def upright(keypoints: np.ndarray, score: np.ndarray | None, size: Size | None, body: Skeleton) -> np.ndarray:
    """Move and turn a 3D clip so that its first frame stands upright in the origin and faces one way.

    The longer-lived of two persons becomes the first one and frames without it are left out. Its centre in the first
    frame is subtracted; then its spine is turned to z, and its shoulders, from the left one to the right one, to x.
    Joints that were not measured (all zero) stay zero; so does a clip without any.

    Source: pyskl, datasets/pipelines/pose_related.py (PreNormalize3D).
    """
    joints = body.tables["prenormalise"]
    alive = ~np.isclose(keypoints, 0).all((2, 3))  # (M, T)
    if not alive.any():
        return keypoints
    if len(keypoints) > 1 and alive[1].sum() > alive[0].sum():
        order = [1, 0, *range(2, len(keypoints))]
        keypoints, alive = keypoints[order], alive[order]
    clip = keypoints[:, alive[0]].astype(np.float32)
    measured = (clip != 0).any(-1, keepdims=True)
    clip = (clip - clip[0, 0, joints["centre"]]) * measured
    lower, upper = joints["spine"]
    clip = clip @ _turn(clip[0, 0, upper] - clip[0, 0, lower], np.array([0.0, 0.0, 1.0])).T
    right, left = joints["shoulders"]
    return clip @ _turn(clip[0, 0, right] - clip[0, 0, left], np.array([1.0, 0.0, 0.0])).T


def boxed(keypoints: np.ndarray, score: np.ndarray | None, size: Size | None, body: Skeleton) -> np.ndarray:
    """Each axis of the first person, relative to the root in the first frame, spread over [-1, 1].

    Points without scores get 1.

    Source: MMN, its test transform.
    """
    points = keypoints[:1].astype(np.float64)
    points = points - points[:, :1, body.root : body.root + 1]
    low, high = points.min((1, 2), keepdims=True), points.max((1, 2), keepdims=True)
    points = 2 * (points - low) / (high - low + 1e-6) - 1
    seen = np.ones(points.shape[:3]) if score is None else score[:1]
    return np.concatenate([points, seen[..., None]], axis=-1)


_WAYS = (
    # MotionBERTForMicroActions: what its released checkpoint takes.
    ClipPreprocess("ma52_fork", per_axis_scale, 3, published=True),
    ClipPreprocess("ma52", one_scale, 3),
    # World metres, z upwards.
    ClipPreprocess("heading", heading, 3, joints=_HIPS, vertical=True),
    ClipPreprocess("heading_path", heading_path, 3, joints=_HIPS, vertical=True),
    # MotionBERT, NTU RGB+D from 2D keypoints; the first is what its released checkpoints take.
    ClipPreprocess("ntu_compat", ntu_published, 2, source="coco17", result="h36m17", published=True),
    ClipPreprocess("ntu", ntu, 2, source="coco17", result="h36m17"),
    # pyskl: ST-GCN++, CTR-GCN and their kin.
    ClipPreprocess("pyskl_2d", centred_image, 2),
    ClipPreprocess("pyskl_3d", upright, 3, table="prenormalise"),
    # MMN, MA-52 from 2D whole-body keypoints.
    ClipPreprocess("mmn", boxed, 2),
)
PREPROCESSES: dict[str, ClipPreprocess] = {way.name: way for way in _WAYS}


def _root_relative(points: np.ndarray, body: Skeleton) -> np.ndarray:
    return points - points[:, :, body.root : body.root + 1]


def _headed(points: np.ndarray, body: Skeleton) -> np.ndarray:
    """Turn a clip about z so that the hips of the first person in the middle frame lie along x, the left one in front.

    All persons turn together. Hips above each other have no heading: such a clip is not turned.
    """
    hips = points[0, points.shape[1] // 2][[body.index(joint) for joint in _HIPS]]
    axis = hips[1] - hips[0]
    level = np.hypot(axis[0], axis[1])
    if level <= max(LEVEL * np.linalg.norm(axis), _SMALLEST):
        return points
    cosine, sine = axis[:2] / level
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    return points @ turn.T


def _turn(direction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Smallest rotation (3, 3) that brings a direction onto a unit vector; identity for a vector without length."""
    length = np.linalg.norm(direction)
    if length < _SMALLEST:
        return np.eye(3)
    # published behaviour: the angle is found in the precision of the clip, single for the first turn.
    cosine = np.clip((direction / length) @ target, -1, 1)
    axis = np.cross(direction, target)
    sine = np.linalg.norm(axis)
    if sine < _SMALLEST:  # published behaviour: an opposite vector has no axis to turn about, and stays
        return np.eye(3)
    x, y, z = axis / sine
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sqrt(1 - cosine**2) * cross + (1 - cosine) * cross @ cross


def _in_image(keypoints: np.ndarray, size: Size | None, name: str) -> np.ndarray:
    if len(keypoints) > 2:
        raise DataError(
            f"preprocess={name} repairs the identities of two persons, this clip has {len(keypoints)}. Keep two: "
            "dataset.surplus=drop."
        )
    return preprocess("motionbert_action").to_network(keypoints, *_needed(size, name))


def _needed(size: Size | None, name: str) -> Size:
    if size is None:
        raise DataError(f"preprocess={name} needs the size of the image, which this clip does not state. Add it.")
    return size


def _scores(score: np.ndarray | None, name: str) -> np.ndarray:
    if score is None:
        raise DataError(f"preprocess={name} needs the scores of the points, which this clip lacks. Add scores of 1.")
    return score

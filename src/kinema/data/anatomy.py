"""What the pose of a moving body must look like, measured on some frames of every sequence: the doctor's instruments.

Every measure is vectorised over the sampled frames of all sequences and gives one row per sequence; the checks turn
measures into findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from kinema.core.camera import project
from kinema.core.preprocess import preprocess
from kinema.core.skeleton import Skeleton
from kinema.data.findings import Finding, first, where
from kinema.data.sequences import Sequences

# Limits of the checks. Real recordings keep far away from them; the faults they are for lie far beyond.
MEAN_BONE = (0.03, 3.0)  # metres; a person's is 0.2 to 0.3, in millimetres it is 200 to 300
SIDE_DIFFERENCE = 0.25  # left against right bones of one subject, relative
BONE_SPREAD = 0.15  # standard deviation of the bones in one sequence, relative
BODY_SPREAD = 0.12  # mean bone of a sequence against the others of its subject, relative
AGREEMENT = -0.3  # correlation below which a coordinate runs backward
KNEES = -0.02  # knees behind the legs, in thighs
REPROJECTION = 60.0  # pixels of a 1000 pixel image; detectors err by 5 to 10
IN_IMAGE = 0.8  # share of keypoints inside the image
SMALLEST_BODY = 0.005  # spread of a body's joints, in half image widths
FASTEST = 20.0  # metres per second
TARGET_ERROR = 5.0  # millimetres between a 2.5D target and what its factor says

# Frames looked at in one sequence, evenly spaced.
FRAMES = 60


@dataclass(frozen=True)
class Sample:
    """Evenly spaced frames of every sequence, those with NaN left out.

    Attributes:
        sequences: the store.
        owner: (M,) row of the table that each sampled frame belongs to, in ascending order.
        frame: (M,) row of the arrays.
    """

    sequences: Sequences
    owner: np.ndarray
    frame: np.ndarray

    @classmethod
    def of(cls, sequences: Sequences, frames: int = FRAMES) -> Sample:
        """Choose the frames."""
        start, length = sequences.table["start"], sequences.table["length"]
        count = np.minimum(length, frames)
        owner = np.repeat(np.arange(len(sequences)), count)
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        frame = start[owner] + rank * length[owner] // count[owner] * sequences.step
        whole = np.ones(len(frame), bool)
        for name in ("pose2d", "pose3d"):
            if name in sequences.arrays:
                whole &= np.isfinite(sequences.arrays[name][frame]).all((1, 2))
        return cls(sequences, owner[whole], frame[whole])

    @cached_property
    def pose2d(self) -> np.ndarray:
        """(M, J2, 2) network units."""
        return np.asarray(self.sequences.arrays["pose2d"][self.frame][..., :2], np.float32)

    @cached_property
    def pose3d(self) -> np.ndarray:
        """(M, J, 3)."""
        return np.asarray(self.sequences.arrays["pose3d"][self.frame], np.float32)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum (M, ...) over the frames of each sequence: (S, ...)."""
        columns = values.reshape(len(values), -1).T
        sums = [np.bincount(self.owner, column, minlength=len(self.sequences)) for column in columns]
        return np.stack(sums, axis=-1).reshape(-1, *values.shape[1:])

    @cached_property
    def count(self) -> np.ndarray:
        """(S,) sampled frames of each sequence, at least 1 to divide by."""
        return np.maximum(np.bincount(self.owner, minlength=len(self.sequences)), 1)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of (M, ...) over the frames of each sequence: (S, ...); 0 where none is sampled."""
        return self.total(values) / self.count.reshape(-1, *(1,) * (values.ndim - 1))


def bone_lengths(sample: Sample, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every bone in every sequence, (S, bones) each."""
    child, parent = (list(ends) for ends in zip(*skeleton.bones, strict=True))
    bones = np.linalg.norm(sample.pose3d[:, child] - sample.pose3d[:, parent], axis=-1)
    mean = sample.mean(bones)
    return mean, np.sqrt(sample.mean((bones - mean[sample.owner]) ** 2))


def bone_sides(skeleton: Skeleton) -> tuple[list[int], list[int]]:
    """Positions in `skeleton.bones` of the left bones and, paired with them, of the right ones."""
    place = {child: i for i, (child, _) in enumerate(skeleton.bones)}
    pairs = [
        (place[a], place[b]) for a, b in zip(skeleton.left, skeleton.right, strict=True) if a in place and b in place
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def shared_joints(skeleton: Skeleton, skeleton2d: Skeleton) -> tuple[list[int], list[int]]:
    """Indices of the joints that both skeletons name."""
    names = [name for name in skeleton.joints if name in skeleton2d.joints]
    return [skeleton.index(name) for name in names], [skeleton2d.index(name) for name in names]


def image_agreement(sample: Sample, skeleton: Skeleton, skeleton2d: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """How the horizontal image coordinate follows the camera's x axis, sides apart from the middle of the body.

    Two correlations tell three faults apart: exchanged labels turn the sign of left minus right alone, a mirrored image
    that of both, a mirrored image with exchanged labels that of the middle alone.

    Returns:
        (S,) correlation of left-minus-right in 2D and 3D; (S,) correlation of the midpoints relative to the hips'.
    """
    names = [name for name in skeleton.joints if name in skeleton2d.joints]
    lefts = [(a, b) for a, b in zip(skeleton.left, skeleton.right, strict=True)
             if skeleton.joints[a] in names and skeleton.joints[b] in names]  # fmt: skip
    x3d = [sample.pose3d[:, [pair[side] for pair in lefts], 0] for side in (0, 1)]
    x2d = [sample.pose2d[:, [skeleton2d.index(skeleton.joints[pair[side]]) for pair in lefts], 0] for side in (0, 1)]
    sides = _correlation(sample, x2d[0] - x2d[1], x3d[0] - x3d[1])
    middle = []
    for left, right in (x2d, x3d):
        centre = (left + right) / 2
        middle.append(centre - centre.mean(1, keepdims=True))
    return sides, _correlation(sample, *middle)


def _correlation(sample: Sample, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine between (M, K) values over the frames of each sequence: (S,); 0 where there is nothing to compare."""
    product, square_a, square_b = (sample.total(values.sum(1)) for values in (a * b, a * a, b * b))
    norm = np.sqrt(square_a * square_b)
    return np.where(norm > 0, product / np.where(norm > 0, norm, 1), 0)


def knee_direction(sample: Sample, skeleton: Skeleton) -> np.ndarray | None:
    """Mean of `knee_bend` in each sequence: (S,). None for skeletons without legs."""
    bend = knee_bend(sample.pose3d, skeleton)
    return None if bend is None else sample.mean(bend)


def knee_bend(pose: np.ndarray, skeleton: Skeleton) -> np.ndarray | None:
    """How far the knees of poses (M, J, 3) lie in front of the line from hip to ankle, in units of the thigh: (M,).

    Knees bend forward, and forward is left x up: a body whose coordinates are mirrored, or whose sides are exchanged,
    bends its knees backward. Near 0 for legs that stay straight. None for skeletons without legs.
    """
    wanted = ("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "pelvis", "thorax")
    if any(name not in skeleton.joints for name in wanted):
        return None
    joint = {name: pose[:, skeleton.index(name)] for name in wanted}
    forward = np.cross(joint["left_hip"] - joint["right_hip"], joint["thorax"] - joint["pelvis"])
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True).clip(1e-9)
    bend = np.zeros(len(forward))
    for side in ("left", "right"):
        hip, knee, ankle = (joint[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        thigh = np.linalg.norm(knee - hip, axis=-1).clip(1e-9)
        bend += ((knee - (hip + ankle) / 2) * forward).sum(-1) / thigh / 2
    return bend


def reprojection(sample: Sample, skeleton: Skeleton, skeleton2d: Skeleton) -> np.ndarray:
    """Median distance in pixels between the 2D joints and the projected 3D joints of each sequence: (S,)."""
    joints, joints2d = shared_joints(skeleton, skeleton2d)
    intrinsics = torch.from_numpy(np.asarray(sample.sequences.cameras["intrinsics"])[sample.owner])
    seen = project(torch.from_numpy(sample.pose3d[:, joints]), intrinsics).numpy()
    width = sample.sequences.table["width"][sample.owner]
    distance = np.median(np.linalg.norm(seen - sample.pose2d[:, joints2d], axis=-1), axis=1) * width / 2
    return sample.mean(distance)


def fingerprints(sequences: Sequences, skeleton: Skeleton, points: int = 12) -> np.ndarray:
    """A description of each sequence that no camera changes: distances from the root at some frames, (S, points * J).

    Two sequences of one motion agree to rounding, whatever they are called and wherever they were seen from.
    """
    start, length = sequences.table["start"], sequences.table["length"]
    moment = (np.arange(points) + 0.5) / points
    frame = start[:, None] + (moment * length[:, None]).astype(np.int64) * sequences.step
    pose = np.asarray(sequences.arrays["pose3d"][frame.reshape(-1)], np.float64)
    distance = np.linalg.norm(pose - pose[:, skeleton.root, None], axis=-1)
    return distance.reshape(len(sequences), -1)


def check_image(sample: Sample) -> Iterator[Finding]:
    """Whether the 2D points are pixels of the images they are said to be of."""
    if "pose2d" not in sample.sequences.arrays or not len(sample.frame):
        return
    columns = sample.sequences.table
    ratio = (columns["height"] / np.maximum(columns["width"], 1))[sample.owner]
    inside = (np.abs(sample.pose2d[..., 0]) <= 1) & (np.abs(sample.pose2d[..., 1]) <= ratio[:, None])
    share = sample.mean(inside.mean(1))
    spread = sample.mean(sample.pose2d.std(1).max(-1))
    seen = np.bincount(sample.owner, minlength=len(sample.sequences)) > 0
    tiny = np.flatnonzero((spread < SMALLEST_BODY) & seen)
    sized = columns["width"] > 0  # clips cut by others do not say how large their images were
    outside = np.flatnonzero((share < IN_IMAGE) & seen & sized)
    if len(tiny):
        yield Finding(
            "fault", "image", f"bodies of less than 1 % of the image's width: {where(sample.sequences, tiny)}",
            "The 2D must be in pixels; these points seem to be normalised already.",
        )  # fmt: skip
    elif len(outside):
        worst = outside[np.argmin(share[outside])]
        yield Finding(
            "fault",
            "image",
            f"{len(outside)} sequences have many keypoints outside the image: {where(sample.sequences, outside)}; at "
            f"worst {100 * share[worst]:.0f} % are inside {columns['width'][worst]:g} x {columns['height'][worst]:g}",
            "Check the image size in the camera table, and the order of x and y.",
        )
    elif (seen & sized).any():
        inside_all = 100 * share[seen & sized].mean()
        unsized = int((seen & ~sized).sum())
        rest = f"; {unsized} sequences do not say how large theirs is" if unsized else ""
        yield Finding("ok", "image", f"{inside_all:.1f} % of the keypoints lie inside their image{rest}")
    else:
        yield Finding("ok", "image", "no sequence says how large its image is, so its bounds were not checked")


def check_units(sample: Sample) -> Iterator[Finding]:
    """Metres, by the length of a mean bone."""
    sequences = sample.sequences
    if sequences.space == "image" or sequences.skeleton is None:
        return
    mean = bone_lengths(sample, sequences.skeleton)[0].mean(1)
    measured = mean > 0  # no frame without NaN, no bone
    for wrong, text, remedy in (
        (mean > MEAN_BONE[1], "these are millimetres, metres expected", "Convert, or set dataset.unit=mm."),
        (mean < MEAN_BONE[0], "far too short for metres", "If the file holds metres: dataset.unit=m."),
    ):
        rows = np.flatnonzero(wrong & measured)
        if len(rows):
            subjects = list(dict.fromkeys(sequences.table["subject"][rows].tolist()))
            yield Finding(
                "fault",
                "units",
                f"Bones of subject {first(subjects)} average {mean[rows].mean():.3g}: {text}",
                remedy,
            )
    if not ((mean > MEAN_BONE[1]) | (mean < MEAN_BONE[0]))[measured].any():
        yield Finding("ok", "units", f"bones average {mean[measured].mean():.3f} m")


def check_bones(sample: Sample) -> Iterator[Finding]:
    """Rigid, alike on both sides, and the same in all sequences of a subject."""
    sequences = sample.sequences
    if sequences.space == "image" or sequences.skeleton is None:
        return
    mean, spread = bone_lengths(sample, sequences.skeleton)
    relative = spread.mean(1) / mean.mean(1).clip(1e-9)
    rows = np.flatnonzero(relative > BONE_SPREAD)
    if len(rows):
        yield Finding(
            "fault", "bones", f"bones change their length by {100 * relative[rows].mean():.0f} % within a sequence: "
            + where(sequences, rows), "Check the order of the joints, and the file for jumps.",
        )  # fmt: skip
    subjects, inverse = np.unique(sequences.table["subject"], return_inverse=True)
    inverse = inverse.reshape(-1)
    size = mean.mean(1)
    usual = np.asarray([np.median(size[inverse == i]) for i in range(len(subjects))])
    odd = np.flatnonzero((size > 0) & (np.abs(size / usual[inverse].clip(1e-9) - 1) > BODY_SPREAD))
    if len(odd):
        yield Finding(
            "warning", "bones", f"{len(odd)} sequences show a body of another size than their subject's: "
            + where(sequences, odd), "Check that these sequences belong to the subject.",
        )  # fmt: skip
    left, right = bone_sides(sequences.skeleton)
    by_subject = np.stack([mean[inverse == i].mean(0) for i in range(len(subjects))])
    uneven = np.abs(by_subject[:, left] - by_subject[:, right]) / (by_subject[:, left] + by_subject[:, right]) * 2
    lame = np.flatnonzero(uneven.max(1, initial=0) > SIDE_DIFFERENCE) if left else np.zeros(0, int)
    if len(lame):
        yield Finding(
            "fault", "left and right", f"bones of the two sides differ by {100 * uneven[lame].max():.0f} %: "
            + first([str(name) for name in subjects[lame]]), "Check the order of the joints: dataset.skeleton.",
        )  # fmt: skip
    if not len(rows) and not len(odd) and not len(lame):
        yield Finding(
            "ok", "bones", f"rigid to {100 * relative.max():.2f} %, sides alike to {100 * uneven.max(initial=0):.2f} %"
        )


def check_sides(sample: Sample) -> Iterator[Finding]:
    """Left is left: in the image as in 3D, and by the way knees bend."""
    sequences = sample.sequences
    if sequences.skeleton is None or not sequences.skeleton.left:
        return
    bad, seen = False, []
    if "pose2d" in sequences.arrays and sequences.skeleton2d is not None and sequences.space in ("camera", "image"):
        seen.append("sides agree between 2D and 3D")
        side, middle = image_agreement(sample, sequences.skeleton, sequences.skeleton2d)
        for wrong, text in (
            ((side < AGREEMENT) & (middle >= AGREEMENT), "left and right are exchanged between 2D and 3D"),
            ((side < AGREEMENT) & (middle < AGREEMENT), "the image is mirrored against the 3D"),
            ((side >= AGREEMENT) & (middle < AGREEMENT), "the image is mirrored against the 3D, with exchanged labels"),
        ):
            rows = np.flatnonzero(wrong)
            if len(rows):
                bad = True
                yield Finding(
                    "fault", "left and right", f"{text}: {len(rows)} sequences, {where(sequences, rows)}",
                    "Use 2D and 3D of the same recording, and check the joint order of both: dataset.skeleton2d.",
                )  # fmt: skip
    knees = knee_direction(sample, sequences.skeleton)
    if knees is not None:
        seen.append("knees bend forward")
        columns = sequences.table["subject"]
        backward = [name for name in dict.fromkeys(columns.tolist()) if knees[columns == name].mean() < KNEES]
        if backward:
            bad = True
            yield Finding(
                "fault", "left and right", f"knees bend backward: {first(backward)}; the 3D is mirrored, or its sides "
                "are exchanged", "Check the axes (right-handed) and the joint order of the 3D file.",
            )  # fmt: skip
    if not bad and seen:
        yield Finding("ok", "left and right", ", ".join(seen))


def check_projection(sample: Sample) -> Iterator[Finding]:
    """Whether the cameras turn the 3D into the 2D."""
    sequences = sample.sequences
    parts = (sequences.skeleton, sequences.skeleton2d)
    if sequences.space != "camera" or "intrinsics" not in sequences.cameras or parts[0] is None or parts[1] is None:
        return
    error = reprojection(sample, parts[0], parts[1])
    limit = REPROJECTION * sequences.table["width"] / 1000
    rows = np.flatnonzero(error > limit)
    if len(rows):
        yield Finding(
            "fault",
            "projection",
            f"the 2D lies {error[rows].mean():.0f} pixels from the projected 3D: {len(rows)} sequences, "
            + where(sequences, rows),
            "Check the cameras (order, unit of the translation) and that 2D and 3D begin at the same frame.",
        )
    else:
        yield Finding("ok", "projection", f"the 2D lies {error.mean():.2f} pixels from the projected 3D")


def check_speed(sample: Sample) -> Iterator[Finding]:
    """Whether the motion is as fast as a body can be at the stated frame rate."""
    sequences = sample.sequences
    if sequences.space == "image" or not np.isfinite(sequences.table["fps"]).all():
        return
    ends = (sequences.table["start"] + (sequences.table["length"] - 1) * sequences.step)[sample.owner]
    follows = sample.frame + sequences.step <= ends
    now, owner = sample.frame[follows], sample.owner[follows]
    pose = sequences.arrays["pose3d"]
    step = np.linalg.norm(pose[now + sequences.step] - pose[now], axis=-1).max(-1)
    speed = step * sequences.table["fps"][owner]
    fastest = np.zeros(len(sequences))
    np.maximum.at(fastest, owner, np.nan_to_num(speed))
    rows = np.flatnonzero(fastest > FASTEST)
    if len(rows):
        yield Finding(
            "warning", "speed", f"joints move at up to {fastest.max():.0f} m/s: {where(sequences, rows)}",
            "Check the frame rate, and the file for jumps.",
        )  # fmt: skip
    else:
        yield Finding("ok", "speed", f"joints move at up to {fastest.max(initial=0):.1f} m/s")


def check_targets(sample: Sample) -> Iterator[Finding]:
    """Whether the 2.5D evaluation targets are the image-space poses times their factor."""
    sequences = sample.sequences
    if not {"pose3d_eval", "factor", "size"} <= set(sequences.arrays) or sequences.skeleton is None:
        return
    rows = sample.frame[np.isfinite(sequences.arrays["factor"][sample.frame])]
    if not len(rows):
        return
    factor, target = sequences.arrays["factor"][rows], sequences.arrays["pose3d_eval"][rows]
    width, height = sequences.arrays["size"][rows].astype(np.float64).T
    way = preprocess(str(sequences.meta.get("preprocess", "motionbert")))
    pose = way.image_from_network(sequences.arrays["pose3d"][rows], width, height) * factor[:, None, None]
    root = sequences.skeleton.root
    error = np.linalg.norm((pose - pose[:, [root]]) - (target - target[:, [root]]), axis=-1).mean(1)
    wrong = int((~(error <= TARGET_ERROR)).sum())
    if wrong:
        yield Finding(
            "fault",
            "2.5D targets",
            f"{wrong} of {len(rows)} sampled test frames have a target that is not their image pose times 2.5d_factor",
            "Use the file of the MotionBERT authors.",
        )
    else:
        yield Finding("ok", "2.5D targets", f"image pose times factor, to {error.max():.2g} mm")

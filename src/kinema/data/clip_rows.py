"""What the readers of action clips share: options, checks of one clip, and its rows for a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kinema.core.clip_preprocess import ClipPreprocess, clip_preprocess
from kinema.core.skeleton import Skeleton, skeleton
from kinema.core.streams import stream
from kinema.data import raw
from kinema.data.class_list import ClassList, class_list, shipped
from kinema.data.raw import Report
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError

# A direction in which a body extends by less than this share of its largest extent is missing from the data.
FLAT = 1e-6
# Preparations that keep metres, and how far the joints of a person extend along an axis, least and most.
METRES = ("heading", "heading_path")
PERSON = (0.2, 5.0)

Made = TypeVar("Made", bound="ClipOptions")


@dataclass(frozen=True)
class ClipOptions:
    """Options of every reader of action clips, interpolated from the dataset's yaml.

    Attributes:
        num_classes: of the class list.
        preprocess: name in `core/clip_preprocess.py` of the way from raw joints to what the network sees.
        skeleton: of the prepared joints; of the raw ones too, unless the preprocessing takes another one.
        classes: class list: the name of a shipped one, a file, or the names.
        stream: "joint", "bone", "joint_motion" or "bone_motion".
        persons: most persons a clip may have.
        surplus: "error", or "drop": keep the first `persons` ones.
        unlabeled: clips without a label: "error" or "drop".
        min_frames: fewest frames of a clip.
        on_nan: joints that are NaN: "error", or "mask": filled in from the frames around, with score 0 in 2D.
        flat: 3D clips whose bodies extend in two directions only: "error" or "keep".
        source: the sentence that says where the files come from.
    """

    num_classes: int
    preprocess: str
    skeleton: str
    classes: str | Sequence[str]
    stream: str = "joint"
    persons: int = 1
    surplus: str = "error"
    unlabeled: str = "error"
    min_frames: int = 1
    on_nan: str = "error"
    flat: str = "error"
    source: str = ""

    @classmethod
    def parse(cls: type[Made], reader: str, options: Mapping[str, Any]) -> Made:
        """Check names and values.

        Raises:
            ConfigError: for an unknown option or value, or skeletons and numbers of classes that do not agree.
        """
        raw.known_options(reader, options, {entry.name: entry for entry in fields(cls)})
        made = cls(**options)
        known = {"surplus": ("error", "drop"), "unlabeled": ("error", "drop"), "on_nan": ("error", "mask")}
        for key, choices in known.items():
            if getattr(made, key) not in choices:
                raise ConfigError(
                    f"dataset.{key}={getattr(made, key)} is not known. Choose one of {', '.join(choices)}, "
                    f"for example dataset.{key}={choices[0]}."
                )
        raw.one_of("flat", made.flat, ("error", "keep"))
        if len(made.class_list) != made.num_classes:
            raise ConfigError(
                f"dataset.num_classes={made.num_classes}, but dataset.classes has {len(made.class_list)} classes. "
                f"Use dataset.num_classes={len(made.class_list)}."
            )
        if made.prepared.name != made.skeleton:
            raise ConfigError(
                f"dataset.preprocess={made.preprocess} gives the joints of {made.prepared.name}, but "
                f"dataset.skeleton={made.skeleton}. "
                f"Use dataset.skeleton={made.prepared.name} dataset.num_joints={len(made.prepared)}."
            )
        return made

    @cached_property
    def class_list(self) -> ClassList:
        """The classes."""
        return class_list(self.classes)

    @property
    def class_files(self) -> list[Path]:
        """The file of the class list, where the classes stand in one: raw data, since it gives labels their ids."""
        listed = isinstance(self.classes, str) and self.classes not in shipped()
        return [Path(str(self.classes)).expanduser()] if listed else []

    @cached_property
    def way(self) -> ClipPreprocess:
        """The preprocessing."""
        return clip_preprocess(self.preprocess)

    @cached_property
    def taken(self) -> Skeleton:
        """Skeleton of the raw clips."""
        return skeleton(self.way.source or self.skeleton)

    @cached_property
    def prepared(self) -> Skeleton:
        """Skeleton of the prepared clips."""
        return self.way.skeleton(self.taken)


def clip_rows(
    *,
    clip: str,
    keypoints: np.ndarray,
    score: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
    label: int | None,
    split: str,
    options: ClipOptions,
    report: Report,
    subject: str = "",
    trial: str | None = None,
    first: int = 0,
    fps: float | None = None,
    camera: str = "",
) -> list[dict[str, Any]]:
    """Check one clip and prepare it: one mapping per person for `Sequences.from_arrays`.

    Args:
        clip: name, also in messages.
        keypoints: (M, T, V, C) raw joints; C = 3 without scores is 3D, C = 2 is 2D.
        score: (M, T, V) of 2D; None = 1 everywhere.
        size: width and height of the image.
        label: id of the class, -1 = withheld, None = nobody gave one.
        split: "train", "val", "test" or "".
        options: of the reader.
        report: takes the faults.
        subject, trial, camera: who, in which recording, seen by which camera; a trial of its own by default.
        first: frame of the recording at which the clip begins.
        fps: frames per second.

    Returns:
        Rows of the clip's persons; none where it is faulty, or unlabelled and dropped.
    """
    if label is None and options.unlabeled == "drop":
        return []
    keypoints, score = _persons(keypoints, score, options)
    found = fault(clip, keypoints, label, options)
    if found is not None:
        report(found)
        return []
    assert label is not None
    if keypoints.shape[-1] == 2 and score is None:
        score = np.ones(keypoints.shape[:-1], keypoints.dtype)
    keypoints, score = _without_holes(keypoints, score)
    try:
        prepared = options.way.apply(keypoints, score=score, size=size, skeleton=options.taken)
    except DataError as error:
        report(DataError(f"Clip {clip}: {error}"))
        return []
    prepared = stream(prepared, options.stream, options.prepared, score_channel=score is not None)
    width, height = size or (0, 0)
    shared = {
        "subject": subject,
        "action": options.class_list.name(label),
        "trial": clip if trial is None else trial,
        "camera": camera,
        "clip": clip,
        "persons": len(prepared),
        "label": label,
        "split": split,
        "first": first,
        "fps": np.nan if fps is None else float(fps),
        "width": width,
        "height": height,
    }
    name = "pose3d" if score is None else "pose2d"
    return [{name: person, **shared, "person": number} for number, person in enumerate(prepared)]


def clip_store(rows: Sequence[Mapping[str, Any]], options: ClipOptions, **meta: Any) -> Sequences:
    """Store of the rows of many clips.

    Args:
        rows: of `clip_rows`, one clip after another.
        options: of the reader.
        meta: further plain values.

    Raises:
        DataError: where there are none, or 2D and 3D clips.
    """
    if not rows:
        raise DataError(f"Not one usable clip was found. {options.source}".strip())
    kinds = {name for row in rows for name in ("pose2d", "pose3d") if name in row}
    if len(kinds) > 1:
        raise DataError("Some clips are 2D and some are 3D. Keep them in two data sets.")
    (kind,) = kinds
    body = options.prepared
    return Sequences.from_arrays(
        rows,
        skeleton=body if kind == "pose3d" else None,
        skeleton2d=body if kind == "pose2d" else None,
        space="camera" if kind == "pose3d" else "image",
        meta={"preprocess": options.preprocess, "stream": options.stream, **meta},
    )


def _persons(
    keypoints: np.ndarray, score: np.ndarray | None, options: ClipOptions
) -> tuple[np.ndarray, np.ndarray | None]:
    """Without surplus persons where these are to be dropped, nor persons who are in no frame."""
    if keypoints.ndim != 4:
        return keypoints, score
    kept = np.ones(len(keypoints), bool)
    if not options.way.published:  # there an absent person takes part in tracking and centring
        there = np.asarray(_single(keypoints).any((1, 2, 3)))
        kept = there if there.any() else kept
    if options.surplus == "drop":
        kept &= np.cumsum(kept) <= options.persons
    return (keypoints, score) if kept.all() else (keypoints[kept], None if score is None else score[kept])


def _without_holes(keypoints: np.ndarray, score: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Joints that are NaN filled in over time, person by person."""
    if np.isfinite(_single(keypoints)).all():
        return keypoints, score
    missing = raw.holes(keypoints)
    whole = np.stack([raw.filled(person, hole) for person, hole in zip(keypoints, missing, strict=True)])
    return whole, None if score is None else np.where(missing, 0, score).astype(score.dtype)


def fault(clip: str, keypoints: np.ndarray, label: int | None, options: ClipOptions) -> DataError | None:
    """What is wrong with a clip: the first sentence says what, the second what to do; None where all is well."""
    if label is None:
        return DataError(
            f"Clip {clip} has no label. Write it into the label list, or leave such clips out: dataset.unlabeled=drop."
        )
    if not -1 <= label < options.num_classes:
        return DataError(
            f"Clip {clip} has label {label}, but {options.num_classes} classes have the ids 0 to "
            f"{options.num_classes - 1}. Correct the label list, or name its classes: dataset.classes and "
            "dataset.num_classes."
        )
    shape = (len(options.taken), options.way.channels)
    if keypoints.ndim != 4 or keypoints.shape[2:] != shape:
        return DataError(
            f"Clip {clip} has shape {keypoints.shape} (persons, frames, joints, coordinates), but {options.taken.name} "
            f"with dataset.preprocess={options.preprocess} has {shape[0]} joints of {shape[1]} coordinates. Convert "
            "it, or use the skeleton and preprocessing it was made for: dataset.skeleton, dataset.preprocess."
        )
    persons, frames = keypoints.shape[:2]
    if persons > options.persons:
        return DataError(
            f"Clip {clip} has {persons} persons, dataset.persons={options.persons}. Use dataset.persons={persons}, or "
            "keep the first ones: dataset.surplus=drop."
        )
    values = _single(keypoints)
    finite = np.isfinite(values)
    if not finite.all():
        if options.on_nan == "error":
            return _holes_fault(clip, ~finite.all((0, 2, 3)))
        values = np.where(finite, values, 0)
    if not persons or not frames or not values.any():
        what = "no person" if not persons else "no frame" if not frames else "only zeros"
        return DataError(f"Clip {clip} is empty: {what}. Make it again, or remove it and its label.")
    if frames < options.min_frames:
        return DataError(
            f"Clip {clip} has {frames} frame{'s' * (frames != 1)}, dataset.min_frames={options.min_frames}. Remove it, "
            f"or stretch such clips: dataset.min_frames={frames}."
        )
    if keypoints.shape[3] == 3 and options.flat == "error" and is_flat(values, options.taken.root):
        return DataError(
            f"Clip {clip} is flat: its joints extend in two directions only, so it is no 3D. Lift it, or read it as "
            "2D; to keep it as it is: dataset.reader_options.flat=keep."
        )
    return None


def _holes_fault(clip: str, bad: np.ndarray) -> DataError:
    return DataError(
        f"Clip {clip}: {int(bad.sum())} of {len(bad)} frames hold NaN (first {int(bad.argmax())}). Repair the file, "
        "or fill such joints in from the frames around: dataset.on_nan=mask."
    )


def _single(keypoints: np.ndarray) -> np.ndarray:
    """For checks: half precision, in which containers are stored, is slow to compute with."""
    return keypoints.astype(np.float32, copy=False)


def extent(pose: np.ndarray) -> float:
    """How far the joints of a person (T, J, 3) usually extend along an axis; of several (M, T, J, 3) the largest."""
    sides = np.fmax.reduce(pose, axis=-2) - np.fmin.reduce(pose, axis=-2)
    sizes = np.fmax.reduce(sides, axis=-1)
    persons = sizes.reshape(-1, sizes.shape[-1])
    return max((float(np.median(one[np.isfinite(one)])) for one in persons if np.isfinite(one).any()), default=0.0)


def is_flat(keypoints: np.ndarray, root: int) -> bool:
    """Whether bodies (M, T, V, 3) have no extent along one axis in any frame, seen from their root."""
    extent = np.abs(keypoints - keypoints[:, :, root : root + 1]).max((0, 1, 2))
    return bool(extent.min() <= FLAT * extent.max())

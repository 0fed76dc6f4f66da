"""What a checkpoint was trained on against what it is fed now: other input would give numbers that mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kinema.core.clip_preprocess import PREPROCESSES
from kinema.core.spec import DataSpec
from kinema.data.transforms import spelt, writing
from kinema.errors import ConfigError

# Data sets that prepare clips as published checkpoints take them: for up to 60 classes, and for more.
PREPARED = {
    "ma52_fork": ("ma52_fork", "ma52_fork"),
    "ntu_compat": ("ntu60_compat", "ntu120_oneshot_compat"),
    "pyskl_2d": ("ntu60_coco", "ntu120_coco"),
    "pyskl_3d": ("ntu60_3d", "ntu120_3d"),
}
# More names than this are not spelt out in a message.
_SPELT = 20


def refuse_other_preprocess(origin: str, trained: str | None, spec: DataSpec, dataset: str) -> None:
    """Refuse data that is prepared otherwise than the network was trained with.

    Args:
        origin: the checkpoint, for the message.
        trained: its preprocessing, None = not known.
        spec: of the data.
        dataset: its name.

    Raises:
        ConfigError: its last sentence is an override that works.
    """
    if trained is None or spec.preprocess is None or trained == spec.preprocess:
        return
    remedy = f"Use dataset.preprocess={trained}."
    way = PREPROCESSES.get(trained)
    if way is not None and spec.classes is not None:
        fitting = PREPARED.get(trained, (None, None))[len(spec.classes) > 60]
        if way.channels != (3 if spec.has_3d else 2):
            other = f"dataset={fitting}" if fitting else "a data set that has them"
            remedy = f"That takes points of {way.channels} coordinates, which this data has not. Use {other}."
        elif way.published:
            remedy = f"Use dataset={fitting} with your dataset.root=: frames, persons and crop belong to it too."
    raise ConfigError(
        f"{origin} was trained with the preprocessing {trained!r}, dataset={dataset} uses {spec.preprocess!r}. {remedy}"
    )


def refuse_other_data(
    origin: str,
    trained: DataSpec | None,
    trained_dataset: Mapping[str, Any],
    spec: DataSpec,
    dataset: Mapping[str, Any],
    *,
    classifies: bool,
) -> None:
    """Refuse another skeleton, stream, class list or spelling of the input than the network was trained with.

    Args:
        origin: the checkpoint, for the message.
        trained: the data it was trained on, None = not known.
        trained_dataset: `dataset` of its configuration; empty = not known.
        spec: of the data now.
        dataset: `dataset` of the configuration now.
        classifies: whether the network's outputs stand for the classes of the data.

    Raises:
        ConfigError: its last sentence is an override that works.
    """
    if trained and trained.skeleton2d and spec.skeleton2d and trained.skeleton2d.joints != spec.skeleton2d.joints:
        raise ConfigError(
            f"{origin} was trained on {trained.skeleton2d.name} keypoints, dataset={dataset['name']} gives "
            f"{spec.skeleton2d.name}. "
            f"Use dataset.{'skeleton2d' if 'skeleton2d' in dataset else 'skeleton'}={trained.skeleton2d.name}."
        )
    streams = trained_dataset.get("stream"), dataset.get("stream")
    if None not in streams and streams[0] != streams[1]:
        raise ConfigError(
            f"{origin} was trained on dataset.stream={streams[0]}, now it is {streams[1]}. "
            f"Use dataset.stream={streams[0]}."
        )
    if classifies and trained and trained.classes and spec.classes and list(trained.classes) != list(spec.classes):
        _refuse_classes(origin, trained.classes, trained_dataset.get("classes"), spec.classes, dataset.get("classes"))
    written, now = trained_dataset.get("transforms"), dataset.get("transforms")
    if written is None or now is None or writing(written) == writing(now):
        return
    raise ConfigError(
        f"{origin} was trained with dataset.transforms={spelt(written)}, now it is {spelt(now)}. "
        f"Use the experiment it was trained with, or 'dataset.transforms={spelt(written)}'."
    )


def _refuse_classes(origin: str, trained: Sequence[str], stated: Any, now: Sequence[str], stated_now: Any) -> None:
    """Class lists that differ; their lengths are compared elsewhere, where nothing but the network is known."""
    pairs = zip(trained, now, strict=False)
    i, (there, here) = next(((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]), (-1, ("", "")))
    if i < 0:
        return
    remedy = "the class list that it was trained with"
    if isinstance(stated, str) and stated != stated_now:
        remedy = f"dataset.classes={stated}"
    elif not isinstance(stated, str) and len(trained) <= _SPELT:
        remedy = f"'dataset.classes=[{','.join(trained)}]'"
    raise ConfigError(
        f"{origin} was trained on another class list: {i} is {there!r} there and {here!r} in dataset.classes. "
        f"Use {remedy}, or take over its weights with init=."
    )

"""ActionDataModule: clips with a class each, from a reader through the cache to batches of persons in motion."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kinema.core.skeleton import skeleton as named_skeleton
from kinema.core.spec import DataSpec, Signature
from kinema.data import checks, class_orders, orders
from kinema.data.base import BaseDataModule
from kinema.data.class_list import ClassList, class_list
from kinema.data.held_out import held_out
from kinema.data.sequences import Sequences
from kinema.data.source import Source
from kinema.data.transforms import refuse_places, resolve, writing
from kinema.data.windows import Windows
from kinema.errors import ConfigError, DataError

log = logging.getLogger(__name__)

_TRAINING = ("random", "frozen", "uniform", "resample")
_EVALUATION = ("resample", "uniform")


class ActionDataModule(BaseDataModule):
    """Clips of one or several persons with a class each.

    Args:
        name: of the data set, in messages, reports and the cache.
        reader: module in `kinema.data.readers`, or a dotted path; see MotionDataModule.
        reader_options: handed to the reader as they are; values that stand above are interpolated there.
        root: folder of the raw files.
        cache_dir: where mapped arrays are kept; null = in memory, read anew by every process.
        preprocess: way from raw clips to what is stored, `core/clip_preprocess.py`.
        stream: what of a pose is stored: "joint", "bone", "joint_motion" or "bone_motion".
        skeleton: of the stored poses.
        num_joints: its joints, for the model's yaml.
        has_3d: whether the stored poses are x, y, z, or x, y and a detector's score.
        persons: persons of a batch; a clip with fewer is filled up, and `persons` says who is there.
        surplus: what a reader does with more: "error" or "drop".
        classes: names (and groups) of the classes, see `data/class_list.py`.
        num_classes: their number, for the model's yaml.
        fps: frames per second; null where it differs.
        tasks: names of the tasks this data can serve.
        protocol: evaluation protocol that belongs to the data.
        split_train, split_val, split_test: names of the splits, as the reader calls them; null = none.
        validation: clips withheld from training for validation while `split_val` is null: `by` ("trial", "subject",
            "clip", "frames"; null = none), `share` of every class, `seed`; see `held_out`.
        selection: what validation looks at: "val", or "test" as the papers do.
        min_frames: shortest clip.
        unlabeled: what a reader does with clips without a label: "error" or "drop".
        on_nan: "error", or "mask": filled in from the frames around, with score 0 in 2D.
        frames: frames that the network sees of a clip; null follows the model.
        rule: how they are chosen in training: "random" (anew in every epoch), "frozen" (drawn once: published
            behaviour of MotionBERT and the MA-52 fork), "uniform" (PYSKL), "resample" (evenly).
        cut: shares of a clip between which a random stretch is shown in training; null = the whole clip.
        eval_rule: how they are chosen in evaluation: "resample" or "uniform" (PYSKL).
        test_clips: how many choices of frames of a clip are averaged in a test.
        repeat: how often an epoch goes through the training clips.
        batch_size: training clips of the global batch, over all devices.
        eval_batch_size: evaluation clips of the global batch.
        num_workers: loader processes.
        order: training order: "seeded", "balanced" (classes by a power of their size) or "per_class" (a few clips of
            each of some classes, for contrastive losses).
        order_options: of each order by its name.
        augment: transforms for training, before `transforms`.
        transforms: transforms for every stage.
        seed: of order and augmentation.
        signature: of the model, which null values follow.
    """

    def __init__(
        self,
        *,
        name: str,
        reader: str,
        reader_options: Mapping[str, Any],
        root: str | Path,
        cache_dir: str | Path | None,
        preprocess: str,
        stream: str,
        skeleton: str,
        num_joints: int,
        has_3d: bool,
        persons: int,
        surplus: str,
        classes: Any,
        num_classes: int,
        fps: float | None,
        tasks: Sequence[str],
        protocol: str | None,
        split_train: str | Sequence[str] | None,
        split_val: str | Sequence[str] | None,
        split_test: str | Sequence[str] | None,
        validation: Mapping[str, Any],
        selection: str,
        min_frames: int,
        unlabeled: str,
        on_nan: str,
        frames: int | None,
        rule: str,
        cut: Sequence[float] | None,
        eval_rule: str,
        test_clips: int,
        repeat: int,
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
        order: str,
        order_options: Mapping[str, Mapping[str, Any]],
        augment: Sequence[Any],
        transforms: Sequence[Any],
        seed: int,
        signature: Signature | None = None,
    ) -> None:
        super().__init__(
            seed=seed, batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, order=order
        )
        for option, value, known in (
            ("surplus", surplus, ("error", "drop")),
            ("unlabeled", unlabeled, ("error", "drop")),
            ("on_nan", on_nan, ("error", "mask")),
            ("selection", selection, ("val", "test")),
            ("rule", rule, _TRAINING),
            ("eval_rule", eval_rule, _EVALUATION),
        ):
            checks.refuse_other(option, value, known)
        self.name = name
        self.protocol = protocol
        self.classes: ClassList = class_list(classes)
        if len(self.classes.names) != num_classes:
            raise ConfigError(
                f"dataset.num_classes={num_classes}, but dataset.classes names {len(self.classes.names)}. "
                f"Use dataset.num_classes={len(self.classes.names)}."
            )
        self.split = {"train": _names(split_train), "val": _names(split_val), "test": _names(split_test)}
        self.validation, self.selection = _validation(validation), selection
        self.unlabeled = unlabeled
        self.frames = signature.frames if frames is None and signature is not None else frames
        self.rule, self.eval_rule, self.test_clips, self.repeat = rule, eval_rule, test_clips, repeat
        if min(test_clips, repeat) < 1:
            raise ConfigError("dataset.test_clips and dataset.repeat count from 1. Use dataset.test_clips=1.")
        self.cut = _share(cut)
        self.order_options = {order: dict(options or {}) for order, options in order_options.items()}
        self.persons = persons
        self.spec = DataSpec(
            skeleton=named_skeleton(skeleton),
            skeleton2d=named_skeleton(skeleton),
            in_channels=6 if "with_motion" in (name for name, _ in writing(transforms)) else 3,
            unit="network",
            space="network",
            preprocess=preprocess,
            fps=fps,
            has_3d=has_3d,
            tasks=frozenset(tasks),
            classes=self.classes.names,
            class_groups=self.classes.groups,
            persons=persons,
            frames=self.frames,
        )
        assert self.spec.skeleton is not None
        refuse_places(stream, augment=augment, transforms=transforms)
        checks.refuse_unequal("num_joints", num_joints, self.spec.skeleton)
        self.source = Source(
            name=name,
            reader=reader,
            options=dict(reader_options),
            root=Path(root).expanduser(),
            cache_dir=Path(cache_dir).expanduser() if cache_dir is not None else None,
            skeleton=self.spec.skeleton if has_3d else None,
            skeleton2d=self.spec.skeleton,
            preprocess=f"{preprocess}/{stream}",
            on_nan=on_nan,
            store_mirrored=False,
        )
        given = {
            "skeleton": self.spec.skeleton,
            "preprocess": preprocess,
            "has_3d": has_3d,
        }
        self._augment = resolve(augment, "augment", **given)
        self._transforms = resolve(transforms, "transforms", **given)

    def rows(self, stage: str) -> np.ndarray:
        """Rows of the store (all persons of a clip) that belong to a stage."""
        if stage == "predict" or (stage == "val" and self.selection == "test"):
            stage = "test"
        cut = self.split["val"] is None and self.validation["by"] is not None
        if stage == "test" or not cut:
            return self._of(stage)
        rows, verdict = self._cut
        return rows[verdict == (stage == "val")]

    @cached_property
    def _cut(self) -> tuple[np.ndarray, np.ndarray]:
        """Labelled training rows, and what `held_out` says of each."""
        rows = self._of("train")
        if not len(rows):
            return rows, rows
        return rows, held_out(self.sequences.table, rows, **self.validation)

    def _of(self, stage: str) -> np.ndarray:
        names = self.split[stage]
        if names is None:
            return np.empty(0, np.int64)
        table = self.sequences.table
        chosen = np.isin(table["split"], names)
        if stage == "train" and self.unlabeled == "drop":
            chosen &= table["label"] >= 0
        return np.flatnonzero(chosen)

    def _open(self, stage: str) -> Windows:
        chosen = self.sequences.select(self.rows(stage))
        self._refuse_empty(chosen, stage)
        checks.refuse_nonfinite(chosen)
        self._check_labels(chosen, stage)
        if self.frames is None:
            raise ConfigError("dataset.frames is null and there is no model to follow. Use dataset.frames=100.")
        if stage == "train":
            return self._training(chosen)
        rule = "uniform_test" if self.eval_rule == "uniform" else self.eval_rule
        views = self.test_clips if stage == "test" else 1
        return Windows.clips(chosen, self.frames, rule=rule, persons=self.persons, views=views, seed=self.seed)

    def _training(self, chosen: Sequences) -> Windows:
        assert self.frames is not None
        frozen = self.rule == "frozen"
        rule = "random" if frozen else self.rule
        windows = Windows.clips(
            chosen, self.frames, rule=rule, persons=self.persons, seed=self.seed, cut=self.cut, frozen=frozen
        )
        return windows.subset(np.tile(np.arange(len(windows)), self.repeat)) if self.repeat > 1 else windows

    def _check_labels(self, chosen: Sequences, stage: str) -> None:
        """Refuse clips without a label where one is needed, and tell which classes a stage lacks."""
        labels, what = chosen.table["label"], {"train": "training", "val": "validation"}.get(stage, "test")
        if stage == "train" and (labels < 0).any():
            clip = chosen.table["clip"][int((labels < 0).argmax())]
            raise DataError(
                f"Clip {clip} has no label, and training needs one. Write it into the label list, or leave such clips "
                "out: dataset.unlabeled=drop."
            )
        if (labels < 0).all():
            if stage == "val":
                raise DataError(
                    f"dataset={self.name} has withheld labels for all clips to validate on. Cut clips from training "
                    "instead: dataset.split_val=null dataset.selection=val dataset.validation.by=clip."
                )
            if stage == "test":
                log.warning("The labels of these clips are withheld, so nothing is scored. Use mode=submit input=RUN.")
            return
        counts = np.bincount(labels[labels >= 0], minlength=len(self.classes.names))
        absent = [name for name, count in zip(self.classes.names, counts, strict=True) if not count]
        if not absent or self.protocol == "oneshot":  # whose novel classes are not trained on
            return
        remedy = "They are in no score but the strict ones."
        if stage == "train":
            remedy = "They cannot be learnt: add clips, or take them out of dataset.classes and dataset.num_classes."
        log.warning("No %s clip shows %s. %s", what, _few(absent), remedy)

    def transform(self, batch: dict[str, Tensor], *, training: bool = False) -> dict[str, Tensor]:
        """Make `pose` of a gathered batch: the stored poses, augmented in training, and the transforms."""
        stored = "pose3d" if self.spec.has_3d else "pose2d"
        pose = {"pose": batch[stored]}
        return super().transform({k: v for k, v in batch.items() if k != stored} | pose, training=training)

    def training_counts(self) -> list[int] | None:
        """Training clips of each class; None where there is no training data."""
        table, rows = self.sequences.table, self.rows("train")
        labels = table["label"][rows[table["person"][rows] == 0]]
        if not len(labels):
            return None
        return [int(count) for count in np.bincount(labels[labels >= 0], minlength=len(self.classes.names))]

    def shown_counts(self) -> list[float] | None:
        """Training clips of each class as the order shows them: as many in all, balanced where the order balances."""
        counts = self.training_counts()
        if counts is None:
            return None
        return class_orders.shown(self.order, counts, self.order_options.get(self.order)).tolist()

    def _make_order(self, windows: Windows, rank: int, world: int) -> orders.Order:
        labels = windows.sequences.table["label"][windows.table[:, 0]]
        return orders.make(
            self.order, len(windows), self.batch_size, seed=self.seed, rank=rank, world_size=world,
            labels=labels, options=self.order_options.get(self.order),
        )  # fmt: skip

    def _refuse_empty(self, chosen: Sequences, stage: str) -> None:
        if len(chosen):
            return
        what = {"train": "train on", "val": "validate on"}.get(stage, "test on")
        if stage == "train" and np.isin(self.sequences.table["split"], self.split["train"] or ()).any():
            raise DataError(
                f"No training clip of dataset={self.name} has a label. Write them into the label list, or name another "
                "split: dataset.split_train=NAME."
            )
        remedy = f"Use dataset.split_{'test' if stage == 'predict' else stage}=NAME."
        if stage == "val":
            remedy = (
                "Cut clips from training: dataset.split_val=null dataset.validation.by=clip; or choose by the test "
                "split as the papers do: dataset.selection=test."
            )
        raise DataError(
            f"dataset={self.name} has nothing to {what}: {self.source.root} holds the splits "
            f"{', '.join(self._splits())}. {remedy}"
        )

    def _splits(self) -> list[str]:
        return sorted({str(name) or "(none)" for name in self.sequences.table["split"]})

    def has_test(self) -> bool:
        """Whether there are labelled test clips; where the labels are withheld, mode=submit writes predictions."""
        rows = self._of("test")
        if not len(rows):
            if self.split["test"] is not None:
                log.warning(
                    "Nothing is tested: no clip is of dataset.split_test=%s; the splits here are %s.",
                    ",".join(self.split["test"]), ", ".join(self._splits()),
                )  # fmt: skip
            return False
        if (self.sequences.table["label"][rows] < 0).all():
            log.warning("The labels of the test split are withheld: mode=submit writes predictions for it.")
            return False
        return True

    def describe(self) -> str:
        """What the data is and how it is split, for --info and the doctor."""
        lines = [f"{self.name}: {self.source.module.describe()}", f"files in {self.source.root}"]
        lines.append(f"{len(self.classes.names)} classes, {self.persons} person(s), {self.spec.preprocess}")
        for stage, names in self.split.items():
            lines.append(f"{stage}: {', '.join(names) if names else 'none'}")
        if self.selection == "test":
            lines.append("validation: the test split (published behaviour)")
        elif self.split["val"] is None and self.validation["by"] is not None:
            lines.append(f"validation: {self.validation['share']:.0%} of the training clips by {self.validation['by']}")
        return "\n".join(lines)


def _names(split: str | Sequence[str] | None) -> list[str] | None:
    if split is None:
        return None
    return [split] if isinstance(split, str) else list(split)


def _validation(options: Mapping[str, Any]) -> dict[str, Any]:
    known = ("by", "share", "seed")
    for key in options:
        if key not in known:
            raise ConfigError(f"dataset.validation has no key {key!r}. It has: {', '.join(known)}.")
    return {"by": None, "share": 0.15, "seed": 0, **options}


def _share(cut: Sequence[float] | None) -> tuple[float, float] | None:
    if cut is None:
        return None
    if len(cut) != 2 or not 0 < cut[0] <= cut[1] <= 1:
        raise ConfigError(f"dataset.cut={list(cut)} are no two shares of a clip. Use 'dataset.cut=[0.6,1.0]'.")
    return float(cut[0]), float(cut[1])


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

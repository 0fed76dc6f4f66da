"""PredictionDataModule: recorded motion cut into an observed history and the horizon to predict."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinema.core.skeleton import Skeleton
from kinema.core.spec import DataSpec, Signature
from kinema.data import checks, motion_orders, motion_transforms, motion_windows, orders
from kinema.data.base import BaseDataModule
from kinema.data.motion_rows import UNITS, body
from kinema.data.sequences import Sequences
from kinema.data.source import Source
from kinema.data.splits import Splits, refuse_empty
from kinema.data.transforms import resolve, writing
from kinema.data.windows import Windows
from kinema.errors import ConfigError, DataError

log = logging.getLogger(__name__)

_ORDERS = ("balanced_sequences", "seeded", "legacy")

# Files may say 59.94 for 60; anything beyond is another rate.
SAME_RATE = 0.02


class PredictionDataModule(BaseDataModule):
    """Motion for prediction: windows of history + horizon frames, with the same joints in every frame.

    Batches hold `pose3d` (B, N, J, 3) world metres and, made of it by the transform `motion`, `motion` (B, N, F):
    joints relative to the root, without the root, x, y, z running fastest; `index` (B,) is the window, -1 a filler.

    Args:
        name: of the data set, in messages, reports and the cache.
        reader: module in `kinema.data.readers`, or a dotted path; see MotionDataModule. It gives `pose3d` alone.
        reader_options: handed to the reader as they are; values that stand above are interpolated there.
        root: folder of the raw files.
        cache_dir: where mapped arrays are kept; null = in memory, read anew by every process.
        skeleton: of the stored poses: a name, or a mapping with `parents`, see `motion_rows.body`; null = as the reader
            says: the skeleton of what it reads, or of `body(root, **options)`, if it has that function.
        num_joints: its joints, with the root.
        num_features: 3 * (num_joints - 1), for the model's yaml.
        unit: of the raw positions, for the reader, by interpolation.
        fps: frames per second; null where it is not known.
        tasks: names of the tasks this data can serve.
        protocol: evaluation protocol that belongs to the data.
        subjects_train, subjects_val, subjects_test: names or globs in the order they are visited; null = by the reader.
        trials_val: "subject/trial" withheld from training for validation, while `subjects_val` is null.
        selection: what validation looks at: "val", or "test" as papers do.
        actions: keep trials whose name begins with one of these; null = all.
        drop: bad sequences, for the reader, by interpolation.
        history: observed frames H.
        horizon: frames P to predict; a window has N = H + P.
        stride: frames between windows of validation and test; null = H. They begin at range(0, T - N, stride), as
            published: a sequence of exactly N frames gives none.
        limit_windows: at most so many test windows, evenly spaced; null = all. `Windows.total` then tells how many
            there are.
        val_windows: the same for validation.
        windows_per_epoch: training windows of an epoch, rounded down to whole batches; not for order "seeded".
        batch_size: training windows of the global batch, over all devices.
        eval_batch_size: evaluation windows of the global batch.
        num_workers: loader processes.
        order: training order: "balanced_sequences" (`motion_orders`), "seeded" (every window once), or "legacy" (the
            published calls on numpy's RandomState, with those of `published_turns`).
        augment: transforms for training, before `transforms`.
        transforms: transforms for every stage; the last one is `motion`.
        on_nan: "error", or "mask": filled in from the frames around.
        mean_motion: metres per frame by action that CMD compares with; null = measured on the training set.
        seed: of order and augmentation.
        signature: of the model.

    Attributes:
        history, horizon: H and P.
        skeleton: of the stored poses.
    """

    def __init__(
        self,
        *,
        name: str,
        reader: str,
        reader_options: Mapping[str, Any],
        root: str | Path,
        cache_dir: str | Path | None,
        skeleton: str | Mapping[str, Any] | None,
        num_joints: int,
        num_features: int,
        unit: str,
        fps: float | None,
        tasks: Sequence[str],
        protocol: str | None,
        subjects_train: Sequence[str] | None,
        subjects_val: Sequence[str] | None,
        subjects_test: Sequence[str] | None,
        trials_val: Sequence[str],
        selection: str,
        actions: Sequence[str] | None,
        drop: Sequence[str],
        history: int,
        horizon: int,
        stride: int | None,
        limit_windows: int | None,
        val_windows: int | None,
        windows_per_epoch: int,
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
        order: str,
        augment: Sequence[Any],
        transforms: Sequence[Any],
        on_nan: str,
        mean_motion: Mapping[str, float] | None,
        seed: int,
        signature: Signature | None = None,
    ) -> None:
        super().__init__(
            seed=seed, batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, order=order
        )
        checks.refuse_other("order", order, _ORDERS)
        checks.refuse_other("on_nan", on_nan, ("error", "mask"))
        checks.refuse_other("unit", unit, tuple(UNITS))
        self.history = _at_least_one("history", history)
        self.horizon = _at_least_one("horizon", horizon)
        self.stride = self.history if stride is None else _at_least_one("stride", stride)
        self.limits = {"test": _limit("limit_windows", limit_windows), "val": _limit("val_windows", val_windows)}
        self.windows_per_epoch = _at_least_one("windows_per_epoch", windows_per_epoch)
        if signature is not None and signature.output == "noise" and signature.frames > self.length:
            raise ConfigError(
                f"The network keeps {signature.frames} coefficients, but a window has {self.length} frames and as many "
                f"coefficients. Use model.kept_coeffs={min(20, self.length)}, or longer windows: dataset.horizon."
            )
        self.name, self.protocol = name, protocol
        self.splits = Splits(
            subjects_train=_names(subjects_train),
            subjects_val=_names(subjects_val),
            subjects_test=_names(subjects_test),
            trials_val=tuple(trials_val),
            selection=selection,
            actions=_names(actions),
        )
        self.published_motion = None if mean_motion is None else {str(k): float(v) for k, v in mean_motion.items()}
        stated = body(skeleton)
        self.source = Source(
            name=name,
            reader=reader,
            options=dict(reader_options),
            root=Path(root).expanduser(),
            cache_dir=Path(cache_dir).expanduser() if cache_dir is not None else None,
            skeleton=stated,
            skeleton2d=None,
            preprocess="root_relative",
            on_nan="fill" if on_nan == "mask" else "error",
            store_mirrored=False,
        )
        self.skeleton = self._skeleton_of_reader() if stated is None else stated
        self._check_sizes(num_joints, num_features)
        self.spec = DataSpec(
            skeleton=self.skeleton,
            skeleton2d=None,
            in_channels=3,
            unit="m",
            space="world",
            preprocess="root_relative",
            fps=fps,
            has_3d=True,
            tasks=frozenset(tasks),
            frames=self.length,
        )
        self.reach = _reach(augment, self.length)
        self._told: set[str] = set()
        self._turned = any(entry == "published_turns" for entry, _ in writing(augment))
        given = {"skeleton": self.skeleton, "length": self.length}
        self._augment = resolve(augment, "augment", **given)
        self._transforms = resolve(transforms, "transforms", **given)

    @property
    def length(self) -> int:
        """Frames N of a window."""
        return self.history + self.horizon

    def _skeleton_of_reader(self) -> Skeleton:
        """The skeleton that the files tell, where yaml names none."""
        told = getattr(self.source.module, "body", None)
        found = self.sequences.skeleton if told is None else told(self.source.root, **self.source.options)
        if found is None:
            raise DataError(
                f"The files of dataset={self.name} do not say their skeleton. Use a registered name, or "
                "'dataset.skeleton={parents:[-1,0,1,...]}'."
            )
        assert isinstance(found, Skeleton)
        return found

    def _check_sizes(self, num_joints: int, num_features: int) -> None:
        joints = len(self.skeleton)
        if (num_joints, num_features) != (joints, 3 * (joints - 1)):
            raise ConfigError(
                f"dataset.num_joints={num_joints} and dataset.num_features={num_features}, but the skeleton "
                f"{self.skeleton.name} has {joints} joints, its root included. "
                f"Use dataset.num_joints={joints} dataset.num_features={3 * (joints - 1)}."
            )

    # Windows.

    def _open(self, stage: str) -> Windows:
        chosen = self._chosen(stage)
        if stage == "train":
            return motion_windows.every(chosen, self.length, self.reach)
        made = motion_windows.published(chosen, self.length, self.stride)
        limit = self.limits.get(stage)
        if limit is not None and limit < len(made):
            made = made.evenly_spaced(limit)
            log.info("%s: %d of %d windows, evenly spaced.", stage, len(made), made.total)
        return made

    def _chosen(self, stage: str, withheld: bool = False) -> Sequences:
        """Sequences of a stage, checked, without those that are too short for a window."""
        rows = self.splits.rows(self.sequences, stage)
        if withheld and self.splits.subjects_val is None:
            rows = np.concatenate([rows, self.splits.withheld(self.sequences)])
        refuse_empty(self.sequences, rows, stage, str(self.name), str(self.source.root))
        chosen = self.sequences.select(rows)
        checks.refuse_nonfinite(chosen)
        checks.refuse_millimetres(chosen, motion=True)
        self._refuse_other_rate(chosen)
        return self._long_enough(chosen, stage)

    def _long_enough(self, chosen: Sequences, stage: str) -> Sequences:
        """Sequences that give a window; the others are told in one line.

        Raises:
            DataError: where none is left.
        """
        needed = self.length if stage == "train" else self.length + 1
        length = chosen.table["length"]
        short = np.flatnonzero(length < needed)
        if not len(short):
            return chosen
        labels = [chosen.label(int(row)) for row in short]
        shown = ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
        if len(short) == len(chosen):
            horizon = int(length.max()) - self.history - (needed - self.length)
            remedy = f"Use dataset.horizon={horizon}." if horizon > 0 else "Use shorter windows, or longer recordings."
            raise DataError(
                f"dataset={self.name}: no {stage} sequence has the {needed} frames that a window of {self.history} + "
                f"{self.horizon} needs; the longest has {int(length.max())} ({shown}). {remedy}"
            )
        self._tell_once(
            logging.INFO, "%s: %d of %d sequences are shorter than %d frames and left out: %s.",
            stage, len(short), len(chosen), needed, shown,
        )  # fmt: skip
        return chosen.select(length >= needed)

    def _refuse_other_rate(self, chosen: Sequences) -> None:
        """Refuse frames of another rate than the windows are said to have; where the files tell it."""
        if self.spec.fps is None:
            return
        rate = np.asarray(chosen.table["fps"], np.float64)
        other = np.flatnonzero(np.isfinite(rate) & (np.abs(rate / self.spec.fps - 1) > SAME_RATE))
        if len(other):
            row = int(other[0])
            raise DataError(
                f"{chosen.label(row)} has {rate[row]:g} frames per second, dataset.fps={self.spec.fps:g}. Resample it, "
                f"or use its own rate with windows that last as long: dataset.fps={rate[row]:g} "
                f"dataset.history={max(round(self.history * rate[row] / self.spec.fps), 1)} "
                f"dataset.horizon={max(round(self.horizon * rate[row] / self.spec.fps), 1)}."
            )

    # Training.

    def _make_order(self, windows: Windows, rank: int, world: int) -> orders.Order:
        if self.order == "seeded":
            return super()._make_order(windows, rank, world)
        batches = max(self.windows_per_epoch // self.batch_size, 1)
        visits = batches * self.batch_size if self.windows_per_epoch >= self.batch_size else self.windows_per_epoch
        subjects, counts = windows.sequences.table["subject"], motion_windows.counts(windows)
        rows: Any
        if self.order == "legacy":
            size = min(self.batch_size, visits)
            rows = motion_orders.Published(
                subjects, counts, batch_size=size, batches=batches, seed=self.seed, augmented=self._turned
            )
        else:
            rows = motion_orders.balanced_sequences(subjects, counts, seed=self.seed, visits=visits)
        return orders.Order(rows, visits, self.batch_size, rank=rank, world_size=world)

    def transform(self, batch: dict[str, Tensor], *, training: bool = False) -> dict[str, Tensor]:
        """Make `motion` of a gathered batch, with augmentation in training."""
        rows = None if self._order is None else self._order.rows
        if training and self._turned and isinstance(rows, motion_orders.Published):
            assert self._order is not None
            turns = torch.from_numpy(rows.turns(self._order.epoch))[batch["draw"].cpu() // self.batch_size]
            if batch["draw"].device.type == "mps":  # which has no float64, the precision of the original
                turns = turns.float()
            turns = turns.to(batch["draw"].device)
            batch = {**batch, motion_transforms.TURN: turns[:, 0], motion_transforms.SIGNS: turns[:, 1:]}
        return super().transform(batch, training=training)

    # What evaluation compares with.

    def training_windows(self, step: int, *, withheld: bool = False, limit: int | None = None) -> Tensor | None:
        """Windows of the training sequences as motion, for baselines that look things up.

        Args:
            step: frames between windows of a sequence; they begin at range(0, T - N, step).
            withheld: also those of `trials_val`; for comparisons on the test split, not in validation.
            limit: at most so many, evenly spaced; null = all.

        Returns:
            (M, N, F) float32; None, with the reason in the log, where there is nothing to train on.
        """
        chosen = self._training_sequences(withheld)
        if chosen is None:
            return None
        windows = motion_windows.published(chosen, self.length, _at_least_one("step", step))
        if not len(windows):
            self._tell_once(logging.WARNING, "No training sequence is longer than a window: nothing can be looked up.")
            return None
        if limit is not None:
            windows = windows.evenly_spaced(limit)
        return motion_windows.as_motion(windows, self.skeleton.root)

    def mean_motion(self) -> dict[str, float] | None:
        """Mean way of a joint from frame to frame relative to the root, metres, by action: the published values, or as
        measured on the training sequences; None, with the reason in the log, where there are neither.
        """
        if self.published_motion is not None:
            return self.published_motion
        return self._measured_motion

    @cached_property
    def _measured_motion(self) -> dict[str, float] | None:
        chosen = self._training_sequences(withheld=False)
        return None if chosen is None else motion_windows.mean_motion(chosen, self.skeleton.root)

    def _training_sequences(self, withheld: bool) -> Sequences | None:
        try:
            return self._chosen("train", withheld=withheld)
        except (ConfigError, DataError) as error:
            known, wanted = sorted(set(self.sequences.table["subject"].tolist())), self.splits.subjects_train
            reason = str(error)
            if wanted is not None and not any(fnmatch.filter(known, pattern) for pattern in wanted):
                reason = f"{self.source.root} holds {', '.join(known)} and none of {', '.join(wanted)}"
            self._tell_once(logging.WARNING, "What needs training data is left out: %s", reason)
            return None

    def _tell_once(self, level: int, message: str, *values: object) -> None:
        line = message % values
        if line not in self._told:
            log.log(level, line)
        self._told.add(line)

    def has_test(self) -> bool:
        """Whether there is something to test on; where not, the reason is logged."""
        try:
            rows = self.splits.rows(self.sequences, "test")
        except ConfigError as error:
            log.warning("There is no test: %s", error)
            return False
        if len(rows) and not (self.sequences.table["length"][rows] > self.length).any():
            log.warning("There is no test: no test sequence has more frames than a window, %d.", self.length)
            return False
        return len(rows) > 0

    def describe(self) -> str:
        """What the data is and how it is split, for --info and the doctor."""
        parts = self.splits
        lines = [f"{self.name}: {self.source.module.describe()}", f"files in {self.source.root}"]
        rate = "" if self.spec.fps is None else f" at {self.spec.fps:g} frames per second"
        lines.append(f"{self.history} frames observed, {self.horizon} to predict{rate}; {len(self.skeleton)} joints")
        for what, subjects in (("training", parts.subjects_train), ("test", parts.subjects_test)):
            lines.append(f"{what}: {', '.join(subjects) if subjects is not None else 'as the file says'}")
        if parts.selection == "test":
            lines.append("validation: the test split (published behaviour)")
        else:
            held = parts.subjects_val if parts.subjects_val is not None else parts.trials_val
            lines.append(f"validation: {', '.join(held) or 'none'}")
        return "\n".join(lines)


def _names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _at_least_one(option: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"dataset.{option}={value} is less than one. Use dataset.{option}=25, or any number from 1.")
    return int(value)


def _limit(option: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise ConfigError(f"dataset.{option}={value} leaves no window. Use dataset.{option}=null for all of them.")
    return value


def _reach(augment: Sequence[Any], length: int) -> int:
    """Frames that a training window is gathered with: more where `stretch_time` plays it faster than recorded."""
    reach = length
    for name, options in writing(augment):
        if name == "stretch_time" and {"slowest", "fastest"} <= options.keys():
            _, fastest = motion_transforms.bounds(options["slowest"], options["fastest"])
            reach = max(reach, int(np.ceil((length - 1) * fastest)) + 1)
    return reach

"""MotionDataModule: from raw files through the cache to batches of poses; the yaml decides everything."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kinema.core.skeleton import skeleton as named_skeleton
from kinema.core.spec import DataSpec, Signature
from kinema.data import checks
from kinema.data.base import BaseDataModule
from kinema.data.cuts import Cuts
from kinema.data.source import Source
from kinema.data.splits import Splits, refuse_empty
from kinema.data.transforms import resolve
from kinema.data.windows import Windows
from kinema.errors import ConfigError

log = logging.getLogger(__name__)


class MotionDataModule(BaseDataModule):
    """Poses for lifting: a reader's sequences, split, cut into windows, ordered and transformed as yaml says.

    Args:
        name: of the data set, in messages, reports and the cache.
        reader: module in `kinema.data.readers`, or a dotted path, with `files(root, **options)` (raw files; raises
            DataError with where they come from), `read(root, **options)` (Sequences) and `describe()`.
        reader_options: handed to the reader as they are; values that stand above are interpolated there.
        root: folder of the raw files.
        cache_dir: where mapped arrays are kept; null = in memory, read anew by every process.
        preprocess: way from pixels to network units, `core/preprocess.py`.
        skeleton: of the targets, or of predictions where there are none.
        skeleton2d: of the input.
        num_joints: joints of the input, for the model's yaml.
        num_joints_out: joints of the output, for the model's yaml.
        has_3d: whether there are targets.
        space: of the targets: "camera", "world" or "image"; see Sequences.
        unit: of the raw targets, "m" or "mm"; for the reader, by interpolation.
        fps: frames per second; null where it differs.
        tasks: names of the tasks this data can serve.
        protocol: evaluation protocol that belongs to the data.
        subjects_train, subjects_val, subjects_test: names or globs in the order they are visited; null = by the file.
        trials_val: "subject/trial" withheld from training for validation, while `subjects_val` is null.
        selection: what validation looks at: "val", or "test" as the papers do.
        actions: keep trials whose name begins with one of these; null = all.
        subset: fraction of every training sequence.
        downsample: keep every n-th frame of all sequences.
        frames: input frames of a training window; null follows the model.
        context: input frames before and after the targets; null follows the model.
        windows: how training windows are cut: `kind` ("chunked": VideoPose3D's generator; "tiled": clips that cover
            every frame; "strided": MotionBERT's clips; "stretched": clips whose last ones repeat frames; null: chunked
            for models with context, else tiled), `stride` (frames between clips; null: a third of a clip, while chunks
            do not overlap), `both_views` (every window also mirrored).
        eval_windows: how evaluation windows are cut: `kind` ("whole" sequences; "centred": a window around every valid
            frame, judged in its middle; "strided", "tiled" or "stretched" clips), `stride` (null: a clip, so that
            nothing overlaps but what "tiled" shifts back).
        limit_windows: at most so many training windows, evenly spaced; null = all.
        batch_size: training windows of the global batch, over all devices.
        eval_batch_size: evaluation clips of the global batch; whole sequences come one per device.
        num_workers: loader processes; 0 is fastest for mapped arrays, unless the disk is slow.
        order: training order: "seeded" or "legacy" (VideoPose3D's RandomState).
        augment: transforms for training, before `transforms`.
        transforms: transforms for every stage; the last one is `pose`.
        confidence: whether a third input channel holds the detector's scores; else it is 1.
        on_nan: "error", or "mask": zeros, not valid.
        store_mirrored: keep a mirrored copy of the arrays: twice the disk, mirrored windows at the price of others.
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
        skeleton: str,
        skeleton2d: str,
        num_joints: int,
        num_joints_out: int,
        has_3d: bool,
        space: str,
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
        subset: float,
        downsample: int,
        frames: int | None,
        context: Sequence[int] | None,
        windows: Mapping[str, Any],
        eval_windows: Mapping[str, Any],
        limit_windows: int | None,
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
        order: str,
        augment: Sequence[Any],
        transforms: Sequence[Any],
        confidence: bool,
        on_nan: str,
        store_mirrored: bool,
        seed: int,
        signature: Signature | None = None,
    ) -> None:
        super().__init__(
            seed=seed, batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, order=order
        )
        self.name = name
        self.protocol = protocol
        self.splits = Splits(
            subjects_train=None if subjects_train is None else tuple(subjects_train),
            subjects_val=None if subjects_val is None else tuple(subjects_val),
            subjects_test=None if subjects_test is None else tuple(subjects_test),
            trials_val=tuple(trials_val),
            selection=selection,
            actions=None if actions is None else tuple(actions),
        )
        self.subset, self.downsample = subset, downsample
        # Of five channels two lead to the next frame, and the last frame of a clip is dropped.
        followed = None if signature is None else signature.frames + (signature.in_channels == 5)
        self.frames = followed if frames is None else frames
        before, after = (signature.context if signature is not None else (0, 0)) if context is None else context
        self.context = (int(before), int(after))
        self.cuts = Cuts(self.frames, self.context, windows, eval_windows, limit_windows, seed)
        self.spec = DataSpec(
            skeleton=named_skeleton(skeleton),
            skeleton2d=named_skeleton(skeleton2d),
            in_channels=3,  # where there are no scores, the third one is filled with 1
            unit="image" if space == "image" else "m",
            space=space,
            preprocess=preprocess,
            fps=fps,
            has_3d=has_3d,
            tasks=frozenset(tasks),
            frames=self.frames,
        )
        checks.refuse_unequal("num_joints", num_joints, self.spec.skeleton2d)
        checks.refuse_unequal("num_joints_out", num_joints_out, self.spec.skeleton)
        checks.refuse_other("unit", unit, ("m", "mm"))
        checks.refuse_other("on_nan", on_nan, ("error", "mask"))
        assert self.spec.skeleton2d is not None
        self.source = Source(
            name=name,
            reader=reader,
            options=dict(reader_options),
            root=Path(root).expanduser(),
            cache_dir=Path(cache_dir).expanduser() if cache_dir is not None else None,
            skeleton=self.spec.skeleton if has_3d else None,
            skeleton2d=self.spec.skeleton2d,
            preprocess=preprocess,
            on_nan=on_nan,
            store_mirrored=store_mirrored,
        )
        given = {
            "skeleton": self.spec.skeleton,
            "skeleton2d": self.spec.skeleton2d,
            "channels": signature.in_channels if signature is not None else 2,
            "confidence": confidence,
            "context": self.context,
        }
        self._augment = resolve(augment, "augment", **given)
        self._transforms = resolve(transforms, "transforms", **given)

    def _open(self, stage: str) -> Windows:
        rows = self.splits.rows(self.sequences, stage)
        refuse_empty(self.sequences, rows, stage, str(self.name), str(self.source.root))
        chosen = self.sequences.select(rows)
        checks.refuse_nonfinite(chosen)
        checks.refuse_millimetres(chosen)
        if self.downsample != 1 or (stage == "train" and self.subset < 1):
            chosen = chosen.thin(subset=self.subset if stage == "train" else 1.0, step=self.downsample)
        return self.cuts.of(chosen, stage)

    def has_test(self) -> bool:
        """Whether there is something to test on; where not, the reason is logged."""
        if not self.spec.has_3d:
            return False
        try:
            return len(self.splits.rows(self.sequences, "test")) > 0
        except ConfigError as error:
            log.warning("There is no test: %s", error)
            return False

    def describe(self) -> str:
        """What the data is and how it is split, for --info and the doctor."""
        parts = self.splits
        lines = [f"{self.name}: {self.source.module.describe()}", f"files in {self.source.root}"]
        for what, subjects in (("training", parts.subjects_train), ("test", parts.subjects_test)):
            lines.append(f"{what}: {', '.join(subjects) if subjects is not None else 'as the file says'}")
        if parts.selection == "test":
            lines.append("validation: the test split (published behaviour)")
        else:
            held = parts.subjects_val if parts.subjects_val is not None else parts.trials_val
            lines.append(f"validation: {', '.join(held) or 'none'}")
        return "\n".join(lines)

"""MotionDataModule: from raw files through the cache to loaders that yield batches; the yaml decides everything."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.utils.data import DataLoader

from kinema.core.skeleton import skeleton as named_skeleton
from kinema.core.spec import DataSpec, Signature
from kinema.data import checks, orders
from kinema.data.cuts import Cuts
from kinema.data.draws import Draws
from kinema.data.sequences import Sequences
from kinema.data.source import Source
from kinema.data.splits import Splits, refuse_empty
from kinema.data.transforms import resolve
from kinema.data.windows import Windows
from kinema.errors import ConfigError

log = logging.getLogger(__name__)


class MotionDataModule(pl.LightningDataModule):
    """The one DataModule: a reader's sequences, split, cut into windows, ordered and transformed as yaml says.

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
        super().__init__()
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
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.order = order
        self.seed = seed
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
        self._required: dict[str, None] = {}
        self._sequences: Sequences | None = None
        self._windows: dict[str, Windows] = {}
        self._order: orders.Order | None = None
        self._place: tuple[int, int] | None = None

    # Opening.

    def prepare_data(self) -> None:
        """Read the raw files into the cache; Lightning calls it in one process per machine."""
        if self.source.cache_dir is not None:
            self.source.open()

    def setup(self, stage: str) -> None:
        """Open what a stage of the trainer needs; "fit", "validate", "test" or "predict".

        Raises:
            DataError: where the stage has no data, or faulty data.
        """
        name = str(getattr(stage, "value", stage))  # Lightning hands over its own enumeration
        self.windows({"fit": "train", "validate": "val"}.get(name, name))

    @property
    def sequences(self) -> Sequences:
        """Every sequence of the data set."""
        if self._sequences is None:
            self._sequences = self.source.open()
        return self._sequences

    @property
    def fingerprint(self) -> str:
        """Name and hash of the data as it is used, for reports."""
        return self.source.key

    def require(self, *keys: str) -> None:
        """Ask for more batch keys (arrays, camera vectors, numeric columns) than poses; for tasks and protocols."""
        self._required |= dict.fromkeys(keys)
        for stage, windows in self._windows.items():
            windows.keys = self._keys(stage)

    def _keys(self, stage: str) -> tuple[str, ...]:
        active = [*(self._augment if stage == "train" else ()), *self._transforms]
        needed = dict.fromkeys(key for transform in active for key in getattr(transform, "needs", ()))
        poses = [name for name in ("pose2d", "pose3d") if name in self.sequences.arrays]
        return tuple(dict.fromkeys([*poses, *needed, *self._required]))

    def windows(self, stage: str) -> Windows | None:
        """Windows of a stage: "train", "val", "test" or "predict".

        Returns:
            The windows; None for "val" where the trainer does not validate.

        Raises:
            DataError: where the stage has no data, or faulty data.
        """
        if stage == "val" and self.trainer is not None and not self.trainer.limit_val_batches:
            return None
        if stage not in self._windows:
            rows = self.splits.rows(self.sequences, stage)
            refuse_empty(self.sequences, rows, stage, str(self.name), str(self.source.root))
            chosen = self.sequences.select(rows)
            checks.refuse_nonfinite(chosen)
            checks.refuse_millimetres(chosen)
            if self.downsample != 1 or (stage == "train" and self.subset < 1):
                chosen = chosen.thin(subset=self.subset if stage == "train" else 1.0, step=self.downsample)
            windows = self.cuts.of(chosen, stage)
            windows.keys = self._keys(stage)
            self._windows[stage] = windows
            log.info("%s: %d sequences, %d frames, %d windows.", stage, len(chosen), chosen.num_frames, len(windows))
        return self._windows[stage]

    def has_test(self) -> bool:
        """Whether there is something to test on; where not, the reason is logged."""
        if not self.spec.has_3d:
            return False
        try:
            return len(self.splits.rows(self.sequences, "test")) > 0
        except ConfigError as error:
            log.warning("There is no test: %s", error)
            return False

    # Loading.

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Training windows in the epoch's order, from where an interrupted run stopped."""
        windows = self._opened("train")
        return self._loader(windows, self._take_up(windows))

    def _take_up(self, windows: Windows) -> orders.Order:
        rank, world = self._ranks()
        order = orders.make(self.order, len(windows), self.batch_size, seed=self.seed, rank=rank, world_size=world)
        if self._place is not None:
            order.begin(*self._place)
            self._place = None
        self._order = order
        return order

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Validation windows, each once."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Test windows, each once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Whole sequences of the test split, or all where nothing is split."""
        return self._evaluation_loader("predict")

    @property
    def epoch(self) -> int:
        """Epoch of the training order; Lightning's counter runs ahead of it after a stop by max_steps."""
        return 0 if self._order is None else self._order.epoch

    def share(self, batch_idx: int) -> float:
        """Factor that turns this rank's mean over a training batch into its part of the mean over the global batch."""
        return 1.0 if self._order is None else self._order.share(batch_idx)

    def _evaluation_loader(self, stage: str) -> DataLoader[dict[str, Tensor]]:
        windows = self._opened(stage)
        rank, world = self._ranks()
        size = world if windows.targets is None else max(self.eval_batch_size, world)
        return self._loader(windows, orders.evaluation(len(windows), size, rank=rank, world_size=world))

    def _opened(self, stage: str) -> Windows:
        windows = self.windows(stage)
        assert windows is not None
        return windows

    def _loader(self, windows: Any, order: Any) -> DataLoader[Any]:
        if self.num_workers and self.source.cache_dir is not None:
            windows = windows.mapped(self.source.cache_dir / "windows")
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            windows,
            batch_size=None,  # a pick is a whole batch already: nothing is collated
            sampler=order,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=on_gpu,
        )

    def _ranks(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        if self.trainer.world_size > 1 and self.trainer._accelerator_connector.use_distributed_sampler:
            raise ConfigError(
                "The data is split over devices by its own order. Use trainer.use_distributed_sampler=false."
            )
        return self.trainer.global_rank, self.trainer.world_size

    # On the device.

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Lightning's hook: the transforms of the stage that is running."""
        training = self.trainer is not None and self.trainer.training
        return self.transform(batch, training=training)

    def transform(self, batch: dict[str, Tensor], *, training: bool = False) -> dict[str, Tensor]:
        """Make `pose` of a gathered batch, with augmentation in training."""
        epoch = 0
        if training and self._order is not None:
            epoch = self._order.epoch
            self._order.settle()
        draws = Draws(self.seed, epoch, batch["draw"], batch["draw"][:1] // self.batch_size)
        for function in [*(self._augment if training else ()), *self._transforms]:
            batch = function(batch, draws)
        return batch

    # Resuming.

    def state_dict(self) -> dict[str, Any]:
        """The place in the training order: epoch, and batches of it that were trained (not merely fetched)."""
        if self.trainer is None or self._order is None:
            return {}
        epochs: Any = self.trainer.fit_loop.epoch_progress.current
        trained: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        epoch, batches = self._order.epoch, trained.processed
        if epochs.started < epochs.ready:  # entering an epoch: the batches counted are those of the one before
            batches = 0
        elif batches >= self.trainer.num_training_batches:
            epoch, batches = epoch + 1, 0
        return {"epoch": epoch, "batches": batches, "rows": self._order.num_rows, "batch_size": self.batch_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin the next training order where the checkpoint was written.

        Raises:
            ConfigError: inside an epoch, where rows or batch size are others than they were.
        """
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        windows = self._opened("train")
        was, now = (state_dict["rows"], state_dict["batch_size"]), (len(windows), self.batch_size)
        if state_dict["batches"] and was != now:
            raise ConfigError(
                f"The run stopped inside an epoch of {was[0]} windows in batches of {was[1]}, this one has {now[0]} in "
                f"batches of {now[1]}. Use dataset.batch_size={was[1]} and the same data, or start from an epoch's end."
            )
        self._place = (state_dict["epoch"], state_dict["batches"])
        # Lightning cannot know that the order takes up its place again.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")

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

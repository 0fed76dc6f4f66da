"""What every DataModule of Kinema does alike: opening, orders, loaders, transforms on the device, resuming."""

from __future__ import annotations

import logging
import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.utils.data import DataLoader

from kinema.core.spec import DataSpec
from kinema.data import orders
from kinema.data.draws import Batch, Draws
from kinema.data.sequences import Sequences
from kinema.data.source import Source
from kinema.data.windows import Windows
from kinema.errors import ConfigError

log = logging.getLogger(__name__)


class BaseDataModule(pl.LightningDataModule):
    """A source of sequences, cut into windows, visited in an order and transformed on the device.

    A DataModule sets the attributes below in its constructor and writes `_open` and `has_test`.

    Attributes:
        name: of the data set, in messages, reports and the cache.
        protocol: evaluation protocol that belongs to the data.
        spec: what it serves, known before any array is opened.
        source: raw files and their reader.
        seed: of order and augmentation.
        batch_size: training windows of the global batch, over all devices.
        eval_batch_size: evaluation windows of the global batch; whole sequences come one per device.
        num_workers: loader processes.
    """

    name: str
    protocol: str | None
    spec: DataSpec
    source: Source

    def __init__(self, *, seed: int, batch_size: int, eval_batch_size: int, num_workers: int, order: str) -> None:
        super().__init__()
        self.seed, self.order = seed, order
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self._augment: list[Callable[..., Batch]] = []
        self._transforms: list[Callable[..., Batch]] = []
        self._required: dict[str, None] = {}
        self._sequences: Sequences | None = None
        self._windows: dict[str, Windows] = {}
        self._order: orders.Order | None = None
        self._place: tuple[int, int] | None = None

    # What a DataModule writes.

    @abstractmethod
    def _open(self, stage: str) -> Windows:
        """Windows of a stage, checked."""

    @abstractmethod
    def has_test(self) -> bool:
        """Whether there is something to test on; where not, the reason is logged."""

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
            windows = self._open(stage)
            windows.keys = self._keys(stage)
            self._windows[stage] = windows
            chosen = windows.sequences
            log.info("%s: %d sequences, %d frames, %d windows.", stage, len(chosen), chosen.num_frames, len(windows))
        return self._windows[stage]

    # Loading.

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Training windows in the epoch's order, from where an interrupted run stopped."""
        windows = self._opened("train")
        return self._loader(windows, self._take_up(windows))

    def _take_up(self, windows: Windows) -> orders.Order:
        rank, world = self._ranks()
        order = self._make_order(windows, rank, world)
        if self._place is not None:
            order.begin(*self._place)
            self._place = None
        self._order = order
        return order

    def _make_order(self, windows: Windows, rank: int, world: int) -> orders.Order:
        return orders.make(self.order, len(windows), self.batch_size, seed=self.seed, rank=rank, world_size=world)

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
        draws = Draws(self.seed, epoch, batch["draw"], batch["draw"][:1] // self.batch_size, training=training)
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
        was = (state_dict["rows"], state_dict["batch_size"])
        now = (self._make_order(windows, *self._ranks()).num_rows, self.batch_size)
        if state_dict["batches"] and was != now:
            raise ConfigError(
                f"The run stopped inside an epoch of {was[0]} windows in batches of {was[1]}, this one has {now[0]} in "
                f"batches of {now[1]}. Use dataset.batch_size={was[1]} and the same data, or start from an epoch's end."
            )
        self._place = (state_dict["epoch"], state_dict["batches"])
        # Lightning cannot know that the order takes up its place again.
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch")

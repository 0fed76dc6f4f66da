"""PairedDataModule: labelled training windows, and unlabelled ones of other persons beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kinema.data import orders
from kinema.data.datamodule import MotionDataModule
from kinema.data.windows import Windows
from kinema.errors import ConfigError


class PairedDataModule(MotionDataModule):
    """A MotionDataModule that may hold a second one, for training that uses recordings without their 3D.

    Without `subjects_unlabeled` it is a plain MotionDataModule. With them a training batch is {"labeled": batch,
    "unlabeled": batch}; validation, test and prediction stay as they are. The labelled windows set the epochs, the
    unlabelled ones are gone through without end in an order of their own (`orders.PairedOrder`).

    Args:
        subjects_unlabeled: names or globs of those whose 2D is trained on without 3D, in the order they are visited.
        unlabeled: arguments that differ for them, such as {subset: 0.5}, or {has_3d: false} for persons of the 2D file
            whom the 3D file does not know; `reader_options` are merged. Their `subset` is 1 and `limit_windows` null
            unless stated here.
        seed: of order and augmentation; the unlabelled windows' is another one.
        options: those of MotionDataModule, for both.
    """

    def __init__(
        self,
        *,
        subjects_unlabeled: Sequence[str] = (),
        unlabeled: Mapping[str, Any] | None = None,
        seed: int,
        **options: Any,
    ) -> None:
        super().__init__(seed=seed, **options)
        self.unlabeled: MotionDataModule | None = None
        if subjects_unlabeled:
            self.unlabeled = _second(subjects_unlabeled, dict(unlabeled or {}), seed, options)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.unlabeled is None or str(getattr(stage, "value", stage)) != "fit":
            return
        if self.unlabeled.source == self.source:  # read once where nothing is cached
            self.unlabeled._sequences = self.sequences
        self.unlabeled.setup(stage)

    def prepare_data(self) -> None:
        super().prepare_data()
        if self.unlabeled is not None:
            self.unlabeled.prepare_data()

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches; with unlabelled subjects {"labeled": batch, "unlabeled": batch}."""
        if self.unlabeled is None:
            return super().train_dataloader()
        windows, others = self._opened("train"), self.unlabeled._opened("train")
        others.keys = tuple(key for key in others.keys if key != "pose3d")  # what is not looked at cannot leak
        rank, world = self._ranks()
        endless = orders.make(
            self.unlabeled.order,
            len(others),
            self.unlabeled.batch_size,
            seed=self.unlabeled.seed,
            legacy_seed=orders.LEGACY_SEED_UNLABELED,
            rank=rank,
            world_size=world,
        )
        order = orders.PairedOrder(self._take_up(windows), endless)
        self.unlabeled._order = self._order  # augmentation is drawn by the epoch of training
        return self._loader(PairedWindows(windows, others), order)

    def transform(self, batch: dict[str, Any], *, training: bool = False) -> dict[str, Any]:
        """Make `pose` of a gathered batch, or of both of a pair."""
        if "unlabeled" not in batch:
            return super().transform(batch, training=training)
        assert self.unlabeled is not None
        return {
            "labeled": super().transform(batch["labeled"], training=training),
            "unlabeled": self.unlabeled.transform(batch["unlabeled"], training=training),
        }

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if state and self.unlabeled is not None:
            state |= {"unlabeled": self._second_order()}
        return state

    def _second_order(self) -> list[Any] | None:
        """What decides which unlabelled windows come at a place of the order."""
        other = self.unlabeled
        return None if other is None else [len(other._opened("train")), other.batch_size, other.order]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin the next training order where the checkpoint was written; the unlabelled one follows from its place.

        Raises:
            ConfigError: where rows or batch size are others than they were.
        """
        super().load_state_dict(state_dict)
        if self._place is None:
            return
        was, now = state_dict.get("unlabeled"), self._second_order()
        if was != now:
            had, has = ("none" if one is None else "{} in batches of {}, order {}".format(*one) for one in (was, now))
            raise ConfigError(
                f"Unlabelled windows: the run had {had}; this one has {has}. Use the same dataset.subjects_unlabeled "
                "and dataset.unlabeled, or begin a new run from its weights: init=path/to/last.ckpt."
            )

    def describe(self) -> str:
        """What the data is and how it is split, for --info and the doctor."""
        if self.unlabeled is None:
            return super().describe()
        subjects = ", ".join(self.unlabeled.splits.subjects_train or ())
        return f"{super().describe()}\nwithout their 3D: {subjects}"


class PairedWindows(Dataset[dict[str, dict[str, Tensor]]]):
    """Two Windows, indexed by picks of both."""

    def __init__(self, labeled: Windows, unlabeled: Windows) -> None:
        self.labeled, self.unlabeled = labeled, unlabeled

    def __getitem__(self, picks: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        return {"labeled": self.labeled[picks["labeled"]], "unlabeled": self.unlabeled[picks["unlabeled"]]}

    def mapped(self, folder: str | Path) -> PairedWindows:
        """Keep the tables as mapped files, see `Windows.mapped`."""
        return PairedWindows(self.labeled.mapped(folder), self.unlabeled.mapped(folder))


def _second(subjects: Sequence[str], changes: dict[str, Any], seed: int, options: Mapping[str, Any]) -> Any:
    """The MotionDataModule of the unlabelled subjects."""
    unknown = [key for key in changes if key not in options]
    if unknown:
        raise ConfigError(
            f"dataset.unlabeled: the data set has no option {unknown[0]!r}. Name one of its keys, such as subset."
        )
    reader = {**options["reader_options"], **dict(changes.pop("reader_options", None) or {})}
    if "has_3d" in changes and "has_3d" in reader:
        reader["has_3d"] = changes["has_3d"]
    own = {"subjects_train": tuple(subjects), "reader_options": reader, "subset": 1.0, "limit_windows": None}
    return MotionDataModule(**{**options, **own, "seed": seed + orders.LEGACY_SEED_UNLABELED, **changes})

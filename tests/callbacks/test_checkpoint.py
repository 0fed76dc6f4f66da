"""RunCheckpoint: the last weights stay at hand, whether or not they are the best."""

from __future__ import annotations

import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kinema.callbacks.checkpoint import RunCheckpoint


class Scored(pl.LightningModule):
    """Has the scores it is told, epoch by epoch."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = scores
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/score", self.scores[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def steps(folder: Path, scores: list[float]) -> dict[str, int]:
    """Optimiser steps behind each file, three per epoch."""
    keeper = RunCheckpoint(
        dirpath=str(folder), filename="best", monitor="val/score", mode="max", save_top_k=1, save_last=True
    )
    data = DataLoader(TensorDataset(torch.ones(6, 1)), batch_size=2)
    trainer = pl.Trainer(
        max_epochs=len(scores), accelerator="cpu", logger=False, callbacks=[keeper], enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Scored(scores), data, data)
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    return {name: torch.load(folder / f"{name}.ckpt", weights_only=True)["global_step"] for name in ("best", "last")}


def test_the_last_weights_are_kept_after_every_validation(tmp_path: Path) -> None:
    assert steps(tmp_path, [3.0, 2.0, 1.0]) == {"best": 3, "last": 9}


def test_of_equal_scores_the_later_stays(tmp_path: Path) -> None:
    assert steps(tmp_path, [1.0, 2.0, 2.0, 1.0]) == {"best": 9, "last": 12}


def test_a_training_without_validation_so_far_is_not_told_that_its_metric_is_missing(tmp_path: Path) -> None:
    def trained(score: str, validates: bool) -> list[str]:
        folder = tmp_path / score
        keeper = RunCheckpoint(dirpath=str(folder), filename="best", monitor=score, mode="max", save_last=True)
        data = DataLoader(TensorDataset(torch.ones(6, 1)), batch_size=2)
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, callbacks=[keeper], enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=int(validates),
        )  # fmt: skip
        trainer.fit(Scored([1.0]), data, data)
        return sorted(path.name for path in folder.iterdir())

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*could not find the monitored key.*")
        assert trained("val/score", validates=False) == ["last.ckpt"]
    with pytest.raises(MisconfigurationException, match="could not find the monitored key"):
        trained("val/none", validates=True)

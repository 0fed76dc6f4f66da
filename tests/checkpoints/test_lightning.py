"""Checkpoints that Lightning itself writes, with and without averaged weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import kinema
from kinema.callbacks.ema import EMA
from kinema.checkpoints.load import record_of
from tests.checkpoints import tiny


class Training(pl.LightningModule):
    """The least that trains a model and leaves Kinema's record."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        return self.model(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["kinema"] = record_of(self.model, task="lifting")


@pytest.mark.parametrize("averaged", [False, True], ids=["live", "averaged"])
def test_a_file_of_the_trainer_gives_either_weights(averaged: bool, tmp_path: Path) -> None:
    task = Training(tiny.build("poseformer").train())
    start = copy.deepcopy(task.model)
    data = DataLoader(tiny.example(task.model, batch=6), batch_size=2)
    trainer = pl.Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[EMA(decay=0.5)] if averaged else [],
    )
    live: dict[str, Tensor] = {}

    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
            live.update({name: tensor.clone() for name, tensor in task.model.state_dict().items()})
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    trainer.callbacks.append(Saves())
    trainer.fit(task, data)
    found = kinema.load(tmp_path / "last.ckpt", weights="live")
    assert found.provenance.kind == ("live" if averaged else "only")
    assert all(torch.equal(tensor, live[name]) for name, tensor in found.state_dict().items())
    assert not tiny.same_output(found, start), "the run changed the weights"
    plain = kinema.load(tmp_path / "last.ckpt")
    assert plain.provenance.kind == ("averaged" if averaged else "only")
    assert tiny.same_output(plain, found) != averaged
    assert plain.provenance.facts["global_step"] == 3

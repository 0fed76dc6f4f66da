"""The averaged weights: their values, and that a resumed run goes on with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from kinema.callbacks.ema import EMA
from tests.tasks.lifters import Linear, data, network, task, trainer


class Watch(pl.Callback):
    """The weights after every optimiser step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(module.model.head.weight.detach().clone())


def averaged(folder: Path, **options: Any) -> tuple[list[Tensor], Tensor]:
    """Weights after each step, and the average that the model holds at the end."""
    watch, model = Watch(), Linear()
    running = trainer(max_epochs=2, callbacks=[EMA(**options), watch], limit_val_batches=0)
    running.fit(task(model), datamodule=data(folder, batch_size=16))
    return watch.seen, model.head.weight.detach()


def test_the_average_follows_the_formula(tmp_path: Path) -> None:
    seen, found = averaged(tmp_path, decay=0.7)
    expected = seen[0]
    for weights in seen[1:]:
        expected = 0.7 * expected + 0.3 * weights
    torch.testing.assert_close(found, expected)


def test_averaging_begins_late_and_skips_steps(tmp_path: Path) -> None:
    seen, found = averaged(tmp_path, decay=0.7, start_step=2, every_n_steps=2)
    assert len(seen) == 6
    expected = seen[1]  # live until then
    for weights in (seen[2], seen[4]):
        expected = 0.7 * expected + 0.3 * weights
    torch.testing.assert_close(found, expected)


def test_before_averaging_begins_the_live_weights_are_validated(tmp_path: Path) -> None:
    seen, found = averaged(tmp_path, decay=0.7, start_step=100)
    torch.testing.assert_close(found, seen[-1], rtol=0, atol=0)


def test_buffers_are_averaged_unless_told_otherwise(tmp_path: Path) -> None:
    means = []
    for use_buffers in (True, False):
        model = network(dropout=0.0)
        average = EMA(decay=0.9, use_buffers=use_buffers)
        running = trainer(max_epochs=2, callbacks=[average], limit_val_batches=0)
        running.fit(task(model), datamodule=data(tmp_path, batch_size=16))
        assert average._average_model is not None
        own = average._average_model.module.model.expand_bn
        means.append(own.running_mean.clone())
        assert int(own.num_batches_tracked) == 6
    assert not torch.equal(*means)


class SaveAt(pl.Callback):
    """Write a checkpoint at the end of an epoch; after `fit` the averaged weights have replaced the live ones."""

    def __init__(self, epoch: int, path: Path) -> None:
        self.epoch, self.path = epoch, path

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


def averaging(folder: Path, stop: int | None) -> dict[str, Any]:
    """The checkpoint at the end of four epochs, in one go or interrupted after the epoch `stop`."""
    last, middle = folder / "last.ckpt", folder / "middle.ckpt"

    def run(epochs: int, save: SaveAt, resume: Path | None = None) -> None:
        average = EMA(decay=0.9, start_step=3, every_n_steps=2)
        running = trainer(max_epochs=epochs, callbacks=[average, save])
        module_data = data(folder, batch_size=16)
        running.fit(task(network(dropout=0.0)), datamodule=module_data, ckpt_path=resume, weights_only=True)

    if stop is not None:
        run(stop + 1, SaveAt(stop, middle))
    run(4, SaveAt(3, last), middle if stop is not None else None)
    return torch.load(last, weights_only=True)


def test_averaged_and_live_weights_survive_a_resume(tmp_path: Path) -> None:
    whole, resumed = averaging(tmp_path / "whole", None), averaging(tmp_path / "resumed", 1)
    for part in ("state_dict", "current_model_state"):
        for name, tensor in whole[part].items():
            torch.testing.assert_close(resumed[part][name], tensor, rtol=0, atol=0)
    live, averaged = whole["current_model_state"], whole["state_dict"]
    assert not torch.equal(live["model.shrink.weight"], averaged["model.shrink.weight"])


def test_a_test_after_training_has_the_averaged_weights_of_its_checkpoint(tmp_path: Path) -> None:
    path, model = tmp_path / "middle.ckpt", network(dropout=0.0)
    running = trainer(max_epochs=4, callbacks=[EMA(decay=0.9), SaveAt(1, path)], limit_val_batches=0)
    lifter, lifting = data(tmp_path, batch_size=16), task(model)
    running.fit(lifting, datamodule=lifter)
    running.test(lifting, datamodule=lifter, ckpt_path=path, weights_only=True, verbose=False)
    saved = torch.load(path, weights_only=True)["state_dict"]
    for name, tensor in lifting.state_dict().items():
        torch.testing.assert_close(tensor, saved[name], rtol=0, atol=0)

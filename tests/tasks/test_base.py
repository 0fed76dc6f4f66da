"""What every task does inside a real Trainer: logging, reports, variants, checkpoints, ranks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers.logger import Logger

from kinema.checkpoints.load import load
from kinema.errors import CheckpointError, ConfigError
from kinema.tasks import optim
from tests.tasks.lifters import Linear, data, network, task, trainer


class Memory(Logger):
    """Keeps what is logged."""

    name = version = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step or 0, {key: value for key, value in metrics.items() if key != "epoch"}))

    def steps(self, key: str) -> dict[int, float]:
        return {step: values[key] for step, values in self.rows if key in values}


class Losses(pl.Callback):
    """Loss and size of every training batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append((float(outputs["loss"]), len(batch["index"])))

    def mean(self, first: int, last: int) -> float:
        part = self.seen[first:last]
        return sum(loss * size for loss, size in part) / sum(size for _, size in part)


def test_losses_are_read_every_n_steps_and_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    memory, losses = Memory(), Losses()
    module = task(losses={"mpjpe": 2.0, "n_mpjpe": 1.0})
    running = trainer(logger=memory, log_every_n_steps=2, callbacks=[losses], limit_val_batches=0)
    running.fit(module, datamodule=data(tmp_path, batch_size=12))
    per_epoch = len(losses.seen) // 2
    assert losses.seen[per_epoch - 1][1] < losses.seen[0][1]
    found = memory.steps("train/loss")
    edges = sorted({*range(2, len(losses.seen) + 1, 2), per_epoch, 2 * per_epoch})
    assert list(found) == edges
    for first, last in zip([0, *edges], edges, strict=False):
        assert found[last] == pytest.approx(losses.mean(first, last), rel=1e-6)
    epochs = list(memory.steps("train/loss_epoch").values())
    expected = [losses.mean(0, per_epoch), losses.mean(per_epoch, 2 * per_epoch)]
    assert epochs == pytest.approx(expected, rel=1e-6)
    terms = {key for _, values in memory.rows for key in values}
    assert {"train/mpjpe", "train/n_mpjpe", "train/mpjpe_epoch", "train/n_mpjpe_epoch"} <= terms
    assert running.callback_metrics["train/loss"] == pytest.approx(found[edges[-1]])


def test_validation_and_test_report_through_the_protocol(tmp_path: Path) -> None:
    memory = Memory()
    module, module_data, running = task(), data(tmp_path), trainer(logger=memory)
    running.fit(module, datamodule=module_data)
    assert set(module.reports) == {"val"}
    report = module.reports["val"]
    assert sum(row["frames"] for row in report.tables["action"]) == 7
    assert running.callback_metrics["val/mpjpe"] == pytest.approx(report.scalars["mpjpe"], rel=1e-6)
    assert len(memory.steps("val/p_mpjpe")) == 2
    running.test(module, datamodule=module_data, verbose=False)
    assert set(module.reports) == {"test"}
    found = {row["action"]: row["frames"] for row in module.reports["test"].tables["action"]}
    assert found == {"Walk": 8, "Sit": 5}
    assert running.callback_metrics["test/mpjpe"] == pytest.approx(module.reports["test"].scalars["mpjpe"], rel=1e-6)


def test_every_variant_is_tested_and_the_first_is_the_plain_one(tmp_path: Path) -> None:
    variants = {"flip": {"flip_average": True}, "single": {"flip_average": False}}
    module, running = task(variants=variants), trainer()
    running.test(module, datamodule=data(tmp_path), verbose=False)
    assert list(module.reports) == ["test", "test/single"]
    alone = task(flip_average=False)
    trainer().test(alone, datamodule=data(tmp_path), verbose=False)
    single = module.reports["test/single"].scalars
    assert single == alone.reports["test"].scalars
    assert module.reports["test"].scalars["mpjpe"] != single["mpjpe"]
    assert "test/single/mpjpe" in running.callback_metrics


def test_predictions_cover_whole_sequences(tmp_path: Path) -> None:
    module = task()
    found = trainer().predict(module, datamodule=data(tmp_path))
    assert [tuple(one["prediction"].shape) for one in found] == [(1, 8, 17, 3), (1, 5, 17, 3)]
    assert [one["index"].tolist() for one in found] == [[0], [1]]
    assert (found[1]["frames"][0].diff() == 1).all()


def test_a_loaded_network_is_trained_in_training_mode(tmp_path: Path) -> None:
    model = network().eval()
    before = model.expand_bn.running_mean.clone()
    trainer(max_epochs=1, limit_val_batches=0).fit(task(model), datamodule=data(tmp_path))
    assert not torch.equal(model.expand_bn.running_mean, before)


def test_a_checkpoint_is_enough_to_build_the_network_again(tmp_path: Path) -> None:
    module, running = task(network()), trainer(max_epochs=1)
    running.fit(module, datamodule=data(tmp_path))
    path = tmp_path / "run.ckpt"
    running.save_checkpoint(path)
    record = torch.load(path, weights_only=True)["kinema"]
    assert (record["task"], record["config"]["mode"]) == ("lifting", "train")
    model = load(path)
    assert model.arguments == module.model.arguments
    pose = torch.rand(1, 5, 17, 2)
    torch.testing.assert_close(model(pose), module.model.eval()(pose))


def test_a_checkpoint_of_another_network_is_named(tmp_path: Path) -> None:
    running = trainer(max_epochs=1)
    running.fit(task(network()), datamodule=data(tmp_path))
    running.save_checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(CheckpointError, match=r"(?s)another network.*expand_conv.weight.*config.resolved.yaml"):
        trainer().test(task(network(channels=16)), datamodule=data(tmp_path), ckpt_path=tmp_path / "run.ckpt")


def test_the_schedule_counts_epochs_or_steps_as_its_recipe_says(tmp_path: Path) -> None:
    for scheduler, expected in (
        (partial(optim.exponential, gamma=0.5), 0.01 * 0.25),
        (partial(optim.warmup_cosine, warmup_steps=2, floor=0.3), 0.01 * 0.3),
    ):
        running = trainer(limit_val_batches=0)
        running.fit(task(scheduler=scheduler), datamodule=data(tmp_path))
        assert running.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected)


def test_a_task_without_a_datamodule_says_what_to_do() -> None:
    loader = torch.utils.data.DataLoader([0])
    with pytest.raises(ConfigError, match="datamodule=data"):
        trainer().fit(task(), train_dataloaders=loader)


def outcome(folder: Path, devices: int) -> dict[str, Any]:
    """Train and test on one or two processes; rank 0 writes what came out."""
    memory = Recorder(folder / f"{devices}.pt")
    strategy = {"strategy": "ddp_spawn"} if devices > 1 else {}
    # 13 rows leave two ranks uneven, and the last batch of 40 windows has one row, so that a rank has none
    running = trainer(devices=devices, callbacks=[memory], log_every_n_steps=2, **strategy)
    running.fit(task(Linear()), datamodule=data(folder, batch_size=13, eval_batch_size=3))
    return torch.load(folder / f"{devices}.pt", weights_only=True)


class Recorder(pl.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.report = dict(module.reports["val"].scalars)

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero:
            logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
            torch.save({"state": module.model.state_dict(), "report": self.report, "logged": logged}, self.path)


def test_two_processes_give_what_one_gives_with_uneven_batches(tmp_path: Path) -> None:
    one, two = (outcome(tmp_path, devices) for devices in (1, 2))
    for name, tensor in one["state"].items():
        torch.testing.assert_close(two["state"][name], tensor, rtol=1e-5, atol=1e-6)
    assert two["report"] == pytest.approx(one["report"], rel=1e-5)
    assert two["logged"]["train/loss"] == pytest.approx(one["logged"]["train/loss"], rel=1e-5)

"""Figures of an evaluation are drawn on rank 0, for fixed moments, without touching what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kinema.callbacks.figures import Figures
from kinema.composition import build_data, compose
from kinema.models.videopose3d import VideoPose3D
from kinema.tasks.lifting import LiftingTask

FILES = ["error_per_action.png", "error_per_joint.png", "skeletons.png"]
DATA = [
    "dataset=synthetic", "dataset.cache_dir=null", "dataset.reader_options.frames=12", "dataset.batch_size=512",
    "dataset.reader_options.actions=[walk,jump]",
]  # fmt: skip


def parts(*overrides: str) -> tuple[LiftingTask, Any]:
    torch.manual_seed(0)
    model = VideoPose3D(
        num_joints=17, num_joints_out=17, in_channels=2, filter_widths=[3], channels=8, dropout=0.0, causal=False,
        dense=False, trajectory=False, root=0,
    )  # fmt: skip
    data = build_data(compose([*DATA, *overrides]), model.signature)
    task = LiftingTask(
        model, torch.optim.SGD, losses={"mpjpe": 1.0}, target="root_relative", flip_average=True, mask_invalid=False,
        chunk=4096, protocol="videopose3d", objective="val/mpjpe", objective_mode="min",
    )  # fmt: skip
    return task, data


def trainer(tmp_path: Path, *callbacks: pl.Callback, logger: Any = False) -> pl.Trainer:
    return pl.Trainer(
        max_steps=1, accelerator="cpu", logger=logger, callbacks=list(callbacks), enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False,
        default_root_dir=tmp_path, limit_train_batches=1,
    )  # fmt: skip


def test_a_test_leaves_one_skeleton_figure_and_bars_per_joint_and_action(tmp_path: Path) -> None:
    task, data = parts()
    trainer(tmp_path, Figures(str(tmp_path / "figures"))).test(task, datamodule=data, verbose=False)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == FILES
    for name in FILES:
        with Image.open(tmp_path / "figures" / name) as image:
            assert min(image.size) > 100
            assert np.asarray(image.convert("L")).std() > 5


def test_validation_goes_to_tensorboard(tmp_path: Path) -> None:
    task, data = parts()
    logger = TensorBoardLogger(tmp_path / "logs")
    trainer(tmp_path, Figures(str(tmp_path / "figures")), logger=logger).fit(task, datamodule=data)
    events = EventAccumulator(str(logger.log_dir)).Reload()
    assert sorted(events.Tags()["images"]) == ["val/error_per_action", "val/error_per_joint", "val/skeletons"]
    assert events.Images("val/skeletons")[0].width > 300
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("logger", [False, "csv"])
def test_without_tensorboard_a_validation_draws_nothing(
    tmp_path: Path, logger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("drawn for nobody")

    monkeypatch.setattr("kinema.callbacks.figures.sheet", forbidden)
    task, data = parts()
    made = CSVLogger(tmp_path) if logger else False
    trainer(tmp_path, Figures(str(tmp_path / "figures")), logger=made).fit(task, datamodule=data)


def test_figures_wait_for_their_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, data = parts()
    logger = TensorBoardLogger(tmp_path / "logs")
    callback = Figures(str(tmp_path / "figures"), interval=3600)
    runner = trainer(tmp_path, callback, logger=logger)
    runner.validate(task, datamodule=data, verbose=False)
    runner.validate(task, datamodule=data, verbose=False)
    logger.finalize("success")
    assert len(EventAccumulator(str(logger.log_dir)).Reload().Images("val/skeletons")) == 1


def test_measurements_are_the_same_with_and_without_figures(tmp_path: Path) -> None:
    found = []
    for callbacks in ([], [Figures(str(tmp_path / "figures"))]):
        task, data = parts()
        runner = trainer(tmp_path, *callbacks)
        runner.test(task, datamodule=data, verbose=False)
        found.append({key: float(value) for key, value in runner.callback_metrics.items()})
    assert found[0] == found[1]


@pytest.mark.parametrize("moments", [1, 3, 400])
def test_the_same_moments_are_shown_every_time(tmp_path: Path, moments: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[list[str]] = []
    real = Figures._figures

    def spy(self: Figures, task: Any, stage: str) -> Any:
        shown.append([shot.label.split(":")[0] for shot in self._shots or []])
        self._shots = (self._shots or [])[:3]  # 400 columns need not be drawn
        return real(self, task, stage)

    monkeypatch.setattr(Figures, "_figures", spy)
    task, data = parts()
    runner = trainer(tmp_path, Figures(str(tmp_path / "figures"), moments=moments))
    runner.test(task, datamodule=data, verbose=False)
    runner.test(task, datamodule=data, verbose=False)
    assert shown[0] == shown[1]
    assert len(shown[0]) == len(set(shown[0])) == min(moments, 2 * 2 * 4)  # subjects, actions, cameras


def test_the_error_of_a_moment_is_the_distance_of_prediction_and_truth(tmp_path: Path, monkeypatch: Any) -> None:
    shots: list[Any] = []

    def keep(self: Figures, task: Any, stage: str) -> Any:
        shots.extend(self._shots or [])
        return {}

    monkeypatch.setattr(Figures, "_figures", keep)
    task, data = parts()
    trainer(tmp_path, Figures(str(tmp_path / "figures"), moments=2)).test(task, datamodule=data, verbose=False)
    for shot in shots:
        prediction, truth = shot.poses["Prediction"], shot.poses["Truth"]
        np.testing.assert_allclose(np.linalg.norm(prediction - truth, axis=-1), shot.errors, atol=1e-6)
        assert truth[:, 2].min() == pytest.approx(0)
        assert np.ptp(truth[:, 2]) > 1.0  # upright
        assert 0 < shot.keypoints.min() < shot.keypoints.max() < 1000
    assert not (tmp_path / "figures").exists()

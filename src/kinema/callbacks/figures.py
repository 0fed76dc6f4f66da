"""Pictures of an evaluation: skeletons at a few fixed moments, error bars, and what a classifier confuses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kinema.core.preprocess import preprocess
from kinema.data.windows import SEQUENCE, Windows
from kinema.protocols.report import Report
from kinema.viz import prepare
from kinema.viz.action_report import action_figures
from kinema.viz.figures import Shot, error_bars, sheet
from kinema.viz.html import png
from kinema.viz.skeleton import picture_of

log = logging.getLogger(__name__)


class Figures(pl.Callback):
    """Show what the network does: to TensorBoard after validations, to PNG files after a test; on rank 0.

    Needs of a task `predict(batch)`, `spec` and `reports`, and of the datamodule `windows(stage)`; where the prediction
    is no pose or the data has no 3D, only what the reports hold is drawn (`drawings`).

    Args:
        output_dir: folder of the PNG files.
        moments: how many windows are shown, evenly spaced over the data; always the same ones.
        interval: seconds that must have passed since the figures of an earlier validation; they take about one.

    Attributes:
        pictures: PNG files of the last test, by report and by figure.
    """

    def __init__(self, output_dir: str, moments: int = 5, interval: float = 30.0) -> None:
        self.folder = Path(output_dir)
        self.moments = moments
        self.interval = interval
        self.pictures: dict[str, dict[str, bytes]] = {}
        self._last = -float("inf")
        self._shots: list[Shot] | None = None  # None = this evaluation is not drawn

    # Validation, to TensorBoard.

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        wanted = bool(_boards(trainer)) and time.monotonic() - self._last >= self.interval
        self._shots = [] if wanted and trainer.is_global_zero and not trainer.sanity_checking else None

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._collect(trainer, pl_module, "val", batch, batch_idx, trainer.num_val_batches)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._shots is None:
            return
        drawn = self._figures(pl_module, "val")
        for board in _boards(trainer):
            for name, figure in drawn.items():
                board.add_image(f"val/{name}", picture_of(figure), trainer.global_step, dataformats="HWC")
        self._shots, self._last = None, time.monotonic()

    # Test, to files.

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._shots = [] if trainer.is_global_zero else None

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._collect(trainer, pl_module, "test", batch, batch_idx, trainer.num_test_batches)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._shots is None:
            return
        self.pictures = {}
        for name in getattr(pl_module, "reports", {}) or ("test",):
            folder = self.folder if name == "test" else self.folder / name.replace("/", "_")
            drawn = {label: png(figure) for label, figure in self._figures(pl_module, name).items()}
            for label, data in drawn.items():
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{label}.png").write_bytes(data)
            if drawn:
                self.pictures[name] = drawn
                log.info("figures: %s", ", ".join(str(folder / f"{label}.png") for label in drawn))
        self._shots = None

    # Both.

    def _collect(
        self,
        trainer: pl.Trainer,
        task: Any,
        stage: str,
        batch: Any,
        batch_idx: int,
        batches: list[int | float],
    ) -> None:
        """Keep the moments of a batch that are to be shown."""
        if self._shots is None or not isinstance(batch, Mapping) or not {"pose2d", "pose3d"} <= set(batch):
            return
        total, size = int(batches[0]), len(batch["index"])
        picked = np.unique(np.linspace(0, total * size - 1, self.moments).round().astype(int))
        mine = [int(number) % size for number in picked if number // size == batch_idx]
        mine = [sample for sample in mine if batch["index"][sample] >= 0]
        if not mine:
            return
        windows = trainer.datamodule.windows(stage)  # type: ignore[attr-defined]
        few = {key: value[mine] if isinstance(value, Tensor) else value for key, value in batch.items()}
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            prediction = task.predict(few)
        if prediction.shape != few["pose3d"].shape:
            return
        few = {key: value.cpu() for key, value in few.items() if isinstance(value, Tensor)}
        for sample in range(len(mine)):
            self._shots.append(_shot(few, prediction.float().cpu(), sample, windows, task.spec))

    def _figures(self, task: Any, name: str) -> dict[str, Figure]:
        """Everything to be drawn for a report; the moments stand with the plain one."""
        drawn: dict[str, Figure] = {}
        if self._shots and "/" not in name:
            spec = task.spec
            drawn["skeletons"] = sheet(self._shots, spec.skeleton2d, spec.skeleton)
        report = getattr(task, "reports", {}).get(name)
        if report is not None:
            drawn |= {label: draw() for label, draw in drawings(report).items()}
        return drawn


def drawings(report: Report) -> dict[str, Callable[[], Figure]]:
    """The figures of a report by name: errors as bars, those of a classifier, and the report's own."""
    bars = {f"error_per_{name}": _bars(report, name) for name in ("joint", "action")}
    found = {name: draw for name, draw in bars.items() if draw is not None}
    return {**found, **action_figures(report.arrays), **report.figures}


def _bars(report: Report, table: str) -> Callable[[], Figure] | None:
    """Bars of the first measured column of a report's table."""
    rows = report.tables.get(table, [])
    columns = [key for key, value in rows[0].items() if isinstance(value, float)] if rows else []
    if not columns:
        return None
    values = {str(next(iter(row.values()))): float(row[columns[0]]) for row in rows}
    if report.missing and not np.isfinite(list(values.values())).any():
        return None
    right = [name for name in values if name.startswith("right_")]
    return partial(error_bars, values, title=f"{columns[0].upper()} per {table}", highlight=right)


def _shot(batch: Mapping[str, Tensor], prediction: Tensor, sample: int, windows: Windows, spec: Any) -> Shot:
    """The middle frame of one window, both poses relative to their roots, upright, on the floor."""
    sequences = windows.sequences
    row = int(windows.table[int(batch["index"][sample]), SEQUENCE])
    middle = prediction.shape[1] // 2
    root = spec.skeleton.root
    poses = {"Prediction": prediction[sample, middle].numpy(), "Truth": batch["pose3d"][sample, middle].numpy()}
    poses = {name: pose - pose[root] for name, pose in poses.items()}
    errors = np.linalg.norm(poses["Prediction"] - poses["Truth"], axis=-1)
    table, cameras = sequences.table, sequences.cameras
    azimuth = -70.0  # of a level camera, turned a little to show depth
    if spec.space == "image":
        height = np.ptp(poses["Truth"][:, 1])
        upright = prepare.from_image({name: pose[None] for name, pose in poses.items()})
        poses = {name: pose[0] for name, pose in upright.items()}
        errors = errors * (np.ptp(poses["Truth"][:, 2]) / max(float(height), 1e-6))
    elif "orientation" in cameras and not bool(batch["flip"][sample]):
        orientation = cameras["orientation"][row]
        poses = {name: prepare.turned(pose[None], orientation)[0] for name, pose in poses.items()}
        azimuth = float(cameras["azimuth"][row]) if "azimuth" in cameras else azimuth
    else:
        poses = {name: prepare.turned(pose[None], None)[0] for name, pose in poses.items()}
    floor = float(poses["Truth"][:, 2].min())
    width, high = float(table["width"][row]) or 1000.0, float(table["height"][row]) or 1000.0
    seen = batch["pose2d"][sample, windows.context[0] + middle].numpy()
    return Shot(
        keypoints=prepare.pixels(seen[None], preprocess(spec.preprocess), width, high)[0],
        poses={name: pose - np.array((0.0, 0.0, floor)) for name, pose in poses.items()},
        viewport=(width, high),
        azimuth=azimuth,
        label=f"{sequences.label(row)}: {1000 * errors.mean():.0f} mm",
        errors=errors,
    )


def _boards(trainer: pl.Trainer) -> list[Any]:
    """TensorBoard writers of the run."""
    writers = [getattr(logger, "experiment", None) for logger in trainer.loggers]
    return [writer for writer in writers if hasattr(writer, "add_image")]

"""A small lifter and a task around it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from kinema.composition import quieten_lightning
from kinema.core.skeleton import skeleton
from kinema.core.spec import DataSpec, Signature
from kinema.models.videopose3d import VideoPose3D
from kinema.tasks.lifting import LiftingTask
from tests.data import tiny

BODY = skeleton("h36m17")


class Linear(nn.Module):
    """Predict the middle of three frames, or every single frame, by one matrix."""

    def __init__(self, context: int = 1, trajectory: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        frames = 1 + 2 * context
        self.head = nn.Linear(frames * 34, 51)
        self.signature = Signature(
            output="pose3d",
            in_channels=2,
            joints=17,
            joints_out=17,
            frames=frames,
            frames_rule="exact" if context else "any",
            context=(context, context),
            trajectory=trajectory,
        )

    def forward(self, pose: Tensor) -> Tensor:
        windows = pose.flatten(2).unfold(1, self.signature.frames, 1)  # (B, T', 34, F)
        return self.head(windows.flatten(2)).unflatten(-1, (17, 3))


def network(**changes: Any) -> VideoPose3D:
    """A small VideoPose3D."""
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "num_joints": 17, "num_joints_out": 17, "in_channels": 2, "filter_widths": [3], "channels": 8, "dropout": 0.1,
        "causal": False, "dense": False, "trajectory": False, "root": 0,
    }  # fmt: skip
    return VideoPose3D(**{**options, **changes})


def spec(space: str = "camera") -> DataSpec:
    return DataSpec(
        skeleton=BODY,
        skeleton2d=BODY,
        in_channels=3,
        unit="m" if space == "camera" else "image",
        space=space,
        preprocess="videopose3d",
        fps=50.0,
        has_3d=True,
        tasks=frozenset({"lifting"}),
    )


def task(model: nn.Module | None = None, **changes: Any) -> LiftingTask:
    """A lifting task that knows its skeletons; `changes` are constructor arguments."""
    options: dict[str, Any] = {
        "optimizer": partial(torch.optim.AdamW, lr=1e-2, fused=True), "losses": {"mpjpe": 1.0},
        "target": "root_relative", "flip_average": False, "mask_invalid": True, "chunk": 4096,
        "protocol": "videopose3d", "objective": "val/mpjpe", "objective_mode": "min",
    }  # fmt: skip
    made = LiftingTask(model if model is not None else Linear(), **{**options, **changes})
    made.describe(spec=spec().to_dict(), config={"mode": "train"})
    return made


def trainer(**changes: Any) -> pl.Trainer:
    """A Trainer on the CPU that prints nothing and writes nothing."""
    quieten_lightning()
    options: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False, "max_epochs": 2,
        "enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
    }  # fmt: skip
    return pl.Trainer(**{**options, **changes})


def data(folder: Path, **changes: Any) -> Any:
    """The tiny data set with windows of three frames."""
    return tiny.datamodule(tiny.write(folder / "tiny"), signature=Linear().signature, **changes)

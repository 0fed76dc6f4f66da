"""The published training loops, from stored weights: Lightning, the data layer and the task in their place."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from kinema.callbacks.bn_momentum import BatchNormMomentum
from kinema.composition import build_data, build_task, compose
from kinema.data.windows import Windows
from kinema.protocols.videopose3d import VideoPose3DProtocol
from tests.parity.golden import Case, cases
from tests.parity.test_protocols import check_evaluation, network, peer_of, picks_of, trainer_for

pytestmark = pytest.mark.parity


class Journal(pl.Callback):
    """What the published scripts write down while they train.

    Args:
        evaluates: whether the networks are evaluated after every epoch.
    """

    def __init__(self, evaluates: bool) -> None:
        self.evaluates = evaluates
        self.losses: list[float] = []
        self.epochs: list[dict[str, float]] = []
        self.rate = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer: pl.Trainer, task: Any) -> None:
        self.epochs.append({"epoch": trainer.current_epoch + 1, "lr": self.rate})
        if not self.evaluates:
            return
        windows = Windows.whole(trainer.datamodule.windows("train").sequences, context=task.signature.context)
        protocol = VideoPose3DProtocol(windows)
        task.eval()
        with torch.no_grad():
            for row in range(len(windows)):
                batch = trainer.datamodule.transform(windows[picks_of(windows)[row : row + 1]])
                protocol.update(task.predict(batch, flip_average=False), batch)
        task.train()
        self.epochs[-1] |= {
            "mpjpe_train_eval_mm": protocol.compute().scalars["mpjpe_frames"],
            "mpjpe_valid_mm": task.reports["val"].scalars["mpjpe_frames"],
        }

    def on_train_epoch_start(self, trainer: pl.Trainer, task: Any) -> None:
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]
        if self.epochs:  # the mean over an epoch is logged at its very end
            self.epochs[-1]["mpjpe_train_mm"] = float(trainer.callback_metrics["train/mpjpe_epoch"]) * 1000

    on_train_end = on_train_epoch_start


# Optimiser and schedule of each script, the tolerance its README gives, and what is averaged over flips when.
RECIPES: dict[str, tuple[list[str], float, list[pl.Callback]]] = {
    "PoseFormer": (["task.optimizer.weight_decay=0.1"], 1e-4, []),
    "PoseFormerV2": (["task.optimizer.weight_decay=0.1"], 1e-4, []),
    "VideoPose3D": (
        [
            "task.optimizer._target_=torch.optim.Adam",
            "task.optimizer.weight_decay=0",
            "task.optimizer.amsgrad=true",
            "task.variants={single:{flip_average:false},flip:{flip_average:true}}",
        ],
        1e-3,
        [BatchNormMomentum()],
    ),
}


@cases("poseformer", "train_loop")
def test_train_loop(case: Case) -> None:
    for name, row in case.json("results.json").items():
        train_like(case, name, row)
    case.finish()


def train_like(case: Case, name: str, row: dict[str, Any]) -> None:
    """Train from the stored weights with Lightning, the data layer and the task, as a script did."""
    peer = peer_of(case, row)
    recipe, tolerance, callbacks = RECIPES[row["peer"]]
    options, arrays = peer.options, case.arrays(f"{name}.npz")
    model = network(peer, dropout=0.0, **({"drop_path": 0.0} if row["peer"].startswith("PoseFormer") else {}))
    chunk = options.stride
    schedule = [
        f"dataset.batch_size={options.batch_size // chunk}",
        f"dataset.frames={model.signature.frames + chunk - 1}",
        f"dataset.windows.both_views={str(not options.no_da).lower()}",
        f"task.optimizer.lr={options.lr}",
        f"task.scheduler.gamma={options.gamma}",
        "task.mask_invalid=false",
        "dataset.order=legacy",
        "task.objective=val/mpjpe_frames",
    ]
    config = compose([*peer.overrides(), *schedule, *recipe])
    data, task, journal = build_data(config, model.signature), build_task(config, model), Journal(not options.no_eval)
    validation = {"limit_val_batches": 0} if options.no_eval else {}
    trainer = trainer_for(max_epochs=options.epochs, callbacks=[*callbacks, journal], **validation)
    trainer.fit(task, datamodule=data)
    case.close(f"{name} step_losses_m", np.array(journal.losses), arrays["step_losses_m"], rtol=tolerance)
    with case.check(f"{name} length"):
        assert len(journal.losses) == row["steps_per_epoch"] * len(row["epochs"])
        assert [set(epoch) for epoch in row["epochs"]] == [set(epoch) for epoch in journal.epochs]
    for found, expected in zip(journal.epochs, row["epochs"], strict=True):
        for key, value in expected.items():
            case.close(f"{name} epoch {expected['epoch']} {key}", found[key], value, rtol=tolerance)
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    case.close(f"{name} final lr", rate, row["final_lr_in_checkpoint"], rtol=1e-12)
    state = model.state_dict()
    for key in arrays.names("after_"):
        case.close(f"{name} {key}", state[key.removeprefix("after_")], arrays[key], atol=tolerance)
    trainer.test(task, datamodule=data, verbose=False)
    report = task.reports["test"] if options.no_tta else task.reports.get("test/flip", task.reports["test"])
    check_evaluation(case, f"{name} final", report, dict(row["final_evaluation"]), model, tolerance)

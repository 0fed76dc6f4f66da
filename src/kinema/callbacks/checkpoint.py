"""Checkpoints of a run: `last.ckpt` and `best.ckpt`, also when it is continued in another directory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint without version counters, whose memory of the best survives a move.

    A resumed run writes to a directory of its own. Lightning then forgets the best score so far; here the best file
    is copied over and goes on competing, so that the resumed run selects what the uninterrupted one would have.

    Args:
        options: those of ModelCheckpoint.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(
            enable_version_counter=False, auto_insert_metric_name=False, save_on_train_epoch_end=None, **options
        )
        self._validated = False  # in this process

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether a score is among the best; of equal ones the later stays, whose weights were trained for longer.

        Accuracies on few validation clips reach 100 % early.
        """
        ties = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return ties or super().check_monitor_top_k(trainer, current)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what is best; the last weights too, better or not."""
        self._validated = self._validated or not trainer.sanity_checking
        super().on_validation_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer):
            self._renew_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same, where validation comes at the end of every epoch."""
        # A training resumed at the end of an epoch that was validated before the interruption has no score yet, and
        # Lightning would warn of a metric that nobody logs.
        if self.monitor in (None, *trainer.callback_metrics) or self._validated:
            super().on_train_epoch_end(trainer, pl_module)
        if self._should_save_on_train_epoch_end(trainer):
            self._renew_last(trainer)

    def _renew_last(self, trainer: pl.Trainer) -> None:
        # Lightning renews last.ckpt only beside a new best, and a killed run would go on from there.
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of the run that is continued, with its best file."""
        source = Path(state_dict.get("best_model_path") or "")
        target = Path(str(self.dirpath)) / source.name
        if (
            state_dict.get("dirpath") != self.dirpath
            and source.is_file()
            and state_dict.get("best_model_score") is not None
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_suffix(".copying")
            shutil.copyfile(source, temporary)
            temporary.replace(target)
            # The scores of its validation (RunReport) belong to the best file.
            scores = Path("predictions", "report_val.npz")
            kept, place = source.parent.parent / scores, target.parent.parent / scores
            if kept.is_file():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(kept, place)
            score = torch.as_tensor(state_dict["best_model_score"])
            state_dict = {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": str(target),
                "kth_best_model_path": str(target),
                "kth_value": score,
                "best_k_models": {str(target): score},
                "last_model_path": "",
            }
        super().load_state_dict(state_dict)

"""Exponential moving average of the weights."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class EMA(WeightAveraging):
    """Average the weights over the optimiser steps: average = decay * average + (1 - decay) * weights.

    Lightning's WeightAveraging does the bookkeeping: the averaged weights are those of validation, of the end of
    training and of the checkpoint's `state_dict`; the live ones stand under `current_model_state`, and a resumed run
    goes on with both. All tensors of a type are moved in one foreach operation.

    Args:
        decay: share of the old average that stays at each update.
        every_n_steps: optimiser steps between updates.
        start_step: optimiser steps before averaging begins; until then the average is the live weights.
        use_buffers: average running statistics as well; false takes the live ones.
    """

    def __init__(
        self, decay: float = 0.999, every_n_steps: int = 1, start_step: int = 0, use_buffers: bool = True
    ) -> None:
        super().__init__(use_buffers=use_buffers, multi_avg_fn=self._average)
        self.decay = decay
        self.every_n_steps = every_n_steps
        self.start_step = start_step
        self._stays = decay

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether the optimiser step with this index, counted from 0, is averaged in."""
        if step_idx is None:
            return False
        self._stays = self.decay if step_idx >= self.start_step else 0.0
        return step_idx < self.start_step or (step_idx - self.start_step) % self.every_n_steps == 0

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take both sets of weights over into a resumed training; a test keeps the averaged ones.

        After a fit in the same process Lightning would put the live weights back before the test.
        """
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    @torch.no_grad()
    def _average(self, averaged: list[Tensor], current: list[Tensor], number: Tensor) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - self._stays)
        else:  # counters, such as the batches BatchNorm has seen
            torch._foreach_copy_(averaged, current)

"""Randomness inside layers (dropout, drop path) that does not depend on where a run was interrupted."""

from __future__ import annotations

import hashlib
from typing import Any

import lightning.pytorch as pl
import torch


class LayerRandomness(pl.Callback):
    """Seed torch's generators before every batch from (seed, epoch, batch, rank).

    What belongs to layers uses torch's running generators. Instead of storing their states of every rank in each
    checkpoint, they are set anew before every batch: a resumed run then repeats them by construction, also in the
    middle of an epoch and with another number of loader workers.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # The data's own epoch: Lightning counts one that max_steps has cut short as finished.
        epoch = getattr(getattr(trainer, "datamodule", None), "epoch", trainer.current_epoch)
        text = f"{self.seed}/{epoch}/{batch_idx}/{trainer.global_rank}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        value = int.from_bytes(digest, "little") >> 1
        # Not torch.manual_seed: where CUDA is not in use it formats and keeps three stack traces at every call.
        torch.default_generator.manual_seed(value)
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(value)

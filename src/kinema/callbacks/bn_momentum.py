"""The schedule of VideoPose3D for the momentum of BatchNorm."""

from __future__ import annotations

import math

import lightning.pytorch as pl
from torch import nn

from kinema.errors import ConfigError


class BatchNormMomentum(pl.Callback):
    """Lower the momentum of every BatchNorm exponentially over the epochs.

    In epoch e of E, counted from 0, it is initial * (final / initial)^(e / E); the first epoch has the initial value.
    A function of the epoch alone, so a resumed run goes on exactly.

    Args:
        initial: momentum of the first epoch.
        final: momentum that would be reached after the last epoch.
        epochs: E; null = trainer.max_epochs.

    Source: VideoPose3D, run.py (set_bn_momentum).
    """

    def __init__(self, initial: float = 0.1, final: float = 0.001, epochs: int | None = None) -> None:
        self.initial = initial
        self.final = final
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epochs = self.epochs if self.epochs is not None else trainer.max_epochs
        if epochs is None or epochs <= 0:
            raise ConfigError(
                "The BatchNorm momentum falls over a known number of epochs. Use callbacks.bn_momentum.epochs=80, or "
                "trainer.max_epochs=80."
            )
        momentum = self.initial * math.exp(-trainer.current_epoch / epochs * math.log(self.initial / self.final))
        for module in pl_module.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = momentum

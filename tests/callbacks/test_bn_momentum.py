"""The BatchNorm schedule of VideoPose3D."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from kinema.callbacks.bn_momentum import BatchNormMomentum
from kinema.errors import ConfigError
from tests.tasks.lifters import data, network, task, trainer


def test_batch_norm_momentum_is_a_function_of_the_epoch(tmp_path: Path) -> None:
    seen: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                seen.append(module.model.expand_bn.momentum)

    running = trainer(max_epochs=4, callbacks=[BatchNormMomentum(), Watch()], limit_val_batches=0)
    running.fit(task(network()), datamodule=data(tmp_path))
    assert seen == pytest.approx([0.1 * 100 ** (-epoch / 4) for epoch in range(4)])


def test_batch_norm_momentum_needs_a_number_of_epochs(tmp_path: Path) -> None:
    running = trainer(max_epochs=-1, max_steps=3, callbacks=[BatchNormMomentum()], limit_val_batches=0)
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs=80"):
        running.fit(task(network()), datamodule=data(tmp_path))

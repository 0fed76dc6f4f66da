"""RunCheckpoint: the last weights stay at hand, whether or not they are the best."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kinema.callbacks.checkpoint import RunCheckpoint


class Worse(pl.LightningModule):
    """Its score is best after the first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/score", float(self.current_epoch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_last_weights_are_kept_after_every_validation(tmp_path: Path) -> None:
    keeper = RunCheckpoint(
        dirpath=str(tmp_path), filename="best", monitor="val/score", mode="min", save_top_k=1, save_last=True
    )
    data = DataLoader(TensorDataset(torch.ones(6, 1)), batch_size=2)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, callbacks=[keeper], enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Worse(), data, data)
    steps = {
        name: torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["global_step"] for name in ("best", "last")
    }
    assert steps == {"best": 3, "last": 9}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]

"""mode=test: evaluate a checkpoint by the data set's protocol."""

from __future__ import annotations

from omegaconf import DictConfig

from kinema import composition, runs
from kinema.errors import ConfigError
from kinema.modes.train import build, stopped_at_once


def run(config: DictConfig) -> float | None:
    """Evaluate `ckpt` on the test split; needs no training data.

    Raises:
        ConfigError: without a checkpoint, because numbers of random weights mislead.
    """
    import lightning.pytorch as pl

    with runs.recorded(config):
        if not config.ckpt:
            raise ConfigError("mode=test evaluates a checkpoint, and none is given. Use ckpt=path/to/file.")
        pl.seed_everything(config.seed, workers=True, verbose=False)
        _, data, task = build(config)
        trainer = composition.build_trainer(config)
        runs.offer_journals(config, trainer)
        with stopped_at_once(trainer):
            trainer.test(task, datamodule=data, verbose=False)
        name = config.objective if config.objective.startswith("test/") else f"test/{config.objective.split('/')[-1]}"
        value = trainer.callback_metrics.get(name)
        return None if value is None else float(value)

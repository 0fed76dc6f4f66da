"""mode=train: fit, then test the best checkpoint."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kinema import composition, listing, runs
from kinema.checkpoints.agreement import refuse_other_data, refuse_other_preprocess
from kinema.core.spec import DataSpec
from kinema.errors import ConfigError

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float | None:
    """Train `model` on `dataset` for `task`, test the best checkpoint, and return the objective.

    Returns:
        The objective as a float; +-inf where training diverged, so that a search goes on.
    """
    import lightning.pytorch as pl

    from kinema.checkpoints.transfer import check_fits

    with runs.recorded(config) as run_:
        if config.ckpt:
            raise ConfigError(f"mode=train starts from init={config.ckpt} or resume={config.ckpt}, not from ckpt=.")
        pl.seed_everything(config.seed, workers=True, verbose=False)
        model, data, task = build(config)
        trainer = composition.build_trainer(config)
        resume = runs.checkpoint_to_resume(config)
        runs.offer_journals(config, trainer, resume)
        if resume is not None:
            check_fits(model, resume, dataset=config.dataset.name, sizes=listing.size_of)
            _refuse_other_training(resume, model, data, config)
            run_.status("running", resumed_from=str(resume))
        trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
        measured = dict(trainer.callback_metrics)  # a test empties them
        best = best_checkpoint(trainer)
        if data.has_test() and not config.trainer.fast_dev_run:
            log.info("testing %s", best or "the weights after the last step")
            with stopped_at_once(trainer):
                trainer.test(task, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
        elif config.trainer.fast_dev_run and data.has_test():
            trainer.test(task, datamodule=data, verbose=False)
        value = objective(config, trainer, {**measured, **trainer.callback_metrics})
        run_.status(
            "running",
            objective=value,
            best_checkpoint=best,
            resumed_from=str(resume) if resume else None,
            evaluate=runs.command("mode=test", f"ckpt={best}") if best else None,
        )
        return value


@contextmanager
def stopped_at_once(trainer: Any) -> Iterator[None]:
    """End an evaluation where it is on SIGTERM: Lightning waits for the end of a batch, which may sample for minutes.

    Several ranks wait as before, since one that leaves alone would keep the others waiting.
    """
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: what follows closes files
        raise SIGTERMException

    if trainer.world_size > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_other_training(resume: Path, model: Any, data: Any, config: DictConfig) -> None:
    """Refuse to go on with a training on data of another kind than it began with.

    Raises:
        ConfigError: its last sentence is an override that works.
    """
    from kinema.checkpoints.envelopes import read_weights

    record = read_weights(resume).record or {}
    origin, trained = f"resume={resume}", DataSpec.from_dict(record["spec"]) if record.get("spec") else None
    dataset = composition.plain(config)["dataset"]
    refuse_other_preprocess(origin, trained.preprocess if trained else None, data.spec, dataset["name"])
    before = (record.get("config") or {}).get("dataset") or {}
    classifies = model.signature.classes is not None
    refuse_other_data(origin, trained, before, data.spec, dataset, classifies=classifies)


def build(config: DictConfig) -> tuple[Any, Any, Any]:
    """Model, data and task of a run, checked against each other; logs their sizes."""
    model: Any = composition.build_model(config)
    data = composition.build_data(config, model.signature)
    composition.refuse_unserved(composition.task_name(config), data.spec, config)
    task = composition.build_task(config, model)
    composition.check(task, model.signature, data.spec, config)
    task.describe(spec=data.spec.to_dict(), config=composition.plain(config))
    count = sum(parameter.numel() for parameter in model.parameters())
    log.info("%s: %s parameters, %d frames", type(model).__name__, f"{count:,}", model.signature.frames)
    return model, data, task


def best_checkpoint(trainer: Any) -> str | None:
    """The best checkpoint on disk, else the last one (said so), else None."""
    keeper = trainer.checkpoint_callback
    if keeper is None:
        return None
    if keeper.best_model_path and Path(keeper.best_model_path).is_file():
        return str(keeper.best_model_path)
    if getattr(keeper, "last_model_path", "") and Path(keeper.last_model_path).is_file():
        log.info("no validation was run, so the last checkpoint is taken")
        return str(keeper.last_model_path)
    return None


def objective(config: DictConfig, trainer: Any, metrics: Mapping[str, Any]) -> float | None:
    """The objective of a run for sweepers: the best validation value, or a test value where one is named."""
    name, worst = config.objective, math.inf if config.objective_mode == "min" else -math.inf
    keeper = trainer.checkpoint_callback
    value = None
    if keeper is not None and keeper.monitor == name and keeper.best_model_score is not None:
        value = float(keeper.best_model_score)
    elif name in metrics:
        value = float(metrics[name])
    if value is None:
        return None
    return value if math.isfinite(value) else worst

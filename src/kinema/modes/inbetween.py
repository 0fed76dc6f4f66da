"""mode=inbetween: motions from an observed beginning to a given end pose."""

from __future__ import annotations

from omegaconf import DictConfig

from kinema import runs
from kinema.modes.train import build
from kinema.results import as_trained
from kinema.results.motion_modes import Modes


def run(config: DictConfig) -> None:
    """Write samples that reach the last frames of their own window, or of `motion.target`, with pictures.

    Raises:
        ConfigError: without a checkpoint of task=prediction, or for windows that do not exist.
        DataError: for files that cannot be used.
    """
    with runs.recorded(config) as record:
        config = as_trained.for_prediction(config)
        _, data, task = build(config)
        Modes(config, record.folder, data, task, "inbetween").run()

"""mode=control: motions in which some joints move as given, and the network moves the others."""

from __future__ import annotations

from omegaconf import DictConfig

from kinema import runs
from kinema.modes.train import build
from kinema.results import as_trained
from kinema.results.motion_modes import Modes


def run(config: DictConfig) -> None:
    """Write samples that keep the true future of `motion.parts`, with a picture for each of them.

    Raises:
        ConfigError: without a checkpoint of task=prediction, or for unknown parts and windows.
        DataError: for files that cannot be used.
    """
    with runs.recorded(config) as record:
        config = as_trained.for_prediction(config)
        _, data, task = build(config)
        Modes(config, record.folder, data, task, "control").run()

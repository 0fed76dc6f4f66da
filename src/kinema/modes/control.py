"""mode=control: motions in which some joints move as given, and the network moves the others."""

from __future__ import annotations

from omegaconf import DictConfig

from kinema.modes.train import build
from kinema.results import motion_modes


def run(config: DictConfig) -> None:
    """Write samples that keep the true future of `motion.parts`, with a picture for each of them.

    Raises:
        ConfigError: without a checkpoint of task=prediction, or for unknown parts and windows.
        DataError: for files that cannot be used.
    """
    motion_modes.run(config, "control", build)

"""mode=switch: motions that begin like one window of the test set and end like another."""

from __future__ import annotations

from omegaconf import DictConfig

from kinema.modes.train import build
from kinema.results import motion_modes


def run(config: DictConfig) -> None:
    """Write samples that go over to the end of `motion.target`, with pictures.

    Raises:
        ConfigError: without a checkpoint of task=prediction, or for windows that do not exist.
        DataError: for files that cannot be used.
    """
    motion_modes.run(config, "switch", build)

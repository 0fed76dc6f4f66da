"""mode=inbetween: motions from an observed beginning to a given end pose."""

from __future__ import annotations

from omegaconf import DictConfig

from kinema.modes.train import build
from kinema.results import motion_modes


def run(config: DictConfig) -> None:
    """Write samples that reach the last frames of their own window, or of `motion.target`, with pictures.

    Raises:
        ConfigError: without a checkpoint of task=prediction, or for windows that do not exist.
        DataError: for files that cannot be used.
    """
    motion_modes.run(config, "inbetween", build)

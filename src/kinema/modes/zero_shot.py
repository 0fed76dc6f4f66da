"""mode=zero_shot: predictions for motion that the network was not trained on: another data set, or files."""

from __future__ import annotations

from omegaconf import DictConfig

from kinema.modes.train import build
from kinema.results import motion_modes


def run(config: DictConfig) -> None:
    """Write samples for windows of `input=` or of another data set, beside what really followed.

    Raises:
        ConfigError: without a checkpoint of task=prediction, or for windows that do not exist.
        DataError: for files that cannot be used.
    """
    motion_modes.run(config, "zero_shot", build)

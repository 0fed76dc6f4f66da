"""Refusals at the start of a run that need a checkpoint: its data must write the input as in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from kinema.checkpoints.envelopes import FORMAT_VERSION
from kinema.composition import build_data, build_model, build_task, check, compose, plain
from kinema.errors import ConfigError

RELATIVE = "dataset.transforms=[{relative_input:{scale:4.0}},pose]"


def _checked(config: DictConfig) -> None:
    model = build_model(config)
    data = build_data(config, model.signature)
    check(build_task(config, model), model.signature, data.spec, config)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A checkpoint as a run with root-relative input leaves it."""
    config = compose(["model=videopose3d_small", "model.channels=8", RELATIVE])
    model = build_model(config)
    arguments: dict[str, Any] = {key: value for key, value in plain(config)["model"].items() if key != "_target_"}
    record = {"version": FORMAT_VERSION, "model": "videopose3d", "args": arguments, "task": "lifting",
              "spec": build_data(config, model.signature).spec.to_dict(), "config": plain(config)}  # fmt: skip
    path = tmp_path / "best.ckpt"
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "kinema": record, "pytorch-lightning_version": "2.6.0"}, path)
    return path


def test_data_that_writes_the_input_otherwise_is_refused_with_the_override(trained: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        _checked(compose([f"ckpt={trained}", "mode=test"]))
    remedy = str(refusal.value).rsplit("'", 2)[1]
    assert remedy == RELATIVE
    _checked(compose([f"ckpt={trained}", "mode=test", remedy]))


def test_other_noise_is_allowed(trained: Path) -> None:
    noisy = "dataset.transforms=[{noise:{std:0.01}},{relative_input:{scale:4.0}},pose]"
    _checked(compose([f"ckpt={trained}", "mode=test", noisy]))

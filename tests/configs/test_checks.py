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


def test_a_loss_without_weights_for_the_joints_is_refused_before_the_first_batch() -> None:
    words = ["experiment=dbmambapose/mpi_inf_3dhp_xs", "task.losses.tcl=0.5"]
    with pytest.raises(ConfigError, match="mpi_inf_3dhp17") as refusal:
        _checked(compose(words))
    remedy = str(refusal.value).rsplit("Use ", 1)[1].rstrip(".")
    assert remedy == "task.losses.tcl=0"
    _checked(compose([*words, remedy]))


COCO_TO_HUMANEVA = ["dataset=humaneva15", "dataset.skeleton2d=coco17", "dataset.num_joints=17"]


@pytest.mark.parametrize("model", ["videopose3d", "poseformer"])
def test_coco_keypoints_give_the_fifteen_joints_of_humaneva(model: str) -> None:
    config = compose([*COCO_TO_HUMANEVA, f"model={model}"])
    signature = build_model(config).signature
    assert (signature.joints, signature.joints_out) == (17, 15)
    _checked(config)
    _checked(compose(["dataset=humaneva15", f"model={model}"]))


@pytest.mark.parametrize("model", ["dstformer_tiny", "motionagformer_xs"])
def test_networks_that_keep_their_joints_say_so(model: str) -> None:
    message = r"17 output joints but dataset=humaneva15 has 15\. It gives as many joints as it takes\..*videopose3d"
    with pytest.raises(ConfigError, match=message):
        _checked(compose([*COCO_TO_HUMANEVA, f"model={model}"]))
    _checked(compose([*COCO_TO_HUMANEVA, "model=videopose3d"]))


def test_keypoints_of_another_order_than_in_training_are_refused(trained: Path) -> None:
    words = [f"ckpt={trained}", "mode=predict", "dataset=custom", RELATIVE]
    _checked(compose(words))
    with pytest.raises(ConfigError, match=r"trained on h36m17 keypoints.*Use dataset.skeleton2d=h36m17"):
        _checked(compose([*words, "dataset.skeleton2d=coco17"]))


def test_a_noise_predictor_has_the_features_of_the_skeleton_without_its_root() -> None:
    words = ["task=prediction", "model=smrnet_tiny", "dataset=cmu_motion"]
    _checked(compose(words))
    with pytest.raises(ConfigError, match=r"51 features.*dataset=cmu_motion has 48\. Use model\.num_features=48"):
        _checked(compose([*words, "model.num_features=51"]))


def test_networks_of_another_output_are_refused_with_one_that_fits() -> None:
    with pytest.raises(ConfigError, match=r"gives pose3d\. Use model=smrnet_tiny"):
        _checked(compose(["task=prediction", "model=dstformer_tiny", "dataset=cmu_motion"]))

"""Where the weights of a file are: one layout per file, names as the model uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.checkpoints.envelopes import ENVELOPES, read_weights
from kinema.errors import CheckpointError
from tests.checkpoints import tiny

STATE = {"stem.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.tensor([7.0])}
MARKED = tiny.prefixed(STATE, "module.")
RECORD = {"version": 1, "model": "linear", "args": {}, "task": None, "spec": None, "config": None}

LAYOUTS: dict[str, tuple[dict[str, Any], str, str | None, set[str]]] = {
    # name: content, envelope, preprocess, what else is kept
    "motionbert training": (
        {"epoch": 2, "lr": 0.1, "optimizer": {}, "model_pos": MARKED, "min_loss": np.float64(3)},
        "motionbert",
        "motionbert",
        {"epoch", "lr", "optimizer", "min_loss"},
    ),
    "motionbert released": ({"model_pos": MARKED}, "model_pos", None, set()),
    "motionagformer training": (
        {"epoch": 2, "lr": 0.1, "optimizer": {}, "model": MARKED, "min_mpjpe": np.float64(41.25), "wandb_id": "x0"},
        "motionagformer",
        "motionbert",
        {"epoch", "lr", "optimizer", "min_mpjpe", "wandb_id"},
    ),
    "motionagformer without data parallel or wandb": (
        {"epoch": 2, "lr": 0.1, "optimizer": None, "model": STATE, "min_mpjpe": 41.25},
        "motionagformer",
        "motionbert",
        {"epoch", "lr", "optimizer", "min_mpjpe"},
    ),
    "motionbert action": (
        {"epoch": 2, "lr": [0.1, 1.0], "model": MARKED, "best_acc": torch.tensor(41.5)},
        "model",
        None,
        {"epoch", "lr", "best_acc"},
    ),
    "poseformer on a GPU": (
        {"epoch": 2, "lr": 0.1, "random_state": np.random.RandomState(0), "optimizer": None, "model_pos": MARKED},
        "poseformer",
        "videopose3d",
        {"epoch", "lr", "random_state", "optimizer"},
    ),
    "poseformer on a CPU": (
        {"random_state": np.random.RandomState(0), "model_pos": STATE},
        "poseformer",
        "videopose3d",
        {"random_state"},
    ),
    "videopose3d": (
        {"random_state": np.random.RandomState(0), "model_pos": STATE, "model_traj": None, "random_state_semi": None},
        "videopose3d",
        "videopose3d",
        {"random_state", "random_state_semi"},
    ),
    "state_dict": ({"meta": {"epoch": 3}, "state_dict": STATE}, "state_dict", None, {"meta"}),
    "bare": (STATE, "bare", None, set()),
    "bare, data parallel": (MARKED, "bare", None, set()),
    "bare, compiled": (tiny.prefixed(STATE, "_orig_mod."), "bare", None, set()),
    "bare, compiled in data parallel": (tiny.prefixed(STATE, "module._orig_mod."), "bare", None, set()),
    "kinema": ({"state_dict": tiny.prefixed(STATE, "model."), "kinema": RECORD}, "kinema", None, set()),
    "kinema, compiled": (
        {"state_dict": tiny.prefixed(STATE, "model._orig_mod."), "kinema": RECORD, "epoch": 1},
        "kinema",
        None,
        {"epoch"},
    ),
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_names_of_the_model(name: str, old: bool, tmp_path: Path) -> None:
    content, envelope, preprocess, rest = LAYOUTS[name]
    found = read_weights(tiny.save(content, tmp_path / "x.bin", old))
    assert {key: tensor.tolist() for key, tensor in found.state.items()} == {k: v.tolist() for k, v in STATE.items()}
    assert found.envelope == envelope
    assert found.preprocess == preprocess
    assert set(found.rest) == rest
    assert found.kind == "only"
    assert found.shapes == {"stem.weight": (2, 3), "head.bias": (1,)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_exactly_one_envelope_answers(name: str) -> None:
    assert len([envelope for envelope in ENVELOPES if envelope.matches(LAYOUTS[name][0])]) == 1


def test_a_second_network_stands_under_its_prefix(tmp_path: Path) -> None:
    path = tiny.save({"model_pos": STATE, "model_traj": {"head.bias": torch.zeros(1)}}, tmp_path / "x.bin")
    assert set(read_weights(path).state) == {*STATE, "trajectory.head.bias"}
    assert set(read_weights(path, part="model_pos").state) == set(STATE)
    assert set(read_weights(path, part="model_traj").state) == {"head.bias"}
    assert set(read_weights(path, part="trajectory").state) == {"head.bias"}


def test_a_part_is_taken_by_the_first_word_of_its_names(tmp_path: Path) -> None:
    path = tiny.save({"model": MARKED}, tmp_path / "x.bin")
    assert set(read_weights(path, part="stem").state) == {"weight"}
    with pytest.raises(CheckpointError, match=r"has no part 'backbone'\. It has model, head, stem\."):
        read_weights(path, part="backbone")


def test_averaged_weights_are_taken_unless_live_ones_are_asked_for(tmp_path: Path) -> None:
    averaged, live = tiny.prefixed(STATE, "model."), tiny.prefixed(STATE, "model.")
    live["model.head.bias"] = torch.tensor([-1.0])
    path = tiny.save({"state_dict": averaged, "current_model_state": live, "kinema": RECORD}, tmp_path / "x.ckpt")
    found = read_weights(path)
    assert (found.kind, found.state["head.bias"].item()) == ("averaged", 7.0)
    found = read_weights(path, weights="live")
    assert (found.kind, found.state["head.bias"].item()) == ("live", -1.0)
    with pytest.raises(CheckpointError, match="weights='ema' is unknown"):
        read_weights(path, weights="ema")


def test_two_readings_are_refused(tmp_path: Path) -> None:
    path = tiny.save({"model": STATE, "state_dict": STATE}, tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match=r"can be read in 2 ways \(model, state_dict\)"):
        read_weights(path)


@pytest.mark.parametrize("content", [{}, {"weights": STATE}, {"model": "resnet"}, {"state_dict": {}}])
def test_an_unknown_layout_lists_the_known_ones(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint of a known layout.*Known layouts: kinema, .*bare\."):
        read_weights(tiny.save(content, tmp_path / "x.bin"))


def test_a_file_of_a_newer_kinema_is_refused(tmp_path: Path) -> None:
    path = tiny.save({"state_dict": STATE, "kinema": {**RECORD, "version": 2}}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"written by a newer Kinema \(format 2"):
        read_weights(path)
    with pytest.raises(CheckpointError, match="lacks version, model or args"):
        read_weights(tiny.save({"state_dict": STATE, "kinema": {"model": "x"}}, path))


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = tiny.save(STATE, tmp_path / "x.pt")
    assert read_weights(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

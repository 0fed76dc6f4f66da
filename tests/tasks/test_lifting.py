"""LiftingTask as a function: losses, targets, masks, margins, prediction, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.core import losses as core_losses
from kinema.core.align import first_frame_depth, root_relative
from kinema.core.skeleton import skeleton
from kinema.data.windows import Windows
from kinema.errors import ConfigError, DataError
from kinema.inference.flip import flip_average, mirror_pose
from kinema.protocols.motionbert import MotionBERTProtocol
from kinema.tasks.lifting import has_gaps
from tests.data import tiny
from tests.tasks.lifters import BODY, Linear, spec, task


def batch(frames: int = 6, context: int = 0, rows: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "pose": torch.randn(rows, frames + 2 * context, 17, 2, generator=generator),
        "pose3d": torch.randn(rows, frames, 17, 3, generator=generator) * 0.3,
        "valid": torch.ones(rows, frames, dtype=torch.bool),
        "index": torch.arange(rows),
    }


EVERY = dict.fromkeys(core_losses.LOSSES, 1.0)


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    given = batch()
    weights = {name: 0.5 + number for number, name in enumerate(EVERY)}
    made = task(Linear(0), losses=weights)
    terms = made.loss(given)
    pred, target = made.model(given["pose"]), root_relative(given["pose3d"], BODY)
    assert list(terms) == ["loss", *EVERY]
    for name in EVERY:
        torch.testing.assert_close(terms[name], core_losses.LOSSES[name](pred, target, BODY))
    torch.testing.assert_close(terms["loss"], sum(weights[name] * terms[name] for name in EVERY))


def test_terms_of_weight_zero_are_not_computed() -> None:
    assert list(task(losses={"mpjpe": 1.0, "velocity": 0.0}).loss(batch(1, 1))) == ["loss", "mpjpe"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("root_relative", lambda pose: root_relative(pose, BODY)),
        ("first_frame_depth", lambda pose: first_frame_depth(pose, BODY)),
        ("absolute", lambda pose: pose),
    ],
)
def test_the_target_decides_what_is_learnt(target: str, expected: Any) -> None:
    given = batch()
    made = task(Linear(0), target=target)
    found = made.loss(given)["mpjpe"]
    wanted = (made.model(given["pose"]) - expected(given["pose3d"])).norm(dim=-1).mean()
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["mpjpe", "n_mpjpe", "joint_l1", "limb_length", "angle", "velocity"])
def test_masked_frames_leave_no_trace(name: str) -> None:
    given = batch(6)
    made = task(Linear(0), losses={name: 1.0})
    shorter = {key: value[:, :4] if value.ndim > 1 else value for key, value in given.items()}
    expected = made.loss(shorter)["loss"]
    expected.backward()
    wanted = made.model.head.weight.grad.clone()
    made.zero_grad()
    given["valid"][:, 4:] = False
    given["pose3d"][:, 4:] = torch.nan
    found = made.loss(given)["loss"]
    found.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(made.model.head.weight.grad, wanted)


def test_edges_count_where_masking_is_off() -> None:
    given = batch(6)
    given["valid"][:, 4:] = False
    plain = {key: value for key, value in given.items() if key != "valid"}
    unmasked = task(Linear(0), mask_invalid=False)
    torch.testing.assert_close(unmasked.loss(given)["loss"], unmasked.loss(plain)["loss"], rtol=0, atol=0)
    assert task(Linear(0)).loss(given)["loss"] != unmasked.loss(given)["loss"]


def test_a_frame_with_a_missing_joint_does_not_count() -> None:
    given = batch(6)
    given["valid"][:, 3] = False
    expected = task(Linear(0)).loss(given)["loss"]
    given["valid"] = torch.ones(4, 6, 17, dtype=torch.bool)
    given["valid"][:, 3, 5] = False
    torch.testing.assert_close(task(Linear(0)).loss(given)["loss"], expected, rtol=0, atol=0)


def test_only_windows_that_leave_their_sequence_have_gaps() -> None:
    store = tiny.store()
    assert not has_gaps(Windows.chunked(store, 1, context=(4, 4)))
    assert has_gaps(Windows.chunked(store, 3, context=(0, 0)))
    assert not has_gaps(Windows.whole(store))
    assert has_gaps(Windows.tiled(store, 10, 5))
    assert not has_gaps(Windows.tiled(store, 5, 5))


def test_supervision_by_2d_weights_with_the_score() -> None:
    given = batch()
    given["pose2d"] = torch.cat([given["pose"], torch.rand(4, 6, 17, 1)], dim=-1)
    del given["pose3d"]
    made = task(Linear(0), losses={"joint_2d": 2.0})
    found = made.loss(given)
    places = given["pose"] - given["pose"][:, :, :1]
    error = ((made.model(given["pose"])[..., :2] - places) * given["pose2d"][..., 2:]).norm(dim=-1).mean()
    torch.testing.assert_close(found["joint_2d"], error)
    torch.testing.assert_close(found["loss"], 2 * error)


def test_half_precision_predictions_are_measured_in_float32() -> None:
    given = batch()
    made = task(Linear(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made.loss(given)["loss"].dtype == torch.float32
        assert made.predict(given).dtype == torch.float32


def test_outputs_in_the_margin_of_wider_windows_are_cut() -> None:
    made = task(Linear(1))
    given = batch(frames=6, context=3)
    made._context["train"] = (3, 3)
    inner = {**given, "pose": given["pose"][:, 2:-2]}
    found = made.predict(given)
    made._context["train"] = (1, 1)
    torch.testing.assert_close(found, made.predict(inner))
    assert found.shape == (4, 6, 17, 3)


def test_flip_averaging_can_be_chosen_per_call() -> None:
    given = batch(1, 1)
    made = task(flip_average=True)
    expected = flip_average(made.model, given["pose"], BODY, BODY)
    torch.testing.assert_close(made.predict(given), expected)
    torch.testing.assert_close(made.predict(given, flip_average=False), made.model(given["pose"]))
    mirrored = {"pose": mirror_pose(given["pose"], BODY)}
    torch.testing.assert_close(made.predict(mirrored), mirror_pose(expected, BODY))


def test_the_path_of_the_root_is_added_for_absolute_targets() -> None:
    given = batch()
    made = task(Linear(0, trajectory=True), target="absolute")
    out = made.model(given["pose"])
    found = made.predict(given)
    torch.testing.assert_close(found[:, :, 0], out[:, :, 0])
    torch.testing.assert_close(found[:, :, 1:], out[:, :, 1:] + out[:, :, :1])


def test_a_target_of_other_joints_is_named() -> None:
    given = batch()
    given["pose3d"] = given["pose3d"][:, :, :15]
    with pytest.raises((DataError, ValueError), match="prediction has shape"):
        task(Linear(0)).loss(given)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"losses": {"mpjep": 1.0}}, "Did you mean 'mpjpe'"),
        ({"losses": {"mpjpe": 0.0}}, "task.losses.mpjpe=1"),
        ({"target": "root"}, "root_relative"),
        ({"protocol": "motionbart"}, "Did you mean 'motionbert'"),
        ({"protocol_options": {"videopose": {}}}, "Did you mean 'videopose3d'"),
    ],
)
def test_unknown_choices_get_the_nearest_known_one(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        task(**changes)


def test_a_protocol_of_another_space_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.protocol=motionbert"):
        task().check(Linear().signature, spec("image"))
    with pytest.raises(ConfigError, match=r"task\.losses\.joint_2d=0"):
        task(losses={"joint_2d": 1.0}).check(Linear().signature, spec("camera"))
    task(protocol="motionbert").check(Linear().signature, spec("image"))


def test_a_loss_that_the_skeleton_cannot_serve_is_refused() -> None:
    made = task(losses={"mpjpe": 1.0, "tcl": 0.5})
    made.check(Linear().signature, spec())
    other = replace(spec(), skeleton=skeleton("mpi_inf_3dhp17"))
    with pytest.raises(ConfigError, match=r"tcl cannot be trained .* mpi_inf_3dhp17.* Use task\.losses\.tcl=0\."):
        made.check(Linear().signature, other)
    task().check(Linear().signature, other)
    made.check(Linear().signature, replace(other, has_3d=False))  # nothing is trained there


def test_the_protocol_follows_the_target_unless_told() -> None:
    windows = Windows.whole(tiny.store())
    for target, root in (("root_relative", "kept"), ("absolute", "subtracted"), ("first_frame_depth", "subtracted")):
        assert task(target=target).protocols(windows)["videopose3d"].root == root
    told = task(target="absolute", protocol_options={"videopose3d": {"root": "global", "groups": None}})
    assert told.protocols(windows)["videopose3d"].root == "global"
    with pytest.raises(ConfigError, match="by_sbject"):
        task(protocol_options={"videopose3d": {"by_sbject": True}}).protocols(windows)


def test_the_scalars_are_those_of_the_protocol() -> None:
    assert task(protocol="motionbert").scalars() == MotionBERTProtocol.scalars
    assert {"mpjpe", "p_mpjpe", "mpjpe_frames"} <= set(task().scalars())


def test_gradients_of_a_fully_masked_batch_are_finite() -> None:
    given = batch()
    given["valid"][:] = False
    made = task(Linear(0), losses=EVERY)
    made.loss(given)["loss"].backward()
    assert np.isfinite(made.model.head.weight.grad.numpy()).all()

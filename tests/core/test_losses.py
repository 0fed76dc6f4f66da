"""Losses: slow oracles, safe gradients, any skeleton."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinema.core import losses
from kinema.core.skeleton import Skeleton, skeleton
from kinema.errors import ConfigError
from tests.core.poses import poses, seeds

few = settings(max_examples=20, deadline=None)
BODY = skeleton("h36m17")
CHAIN21 = Skeleton.from_parents([-1, *range(20)])
POINT, BONE = Skeleton.from_parents([-1]), Skeleton.from_parents([-1, 0])
BODIES = [BODY, skeleton("humaneva15"), CHAIN21, POINT, BONE]
MOVING = [body for body in BODIES if len(body) > 2]


def pair(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(poses(seed, *shape, 3)), torch.from_numpy(poses(seed + 1, *shape, 3))


def slow_limbs(pose: np.ndarray, body: Skeleton) -> np.ndarray:
    return np.array([[pose[t, a] - pose[t, b] for a, b in losses.limbs(body)] for t in range(len(pose))])


def slow_angles(pose: np.ndarray, body: Skeleton) -> np.ndarray:
    vectors = slow_limbs(pose, body)
    return np.array(
        [
            [
                math.acos(v[i] @ v[j] / (np.linalg.norm(v[i]) * np.linalg.norm(v[j])))
                for i, j in losses.angle_pairs(body)
            ]
            for v in vectors
        ]
    )


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.name)
def test_every_loss_works_for_every_skeleton_and_is_zero_only_off_the_target(body: Skeleton) -> None:
    pred, target = pair(0, 2, 5, len(body))
    for name, loss in losses.LOSSES.items():
        if name in losses.NEEDS and not losses.NEEDS[name].of(body):
            continue
        value = loss(pred, target, body)
        assert value.shape == ()
        assert value > 0.01, name
        if name not in ("limb_variance", "tcl"):
            assert loss(target, target, body) == pytest.approx(0, abs=1e-9), name


@pytest.mark.parametrize(
    ("body", "lacking"),
    [
        (BODY, ""),
        (skeleton("humaneva15"), "weighted_mpjpe tcl"),
        (skeleton("mpi_inf_3dhp17"), "weighted_mpjpe tcl"),
        (BONE, "angle angle_velocity weighted_mpjpe tcl"),
        (POINT, "limb_variance limb_length angle angle_velocity weighted_mpjpe tcl limb_length_squared limb_ratio"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_a_skeleton_cannot_serve_is_refused(body: Skeleton, lacking: str) -> None:
    pred, target = pair(0, 2, 5, len(body))
    refused = []
    for name, loss in losses.LOSSES.items():
        try:
            losses.refuse_unserved([name, "joint_2d"], body)
        except ConfigError as error:
            assert f"task.losses.{name}=0" in str(error)
            refused.append(name)
        else:
            assert loss(pred, target, body).isfinite(), name
    assert refused == lacking.split()


def test_refused_losses_are_named_with_what_is_missing() -> None:
    body = skeleton("mpi_inf_3dhp17")
    sentence = (
        r"tcl and weighted_mpjpe cannot be trained with the skeleton mpi_inf_3dhp17, which has no published joint "
        r"weights \(such as h36m17 has\)\. Use task\.losses\.tcl=0 task\.losses\.weighted_mpjpe=0\."
    )
    with pytest.raises(ConfigError, match=sentence):
        losses.refuse_unserved(["mpjpe", "tcl", "weighted_mpjpe"], body)
    with pytest.raises(ConfigError, match="mpi_inf_3dhp17, which has no published joint weights"):
        losses.tcl(*pair(0, 1, 2, 17), body)


@few
@given(seeds, st.sampled_from(MOVING))
def test_limb_and_angle_losses_equal_plain_loops(seed: int, body: Skeleton) -> None:
    pred, target = pair(seed, 1, 4, len(body))
    p, t = pred[0].numpy(), target[0].numpy()
    lengths = np.linalg.norm(slow_limbs(p, body), axis=-1)
    wanted = np.linalg.norm(slow_limbs(t, body), axis=-1)
    np.testing.assert_allclose(losses.limb_length(pred, target, body), np.abs(lengths - wanted).mean())
    np.testing.assert_allclose(losses.limb_variance(pred, target, body), lengths.var(axis=0, ddof=1).mean())
    angles, wanted = slow_angles(p, body), slow_angles(t, body)
    # Angles are cut 4e-4 before 0 and pi.
    np.testing.assert_allclose(losses.angle(pred, target, body), np.abs(angles - wanted).mean(), atol=1e-5)
    turns = np.abs(np.diff(angles, axis=0) - np.diff(wanted, axis=0)).mean()
    np.testing.assert_allclose(losses.angle_velocity(pred, target, body), turns, atol=1e-5)


def test_limbs_of_the_table_are_the_bones() -> None:
    assert set(losses.limbs(BODY)) == {(parent, child) for child, parent in BODY.bones}


def test_pairs_of_a_chain_are_neighbouring_limbs() -> None:
    assert losses.angle_pairs(CHAIN21) == tuple((i, i + 1) for i in range(19))


def test_right_angle() -> None:
    elbow = Skeleton.from_parents([-1, 0, 1])
    pose = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0]])
    torch.testing.assert_close(losses.limb_angles(pose, elbow), torch.tensor([math.pi / 2]))


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda target: target.clone(), id="prediction equals target"),
        pytest.param(torch.zeros_like, id="prediction collapsed"),
        pytest.param(lambda target: torch.arange(17.0)[:, None] * torch.ones_like(target), id="straight limbs"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_hard_places(prepare: object, frames: int, dtype: torch.dtype) -> None:
    target = pair(0, 2, frames, 17)[1].to(dtype)
    for name, loss in losses.LOSSES.items():
        pred = prepare(target).to(dtype).requires_grad_()  # type: ignore[operator]
        loss(pred, target, BODY).backward()
        assert pred.grad is not None
        assert pred.grad.isfinite().all(), name


def test_losses_of_motion_are_zero_for_one_frame() -> None:
    pred, target = pair(0, 2, 1, 17)
    for name in ("velocity", "limb_variance", "angle_velocity", "tcl"):
        assert losses.LOSSES[name](pred, target, BODY) == 0, name


def test_training_works_after_the_first_call_was_in_inference_mode() -> None:
    body = Skeleton.from_parents([-1, 0, 1, 1])  # not used by another test, so that nothing is cached yet
    with torch.inference_mode():
        losses.limb_angles(torch.rand(2, 4, 3), body)
    pred = torch.rand(2, 4, 3, requires_grad=True)
    losses.limb_angles(pred, body).sum().backward()
    assert pred.grad is not None


def test_weights_scale_each_joint() -> None:
    pred, target = pair(0, 2, 5, 17)
    weight = torch.zeros(2, 5, 17, dtype=torch.float64)
    weight[1, 2, 3] = 2
    expected = 2 * (pred - target)[1, 2, 3].norm() / weight.numel()
    torch.testing.assert_close(losses.weighted_mpjpe(pred, target, weight), expected)
    planar = 2 * (pred - target)[1, 2, 3, :2].norm() / weight.numel()
    torch.testing.assert_close(losses.joint_2d(pred, target, weight[..., None]), planar)


def test_published_weights_are_those_of_the_table() -> None:
    pred, target = pair(0, 2, 5, 17)
    one = target.clone()
    one[..., 13, 1] += 0.5  # the left wrist, weight 4
    assert losses.LOSSES["weighted_mpjpe"](one, target, BODY) == pytest.approx(4 * 0.5 / 17)
    still = target[:, :1].expand(-1, 3, -1, -1).clone()
    still[:, 2, 3, 0] += 0.5  # one step of the right ankle, weight 2.5
    assert losses.LOSSES["tcl"](still, pred, BODY) == pytest.approx(2.5 * 0.25 / (2 * 17 * 3))


def test_bone_losses_equal_plain_loops() -> None:
    pred, target = pair(3, 1, 4, 17)
    lengths = np.linalg.norm(slow_limbs(pred[0].numpy(), BODY), axis=-1)
    wanted = np.linalg.norm(slow_limbs(target[0].numpy(), BODY), axis=-1)
    squared = losses.LOSSES["limb_length_squared"](pred, target, BODY)
    np.testing.assert_allclose(squared, ((lengths - wanted) ** 2).mean())
    ratio = losses.LOSSES["limb_ratio"](pred, target, BODY)
    np.testing.assert_allclose(ratio, ((lengths / wanted - 1) ** 2).mean())


def test_limbs_without_length_in_the_target_have_no_ratio() -> None:
    pred = torch.rand(1, 2, 17, 3, requires_grad=True)
    value = losses.limb_ratio(pred, torch.zeros(1, 2, 17, 3), BODY)
    value.backward()
    assert value == 0
    assert pred.grad is not None
    assert pred.grad.isfinite().all()


def slow_supcon(features: np.ndarray, labels: np.ndarray, temperature: float, base: float, anchors: int) -> float:
    """Sum over anchors with positives, one exponential at a time."""
    samples, views, _ = features.shape
    rows = [features[b, v] for v in range(views) for b in range(samples)]
    names = [labels[b] for _ in range(views) for b in range(samples)]
    total = []
    for i in range(anchors):
        partition = sum(math.exp(rows[i] @ rows[k] / temperature) for k in range(len(rows)) if k != i)
        positives = [p for p in range(len(rows)) if p != i and names[p] == names[i]]
        logs = [rows[i] @ rows[p] / temperature - math.log(partition) for p in positives]
        if logs:
            total.append(-temperature / base * np.mean(logs))
    return float(np.mean(total)) if total else 0.0


@few
@given(seeds, st.integers(2, 6), st.integers(1, 3), st.sampled_from([0.07, 0.1, 1.0]))
def test_supcon_equals_plain_loops(seed: int, samples: int, views: int, temperature: float) -> None:
    features = poses(seed, samples, views, 5)
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    labels = np.random.default_rng(seed).integers(0, 3, samples)
    for anchors, count in (("all", samples * views), ("one", samples)):
        found = losses.supcon(
            torch.from_numpy(features), torch.from_numpy(labels), temperature=temperature, anchors=anchors
        )
        expected = slow_supcon(features, labels, temperature, 0.07, count)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    found = losses.supcon(torch.from_numpy(features), temperature=temperature)
    expected = slow_supcon(features, np.arange(samples), temperature, 0.07, samples * views)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_supcon_of_a_lonely_sample_is_zero_with_finite_gradient() -> None:
    features = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    value = losses.supcon(features, torch.tensor([3]))
    value.backward()
    assert value == 0
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_supcon_leaves_anchors_without_positives_out_and_the_published_form_is_spoilt_by_them() -> None:
    features = torch.nn.functional.normalize(torch.from_numpy(poses(4, 5, 1, 6)), dim=-1)
    labels = torch.tensor([1, 1, 2, 2, 3])
    assert losses.supcon(features, labels, published=True).isnan()
    per_anchor = slow_anchors(features.numpy()[:, 0], labels.tolist(), 0.07)
    expected = np.mean([value for value in per_anchor if value is not None])
    np.testing.assert_allclose(losses.supcon(features, labels), expected, rtol=1e-9)
    paired = labels[:4]
    published = losses.supcon(features[:4], paired, published=True)
    torch.testing.assert_close(published, losses.supcon(features[:4], paired))


def slow_anchors(features: np.ndarray, labels: list[int], temperature: float) -> list[float | None]:
    found: list[float | None] = []
    for i, anchor in enumerate(features):
        others = [k for k in range(len(features)) if k != i]
        below = np.log(sum(np.exp(anchor @ features[k] / temperature) for k in others))
        terms = [anchor @ features[k] / temperature - below for k in others if labels[k] == labels[i]]
        found.append(-float(np.mean(terms)) if terms else None)
    return found


def test_supcon_of_a_mask_is_that_of_the_labels_it_stands_for() -> None:
    features = torch.nn.functional.normalize(torch.from_numpy(poses(5, 6, 2, 4)), dim=-1)
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    mask = (labels[:, None] == labels).float()
    torch.testing.assert_close(losses.supcon(features, mask=mask), losses.supcon(features, labels))
    # Rows are anchors: only the first sample has a positive beside its own view.
    one_way = torch.eye(6)
    one_way[0, 2] = 1
    expected = losses.supcon(features, mask=one_way)
    assert not torch.allclose(expected, losses.supcon(features, mask=one_way.T))
    with pytest.raises(ValueError, match="labels or a mask, not both"):
        losses.supcon(features, labels, mask=mask)


def test_supcon_refuses_unknown_anchors() -> None:
    with pytest.raises(ValueError, match="anchors='two'"):
        losses.supcon(torch.ones(2, 1, 3), anchors="two")

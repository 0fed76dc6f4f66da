"""Losses of classifiers against loops over samples and classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kinema.core.class_losses import (
    class_balanced_weights,
    cross_entropy,
    focal,
    group_log_probs,
    group_target,
    logit_adjusted,
)
from tests.core.poses import poses, seeds

few = settings(max_examples=30, deadline=None)
shares = st.sampled_from([0.0, 0.1])
GROUPS = (0, 0, 1, 2, 1, 0)
CLASSES = len(GROUPS)


def drawn(seed: int, samples: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, ids and mixed targets."""
    generator = np.random.default_rng(seed)
    logits = torch.from_numpy(3 * poses(seed, samples, CLASSES))
    mixed = torch.from_numpy(generator.dirichlet(np.ones(CLASSES), samples))
    return logits, torch.from_numpy(generator.integers(0, CLASSES, samples)), mixed


def slow(
    logits: torch.Tensor, target: torch.Tensor, gamma: float, smoothing: float, weight: np.ndarray | None
) -> float:
    total = below = 0.0
    for row, wanted in zip(logits.tolist(), target.tolist(), strict=True):
        whole = sum(math.exp(value) for value in row)
        for k, value in enumerate(row):
            prob = math.exp(value) / whole
            share = wanted[k] if isinstance(wanted, list) else float(k == wanted)
            share = (1 - smoothing) * share + smoothing / CLASSES
            share *= 1 if weight is None else weight[k]
            total -= share * (1 - prob) ** gamma * math.log(prob)
            below += share
    return total / below


@few
@given(seeds, shares, st.booleans(), st.booleans(), st.sampled_from([0.0, 1.0, 2.0]))
def test_losses_equal_plain_loops(seed: int, smoothing: float, weighted: bool, soft: bool, gamma: float) -> None:
    logits, ids, mixed = drawn(seed)
    target = mixed if soft else ids
    weight = np.random.default_rng(seed).uniform(0.2, 3, CLASSES) if weighted else None
    options = {"label_smoothing": smoothing, "weight": None if weight is None else torch.from_numpy(weight)}
    focused = focal(logits, target, gamma=gamma, **options)
    np.testing.assert_allclose(focused, slow(logits, target, gamma, smoothing, weight), rtol=1e-9)
    plain = cross_entropy(logits, target, **options)
    np.testing.assert_allclose(plain, slow(logits, target, 0, smoothing, weight), rtol=1e-9)


@few
@given(seeds)
def test_weighted_means_of_ids_and_of_their_one_hot_rows_agree_with_torch(seed: int) -> None:
    logits, ids, _ = drawn(seed)
    weight = torch.from_numpy(np.random.default_rng(seed).uniform(0.2, 3, CLASSES))
    expected = F.cross_entropy(logits, ids, weight=weight)
    torch.testing.assert_close(cross_entropy(logits, ids, weight=weight), expected)
    one_hot = F.one_hot(ids, CLASSES).double()
    torch.testing.assert_close(cross_entropy(logits, one_hot, weight=weight), expected)


def test_focal_has_finite_gradients_where_a_class_is_sure() -> None:
    for value in (60.0, 200.0):
        logits = torch.tensor([[value, 0.0, 0.0], [0.0, value, 0.0]], requires_grad=True)
        loss = focal(logits, torch.tensor([0, 0]), gamma=0.5)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert logits.grad[1, 0] < 0


def test_balanced_weights_go_from_equal_to_inverse_counts_and_absent_classes_have_none() -> None:
    counts = torch.tensor([1283, 6, 0, 100])
    torch.testing.assert_close(class_balanced_weights(counts, 0.0), torch.tensor([1.0, 1, 0, 1]))
    inverse = class_balanced_weights(counts, 1.0)
    torch.testing.assert_close(inverse * counts, torch.tensor([1.0, 1, 0, 1]) * inverse[0] * 1283)
    between = class_balanced_weights(counts, 0.99)
    effective = np.array([sum(0.99**i for i in range(n)) for n in counts.tolist()])
    assert abs(between.sum().item() - 3) < 1e-5
    np.testing.assert_allclose(between[0] / between[1], effective[1] / effective[0], rtol=1e-5)
    near = class_balanced_weights(counts, 1 - 1e-9)
    torch.testing.assert_close(near, inverse, rtol=1e-4, atol=1e-5)


def test_adjusted_logits_make_the_prior_the_even_answer() -> None:
    counts = torch.tensor([90, 9, 1])
    flat = torch.zeros(2, 3)
    torch.testing.assert_close(logit_adjusted(flat, counts).softmax(-1)[0], torch.tensor([0.9, 0.09, 0.01]))
    roots = counts.sqrt()
    torch.testing.assert_close(logit_adjusted(flat, counts, 0.5).softmax(-1)[0], roots / roots.sum())
    logits = torch.from_numpy(poses(1, 4, 3)).float()
    torch.testing.assert_close(logit_adjusted(logits, counts, 0.0), logits)
    assert logit_adjusted(logits, torch.tensor([5, 0, 3])).isfinite().all()


@few
@given(seeds)
def test_groups_sum_their_members(seed: int) -> None:
    logits, ids, mixed = drawn(seed)
    log_probs = logits.log_softmax(-1).requires_grad_()
    probs = log_probs.detach().exp()
    for groups in (GROUPS, list(GROUPS), torch.tensor(GROUPS)):
        found = group_log_probs(log_probs, groups)
        expected = torch.stack([sum(probs[:, k] for k in range(CLASSES) if GROUPS[k] == g) for g in range(3)], 1)
        torch.testing.assert_close(found.detach().exp(), expected)
        assert group_target(ids, groups).tolist() == [GROUPS[k] for k in ids.tolist()]
        soft = group_target(mixed, groups)
        expected = torch.stack([sum(mixed[:, k] for k in range(CLASSES) if GROUPS[k] == g) for g in range(3)], 1)
        torch.testing.assert_close(soft, expected)
    found.sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad.isfinite().all()


def test_groups_keep_leading_axes() -> None:
    log_probs = torch.from_numpy(poses(2, 2, 3, CLASSES)).log_softmax(-1)
    found = group_log_probs(log_probs, GROUPS)
    assert found.shape == (2, 3, 3)
    torch.testing.assert_close(found[1], group_log_probs(log_probs[1], GROUPS))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_probability_targets_follow_the_type_of_the_logits(kind: torch.dtype) -> None:
    logits, _, mixed = drawn(3)
    weight = torch.ones(CLASSES)
    loss = cross_entropy(logits.to(kind), mixed, weight=weight)
    assert loss.dtype == kind
    torch.testing.assert_close(loss.double(), cross_entropy(logits, mixed), rtol=3e-2, atol=3e-2)

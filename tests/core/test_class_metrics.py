"""Measures of classification against torchmetrics, SciPy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from kinema.core import class_metrics
from kinema.errors import DataError


def _sample(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    target = random.integers(0, classes, count)
    predicted = np.where(random.random(count) < 0.5, target, random.integers(0, classes, count))
    return target, predicted


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(2, 9), st.integers(0, 1000))
def test_measures_of_each_class_are_those_of_torchmetrics(count: int, classes: int, seed: int) -> None:
    target, predicted = _sample(count, classes, seed)
    counts = class_metrics.confusion(target, predicted, classes)
    pair = torch.from_numpy(predicted), torch.from_numpy(target)
    np.testing.assert_array_equal(counts, multiclass_confusion_matrix(*pair, num_classes=classes))
    found = class_metrics.per_class(counts)
    for name, function in (
        ("precision", multiclass_precision), ("recall", multiclass_recall), ("f1", multiclass_f1_score),
    ):  # fmt: skip
        expected = function(*pair, num_classes=classes, average="none", zero_division=0)
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-6)
    assert found.support.tolist() == np.bincount(target, minlength=classes).tolist()
    assert found.predicted.tolist() == np.bincount(predicted, minlength=classes).tolist()
    assert class_metrics.accuracy(counts) == pytest.approx((target == predicted).mean())
    # torchmetrics' macro mean goes over the classes that are present.
    macro = multiclass_f1_score(*pair, num_classes=classes, average="macro", zero_division=0)
    assert class_metrics.macro_f1(counts) == pytest.approx(float(macro), abs=1e-6)


def test_means_differ_by_the_classes_they_go_over() -> None:
    # Class 0: right twice, once taken for 1; class 1 never true; class 2 right once; class 3 nowhere.
    counts = class_metrics.confusion(np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2]), 4)
    f1 = [0.8, 0.0, 1.0]
    assert class_metrics.macro_f1(counts) == pytest.approx(sum(f1) / 3)
    assert class_metrics.macro_f1(counts, "truth") == pytest.approx((0.8 + 1) / 2)
    assert class_metrics.macro_f1(counts, "all") == pytest.approx(sum(f1) / 4)
    assert class_metrics.mean_class_accuracy(counts) == pytest.approx((2 / 3 + 1) / 3)
    assert class_metrics.mean_class_accuracy(counts, "truth") == pytest.approx((2 / 3 + 1) / 2)
    with pytest.raises(ValueError, match="present, truth, all"):
        class_metrics.macro_f1(counts, "everything")


def test_without_samples_there_is_no_number() -> None:
    empty = np.zeros((3, 3), np.int64)
    curve = class_metrics.reliability(np.zeros(0), np.zeros(0, bool))
    numbers = [
        class_metrics.accuracy(empty), class_metrics.macro_f1(empty), class_metrics.macro_f1(empty, "all"),
        class_metrics.mean_class_accuracy(empty), class_metrics.expected_calibration_error(curve),
    ]  # fmt: skip
    assert np.isnan(numbers).all()
    low, high = class_metrics.wilson_interval(0, 0)
    assert (float(low), float(high)) == (0, 1)


def test_groups_are_counted_as_if_their_classes_were_one() -> None:
    target, predicted = _sample(80, 6, 3)
    groups = np.array([0, 2, 2, 1, 0, 1])
    fine = class_metrics.confusion(target, predicted, 6)
    coarse = class_metrics.confusion(groups[target], groups[predicted], 3)
    np.testing.assert_array_equal(class_metrics.grouped(fine, groups, 3), coarse)
    family = class_metrics.f1_family(fine, coarse)
    four = [family[f"f1_{kind}_{level}"] for kind in ("macro", "micro") for level in ("body", "action")]
    assert family["f1_mean"] == pytest.approx(np.mean(four))
    assert family["f1_micro_body"] == pytest.approx((groups[target] == groups[predicted]).mean())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.floats(0, 1))
def test_interval_is_that_of_scipy(total: int, share: float) -> None:
    hits = round(total * share)
    expected = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    low, high = class_metrics.wilson_interval(hits, total)
    np.testing.assert_allclose([low, high], [expected.low, expected.high], atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 80), st.integers(1, 20), st.integers(0, 1000))
def test_calibration_error_is_that_of_torchmetrics(count: int, bins: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    probs = random.dirichlet(np.full(4, 0.4), count)
    target = random.integers(0, 4, count)
    curve = class_metrics.reliability(probs.max(1), probs.argmax(1) == target, bins)
    assert curve.samples.sum() == count
    expected = multiclass_calibration_error(
        torch.from_numpy(probs), torch.from_numpy(target), num_classes=4, n_bins=bins, norm="l1"
    )
    assert class_metrics.expected_calibration_error(curve) == pytest.approx(float(expected), abs=1e-5)


def test_bins_take_their_upper_edge_and_the_ends_are_inside() -> None:
    confidence = np.array([0.0, 0.25, 0.26, 0.5, 1.0])
    curve = class_metrics.reliability(confidence, np.array([1, 0, 1, 1, 0], bool), 4)
    assert curve.samples.tolist() == [2, 2, 0, 1]
    np.testing.assert_allclose(curve.accuracy, [0.5, 1, 0, 0])
    np.testing.assert_allclose(curve.confidence, [0.125, 0.38, 0, 1])


def test_most_confused_pairs_come_first_and_right_ones_not_at_all() -> None:
    counts = np.array([[50, 2, 0], [7, 9, 2], [0, 0, 3]])
    assert class_metrics.most_confused(counts).tolist() == [[1, 0, 7], [0, 1, 2], [1, 2, 2]]
    assert class_metrics.most_confused(counts, 1).tolist() == [[1, 0, 7]]
    assert counts[0, 0] == 50, "the counts are left as they are"


def test_top_k_marks_each_sample() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.7, 0.2, 0.1]])
    hits = class_metrics.top_k(scores, torch.tensor([2, 2]), (1, 2, 3))
    assert hits.tolist() == [[False, False], [True, False], [True, True]]
    with pytest.raises(DataError, match="scores"):
        class_metrics.top_k(scores, torch.tensor([0]))

"""Measures of classification from scores and confusion counts: fractions in [0, 1], float64, on the host.

A confusion is an array of counts (K, K): rows are the truth, columns what was predicted. Where a mean over classes is
taken, `over` says over which: "present" are those in the truth or among the predictions (scikit-learn, mmaction2 and
the official MA-52 scores), "truth" those in the truth, "all" every class of the list, absent ones as 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kinema.core.shapes import expect

# Two-sided 95 % of a normal distribution.
_Z95 = 1.959963984540054
OVER = ("present", "truth", "all")


def top_k(scores: Tensor, target: Tensor, ks: Iterable[int] = (1, 5)) -> Tensor:
    """Mark which samples have their class among the k highest scores, ties as `torch.topk` breaks them.

    Args:
        scores: (B, K), any monotone function of the probabilities.
        target: (B,) classes.
        ks: numbers of guesses, each at most K.

    Returns:
        (len(ks), B) bool.

    Source: MotionBERT, lib/utils/learning.py (accuracy).
    """
    ks = tuple(ks)
    expect(scores, "B K", "scores", B=len(target))
    guesses = scores.topk(max(ks), dim=1).indices
    hits = guesses == target[:, None]
    return torch.stack([hits[:, :k].any(1) for k in ks])


def confusion(target: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count pairs of truth and prediction.

    Args:
        target, predicted: (B,) classes 0..K-1.
        num_classes: K.

    Returns:
        (K, K) int64.
    """
    pairs = np.asarray(target, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


class PerClass(NamedTuple):
    """Measures of each class, (K,): 0 where nothing can be measured, as scikit-learn gives them."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray


def per_class(counts: np.ndarray) -> PerClass:
    """Precision, recall, F1 = 2 TP / (2 TP + FP + FN), number of samples and of predictions of each class.

    Args:
        counts: (K, K) confusion.
    """
    hits, support, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    return PerClass(
        precision=hits / np.maximum(predicted, 1),
        recall=hits / np.maximum(support, 1),
        f1=2 * hits / np.maximum(support + predicted, 1),
        support=support,
        predicted=predicted,
    )


def accuracy(counts: np.ndarray) -> float:
    """Share of the diagonal, which is micro F1 as well; NaN without samples."""
    total = counts.sum()
    return float(np.trace(counts) / total) if total else float("nan")


def mean_class_accuracy(counts: np.ndarray, over: str = "present") -> float:
    """Mean recall over classes; a class that is predicted and never true counts as 0 unless `over` is "truth".

    Source: mmaction2, evaluation/functional/accuracy.py, whose classes are those "present".
    """
    return _mean(per_class(counts).recall, counts, over)


def macro_f1(counts: np.ndarray, over: str = "present") -> float:
    """Mean F1 over classes.

    Source: scikit-learn's f1_score(average="macro"), whose classes are those "present".
    """
    return _mean(per_class(counts).f1, counts, over)


def grouped(counts: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Confusion (G, G) of the groups of truth and prediction.

    Args:
        counts: (K, K) confusion.
        groups: (K,) group of each class.
        num_groups: G.
    """
    member = np.eye(num_groups, dtype=np.int64)[np.asarray(groups, np.int64)]  # (K, G)
    coarse: np.ndarray = member.T @ counts @ member
    return coarse


def f1_family(fine: np.ndarray, coarse: np.ndarray, over: str = "present") -> dict[str, float]:
    """The scores of the MA-52 benchmark: macro and micro F1 of actions and of body parts, and the mean of the four.

    Args:
        fine: (K, K) confusion of actions.
        coarse: (G, G) confusion of groups; predictions may come from a head of their own.
        over: classes of the macro means, "present" officially.

    Source: Guo et al. 2024 (MA-52), section 5.1.
    """
    scores = {
        "f1_macro_body": macro_f1(coarse, over),
        "f1_micro_body": accuracy(coarse),
        "f1_macro_action": macro_f1(fine, over),
        "f1_micro_action": accuracy(fine),
    }
    return {"f1_mean": sum(scores.values()) / len(scores), **scores}


def wilson_interval(hits: np.ndarray | float, total: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the two-sided 95 % Wilson score interval of a share; 0 and 1 where nothing was counted.

    Args:
        hits, total: counts of equal shape.

    Source: Wilson 1927.
    """
    hits, total = np.asarray(hits, np.float64), np.asarray(total, np.float64)
    counted = np.maximum(total, 1)
    share = hits / counted
    z = _Z95
    centre = (share + z**2 / (2 * counted)) / (1 + z**2 / counted)
    half = z / (1 + z**2 / counted) * np.sqrt(share * (1 - share) / counted + (z / (2 * counted)) ** 2)
    low, high = np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
    return np.where(total > 0, low, 0.0), np.where(total > 0, high, 1.0)


class Reliability(NamedTuple):
    """How often predictions of each level of confidence are right, (bins,) each; 0 in empty bins."""

    samples: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> Reliability:
    """Sort predictions into bins of equal width (low, high] by their confidence.

    Args:
        confidence: (B,) probability of the predicted class.
        correct: (B,) bool.
        bins: number of them.
    """
    confidence = np.asarray(confidence, np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    samples = np.bincount(place, minlength=bins)
    some = np.maximum(samples, 1)
    return Reliability(
        samples=samples,
        confidence=np.bincount(place, weights=confidence, minlength=bins) / some,
        accuracy=np.bincount(place, weights=np.asarray(correct, np.float64), minlength=bins) / some,
    )


def expected_calibration_error(curve: Reliability) -> float:
    """Mean distance between confidence and accuracy over predictions, by bins; NaN without samples.

    Source: Guo et al. 2017, equation 3.
    """
    total = curve.samples.sum()
    if not total:
        return float("nan")
    return float((curve.samples * np.abs(curve.confidence - curve.accuracy)).sum() / total)


def most_confused(counts: np.ndarray, limit: int = 20) -> np.ndarray:
    """The pairs of classes that are mistaken most often.

    Args:
        counts: (K, K) confusion.
        limit: how many at most.

    Returns:
        (P, 3) int64: truth, prediction, samples; most samples first, then by class.
    """
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    flat = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    truth, predicted = np.unravel_index(flat, wrong.shape)
    found: np.ndarray = np.stack([truth, predicted, wrong[truth, predicted]], axis=1)
    return found[found[:, 2] > 0]


def _mean(values: np.ndarray, counts: np.ndarray, over: str) -> float:
    """Mean over the classes that `over` names; NaN where there are none."""
    if over not in OVER:
        raise ValueError(f"over={over!r} is unknown. Use one of {', '.join(OVER)}.")
    chosen = counts.sum(1) > 0
    if over == "present":
        chosen |= counts.sum(0) > 0
    if over == "all":
        chosen[:] = True
    return float(values[chosen].mean()) if chosen.any() and counts.sum() else float("nan")

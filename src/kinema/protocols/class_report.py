"""The Report of class scores: how well clips were classified, be the scores from a network, a fusion or a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from kinema.core import class_metrics
from kinema.core.class_metrics import PerClass, Reliability
from kinema.protocols.report import Row

if TYPE_CHECKING:
    from kinema.data.class_list import ClassList

SCALARS = (
    "top1", "top1_low", "top1_high", "top5", "mean_class", "f1_macro", "f1_macro_strict", "ece", "nll",
    "group_top1", "coarse_fine_inconsistency",
)  # fmt: skip
# Decimals of percents, and of the negative log-likelihood.
_OF_TABLES = ("low", "high", "precision", "recall", "recall_low", "recall_high", "f1")
DIGITS = {**dict.fromkeys((*SCALARS, *_OF_TABLES), 2), "nll": 3}
# How many of the most confused pairs are shown.
PAIRS = 20


class Scores(NamedTuple):
    """Scores of clips and what they are judged by.

    Attributes:
        log_probs: (N, K) float64 logarithms of class probabilities.
        labels: (N,) int64, -1 = withheld; such clips are kept in the arrays and judged by nothing.
        names: (N,) names of the clips.
        classes: the K classes.
        training_counts: (K,) training clips of each class, where known.
        bins: of the reliability curve.
    """

    log_probs: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    classes: ClassList
    training_counts: Sequence[int] | None = None
    bins: int = 15


class Judged:
    """Everything that is counted once: confusions, hits among the first five, reliability.

    Args:
        scores: to judge.
        group_from: where the coarse prediction comes from: "map", the group of the predicted class, or "marginal",
            the most probable group when the probabilities of its classes are added up.
    """

    def __init__(self, scores: Scores, group_from: str = "map") -> None:
        self.scores = scores
        classes, log_probs = scores.classes, scores.log_probs
        self.num_classes = len(classes.names)
        known = scores.labels >= 0
        self.labels = scores.labels[known]
        judged = log_probs[known]
        guesses = torch.from_numpy(judged)
        self.total = len(judged)
        target = torch.from_numpy(self.labels)
        self.predicted = guesses.topk(1).indices[:, 0].numpy()
        self.top5 = None
        if self.num_classes >= 5 and self.total:
            self.top5 = float(class_metrics.top_k(guesses, target, (5,)).double().mean())
        self.nll = -float(judged[np.arange(self.total), self.labels].mean()) if self.total else float("nan")
        self.confusion = class_metrics.confusion(self.labels, self.predicted, self.num_classes)
        self.per_class: PerClass = class_metrics.per_class(self.confusion)
        confidence = np.exp(judged.max(1, initial=-np.inf))
        self.reliability: Reliability = class_metrics.reliability(
            confidence, self.predicted == self.labels, scores.bins
        )
        self.groups: np.ndarray | None = None
        if classes.groups is not None:
            self._judge_groups(np.asarray(classes.groups, np.int64), len(classes.group_names or ()), known, group_from)

    def _judge_groups(self, groups: np.ndarray, count: int, known: np.ndarray, group_from: str) -> None:
        self.groups = groups
        self.group_log_probs = group_log_probs(self.scores.log_probs, groups, count)
        marginal = self.group_log_probs[known].argmax(1)
        mapped = groups[self.predicted]
        self.inconsistency = float((marginal != mapped).mean()) if self.total else float("nan")
        chosen = mapped if group_from == "map" else marginal
        self.group_confusion = class_metrics.confusion(groups[self.labels], chosen, count)

    def scalars(self) -> dict[str, float]:
        """The measures every classifier has; percent, but `nll` in nats."""
        if not self.total:
            return {}
        low, high = class_metrics.wilson_interval(np.trace(self.confusion), self.total)
        found = {"top1": class_metrics.accuracy(self.confusion), "top1_low": float(low), "top1_high": float(high)}
        if self.top5 is not None:
            found["top5"] = self.top5
        found["mean_class"] = class_metrics.mean_class_accuracy(self.confusion)
        found["f1_macro"] = class_metrics.macro_f1(self.confusion)
        found["f1_macro_strict"] = class_metrics.macro_f1(self.confusion, "all")
        found["ece"] = class_metrics.expected_calibration_error(self.reliability)
        if self.groups is not None:
            found["group_top1"] = class_metrics.accuracy(self.group_confusion)
            found["coarse_fine_inconsistency"] = self.inconsistency
        return {name: 100 * value for name, value in found.items()} | {"nll": self.nll}

    def levels(self, fine: str = "action", coarse: str = "group") -> list[Row]:
        """One row for the classes and, where there are groups, one for these."""
        if not self.total:
            return []
        rows = [_level(fine, self.confusion, self.top5)]
        if self.groups is not None:
            rows.append(_level(coarse, self.group_confusion, None))
        return rows

    def tables(self) -> dict[str, list[Row]]:
        """Per class, per group and the most confused pairs."""
        if not self.total:
            return {}
        classes = self.scores.classes
        counts = self.scores.training_counts
        tables = {"class": class_rows("class", classes.names, self.per_class, counts)}
        if self.groups is not None:
            names = classes.group_names or ()
            in_group = None if counts is None else np.bincount(self.groups, weights=counts, minlength=len(names))
            measures = class_metrics.per_class(self.group_confusion)
            tables["group"] = class_rows("group", names, measures, in_group)
        tables["confused_pair"] = pair_rows(self.confusion, classes.names)
        return {name: rows for name, rows in tables.items() if rows}

    def footers(self) -> dict[str, list[Row]]:
        """Means below the tables of classes and groups."""
        if not self.total:
            return {}
        found = {"class": _class_footers("class", self.confusion)}
        if self.groups is not None:
            found["group"] = _class_footers("group", self.group_confusion)
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """What is stored for fusion, submission and figures.

        `names` (N,), `labels` (N,), `scores` (N, K) float32 logarithms of probabilities, `classes` (K,), `confusion`
        (K, K), `reliability` (bins, 3): predictions, mean confidence, share of right ones. Where there are groups
        `groups` (K,), `group_names` (G,), `group_scores` (N, G), `group_confusion` (G, G); where known
        `training_counts` (K,).
        """
        scores = self.scores
        found: dict[str, np.ndarray] = {
            "names": np.asarray(scores.names, dtype=str),
            "labels": np.asarray(scores.labels, np.int64),
            "scores": scores.log_probs.astype(np.float32),
            "classes": np.asarray(scores.classes.names, dtype=str),
            "confusion": self.confusion,
            "reliability": np.stack([np.asarray(part, np.float64) for part in self.reliability], axis=1),
        }
        if scores.training_counts is not None:
            found["training_counts"] = np.asarray(scores.training_counts, np.int64)
        if self.groups is not None:
            found["groups"] = self.groups
            found["group_names"] = np.asarray(scores.classes.group_names, dtype=str)
            found["group_scores"] = self.group_log_probs.astype(np.float32)
            found["group_confusion"] = self.group_confusion
        return found


def group_log_probs(log_probs: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Add up the probabilities of the classes of each group: (N, K) -> (N, G) logarithms.

    For a network with a coarse and a fine head, whose class scores are log P(group) + log P(class | group), these are
    the scores of the coarse head.
    """
    # One group at a time: `core.class_losses.group_log_probs`, for batches, would hold N x G x K numbers.
    found = np.full((len(log_probs), num_groups), -np.inf)
    for group in range(num_groups):
        members = log_probs[:, groups == group]
        if members.shape[1]:
            found[:, group] = np.logaddexp.reduce(members, axis=1)
    return found


def class_rows(label: str, names: Sequence[str], measures: PerClass, training: Any = None) -> list[Row]:
    """A row per class in percent; blank where a class has nothing to be measured by."""
    low, high = class_metrics.wilson_interval(measures.recall * measures.support, measures.support)
    rows = []
    for number, name in enumerate(names):
        row: Row = {label: name, "clips": int(measures.support[number])}
        if training is not None:
            row["training"] = int(training[number])
        true, guessed = row["clips"] > 0, measures.predicted[number] > 0
        row |= {
            "predicted": int(measures.predicted[number]),
            "precision": float(100 * measures.precision[number]) if guessed else None,
            "recall": float(100 * measures.recall[number]) if true else None,
            "recall_low": float(100 * low[number]) if true else None,
            "recall_high": float(100 * high[number]) if true else None,
            "f1": float(100 * measures.f1[number]) if true or guessed else None,
        }
        rows.append(row)
    return rows


def pair_rows(counts: np.ndarray, names: Sequence[str]) -> list[Row]:
    """The most confused pairs: what was taken for what, in how many of the clips of its class."""
    return [
        {"truth": names[truth], "predicted": names[predicted], "clips": int(clips), "of": int(counts[truth].sum())}
        for truth, predicted, clips in class_metrics.most_confused(counts, PAIRS)
    ]


def _class_footers(label: str, counts: np.ndarray) -> list[Row]:
    total = int(counts.sum())
    low, high = class_metrics.wilson_interval(np.trace(counts), total)
    top1 = 100 * class_metrics.accuracy(counts)
    return [
        {
            label: "mean over those present",
            "recall": 100 * class_metrics.mean_class_accuracy(counts),
            "f1": 100 * class_metrics.macro_f1(counts),
        },
        {
            label: "all clips", "clips": total, "predicted": total, "precision": top1, "recall": top1,
            "recall_low": float(100 * low), "recall_high": float(100 * high), "f1": top1,
        },
    ]  # fmt: skip


def _level(name: str, counts: np.ndarray, top5: float | None) -> Row:
    total = int(counts.sum())
    low, high = class_metrics.wilson_interval(np.trace(counts), total)
    return {
        "level": name,
        "clips": total,
        "top1": 100 * class_metrics.accuracy(counts),
        "low": float(100 * low),
        "high": float(100 * high),
        "top5": None if top5 is None else 100 * top5,
        "mean_class": 100 * class_metrics.mean_class_accuracy(counts),
        "f1_macro": 100 * class_metrics.macro_f1(counts),
        "f1_macro_strict": 100 * class_metrics.macro_f1(counts, "all"),
    }

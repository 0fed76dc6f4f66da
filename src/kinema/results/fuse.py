"""Fusion of stored scores: weights given, published or searched on validation clips; temperatures; the gain's interval.

All functions take arrays: logits (N, K) whose softmax is a stream's prediction, and class ids (N,), all of them known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kinema.core import class_metrics
from kinema.errors import ConfigError

RULES = ("prob", "log", "score")
SEARCHES = ("auto", "simplex", "coordinate")
OBJECTIVES = ("top1", "mean_class", "f1_macro", "f1_mean", "nll")
# Weights of pyskl's published four streams; two streams get 1:1 from the same numbers.
PUBLISHED_WEIGHTS = {"joint": 2.0, "bone": 2.0, "joint_motion": 1.0, "bone_motion": 1.0}
_MOST_GRID_POINTS = 1500
_ROUNDS = 20
_FACTORS = (0.0, 0.25, 0.5, 0.8, 1.25, 2.0, 4.0)
COLDEST, HOTTEST = 0.05, 20.0  # temperatures that can be fitted

# Predicted ids (N,), log probabilities of the true classes (N,), true ids (N,) -> a number; higher is better.
Objective = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def objective(name: str, num_classes: int, groups: np.ndarray | None = None) -> Objective:
    """What weights are chosen by, and in what a gain is told: percent, or nats with the sign turned for "nll".

    Args:
        name: one of `OBJECTIVES`.
        num_classes: K.
        groups: (K,) group of each class, for "f1_mean".

    Raises:
        ConfigError: for an unknown name, or f1_mean without groups.
    """
    if name not in OBJECTIVES:
        raise ConfigError(f"fuse.objective={name} is unknown. Use one of {', '.join(OBJECTIVES)}.")
    if name == "nll":
        return lambda predicted, own, labels: float(own.mean())
    if name == "f1_mean" and groups is None:
        raise ConfigError(
            "fuse.objective=f1_mean needs the group of every class, and these scores have none. "
            "Name their class list (fuse.classes=ma52), or use fuse.objective=f1_macro."
        )

    def measure(predicted: np.ndarray, own: np.ndarray, labels: np.ndarray) -> float:
        fine = class_metrics.confusion(labels, predicted, num_classes)
        if name == "top1":
            return 100 * class_metrics.accuracy(fine)
        if name == "mean_class":
            return 100 * class_metrics.mean_class_accuracy(fine)
        if name == "f1_macro" or groups is None:
            return 100 * class_metrics.macro_f1(fine)
        coarse = class_metrics.grouped(fine, groups, int(groups.max()) + 1)
        return 100 * class_metrics.f1_family(fine, coarse)["f1_mean"]

    return measure


def judged(log_probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What an objective takes."""
    return log_probs.argmax(1), log_probs[np.arange(len(labels)), labels], labels


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, (..., K)."""
    shifted = logits - logits.max(-1, keepdims=True)
    normalised: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised


def combine(streams: Sequence[np.ndarray], weights: Sequence[float], rule: str) -> np.ndarray:
    """Fuse streams to logarithms of probabilities.

    Args:
        streams: S arrays (N, K) of logits.
        weights: S numbers, at least one above 0; only their ratio counts, but for `score`.
        rule: "prob" = weighted mean of probabilities, "log" = weighted mean of log probabilities (a product of
            experts), normalised; "score" = weighted sum of the scores as they are stored.

    Returns:
        (N, K) log probabilities.
    """
    total = float(sum(weights))
    if rule == "prob":
        mean = np.zeros_like(streams[0])
        for logits, weight in zip(streams, weights, strict=True):
            if weight:
                mean += weight / total * np.exp(log_softmax(logits))
        return np.log(np.maximum(mean, 1e-30))
    fused = np.zeros_like(streams[0])
    for logits, weight in zip(streams, weights, strict=True):
        if weight:
            fused += weight * logits if rule == "score" else weight / total * log_softmax(logits)
    return log_softmax(fused)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that minimises the negative log likelihood of logits / temperature.

    The likelihood is convex in 1 / temperature, so the sign of its slope is bisected. Streams that are always right
    would like temperature 0: the result stays within 0.05 and 20.

    Args:
        logits: (N, K).
        labels: (N,) class ids.

    Source: Guo et al. 2017, section 4.2.
    """
    logits = logits - logits.max(1, keepdims=True)
    true = logits[np.arange(len(labels)), labels].mean()
    low, high = math.log(1 / HOTTEST), math.log(1 / COLDEST)
    for _ in range(32):
        middle = (low + high) / 2
        weight = np.exp(math.exp(middle) * logits)
        slope = ((weight * logits).sum(1) / weight.sum(1)).mean() - true
        low, high = (low, middle) if slope > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def published_weights(kinds: Sequence[str | None], names: Sequence[str]) -> list[float]:
    """Weights by kind of stream, as pyskl publishes: 1:1 for joint and bone, 2:2:1:1 with the motion streams.

    Args:
        kinds: "joint", "bone", "joint_motion" or "bone_motion" per stream; None = the stream's name says it.
        names: of the streams.

    Raises:
        ConfigError: for a stream of another kind.
    """
    weights = []
    for kind, name in zip(kinds, names, strict=True):
        key = kind or name
        if key not in PUBLISHED_WEIGHTS:
            raise ConfigError(
                f"fuse.weights=published knows {', '.join(PUBLISHED_WEIGHTS)}; stream {name} is {key!r}. "
                "Name the streams so (fuse.inputs.joint=...), or give numbers: fuse.weights=[1,1]."
            )
        weights.append(PUBLISHED_WEIGHTS[key])
    return [weight / min(weights) for weight in weights]


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes:
        weights: per stream, summing to 1.
        value: of the objective on the clips that were searched.
        tried: number of weightings that were compared.
        way: "simplex" or "coordinate".
    """

    weights: tuple[float, ...]
    value: float
    tried: int
    way: str


def search(
    streams: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    rule: str,
    objective: Objective,
    way: str = "auto",
    step: float = 0.1,
) -> Found:
    """Find the weights with the highest objective.

    Ties go to the lower negative log likelihood, then to the weights nearest to equal ones: so a small validation set
    does not throw a stream away without need.

    Args:
        streams: S arrays (N, K) of logits.
        labels: (N,) class ids.
        rule: of `combine`.
        objective: see `objective`.
        way: "simplex" = every weighting in steps that sum to 1; "coordinate" = one weight after another, from equal
            weights and from each stream alone, until none improves; "auto" = the first where it has at most 1500
            points.
        step: of the simplex.
    """
    count = len(streams)
    parts = max(1, round(1 / step))
    points = math.comb(parts + count - 1, count - 1)
    way = ("simplex" if points <= _MOST_GRID_POINTS else "coordinate") if way == "auto" else way
    known: dict[tuple[float, ...], tuple[float, float, float]] = {}

    def judge(weights: Sequence[float]) -> tuple[float, float, float]:
        key = _normalised(weights)
        if key not in known:
            predicted, own, _ = judged(combine(streams, key, rule), labels)
            spread = sum((weight - 1 / count) ** 2 for weight in key)
            value = objective(predicted, own, labels)
            known[key] = (round(value, 9), round(float(own.mean()), 9), -round(spread, 9))
        return known[key]

    equal = _normalised([1.0] * count)
    judge(equal)
    if way == "simplex":
        for cuts in itertools.combinations(range(parts + count - 1), count - 1):
            ends = (-1, *cuts, parts + count - 1)
            judge([after - before - 1 for before, after in itertools.pairwise(ends)])
    else:
        alone = [_normalised([float(i == j) for j in range(count)]) for i in range(count)]
        for start in (equal, *alone):
            _climb(start, judge)
    best = max(known, key=lambda key: known[key])
    return Found(best, known[best][0], len(known), way)


def _climb(start: tuple[float, ...], judge: Callable[[Sequence[float]], tuple[float, float, float]]) -> None:
    """Change one weight at a time while that helps."""
    best = start
    for _ in range(_ROUNDS):
        before = best
        for i in range(len(best)):
            mean = 1 / len(best)
            sizes = {best[i] * factor for factor in _FACTORS} | {mean * factor for factor in _FACTORS}
            for size in sorted(sizes):
                candidate = [*best[:i], size, *best[i + 1 :]]
                if sum(candidate) > 0 and judge(candidate) > judge(best):
                    best = _normalised(candidate)
        if best == before:
            return


def _normalised(weights: Sequence[float]) -> tuple[float, ...]:
    total = float(sum(weights))
    return tuple(round(float(weight) / total, 6) for weight in weights)


@dataclass(frozen=True)
class Gain:
    """How much better one prediction is than another on the same clips.

    Attributes:
        value: difference of the objective.
        low: lower end of the 95 % interval of a paired bootstrap over clips.
        high: its upper end.
        better: clips that only the first has right.
        worse: clips that only the second has right.
        p_value: exact two-sided McNemar test of these two counts.
    """

    value: float
    low: float
    high: float
    better: int
    worse: int
    p_value: float


def gain(
    ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, *, objective: Objective, draws: int, seed: int
) -> Gain:
    """Compare two sets of log probabilities (N, K) of the same clips.

    The bootstrap draws clips with replacement and takes the same ones for both. It treats clips as independent: clips
    cut from one recording are not quite, and the true interval is then wider.
    """
    first, second = judged(ours, labels), judged(theirs, labels)
    right = first[0] == labels, second[0] == labels
    better, worse = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    random = np.random.default_rng(seed)
    differences = np.empty(draws)
    for i in range(draws):
        rows = random.integers(0, len(labels), len(labels))
        differences[i] = objective(*(part[rows] for part in first)) - objective(*(part[rows] for part in second))
    low, high = np.percentile(differences, [2.5, 97.5])
    value = objective(*first) - objective(*second)
    return Gain(value, float(low), float(high), better, worse, mcnemar(better, worse))


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided McNemar p-value: a coin thrown for each clip on which exactly one of the two is right."""
    count, few = better + worse, min(better, worse)
    if count == 0:
        return 1.0
    logs = [math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in range(few + 1)]
    tail = math.fsum(math.exp(value - count * math.log(2)) for value in logs)
    return min(1.0, 2 * tail)

"""Fusion of scores against slow obvious forms, and the choices that a search makes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from kinema.errors import ConfigError
from kinema.results import fuse

CLASSES = 5


def streams(seed: int = 0, clips: int = 400, strengths: tuple[float, ...] = (2.0, 1.5, 0.0)) -> tuple[list, np.ndarray]:
    """Logits that know the class as well as `strengths` say, each with noise of its own."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, clips)
    truth = np.eye(CLASSES)[labels]
    return [strength * truth + random.normal(size=(clips, CLASSES)) for strength in strengths], labels


def top1() -> fuse.Objective:
    return fuse.objective("top1", CLASSES)


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


def test_each_rule_equals_a_plain_loop() -> None:
    logits, _ = streams(clips=6)
    weights = [2.0, 1.0, 0.5]
    for clip in range(6):
        rows = [one[clip] for one in logits]
        prob = sum(w * softmax(row) for w, row in zip(weights, rows, strict=True)) / sum(weights)
        product = softmax(sum(w * np.log(softmax(row)) for w, row in zip(weights, rows, strict=True)) / sum(weights))
        score = softmax(sum(w * row for w, row in zip(weights, rows, strict=True)))
        for rule, expected in (("prob", prob), ("log", product), ("score", score)):
            np.testing.assert_allclose(np.exp(fuse.combine(logits, weights, rule)[clip]), expected, atol=1e-12)


def test_only_the_ratio_of_weights_counts_for_probabilities() -> None:
    logits, _ = streams()
    for rule in ("prob", "log"):
        np.testing.assert_allclose(
            fuse.combine(logits, [2, 1, 1], rule), fuse.combine(logits, [4, 2, 2], rule), atol=1e-12
        )


def test_a_stream_of_weight_zero_changes_nothing() -> None:
    logits, _ = streams()
    for rule in fuse.RULES:
        np.testing.assert_array_equal(fuse.combine(logits, [1, 1, 0], rule), fuse.combine(logits[:2], [1, 1], rule))


def test_the_temperature_is_the_minimum_of_a_fine_grid() -> None:
    (logits, *_), labels = streams(strengths=(3.0,))
    logits = logits * 4  # too sure of itself
    found = fuse.fit_temperature(logits, labels)

    def nll(temperature: float) -> float:
        return -fuse.judged(fuse.log_softmax(logits / temperature), labels)[1].mean()

    grid = np.geomspace(0.5, 20, 4000)
    best = min(grid, key=nll)
    assert found == pytest.approx(best, rel=2e-3)
    assert nll(found) <= nll(best) + 1e-9
    assert 1.2 < found < 1.6


def test_a_stream_that_is_always_right_keeps_a_finite_temperature() -> None:
    logits = np.eye(CLASSES)
    assert fuse.fit_temperature(logits, np.arange(CLASSES)) == pytest.approx(0.05)


def test_the_simplex_search_finds_what_trying_everything_finds() -> None:
    logits, labels = streams(seed=3, strengths=(1.0, 1.0, 0.5))
    found = fuse.search(logits, labels, rule="prob", objective=top1(), step=0.25)
    grid = [w for w in itertools.product(range(5), repeat=3) if sum(w) == 4]
    values = {w: top1()(*fuse.judged(fuse.combine(logits, w, "prob"), labels)) for w in grid}
    assert found.way == "simplex" and found.tried >= len(grid)
    assert found.value == pytest.approx(max(values.values()), abs=1e-6) or found.value > max(values.values())
    assert sum(found.weights) == pytest.approx(1, abs=1e-5)


def test_the_search_mutes_a_stream_of_noise() -> None:
    logits, labels = streams(seed=1, strengths=(2.5, 2.5, 0.0))
    found = fuse.search(logits, labels, rule="log", objective=fuse.objective("nll", CLASSES))
    assert found.weights[2] <= 0.1
    assert min(found.weights[:2]) >= 0.3


@pytest.mark.parametrize("rule", ["prob", "log"])
def test_the_coordinate_search_is_never_below_equal_weights_or_the_best_stream(rule: str) -> None:
    logits, labels = streams(seed=5, strengths=(2.0, 1.5, 1.0, 0.5, 0.2, 0.0))
    found = fuse.search(logits, labels, rule=rule, objective=top1())
    alone = [top1()(*fuse.judged(fuse.log_softmax(one), labels)) for one in logits]
    equal = top1()(*fuse.judged(fuse.combine(logits, [1] * 6, rule), labels))
    assert found.way == "coordinate"
    assert found.value >= max([*alone, equal]) - 1e-6


def test_ties_keep_weights_near_to_equal() -> None:
    """Two copies of one stream: every weighting is as good, so none is thrown away."""
    (logits, *_), labels = streams()
    assert fuse.search([logits, logits], labels, rule="prob", objective=top1()).weights == (0.5, 0.5)


def test_published_weights_are_those_of_two_and_of_four_streams() -> None:
    kinds = ["joint", "bone", "joint_motion", "bone_motion"]
    assert fuse.published_weights(kinds, ["a", "b", "c", "d"]) == [2, 2, 1, 1]
    assert fuse.published_weights([None, None], ["bone", "joint"]) == [1, 1]
    with pytest.raises(ConfigError, match=r"stream third is 'third'.*fuse.weights=\[1,1\]"):
        fuse.published_weights([None, None], ["joint", "third"])


def test_the_gain_has_the_sign_and_the_interval_of_a_resampled_difference() -> None:
    logits, labels = streams(seed=7, strengths=(2.0, 2.0))
    ours, theirs = fuse.combine(logits, [1, 1], "log"), fuse.log_softmax(logits[0])
    found = fuse.gain(ours, theirs, labels, objective=top1(), draws=400, seed=0)
    right = (ours.argmax(1) == labels).astype(float) - (theirs.argmax(1) == labels)
    assert found.value == pytest.approx(100 * right.mean())
    assert (found.better, found.worse) == ((right > 0).sum(), (right < 0).sum())
    half = 1.96 * 100 * right.std() / math.sqrt(len(labels))
    assert found.low == pytest.approx(found.value - half, abs=0.2 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.2 * half)
    backwards = fuse.gain(theirs, ours, labels, objective=top1(), draws=400, seed=0)
    assert (backwards.value, backwards.low) == pytest.approx((-found.value, -found.high))


def test_mcnemar_is_the_two_sided_binomial_test() -> None:
    def exact(better: int, worse: int) -> float:
        count = better + worse
        tail = sum(math.comb(count, i) for i in range(min(better, worse) + 1)) / 2**count
        return min(1.0, 2 * tail)

    for better, worse in ((0, 0), (5, 5), (10, 2), (2, 10), (60, 31), (900, 700)):
        assert fuse.mcnemar(better, worse) == pytest.approx(exact(better, worse) if better + worse else 1.0)


def test_objectives_are_the_measures_of_the_tables() -> None:
    (logits, *_), labels = streams(strengths=(1.0,))
    predicted, own, _ = fuse.judged(fuse.log_softmax(logits), labels)
    recalls = [(predicted[labels == c] == c).mean() for c in range(CLASSES)]
    assert fuse.objective("mean_class", CLASSES)(predicted, own, labels) == pytest.approx(100 * np.mean(recalls))
    assert fuse.objective("nll", CLASSES)(predicted, own, labels) == pytest.approx(own.mean())
    groups = np.array([0, 0, 1, 1, 1])
    coarse = (groups[predicted] == groups[labels]).mean()
    f1_body = []
    for group in (0, 1):
        true, said = groups[labels] == group, groups[predicted] == group
        f1_body.append(2 * (true & said).sum() / (true.sum() + said.sum()))
    f1_action = [2 * ((labels == c) & (predicted == c)).sum() / ((labels == c).sum() + (predicted == c).sum())
                 for c in range(CLASSES)]  # fmt: skip
    mean = np.mean([np.mean(f1_body), coarse, np.mean(f1_action), (predicted == labels).mean()])
    assert fuse.objective("f1_mean", CLASSES, groups)(predicted, own, labels) == pytest.approx(100 * mean)


def test_objectives_say_what_they_need() -> None:
    with pytest.raises(ConfigError, match=r"fuse.objective=top_1 is unknown. Use one of top1"):
        fuse.objective("top_1", CLASSES)
    with pytest.raises(ConfigError, match=r"needs the group of every class.*fuse.classes=ma52"):
        fuse.objective("f1_mean", CLASSES)

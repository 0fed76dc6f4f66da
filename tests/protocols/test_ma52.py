"""The MA-52 protocol: its formula, classes that a subset lacks, and where body parts come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.data.class_list import class_list
from kinema.errors import ConfigError
from kinema.protocols.ma52 import MA52Protocol
from kinema.protocols.report import Report
from tests.protocols.clip_store import batch, classes, windows

MA52 = class_list("ma52")


def _scored(labels: list[int], values: Tensor, **options: str) -> Report:
    protocol = MA52Protocol(windows(labels), classes=MA52, **options)
    protocol.update(values, batch(range(len(labels))))
    return protocol.compute()


def _f1(truth: np.ndarray, predicted: np.ndarray, labels: list[int]) -> float:
    """Macro F1 over some labels, by its definition."""
    scores = []
    for label in labels:
        true, guessed = truth == label, predicted == label
        total = true.sum() + guessed.sum()
        scores.append(2 * (true & guessed).sum() / total if total else 0.0)
    return float(100 * np.mean(scores))


def test_scores_follow_the_published_formula() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 30, 200)
    predicted = np.where(random.random(200) < 0.6, truth, random.integers(0, 52, 200))
    values = 8 * torch.nn.functional.one_hot(torch.from_numpy(predicted), 52).double()
    found = _scored(truth.tolist(), values).scalars
    groups = np.asarray(MA52.groups)
    body, told = groups[truth], groups[predicted]
    present = sorted({*truth.tolist(), *predicted.tolist()})
    expected = {
        "f1_macro_action": _f1(truth, predicted, present),
        "f1_micro_action": 100 * (truth == predicted).mean(),
        "f1_macro_body": _f1(body, told, sorted({*body.tolist(), *told.tolist()})),
        "f1_micro_body": 100 * (body == told).mean(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["f1_mean"] == pytest.approx(sum(expected.values()) / 4)
    assert found["f1_micro_action"] == found["top1"] and found["f1_micro_body"] == found["body_top1"]
    assert found["f1_macro_action_strict"] == pytest.approx(_f1(truth, predicted, list(range(52))))
    strict = [found[name] for name in ("f1_macro_action_strict", "f1_micro_action", "f1_micro_body")]
    assert found["f1_mean_strict"] == pytest.approx((sum(strict) + found["f1_macro_body_strict"]) / 4)
    assert list(found) == list(MA52Protocol.scalars)


def test_published_row_satisfies_the_formula() -> None:
    """MANet: 72.87, 78.95, 49.22, 61.33 give 65.59."""
    assert np.mean([72.87, 78.95, 49.22, 61.33]) == pytest.approx(65.59, abs=0.005)


def test_classes_that_a_subset_lacks_count_in_the_strict_mean_only() -> None:
    values = 9 * torch.eye(52)[[0, 5]]
    found = _scored([0, 5], values).scalars
    assert found["f1_macro_action"] == found["f1_macro_body"] == 100
    assert found["f1_macro_action_strict"] == pytest.approx(100 * 2 / 52)
    assert found["f1_macro_body_strict"] == pytest.approx(100 * 2 / 7)


def test_body_part_is_that_of_the_action_or_the_most_probable_one() -> None:
    # Action 0 is the most probable one, head actions (5..10) are so together.
    probs = torch.full((1, 52), 1e-4)
    probs[0, 0], probs[0, 5:10] = 0.3, 0.13
    assert _scored([5], probs.log()).scalars["body_top1"] == 0
    marginal = _scored([5], probs.log(), body="marginal")
    assert marginal.scalars["body_top1"] == 100
    assert marginal.scalars["top1"] == 0
    assert marginal.scalars["coarse_fine_inconsistency"] == 100
    assert marginal.arrays["group_scores"].argmax(1).tolist() == [1]


def test_first_table_is_what_papers_print() -> None:
    found = _scored([0, 5, 7], 9 * torch.eye(52)[[0, 5, 8]])
    assert [row["level"] for row in found.tables["level"]] == ["action", "body"]
    assert found.tables["level"][1]["f1_macro"] == found.scalars["f1_macro_body"]
    assert found.footers["level"][0]["f1_macro"] == found.scalars["f1_mean"]
    assert next(iter(found.tables)) == "level"
    assert [row["group"] for row in found.tables["group"]] == list(MA52.group_names or ())
    assert found.tables["confused_pair"] == [
        {"truth": "tilting head", "predicted": "turning head", "clips": 1, "of": 1}
    ]


def test_withheld_labels_give_scores_and_no_numbers() -> None:
    found = _scored([-1, -1], torch.zeros(2, 52))
    assert found.scalars == {} and not found.footers
    assert found.arrays["scores"].shape == (2, 52)


def test_without_body_parts_or_with_another_way_it_refuses() -> None:
    with pytest.raises(ConfigError, match=r"task\.protocol=action"):
        MA52Protocol(windows([0]), classes=classes(52))
    with pytest.raises(ConfigError, match=r"protocol_options\.ma52\.body=map"):
        MA52Protocol(windows([0]), classes=MA52, body="head")

"""The action protocol: accuracies by plain loops, test clips, fillers, ranks, withheld labels, tables and arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.core import class_metrics
from kinema.errors import ConfigError, DataError
from kinema.protocols.action import ActionProtocol, report
from kinema.protocols.class_report import Judged, Scores, group_log_probs
from kinema.protocols.registry import ACTION
from kinema.protocols.report import Report
from tests.protocols.clip_store import batch, classes, windows

LABELS = [0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 0, 3]
# Class 6 never occurs.
CLASSES = classes(7, [0, 0, 1, 1, 1, 2, 2])


def logits(count: int, seed: int = 0, width: int = 7) -> Tensor:
    return 2 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def judged(protocol: ActionProtocol, values: Tensor, size: int = 5) -> Report:
    for rows in torch.arange(len(values)).split(size):
        protocol.update(values[rows], batch(rows.tolist()))
    return protocol.compute()


def test_scalars_are_what_a_loop_over_clips_finds() -> None:
    values = logits(len(LABELS))
    found = judged(ActionProtocol(windows(LABELS), classes=CLASSES), values)
    guesses = [sorted(range(7), key=lambda k, row=row: -float(values[row, k])) for row in range(len(LABELS))]
    right = [guess[0] == label for guess, label in zip(guesses, LABELS, strict=True)]
    assert found.scalars["top1"] == pytest.approx(100 * np.mean(right))
    five = [label in guess[:5] for guess, label in zip(guesses, LABELS, strict=True)]
    assert found.scalars["top5"] == pytest.approx(100 * np.mean(five))
    probs = values.double().softmax(1)
    loss = torch.nn.functional.nll_loss(probs.log(), torch.tensor(LABELS))
    assert found.scalars["nll"] == pytest.approx(float(loss))
    groups = torch.tensor(CLASSES.groups)
    coarse = torch.zeros(len(LABELS), 3, dtype=torch.float64).index_add_(1, groups, probs).argmax(1)
    mapped = groups[[guess[0] for guess in guesses]]
    assert found.scalars["coarse_fine_inconsistency"] == pytest.approx(100 * float((coarse != mapped).double().mean()))
    assert found.scalars["group_top1"] == pytest.approx(100 * float((mapped == groups[LABELS]).double().mean()))
    assert set(found.scalars) == set(ActionProtocol.scalars)
    np.testing.assert_allclose(found.arrays["scores"], probs.log(), atol=1e-6)
    assert found.arrays["names"].tolist() == [f"clip{number:04d}" for number in range(len(LABELS))]
    assert found.arrays["labels"].tolist() == LABELS


def test_top5_needs_five_classes_and_groups_need_a_list_with_groups() -> None:
    found = judged(ActionProtocol(windows([0, 1, 2]), classes=classes(4)), logits(3, width=4))
    assert not {"top5", "group_top1", "coarse_fine_inconsistency"} & set(found.scalars)
    assert found.tables["level"][0]["top5"] is None
    assert "groups" not in found.arrays


@pytest.mark.parametrize("average", ["prob", "score"])
def test_test_clips_of_a_recording_are_averaged(average: str) -> None:
    values = logits(2 * 3 * 4).unflatten(0, (-1, 3))
    protocol = ActionProtocol(windows([0, 1, 2, 3, 4, 5, 0, 1], views=3), classes=CLASSES, average=average)
    found = judged(protocol, values.flatten(0, 1))
    wide = values.double()
    expected = wide.softmax(-1).mean(1).log() if average == "prob" else wide.mean(1).log_softmax(-1)
    np.testing.assert_allclose(found.arrays["scores"], expected, atol=1e-6)
    again = ActionProtocol(windows([0, 1, 2, 3, 4, 5, 0, 1], views=3), classes=CLASSES, average=average)
    # The task gives logarithms of probabilities: a constant per clip, which the softmax takes away.
    np.testing.assert_allclose(
        judged(again, values.flatten(0, 1).log_softmax(-1)).arrays["scores"], found.arrays["scores"], atol=1e-5
    )


def test_without_averaging_every_test_clip_counts_by_itself() -> None:
    values = logits(9)
    found = judged(ActionProtocol(windows([0, 1, 2], views=3), classes=CLASSES, average="none"), values)
    np.testing.assert_allclose(found.arrays["scores"], values.double().log_softmax(1), atol=1e-6)
    assert found.arrays["names"].tolist() == [f"clip{number:04d}" for number in (0, 0, 0, 1, 1, 1, 2, 2, 2)]


def test_persons_of_a_clip_are_one_sample() -> None:
    values = logits(4)
    found = judged(ActionProtocol(windows([3, 1, 2, 0], persons=[2, 1, 2, 2]), classes=CLASSES), values)
    assert found.arrays["labels"].tolist() == [3, 1, 2, 0]
    np.testing.assert_allclose(found.arrays["scores"], values.double().log_softmax(1), atol=1e-6)


def test_order_ranks_and_fillers_do_not_matter() -> None:
    values = logits(len(LABELS))
    alone = judged(ActionProtocol(windows(LABELS), classes=CLASSES), values)
    ranks = [ActionProtocol(windows(LABELS), classes=CLASSES) for _ in range(2)]
    order = torch.from_numpy(np.random.default_rng(3).permutation(len(LABELS)))
    for rank, protocol in enumerate(ranks):
        rows = [*order[rank::2].tolist(), -1, -1]
        rubbish = torch.full((2, 7), float("nan"))
        protocol.update(torch.cat([values[order[rank::2]], rubbish]), batch(rows))
    ranks[0].sums += ranks[1].sums
    ranks[0].counts += ranks[1].counts
    together = ranks[0].compute()
    assert together.scalars == pytest.approx(alone.scalars)
    for name, array in alone.arrays.items():
        np.testing.assert_array_equal(together.arrays[name], array)


def test_what_was_not_seen_and_what_has_no_label_is_not_judged() -> None:
    labels = [0, -1, 2, 3]
    protocol = ActionProtocol(windows(labels), classes=CLASSES)
    values = torch.zeros(4, 7)
    values[[0, 1, 2, 3], [0, 5, 1, 3]] = 9
    protocol.update(values[:3], batch([0, 1, 2]))
    found = protocol.compute()
    assert found.scalars["top1"] == 50
    assert found.arrays["labels"].tolist() == [0, -1, 2], "withheld ones are kept for a submission"
    assert found.arrays["names"].tolist() == ["clip0000", "clip0001", "clip0002"]
    protocol.reset()
    protocol.update(values[1:2], batch([1]))
    empty = protocol.compute()
    assert empty.scalars == {}
    assert len(empty.arrays["scores"]) == 1
    assert empty.to_rich() == [] and empty.to_csv().count("\n") == 1


def test_class_table_tells_support_training_precision_recall_and_f1() -> None:
    values = torch.full((5, 7), -5.0)
    truth, guessed = [0, 0, 0, 1, 2], [0, 0, 1, 1, 0]
    values[range(5), guessed] = 5
    counts = [30, 4, 9, 0, 1, 2, 3]
    found = judged(ActionProtocol(windows(truth), classes=CLASSES, training_counts=counts), values)
    rows = {row["class"]: row for row in found.tables["class"]}
    assert [row["training"] for row in rows.values()] == counts
    low, high = class_metrics.wilson_interval(2, 3)
    first = {key: pytest.approx(value) if isinstance(value, float) else value for key, value in rows["c0"].items()}
    assert first == {
        "class": "c0", "clips": 3, "training": 30, "predicted": 3, "precision": 200 / 3, "recall": 200 / 3,
        "recall_low": 100 * float(low), "recall_high": 100 * float(high), "f1": 200 / 3,
    }  # fmt: skip
    assert (rows["c1"]["precision"], rows["c1"]["recall"]) == (50, 100)
    assert (rows["c2"]["precision"], rows["c2"]["recall"], rows["c2"]["f1"]) == (None, 0, 0)
    assert [rows["c3"][key] for key in ("precision", "recall", "recall_low", "f1")] == [None] * 4
    groups = {row["group"]: row for row in found.tables["group"]}
    assert [(row["clips"], row["training"]) for row in groups.values()] == [(4, 34), (1, 10), (0, 5)]
    assert found.tables["confused_pair"] == [
        {"truth": "c0", "predicted": "c1", "clips": 1, "of": 3},
        {"truth": "c2", "predicted": "c0", "clips": 1, "of": 1},
    ]
    assert found.footers["class"][1]["recall"] == found.scalars["top1"] == 60
    assert found.footers["class"][0]["f1"] == found.scalars["f1_macro"]
    assert found.arrays["training_counts"].tolist() == counts
    for text in (found.to_markdown(), found.to_csv()):
        assert "mean over those present" in text and "c6" in text
    assert [len(table.rows) for table in found.to_rich()] == [2, 9, 5, 2]
    assert found.to_metrics("test")["test/recall_class/c0"] == pytest.approx(200 / 3)


def test_confusion_and_reliability_are_stored() -> None:
    values = logits(len(LABELS))
    found = judged(ActionProtocol(windows(LABELS), classes=CLASSES, bins=4), values)
    predicted = values.argmax(1).numpy()
    np.testing.assert_array_equal(found.arrays["confusion"], class_metrics.confusion(np.array(LABELS), predicted, 7))
    confidence = values.double().softmax(1).amax(1).numpy()
    curve = class_metrics.reliability(confidence, predicted == LABELS, 4)
    np.testing.assert_allclose(found.arrays["reliability"], np.stack(curve, axis=1))
    assert found.scalars["ece"] == pytest.approx(100 * class_metrics.expected_calibration_error(curve))
    groups = np.asarray(CLASSES.groups)
    np.testing.assert_array_equal(
        found.arrays["group_confusion"], class_metrics.confusion(groups[LABELS], groups[predicted], 3)
    )
    np.testing.assert_allclose(np.exp(found.arrays["group_scores"]).sum(1), 1, atol=1e-5)


def test_scores_from_elsewhere_get_the_same_report() -> None:
    values = logits(len(LABELS))
    found = judged(ActionProtocol(windows(LABELS), classes=CLASSES), values)
    scores = Scores(values.double().log_softmax(1).numpy(), np.array(LABELS), found.arrays["names"], CLASSES)
    other = report(scores)
    assert other.scalars == pytest.approx(found.scalars)
    assert (other.protocol, other.version) == (found.protocol, found.version)


def test_a_group_without_classes_gets_no_probability() -> None:
    log_probs = logits(4, width=3).double().log_softmax(1).numpy()
    found = np.exp(group_log_probs(log_probs, np.array([0, 2, 0]), 3))
    np.testing.assert_allclose(
        found,
        np.exp(log_probs)[:, [0, 1, 1]] + [1, 0, 0] * np.exp(log_probs)[:, [2]] - [0, 1, 0] * np.exp(log_probs)[:, [1]],
    )
    assert (found[:, 1] == 0).all()


def test_a_certain_network_has_finite_scores() -> None:
    values = torch.tensor([[1e4, 0, 0, 0, 0, 0, 0]]).repeat(2, 1)
    found = judged(ActionProtocol(windows([0, 1]), classes=CLASSES), values)
    assert np.isfinite(found.arrays["scores"]).all() and np.isfinite(found.scalars["nll"])
    assert found.scalars["top1"] == 50


def test_wrong_labels_outputs_and_options_are_refused() -> None:
    with pytest.raises(DataError, match=r"clip0001 has label 7, the class list ends at 6.*dataset\.classes="):
        ActionProtocol(windows([0, 7]), classes=CLASSES)
    with pytest.raises(ConfigError, match=r"protocol_options\.action\.average=prob"):
        ActionProtocol(windows([0]), classes=CLASSES, average="mean")
    protocol = ActionProtocol(windows([0]), classes=CLASSES)
    with pytest.raises(DataError, match=r"prediction.*K=7"):
        protocol.update(torch.zeros(1, 6), batch([0]))
    unlabelled = windows([0])
    del unlabelled.sequences.table["label"]
    with pytest.raises(DataError, match="no labels"):
        ActionProtocol(unlabelled, classes=CLASSES)


def test_registry_names_protocols_and_what_they_judge() -> None:
    own = {"action": "logits", "ma52": "logits", "oneshot": "embedding"}
    assert {name: ACTION[name].output for name in own} == own
    assert all(ACTION[name].name == name for name in own)
    assert {protocol.name for protocol in ACTION.values()} == set(own), "other names are benchmarks judged alike"


def test_groups_may_come_from_the_sum_of_their_classes() -> None:
    log_probs = np.log([[0.4, 0.0001, 0.35, 0.2499]])
    scores = Scores(log_probs, np.array([2]), np.array(["a"]), classes(4, [0, 0, 1, 1]))
    assert Judged(scores).group_confusion.tolist() == [[0, 0], [1, 0]]
    assert Judged(scores, "marginal").group_confusion.tolist() == [[0, 0], [0, 1]]
    assert Judged(scores).inconsistency == 1

"""Golden numbers of classification: official MA-52 scores, top-k, one-shot retrieval and its training sampler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kinema.core import class_metrics
from kinema.core.retrieval import cosine_similarity, nearest_labels
from kinema.data import orders
from kinema.data.class_list import class_list
from kinema.protocols.class_report import group_log_probs
from kinema.protocols.ma52 import MA52Protocol
from kinema.protocols.oneshot import OneShotProtocol
from kinema.protocols.report import Report
from tests.parity.golden import Arrays, Case, cases
from tests.protocols import clip_store

pytestmark = pytest.mark.parity

# Percents of a protocol, by their names in the golden file.
_SCALARS = {
    "f1_mean": "f1_mean",
    "f1_macro_body": "body_f1_macro",
    "f1_micro_body": "body_f1_micro",
    "f1_macro_action": "action_f1_macro",
    "f1_micro_action": "action_f1_micro",
    "f1_macro_body_strict": "body_f1_macro_over_all_7",
    "f1_macro_action_strict": "action_f1_macro_over_all_52",
    "body_top1": "body_top1",
    "top1": "action_top1",
    "top5": "action_top5",
    "mean_class": "mm_mean_class_accuracy",
}


@cases("action", "d_ma52_metrics")
def test_ma52_scores(case: Case) -> None:
    """Every number of `expected.json` from the stored scores, by the protocol and by the functions it is made of."""
    expected = case.json("expected.json")
    labels = class_list("ma52")
    groups, count = np.asarray(labels.groups), labels.num_groups
    for stem, numbers in expected.items():
        plain = stem.removesuffix("_twohead")
        arrays = case.arrays(f"{plain}.npz")
        case.file(f"{stem}_prediction.csv")  # read by test_action_submit.py
        target = arrays["target"]
        listed = [int(line.split()[1]) for line in case.file(f"{plain}_truth.txt").read_text().splitlines()]
        case.close(f"{plain} truth list", listed, target)
        probs = torch.from_numpy(arrays["scores"]).double()
        fine = class_metrics.confusion(target, probs.argmax(1).numpy(), len(labels))
        coarse = class_metrics.grouped(fine, groups, count)
        hit_in_five = groups[probs.topk(5).indices.numpy()]
        if stem == plain:
            report = _report(probs, target)
            _close(
                case,
                stem,
                {_SCALARS[name]: value / 100 for name, value in report.scalars.items() if name in _SCALARS},
                numbers,
            )
            assert set(_SCALARS) <= set(report.scalars)
            case.close(f"{stem} confusion", report.arrays["confusion"], arrays["confusion_52"])
            case.close(f"{stem} F1", class_metrics.per_class(fine).f1, arrays["per_class_f1"], atol=1e-9)
            case.close(f"{stem} body F1", class_metrics.per_class(coarse).f1, arrays["per_body_f1"], atol=1e-9)
            hits = class_metrics.top_k(probs, torch.from_numpy(target)).double().mean(1)
            _close(case, stem, {"mm_top1": hits[0], "mm_top5": hits[1]}, numbers)
        else:
            # Body parts from a head of their own: its scores stand in a file of their own.
            own = torch.from_numpy(case.arrays(f"{plain}_body_scores.npz")["body_scores"])
            coarse = class_metrics.confusion(groups[target], own.argmax(1).numpy(), count)
            hit_in_five = own.topk(5).indices.numpy()
        found = {_SCALARS[name]: value for name, value in class_metrics.f1_family(fine, coarse).items()}
        present = (fine.sum(0) + fine.sum(1)) > 0
        found |= {
            "action_f1_macro_over_all_52": class_metrics.macro_f1(fine, "all"),
            "body_f1_macro_over_all_7": class_metrics.macro_f1(coarse, "all"),
            "action_top1": class_metrics.accuracy(fine),
            "action_top5": class_metrics.top_k(probs, torch.from_numpy(target), (5,)).double().mean(),
            "body_top1": class_metrics.accuracy(coarse),
            "body_hit_in_5_columns": (hit_in_five == groups[target][:, None]).any(1).mean(),
            "n": fine.sum(),
            "n_action_classes_in_truth_or_prediction": present.sum(),
        }
        _close(case, stem, found, numbers)
        unknown = set(numbers) - set(found) - {"mm_top1", "mm_top5", "mm_mean_class_accuracy"}
        assert not unknown, f"{stem}: nobody checks {sorted(unknown)}"
    case.finish()


def _close(case: Case, stem: str, found: dict[str, Any], numbers: dict[str, float]) -> None:
    for name, value in found.items():
        case.close(f"{stem} {name}", float(value), numbers[name], atol=1e-9)


def _report(probs: torch.Tensor, target: np.ndarray) -> Report:
    """The protocol's report, updated with the clips in another order and in uneven batches."""
    protocol = MA52Protocol(clip_store.windows(target), classes=class_list("ma52"))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(target)))
    for rows in order.split(37):
        protocol.update(probs[rows].log(), clip_store.batch(rows.tolist()))
    report = protocol.compute()
    groups = np.asarray(class_list("ma52").groups)
    np.testing.assert_allclose(report.arrays["scores"], probs.log(), atol=1e-4)
    whole = group_log_probs(probs.log().numpy(), groups, int(groups.max()) + 1)
    np.testing.assert_allclose(report.arrays["group_scores"], whole, atol=1e-4)
    return report


@cases("action", "f_topk_supcon")
def test_top_k(case: Case) -> None:
    """`topk_1_5` names the numbers of guesses; the supervised contrastive loss is test_action_core.py's."""
    arrays = case.arrays()
    logits, target = (torch.from_numpy(arrays[f"topk_{name}"]) for name in ("logits", "target"))
    names = [name for name in arrays.names("topk_") if name not in ("topk_logits", "topk_target")]
    assert names
    for name in names:
        ks = [int(k) for k in name.split("_")[1:]]
        case.close(name, 100 * class_metrics.top_k(logits, target, ks).double().mean(1), arrays[name], atol=1e-5)
    _elsewhere(arrays, "sup_")
    case.finish()


@cases("action", "e_oneshot")
def test_one_shot(case: Case) -> None:
    """Similarities, predictions and accuracy of every set, and the index list of the sampler."""
    arrays = case.arrays()
    sets = [name.removesuffix("_anchor") for name in arrays if name.endswith("_anchor")]
    assert sets
    for name in sets:
        anchors, queries = (torch.from_numpy(arrays[f"{name}_{part}"]) for part in ("anchor", "test"))
        known, truth = (arrays[f"{name}_{part}_label"] for part in ("anchor", "test"))
        case.close(f"{name} similarity", cosine_similarity(queries, anchors).T, arrays[f"{name}_similarity"], atol=1e-6)
        predicted = nearest_labels(queries, anchors, torch.from_numpy(known))
        case.close(f"{name} prediction", predicted, arrays[f"{name}_pred"])
        report = _one_shot_report(anchors, queries, known, truth)
        told = report.arrays["class_ids"][report.arrays["predictions"]]
        case.close(f"{name} report", told, arrays[f"{name}_pred"])
        case.close(f"{name} accuracy", report.scalars["top1"] / 100, arrays[f"{name}_accuracy"], atol=1e-7)
        nearest = torch.cdist(queries.double(), anchors.double()).argmin(1)
        by_distance = (known[nearest.numpy()] == truth).mean()
        case.close(f"{name} by distance", by_distance, arrays[f"{name}_accuracy_euclidean_extra"], atol=1e-9)

    sampler = case.arrays("case_sampler.npz")
    options = {
        "per_class": int(sampler["m"]),
        "num_samples": int(sampler["length_before_new_iter"]),
        "legacy_seed": int(sampler["seed"]),
    }
    labels, size = sampler["labels"], int(sampler["batch_size"])
    order = orders.make("per_class_legacy", len(labels), size, seed=99, labels=labels, options=options)
    case.close("length", order.num_rows, sampler["length"])
    case.close("indices", torch.cat(list(order))[:, 2], sampler["indices"])
    case.finish()


@cases("motionbert", "ntu")
def test_one_shot_of_motionbert(case: Case) -> None:
    """Retrieval with the stored embeddings; data and network are checked by the other tests of actions."""
    arrays = case.arrays()
    anchors, queries = (torch.from_numpy(arrays[f"{part}_feats"]) for part in ("anchor", "test"))
    known, truth = (arrays[f"{part}_labels"] for part in ("anchor", "test"))
    case.close("prediction", nearest_labels(queries, anchors, torch.from_numpy(known)), arrays["oneshot_pred"])
    report = _one_shot_report(anchors, queries, known, truth)
    case.close("accuracy", report.scalars["top1"] / 100, arrays["oneshot_acc"], atol=1e-9)
    _elsewhere(arrays, "val_", "train_", "aux_")
    for path in case.path.iterdir():
        if path.suffix in (".json", ".bin", ".pkl"):
            case.file(path.name)
    case.finish()


def _one_shot_report(anchors: torch.Tensor, queries: torch.Tensor, known: np.ndarray, truth: np.ndarray) -> Report:
    """The protocol's report, with the exemplars between the queries in the order of evaluation."""
    labels = np.concatenate([known, truth])
    split = ["exemplar"] * len(known) + ["query"] * len(truth)
    windows = clip_store.windows(labels, split=split)
    protocol = OneShotProtocol(windows, classes=clip_store.classes(int(labels.max()) + 1))
    embeddings = torch.cat([anchors, queries])
    for rows in torch.from_numpy(np.random.default_rng(1).permutation(len(labels))).split(29):
        protocol.update(embeddings[rows], clip_store.batch(rows.tolist()))
    return protocol.compute()


def _elsewhere(arrays: Arrays, *prefixes: str) -> None:
    """Note arrays that a test of their own compares."""
    for prefix in prefixes:
        for name in arrays.names(prefix):
            assert arrays[name].size, f"{name} is empty"

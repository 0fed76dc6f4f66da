"""The pictures that belong to the arrays of a classifier's report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from kinema.core import class_metrics
from kinema.viz import action_figures as draw


def action_figures(arrays: Mapping[str, np.ndarray]) -> dict[str, Callable[[], Figure]]:
    """Figures of an evaluation by name, in the order of a report; each is drawn when it is called.

    Args:
        arrays: of a report, in memory or loaded from `predictions/report.npz`: `classes` (K,) names and `confusion`
            (K, K) counts; optional `groups` (K,), `group_names` (G,), `group_confusion` (G, G), `training_counts`
            (K,), `reliability` (bins, 3: samples, mean confidence, share of right ones), and `scores` (N, K) with
            `group_scores` (N, G). Without `confusion`, or with no sample in it, there is nothing to draw.
    """
    if not {"classes", "confusion"} <= set(arrays) or not np.sum(arrays["confusion"]):
        return {}
    counts, names = np.asarray(arrays["confusion"]), [str(name) for name in arrays["classes"]]
    groups = np.asarray(arrays["groups"]) if "groups" in arrays else None
    group_names = [str(name) for name in arrays["group_names"]] if groups is not None else []
    order = np.arange(len(names)) if groups is None else np.argsort(groups, kind="stable")
    figures: dict[str, Callable[[], Figure]] = {
        "confusion": partial(
            draw.confusion,
            counts[np.ix_(order, order)],
            [names[one] for one in order],
            title="Confusion of classes",
            groups=None if groups is None else groups[order],
        )
    }
    if groups is not None:
        figures |= _of_groups(arrays, groups, group_names)
    figures["confused_pairs"] = partial(draw.confused_pairs, counts, names)
    found = class_metrics.per_class(counts)
    trained = arrays.get("training_counts")
    figures["f1_against_frequency"] = partial(
        draw.score_against_frequency,
        np.where(found.support + found.predicted > 0, 100 * found.f1, np.nan),
        found.support if trained is None else np.asarray(trained),
        names,
        groups=groups,
        group_names=group_names,
        samples="evaluated clips" if trained is None else "training clips",
    )
    if "reliability" in arrays:
        samples, confidence, right = np.asarray(arrays["reliability"], np.float64).T
        curve = class_metrics.Reliability(samples, confidence, right)
        error = 100 * class_metrics.expected_calibration_error(curve)
        figures["reliability"] = partial(draw.reliability, confidence, right, samples, error=error)
    return figures


def _of_groups(
    arrays: Mapping[str, np.ndarray], groups: np.ndarray, names: list[str]
) -> dict[str, Callable[[], Figure]]:
    """Confusion of the groups, and where the likeliest class lies outside the likeliest group."""
    paint = partial(draw.confusion, names=names, groups=range(len(names)))
    figures: dict[str, Callable[[], Figure]] = {}
    if "group_confusion" in arrays:
        figures["confusion_groups"] = partial(
            paint, counts=np.asarray(arrays["group_confusion"]), title="Confusion of groups"
        )
    if "group_scores" in arrays and "scores" in arrays:
        fine = groups[np.asarray(arrays["scores"]).argmax(1)]
        coarse = np.asarray(arrays["group_scores"]).argmax(1)
        agreement = class_metrics.confusion(coarse, fine, len(names))
        figures["coarse_against_fine"] = partial(
            paint,
            counts=agreement,
            title="Coarse against fine",
            rows="likeliest group (clips)",
            columns="group of the likeliest class",
            verdict="agree",
        )
    return figures

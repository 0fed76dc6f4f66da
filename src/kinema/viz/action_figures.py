"""Pictures of a classifier: what it confuses, how rare classes fare, what its confidence is worth.

Pure functions of arrays; every figure belongs to its caller alone (`kinema.viz.skeleton.new_figure`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator, NullLocator

from kinema.core.class_metrics import most_confused
from kinema.viz.skeleton import FLOOR, OTHER, PAPER, new_figure

DPI = 110.0
# Distinct also for colour-blind readers (Okabe and Ito, the yellow darkened), then repeated.
GROUP_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6e4fa3", "#4d4d4d")
_RIGHT = LinearSegmentedColormap.from_list("right", ("#ffffff", "#9ecae1", "#08519c"))
_WRONG = LinearSegmentedColormap.from_list("wrong", ("#ffffff", "#fdbe85", "#a63603"))
_GREY, _BLUE, _RED = "#57606a", "#0969da", "#cf222e"
_MANY = 30  # classes from which the cells of a confusion matrix carry no numbers


def group_colour(group: int) -> str:
    """The colour of a group of classes, the same in every picture."""
    return GROUP_COLOURS[group % len(GROUP_COLOURS)]


def inches(texts: Sequence[str], points: float, *, bold: bool = False) -> float:
    """Width of the longest of some lines of text, inches."""
    measure = TextToPath()
    font = FontProperties(size=points, weight="bold" if bold else "normal")
    sizes = [measure.get_text_width_height_descent(text, font, ismath=False)[0] for text in texts]
    return float(max(sizes, default=0.0)) / 72


def confusion(
    counts: np.ndarray,
    names: Sequence[str],
    *,
    title: str = "Confusion",
    groups: Sequence[int] | np.ndarray | None = None,
    rows: str = "true (clips)",
    columns: str = "predicted",
    verdict: str = "right",
) -> Figure:
    """A confusion matrix, each row divided by its number of samples; the diagonal blue, errors orange.

    Rows of classes without samples are hatched: there is nothing to be right or wrong about.

    Args:
        counts: (K, K) samples, rows truth, columns prediction.
        names: of the K classes.
        title: above the matrix.
        groups: group of each class; lines separate neighbours of different groups.
        rows: name of the vertical axis; the number of each row stands behind its class.
        columns: name of the horizontal axis.
        verdict: what the samples on the diagonal are.
    """
    size, total = len(names), counts.sum(1)
    shares = counts / np.maximum(total, 1)[:, None]
    picture = _WRONG(shares**0.6)[..., :3]  # a rare error must still be seen
    diagonal = np.arange(size)
    picture[diagonal, diagonal] = _RIGHT(shares[diagonal, diagonal])[..., :3]
    text = 8.0 if size <= _MANY else 6.5 if size <= 70 else 5.0
    cell = max(0.42 if size <= 12 else 0.28 if size <= _MANY else 0.0, text * 1.45 / 72)  # inches
    labels = [f"{name} ({int(count)})" for name, count in zip(names, total, strict=True)]
    left, side, below = inches(labels, text) + 0.4, size * cell, inches(names, text) + 0.42
    note = f"{100 * counts.trace() / max(int(counts.sum()), 1):.1f} % {verdict}"
    needed = inches([title], 11, bold=True) + inches([note], 8) + 0.5
    figure = new_figure(max(left + side + 0.2, needed), below + side + 0.5, DPI)
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, below / height, side / width, side / height))
    axes.imshow(picture, interpolation="nearest")
    for row in np.flatnonzero(total == 0):
        axes.add_patch(
            Rectangle((-0.5, row - 0.5), size, 1, facecolor=PAPER, edgecolor=FLOOR, hatch="///", linewidth=0)
        )
    _named(axes, names, labels, text, groups)
    if size <= _MANY:
        _numbers(axes, shares, total, text)
    if groups is not None:
        for edge in np.flatnonzero(np.diff(np.asarray(groups))) + 0.5:
            axes.axhline(edge, color=_GREY, linewidth=0.7)
            axes.axvline(edge, color=_GREY, linewidth=0.7)
    axes.set_xlabel(columns, fontsize=9)
    figure.text(0.13 / width, (below + side / 2) / height, rows, fontsize=9, rotation=90, va="center", ha="center")
    top = 1 - 0.2 / height
    figure.text(0.12 / width, top, title, fontsize=11, weight="bold", va="center")
    figure.text((width - 0.2) / width, top, note, fontsize=8, ha="right", va="center")
    return figure


def _named(
    axes: Axes, names: Sequence[str], labels: Sequence[str], size: float, groups: Sequence[int] | np.ndarray | None
) -> None:
    """Names of the classes on both axes, in the colours of their groups."""
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), labels, fontsize=size)
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_color(FLOOR)
    if groups is not None:
        for texts in (axes.get_xticklabels(), axes.get_yticklabels()):
            for label, group in zip(texts, groups, strict=True):
                label.set_color(group_colour(int(group)))


def _numbers(axes: Axes, shares: np.ndarray, total: np.ndarray, size: float) -> None:
    """Percentages in the cells that are at least one half of a percent."""
    for row, column in np.argwhere(shares >= 0.005):
        if total[row]:
            share = float(shares[row, column])
            dark = share > (0.55 if row == column else 0.5)
            axes.text(
                column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=size - 1,
                color="white" if dark else OTHER,
            )  # fmt: skip


def confused_pairs(counts: np.ndarray, names: Sequence[str], *, top: int = 15, title: str = "Most confused") -> Figure:
    """Bars of the pairs (truth, prediction) with the most samples, with their share of the truth's samples.

    Args:
        counts: (K, K) samples, rows truth, columns prediction.
        names: of the K classes.
        top: pairs shown at most.
        title: above the bars.
    """
    found = most_confused(counts, top)
    pairs = [(int(truth), int(predicted)) for truth, predicted, _ in found]
    labels = [f"{names[a]} → {names[b]}" for a, b in pairs]
    left = inches(labels, 8) + 0.3
    figure = new_figure(left + 4.2, 0.85 + 0.25 * max(len(pairs), 1), DPI)
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, 0.42 / height, 3.3 / width, 1 - 0.82 / height))
    sizes = [int(size) for size in found[:, 2]]
    axes.barh(range(len(pairs)), sizes, color=_WRONG(0.72), height=0.7)
    axes.set_yticks(range(len(pairs)), labels, fontsize=8)
    axes.set_ylim(max(len(pairs), 1) - 0.4, -0.6)
    most = max(sizes, default=1)
    axes.set_xlim(0, 1.05 * most)
    for number, (pair, size) in enumerate(zip(pairs, sizes, strict=True)):
        share = 100 * size / int(counts[pair[0]].sum())
        note = f"{size}, {share:.0f} %"
        axes.text(size + 0.02 * most, number, note, va="center", fontsize=7.5, color=_GREY, clip_on=False)
    if not pairs:
        axes.text(0.5, 0.5, "no errors", transform=axes.transAxes, ha="center", va="center", fontsize=10)
    _plain(axes)
    axes.set_xlabel("clips, share of the true class", fontsize=8)
    figure.text(0.12 / width, 1 - 0.2 / height, f"{title}: truth → prediction", fontsize=11, weight="bold", va="center")
    return figure


def score_against_frequency(
    scores: np.ndarray,
    frequency: np.ndarray,
    names: Sequence[str],
    *,
    groups: Sequence[int] | np.ndarray | None = None,
    group_names: Sequence[str] | None = None,
    score: str = "F1",
    samples: str = "training clips",
    labelled: int = 10,
) -> Figure:
    """Every class as a point: how often it occurs against how well it is told apart.

    Args:
        scores: (K,) percent; NaN = class not shown.
        frequency: (K,) samples; on a logarithmic axis classes that never occur stand left of the others, over a 0.
        names: of the K classes.
        groups: group of each class, as its colour.
        group_names: names for the legend.
        score: name of the vertical axis.
        samples: name of the horizontal axis.
        labelled: classes that carry their name: those farthest from the trend.
    """
    figure = new_figure(7.6, 4.6, DPI)
    axes = figure.add_axes((0.085, 0.125, 0.89, 0.78))
    shown = np.flatnonzero(np.isfinite(scores))
    count, ticks = _places_of(np.asarray(frequency, float), shown)
    belongs = np.zeros(len(names), int) if groups is None else np.asarray(groups, int)
    for group in np.unique(belongs[shown]):
        mine = shown[belongs[shown] == group]
        name = None if groups is None or group_names is None else group_names[group]
        axes.scatter(count[mine], scores[mine], s=26, color=group_colour(int(group)), alpha=0.85, label=name, zorder=3)
    residual = scores - (np.nanmean(scores) if len(shown) else 0)
    seen = shown[np.asarray(frequency)[shown] > 0]
    # Classes of nearly one size have no trend.
    if len(seen) > 2 and count[seen].max() >= 2 * count[seen].min():
        slope, level = np.polyfit(np.log(count[seen]), scores[seen], 1)
        span = np.geomspace(count[seen].min(), count[seen].max(), 50)
        trend = slope * np.log(10.0)
        note = f"trend: {trend:+.1f} points for ten times the clips"
        axes.plot(span, slope * np.log(span) + level, color=_GREY, linewidth=1.2, linestyle="--", label=note, zorder=2)
        residual = scores - slope * np.log(np.maximum(count, span[0])) - level
    if ticks is None:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    else:
        axes.set_xscale("log")
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-4, 104)
    far = shown[np.argsort(-np.abs(residual[shown]), kind="stable")]
    _labels(figure, axes, count, scores, names, far, labelled)
    _plain(axes)
    axes.grid(color=FLOOR, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{samples} of the class", fontsize=9)
    axes.set_ylabel(f"{score} (%)", fontsize=9)
    axes.set_title(f"{score} against class frequency", fontsize=11, weight="bold", loc="left")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=True, framealpha=0.85, edgecolor="white", loc="best", ncols=2)
    return figure


def _places_of(frequency: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, dict[float, str] | None]:
    """Places on the horizontal axis, and on a logarithmic one (where frequencies differ much) its ticks.

    Args:
        frequency: (K,) samples.
        shown: ids of the classes in the picture.
    """
    own = frequency[shown]
    seen = own[own > 0]
    if not len(seen) or seen.max() <= 10 * seen.min():
        return frequency, None
    ticks = {}
    if len(seen) < len(own):
        ticks[float(seen.min()) / 2] = "0"
    for power in range(int(np.log10(seen.min())), int(np.log10(seen.max())) + 1):
        for digit in (1, 2, 5):
            value = float(digit * 10**power)
            if seen.min() <= value <= seen.max():
                ticks[value] = f"{value:g}"
    return np.where(frequency > 0, frequency, seen.min() / 2), ticks


def _labels(
    figure: Figure, axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], order: np.ndarray, most: int
) -> None:
    """Names beside points, on the first of eight places that touches neither a name nor a point.

    Points on one spot get one name, with the number of the others.

    Args:
        figure: of the axes.
        axes: with the points.
        x: (K,) of all points.
        y: (K,) of all points; NaN = not drawn.
        names: of the points.
        order: ids of the points, the most important first.
        most: spots that get a name, where there is room.
    """
    points = axes.transData.transform(np.stack((x, y), 1))
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axes.get_window_extent(renderer)
    taken: list[tuple[float, float, float, float]] = []
    named = np.zeros(len(names), bool)
    for one in order:
        if named[one]:
            continue
        if not most:
            return
        most -= 1
        same = np.abs(points - points[one]).max(1) <= _ONE_SPOT
        named |= same
        others = int(same.sum()) - 1
        name = f"{names[one]}, +{others} more" if others else names[one]
        text = axes.annotate(name, (x[one], y[one]), (0, 0), textcoords="offset points", fontsize=7, zorder=4)
        for dx, dy, side in _PLACES:
            text.set_position((dx, dy))
            text.set_horizontalalignment(side)
            box = text.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            hits = any(box.x0 < b[2] and b[0] < box.x1 and box.y0 < b[3] and b[1] < box.y1 for b in taken)
            covers = np.all((points > (box.x0 - 3, box.y0 - 3)) & (points < (box.x1 + 3, box.y1 + 3)), axis=1)
            if inside and not hits and not (covers & ~same).any():
                taken.append((box.x0, box.y0, box.x1, box.y1))
                break
        else:
            text.remove()


_ONE_SPOT = 2.0  # pixels
_PLACES: tuple[tuple[float, float, Literal["left", "center", "right"]], ...] = (
    (6, -2.5, "left"), (-6, -2.5, "right"), (0, 6, "center"), (0, -11, "center"), (6, 5, "left"), (-6, 5, "right"),
    (6, -11, "left"), (-6, -11, "right"),
)  # fmt: skip


def reliability(confidence: np.ndarray, correct: np.ndarray, samples: np.ndarray, *, error: float) -> Figure:
    """How often the classifier is right when it says how sure it is, in equal bins of its highest probability.

    Args:
        confidence: (bins,) mean highest probability of a bin's samples, 0 to 1; ignored where the bin is empty.
        correct: (bins,) share of them that are right, 0 to 1.
        samples: (bins,) how many they are.
        error: expected calibration error, percent.
    """
    bins = len(samples)
    edges = np.linspace(0, 1, bins + 1)
    figure = new_figure(4.6, 5.4, DPI)
    axes = figure.add_axes((0.13, 0.30, 0.83, 0.62))
    below = figure.add_axes((0.13, 0.085, 0.83, 0.165), sharex=axes)
    width, full = 1 / bins, np.asarray(samples) > 0
    middle = (edges[:-1] + edges[1:])[full] / 2
    right, sure = np.asarray(correct)[full], np.asarray(confidence)[full]
    axes.bar(middle, right, width=0.94 * width, color="#9ecae1", zorder=2, label="right")
    gap = sure - right
    axes.bar(
        middle, gap, bottom=right, width=0.94 * width, color=[_RED if g > 0 else _BLUE for g in gap], alpha=0.32,
        zorder=3,
    )  # fmt: skip
    axes.plot((0, 1), (0, 1), color=_GREY, linewidth=1.0, linestyle="--", zorder=4)
    axes.plot(sure, right, "o-", color=OTHER, markersize=3.5, linewidth=1.0, zorder=5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share that is right", fontsize=9)
    axes.tick_params(axis="x", labelbottom=False)
    total = max(int(np.sum(samples)), 1)
    mean_gap = float(np.sum((np.asarray(confidence)[full] - right) * np.asarray(samples)[full]) / total)
    verdict = "too sure" if mean_gap > 0.005 else "not sure enough" if mean_gap < -0.005 else "about right on average"
    note = f"calibration error {error:.1f} %\n{verdict} ({100 * mean_gap:+.1f} points)"
    axes.text(0.03, 0.96, note, fontsize=8.5, va="top", transform=axes.transAxes, zorder=6)
    axes.set_title("Reliability", fontsize=11, weight="bold", loc="left")
    below.bar((edges[:-1] + edges[1:]) / 2, 100 * np.asarray(samples) / total, width=0.94 * width, color=_GREY)
    below.set_ylabel("% of clips", fontsize=8)
    below.set_xlabel("highest probability", fontsize=9)
    for one in (axes, below):
        _plain(one)
        one.grid(axis="y", color=FLOOR, linewidth=0.6)
        one.set_axisbelow(True)
    return figure


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

"""A strip of labels over time: what a classifier says about the windows of a long clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kinema.viz.action_figures import DPI, group_colour, inches
from kinema.viz.skeleton import FLOOR, OTHER, new_figure

_LANE, _ROW = 0.34, 0.22  # inches
QUIET = "#57606a"  # of classes that are never the likeliest


def timeline(
    probabilities: np.ndarray,
    spans: np.ndarray,
    names: Sequence[str],
    *,
    truth: Sequence[int] | None = None,
    top: int = 6,
    unit: str = "s",
    now: float | None = None,
    width: float = 9.0,
    title: str = "Labels over time",
) -> Figure:
    """Draw what was predicted when (and what was true), over the probabilities of the likeliest classes.

    Where windows overlap, the later one is drawn over the earlier.

    Args:
        probabilities: (W, K) of the W windows, each row sums to 1.
        spans: (W, 2) beginning and end of each window.
        names: of the K classes.
        truth: (W,) true class of each window, -1 = unknown.
        top: classes that get a row of probabilities, by their largest one.
        unit: of the spans, "s" or "frame".
        now: draws a line at this moment.
        width: inches; the height follows from the rows.
        title: above the strip.
    """
    shown = np.argsort(-probabilities.max(0), kind="stable")[:top]
    lanes = {"predicted": probabilities.argmax(1)}
    if truth is not None:
        lanes["true"] = np.asarray(truth)
    colours = colours_of(np.concatenate(list(lanes.values())))
    above, below = _LANE * len(lanes), _ROW * len(shown)
    height = 0.95 + above + below
    figure = new_figure(width, height, DPI)
    left = inches([*(names[one] for one in shown), "predicted"], 8) + 0.25
    share = 1 - (left + 0.15) / width
    strip = figure.add_axes((left / width, (0.55 + below) / height, share, above / height))
    heat = figure.add_axes((left / width, 0.5 / height, share, below / height))
    start, end = float(spans.min()), float(spans.max())
    _strip(strip, lanes, spans, names, colours, width * share / (end - start))
    _heat(heat, probabilities[:, shown], spans, [names[one] for one in shown], [colours.get(one) for one in shown])
    heat.set_xlabel("frame" if unit == "frame" else f"time ({unit})", fontsize=8)
    for axes in (strip, heat):
        axes.set_xlim(start, end)
        axes.tick_params(length=0, labelsize=8)
        axes.tick_params(axis="x", labelbottom=axes is heat)
        for spine in axes.spines.values():
            spine.set_color(FLOOR)
        if now is not None:
            axes.axvline(now, color=OTHER, linewidth=1.4, zorder=5)
    figure.text(0.12 / width, 1 - 0.18 / height, title, fontsize=11, weight="bold", va="center")
    return figure


def colours_of(labels: np.ndarray) -> dict[int, str]:
    """A colour for each class that labels (N,) hold, in the order of their first appearance; -1 has none."""
    involved = dict.fromkeys(int(one) for one in labels if one >= 0)
    return {one: group_colour(number) for number, one in enumerate(involved)}


def segments(labels: np.ndarray, spans: np.ndarray) -> list[tuple[float, float, int]]:
    """Neighbouring windows of one label joined: (beginning, end, label); a later window cuts an earlier one off."""
    joined: list[tuple[float, float, int]] = []
    for label, (first, last) in zip(labels, spans, strict=True):
        if joined and joined[-1][2] == label and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(float(last), joined[-1][1]), int(label))
            continue
        if joined and first < joined[-1][1]:
            joined[-1] = (joined[-1][0], float(first), joined[-1][2])
        joined.append((float(first), float(last), int(label)))
    return joined


def _strip(
    axes: Axes,
    lanes: Mapping[str, np.ndarray],
    spans: np.ndarray,
    names: Sequence[str],
    colours: Mapping[int, str],
    scale: float,
) -> None:
    """One bar per lane and segment, with its name where there is room; `scale` is in inches per unit of the spans."""
    for number, lane in enumerate(lanes.values()):
        for first, last, one in segments(lane, spans):
            if one < 0:
                continue
            bar = Rectangle((first, number - 0.42), last - first, 0.84, facecolor=colours[one], edgecolor="white")
            axes.add_patch(bar)
            name = _shortened(names[one], (last - first) * scale)
            axes.text((first + last) / 2, number, name, fontsize=7, color="white", ha="center", va="center")
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_yticks(range(len(lanes)), list(lanes), fontsize=8)


def _heat(
    axes: Axes, shares: np.ndarray, spans: np.ndarray, names: Sequence[str], colours: Sequence[str | None]
) -> None:
    """A row per class whose colour is the stronger the likelier it is."""
    for row, colour in enumerate(colours):
        full = np.array(to_rgb(colour or QUIET))
        for (first, last), share in zip(spans, shares[:, row], strict=True):
            shade = tuple(1 - float(share) * (1 - full))
            axes.add_patch(Rectangle((first, row - 0.45), last - first, 0.9, facecolor=shade, linewidth=0))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), list(names), fontsize=8)


def _shortened(name: str, room: float) -> str:
    """A name, its beginning where there is little room (inches), nothing where there is almost none."""
    room -= 0.06
    if inches([name], 7) <= room:
        return name
    lengths = (length for length in range(len(name) - 1, 2, -1) if inches([name[:length] + "…"], 7) <= room)
    length = next(lengths, 0)
    return name[:length] + "…" if length else ""

"""Curves of trainings in panels: losses, metrics and learning rates over epochs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kinema.viz.action_figures import DPI, GROUP_COLOURS, inches
from kinema.viz.skeleton import FLOOR, OTHER, new_figure

_WIDE, _HIGH = 5.4, 2.9  # inches of a panel
_ORDERS = 30.0  # ratio of largest to smallest value from which an axis is logarithmic


@dataclass(frozen=True)
class Line:
    """One curve of a panel.

    Attributes:
        x: epochs or steps.
        y: values; where they are not finite the line has a gap.
        label: in the panel's legend, "" = not there.
        colour: of the line.
        style: "solid", "dashed", or "faint" for what is only background.
        best: point that is marked, with its value where `named`.
        named: whether the marked point says its value and place.
    """

    x: np.ndarray
    y: np.ndarray
    label: str
    colour: str
    style: str = "solid"
    best: tuple[float, float] | None = None
    named: bool = False


def draw_curves(
    panels: Mapping[str, Sequence[Line]],
    *,
    unit: str = "epoch",
    runs: Mapping[str, str] | None = None,
    wide: Collection[str] = (),
) -> Figure:
    """Draw panels of lines, two side by side.

    Args:
        panels: title -> lines.
        unit: of the horizontal axes.
        runs: name -> colour, listed below the panels.
        wide: titles whose axis is logarithmic where positive values cover more than one and a half orders.
    """
    columns = 1 if len(panels) == 1 else 2
    rows = -(-len(panels) // columns)
    below = 0.1 + 0.19 * len(runs or {})
    width = columns * _WIDE
    if runs:
        width = max(width, inches(list(runs), 7.5) + 0.8)
    figure = new_figure(width, rows * _HIGH + below, DPI)
    high = figure.get_figheight()
    for number, (title, lines) in enumerate(panels.items()):
        row, column = divmod(number, columns)
        left, bottom = column * _WIDE + 0.62, high - (row + 1) * _HIGH + 0.5
        axes = figure.add_axes((left / width, bottom / high, (_WIDE - 0.82) / width, (_HIGH - 0.86) / high))
        _panel(axes, title, lines, unit)
        values = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
        if title in wide and len(values) and values.min() > 0 and values.max() > _ORDERS * values.min():
            axes.set_yscale("log")
    for number, (name, colour) in enumerate((runs or {}).items()):
        y = below - 0.1 - 0.19 * (number + 0.5)
        line = Line2D((0.3 / width, 0.55 / width), (y / high, y / high), color=colour, linewidth=2.2)
        figure.add_artist(line)
        figure.text(0.65 / width, y / high, name, fontsize=7.5, va="center", color=OTHER)
    if runs and any(line.style == "dashed" for lines in panels.values() for line in lines):
        note = "dashed: on training data"
        figure.text(1 - 0.2 / width, (below - 0.2) / high, note, fontsize=7.5, ha="right", va="center", color=OTHER)
    return figure


def _panel(axes: Axes, title: str, lines: Sequence[Line], unit: str) -> None:
    for line in lines:
        faint, alone = line.style == "faint", len(line.x) == 1
        axes.plot(
            line.x,
            np.where(np.isfinite(line.y), line.y, np.nan),
            color=line.colour,
            linewidth=0.8 if faint else 1.6,
            alpha=0.4 if faint else 1.0,
            linestyle="--" if line.style == "dashed" else "-",
            marker="o" if alone else None,
            markersize=3.5,
            label=line.label or None,
        )
        if line.best is not None:
            axes.plot(*line.best, marker="*", color=line.colour, markersize=11, markeredgecolor="white", zorder=5)
            if line.named:
                text = f"{line.best[1]:.4g} at {unit} {line.best[0]:.4g}"
                axes.set_title(text, fontsize=8.5, loc="right", color=line.colour)
    reach = max(float(line.x[-1]) for line in lines) - min(float(line.x[0]) for line in lines)
    axes.xaxis.set_major_locator(MaxNLocator(integer=reach >= 2))
    axes.set_title(title, fontsize=10.5, weight="bold", loc="left")
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color=FLOOR, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7.5, framealpha=0.85, edgecolor="white", loc="best")


def swatches(count: int) -> list[str]:
    """Colours of `count` lines: those of groups of classes, or evenly spaced hues where there are more."""
    if count <= len(GROUP_COLOURS):
        return list(GROUP_COLOURS[:count])
    hues = colormaps["turbo"](np.linspace(0.05, 0.95, count))[:, :3]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in hue) for hue in hues]

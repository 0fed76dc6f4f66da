"""Figures of a test of motion prediction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kinema.viz.curves import Line, draw_curves, swatches


def error_over_time(curves: Mapping[str, np.ndarray], *, fps: float | None, title: str) -> Figure:
    """Draw how the distance to the truth grows over the predicted frames.

    Args:
        curves: name -> (P,) metres of the feature vector, the nearest sample first.
        fps: frames per second; None = the axis counts frames.
        title: of the panel.
    """
    lines = []
    for (name, values), colour in zip(curves.items(), swatches(len(curves)), strict=True):
        frames = np.arange(1, len(values) + 1)
        lines.append(Line(frames if fps is None else frames / fps, np.asarray(values), name, colour))
    unit = "predicted frame" if fps is None else "seconds after the last observed frame"
    return draw_curves({title: lines}, unit=unit)

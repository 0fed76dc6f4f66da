"""The strip of labels joins neighbours, cuts overlaps and names what it shows."""

from __future__ import annotations

import numpy as np
import pytest

from kinema.viz.skeleton import picture_of
from kinema.viz.timeline import segments, timeline

NAMES = ["wave", "nod", "scratching or touching shoulder"]


def test_neighbours_of_one_label_are_one_segment() -> None:
    spans = np.array([[0, 1], [1, 2], [2, 3], [5, 6]], float)
    assert segments(np.array([0, 0, 1, 1]), spans) == [(0, 2, 0), (2, 3, 1), (5, 6, 1)]


def test_a_later_window_cuts_an_earlier_one_off() -> None:
    spans = np.array([[0, 2], [1, 3], [2, 4]], float)
    assert segments(np.array([0, 1, 0]), spans) == [(0, 1, 0), (1, 2, 1), (2, 4, 0)]


def shares(labels: list[int]) -> np.ndarray:
    return np.eye(3)[labels] * 0.7 + 0.1


def bars(axes: object) -> list[tuple[float, float, float]]:
    return [(bar.get_x(), bar.get_width(), bar.get_y() + 0.42) for bar in axes.patches]  # type: ignore[attr-defined]


def test_prediction_and_truth_have_a_lane_each() -> None:
    spans = np.array([[0, 1], [1, 2], [2, 4]], float)
    figure = timeline(shares([0, 0, 1]), spans, NAMES, truth=[0, 1, -1])
    strip = figure.axes[0]
    assert bars(strip) == [(0, 2, 0), (2, 2, 0), (0, 1, 1), (1, 1, 1)]  # nothing where the truth is unknown
    colours = [bar.get_facecolor() for bar in strip.patches]
    assert colours[0] == colours[2] and colours[1] == colours[3] and colours[0] != colours[1]
    assert [label.get_text() for label in strip.get_yticklabels()] == ["predicted", "true"]


def test_the_likeliest_classes_come_first_and_darker() -> None:
    probabilities = np.array([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    heat = timeline(probabilities, np.array([[0, 1], [1, 2]], float), NAMES, top=2).axes[1]
    assert [label.get_text() for label in heat.get_yticklabels()] == ["nod", "wave"]
    first, second = (sum(bar.get_facecolor()[:3]) for bar in heat.patches[:2])
    assert first < second, "0.7 is darker than 0.3"


def test_long_names_are_shortened_and_fit() -> None:
    spans = np.array([[0, 1], [1, 20]], float)
    strip = timeline(shares([2, 2]), np.array([[0, 1], [19, 20]], float), NAMES).axes[0]
    assert all(text.get_text() == "" or text.get_text().endswith("…") for text in strip.texts)
    strip = timeline(shares([0, 2]), spans, NAMES).axes[0]
    assert [text.get_text() for text in strip.texts][1] == NAMES[2]


@pytest.mark.parametrize("unit", ["s", "frame"])
def test_a_moment_is_marked_on_both_parts(unit: str) -> None:
    figure = timeline(shares([0, 1]), np.array([[0, 30], [30, 60]]), NAMES, unit=unit, now=12)
    for axes in figure.axes:
        assert [float(np.ravel(line.get_xdata())[0]) for line in axes.lines] == [12]
    assert figure.axes[1].get_xlabel() == ("frame" if unit == "frame" else "time (s)")
    assert picture_of(figure).std() > 5

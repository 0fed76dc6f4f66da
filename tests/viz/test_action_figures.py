"""Pictures of a classifier show what they are given: positions, colours and words are those of the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kinema.viz import action_figures as draw
from kinema.viz.action_report import action_figures
from kinema.viz.skeleton import picture_of

NAMES = ["wave", "nod", "sit down", "kick"]
COUNTS = np.array([[8, 2, 0, 0], [1, 4, 0, 5], [0, 0, 0, 0], [0, 0, 0, 10]])


def words(figure: Figure) -> list[str]:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        found += [label.get_text() for label in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title)]
        found += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
    return found


def test_a_confusion_matrix_colours_shares_of_rows() -> None:
    figure = draw.confusion(COUNTS, NAMES, title="Clips")
    image = np.asarray(figure.axes[0].images[0].get_array())
    assert image.shape == (4, 4, 3)
    np.testing.assert_allclose(image[3, 3], to_rgb("#08519c"), atol=0.01)  # all right: the darkest blue
    np.testing.assert_allclose(image[0, 2], 1, atol=1e-6)  # nothing there: white
    right, wrong = image[0, 0], image[1, 3]
    assert right[2] > right[0], "the diagonal is blue"
    assert wrong[0] > wrong[2], "errors are orange"
    assert image[1, 3].sum() < image[0, 1].sum() < image[0, 2].sum(), "larger shares are darker"
    shown = words(figure)
    assert {"Clips", "wave (10)", "sit down (0)", "80", "20", "40", "10", "50", "100"} <= set(shown)
    assert "73.3 % right" in shown  # 22 of 30


def test_a_class_without_samples_is_hatched() -> None:
    patches = draw.confusion(COUNTS, NAMES).axes[0].patches
    hatched = [patch for patch in patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    assert [patch.get_y() for patch in hatched] == [1.5]


def test_groups_are_separated_and_coloured() -> None:
    axes = draw.confusion(COUNTS, NAMES, groups=[0, 0, 1, 1]).axes[0]
    assert sorted(float(np.ravel(line.get_ydata())[0]) for line in axes.lines) == [0.0, 1.5]
    colours = [label.get_color() for label in axes.get_yticklabels()]
    assert colours[0] == colours[1] == draw.group_colour(0)
    assert colours[2] == colours[3] == draw.group_colour(1)


@pytest.mark.parametrize("size", [1, 12, 90])
def test_names_of_any_number_of_classes_stay_inside_the_picture(size: int) -> None:
    counts = np.eye(size, dtype=int)
    figure = draw.confusion(counts, [f"a class with a long name {number}" for number in range(size)])
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.draw(renderer)
    width, height = figure.bbox.width, figure.bbox.height
    axes = figure.axes[0]
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), *figure.texts, axes.xaxis.label):
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, text.get_text()


def test_confused_pairs_are_sorted_by_their_clips() -> None:
    figure = draw.confused_pairs(COUNTS, NAMES, top=2)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["nod → kick", "wave → nod"]
    assert [bar.get_width() for bar in axes.patches] == [5, 2]  # type: ignore[attr-defined]
    assert {"5, 50 %", "2, 20 %"} <= set(words(figure))


def test_without_an_error_there_is_no_pair() -> None:
    assert "no errors" in words(draw.confused_pairs(np.eye(3, dtype=int), NAMES[:3]))


def test_scores_stand_over_the_frequency_of_their_class() -> None:
    scores, frequency = np.array([10.0, 30.0, np.nan, 50.0]), np.array([1, 10, 5, 100])
    figure = draw.score_against_frequency(
        scores, frequency, NAMES, groups=[0, 1, 1, 0], group_names=["arm", "leg"], labelled=3
    )
    axes = figure.axes[0]
    points = np.concatenate([np.asarray(group.get_offsets()) for group in axes.collections])
    assert sorted(map(tuple, points.tolist())) == [(1, 10), (10, 30), (100, 50)]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]
    assert legend == ["arm", "leg", "trend: +20.0 points for ten times the clips"]
    shown = words(figure)
    assert "sit down" not in shown and {"wave", "nod", "kick"} <= set(shown)


def ticks(figure: Figure) -> dict[float, str]:
    """Ticks of the horizontal axis that are in the picture."""
    figure.canvas.draw()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    places = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    return {float(place): label.get_text() for place, label in places if low <= place <= high}


def test_a_class_that_never_occurs_in_training_stands_over_a_zero() -> None:
    few = draw.score_against_frequency(np.array([0.0, 50.0, 60.0]), np.array([0, 5, 20]), NAMES[:3])
    assert np.asarray(few.axes[0].collections[0].get_offsets())[0].tolist() == [0, 0]
    assert ticks(few)[0.0] == "0"

    many = draw.score_against_frequency(np.array([0.0, 30.0, 40.0, 60.0]), np.array([0, 4, 90, 1000]), NAMES)
    place = np.asarray(many.axes[0].collections[0].get_offsets())[:, 0].tolist()
    assert many.axes[0].get_xscale() == "log" and 0 < place[0] < place[1] == 4
    assert ticks(many)[place[0]] == "0"
    assert {10.0: "10", 100.0: "100", 1000.0: "1000"}.items() <= ticks(many).items()
    (line,) = many.axes[0].lines
    assert float(np.min(line.get_xdata())) == 4, "a class that was never shown has no part in the trend"


@pytest.mark.parametrize("frequency", [[1, 2, 3, 2], [7, 7, 7, 7], [0, 0, 0, 0], [1, 11, 12, 30]])
def test_frequencies_are_whole_numbers(frequency: list[int]) -> None:
    shown = ticks(draw.score_against_frequency(np.array([10.0, 20, 30, 40]), np.array(frequency), NAMES))
    assert shown and all(place == int(place) >= 0 and label == f"{place:g}" for place, label in shown.items())


def test_classes_on_one_spot_share_a_name_that_counts_them() -> None:
    names = [f"class {n}" for n in range(9)]
    scores = np.array([100.0] * 7 + [20.0, 60.0])
    figure = draw.score_against_frequency(scores, np.array([12] * 7 + [14, 13]), names, labelled=3)
    assert [text.get_text() for text in figure.axes[0].texts] == ["class 7", "class 8", "class 0, +6 more"]
    scores = np.array([0.0, 0.0, 60.0, 50.0, 40.0])
    figure = draw.score_against_frequency(scores, np.array([3, 3, 4, 4, 3]), names[:5], labelled=2)
    assert [text.get_text() for text in figure.axes[0].texts] == ["class 0, +1 more", "class 2"]


@pytest.mark.parametrize(("frequency", "scale"), [([20, 30, 40, 50], "linear"), ([6, 30, 40, 1283], "log")])
def test_frequencies_are_logarithmic_where_they_differ_much(frequency: list[int], scale: str) -> None:
    figure = draw.score_against_frequency(np.array([10.0, 20, 30, 40]), np.array(frequency), NAMES)
    assert figure.axes[0].get_xscale() == scale


def test_names_beside_points_do_not_cover_each_other() -> None:
    rng = np.random.default_rng(3)
    scores, frequency = rng.uniform(40, 60, 40), rng.integers(90, 140, 40)
    figure = draw.score_against_frequency(scores, frequency, [f"class {n}" for n in range(40)], labelled=40)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert 3 < len(boxes) < 40, "some have room, not all"
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


@pytest.mark.parametrize(("shift", "verdict"), [(0.1, "too sure"), (-0.1, "not sure enough"), (0.0, "about right")])
def test_reliability_says_whether_the_network_is_too_sure(shift: float, verdict: str) -> None:
    confidence = np.array([0.0, 0.3, 0.5, 0.7, 0.9])
    samples = np.array([0, 10, 10, 10, 10])
    figure = draw.reliability(confidence, np.where(samples > 0, confidence - shift, 0), samples, error=100 * abs(shift))
    text = figure.axes[0].texts[0].get_text()
    assert verdict in text
    assert f"calibration error {100 * abs(shift):.1f} %" in text
    line = figure.axes[0].lines[1]
    np.testing.assert_allclose(np.asarray(line.get_xdata()), confidence[1:])  # the empty bin is not drawn
    np.testing.assert_allclose(np.asarray(line.get_ydata()), confidence[1:] - shift)
    heights = [bar.get_height() for bar in figure.axes[1].patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(heights, [0, 25, 25, 25, 25])


# --- from the arrays of a report --------------------------------------------------------------------------------------


def arrays(**more: np.ndarray) -> dict[str, np.ndarray]:
    found = {
        "classes": np.array(NAMES),
        "confusion": COUNTS,
        "reliability": np.array([[10, 0.4, 0.5], [20, 0.9, 0.8]]),
        "training_counts": np.array([100, 50, 7, 20]),
        "groups": np.array([1, 0, 1, 0]),
        "group_names": np.array(["head", "body"]),
        "group_confusion": np.array([[15, 5], [2, 8]]),
        "scores": np.log(np.array([[0.4, 0.3, 0.0001, 0.2999], [0.1, 0.2, 0.3, 0.4]])),
        "group_scores": np.log(np.array([[0.6, 0.4], [0.6, 0.4]])),
    }
    return {**found, **more}


def test_every_picture_of_a_report_is_drawn() -> None:
    figures = action_figures(arrays())
    assert list(figures) == [
        "confusion", "confusion_groups", "coarse_against_fine", "confused_pairs", "f1_against_frequency", "reliability",
    ]  # fmt: skip
    for make in figures.values():
        assert picture_of(make()).std() > 5


def test_classes_are_drawn_group_by_group() -> None:
    axes = action_figures(arrays())["confusion"]().axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["nod", "kick", "wave", "sit down"]
    assert len(axes.lines) == 2
    image = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(image[1, 1], to_rgb("#08519c"), atol=0.01)  # kick


def test_coarse_against_fine_counts_where_they_disagree() -> None:
    # Clip 1: likeliest class wave (body), likeliest group head; clip 2: kick (head) and head.
    shown = words(action_figures(arrays())["coarse_against_fine"]())
    assert "50.0 % agree" in shown
    assert {"head (2)", "body (0)", "50"} <= set(shown)


def test_f1_stands_over_training_clips_where_they_are_known() -> None:
    known = action_figures(arrays())["f1_against_frequency"]()
    assert "training clips of the class" in words(known)
    found = arrays()
    del found["training_counts"]
    assert "evaluated clips of the class" in words(action_figures(found)["f1_against_frequency"]())


@pytest.mark.parametrize("missing", ["classes", "confusion"])
def test_reports_of_other_tasks_have_no_such_pictures(missing: str) -> None:
    found = arrays()
    del found[missing]
    assert action_figures(found) == {}


def test_nothing_is_drawn_where_every_label_is_withheld() -> None:
    assert action_figures(arrays(confusion=np.zeros((4, 4), int))) == {}


def test_classes_without_groups_need_none() -> None:
    found = {key: value for key, value in arrays().items() if "group" not in key}
    assert list(action_figures(found)) == ["confusion", "confused_pairs", "f1_against_frequency", "reliability"]

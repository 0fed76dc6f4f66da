"""The protocol of motion prediction: numbers by plain loops, subsets, missing numbers, official files, ranks."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.protocols.methods import methods
from kinema.protocols.prediction import FURTHER, PUBLISHED, PredictionProtocol
from kinema.protocols.report import Report
from kinema.viz.html import png
from tests.protocols.motion_store import HISTORY, HORIZON, batch, motion, samples, windows

MOTION = {"Walking": 0.02, "Sitting": 0.01, "Eating": 0.03}


def protocol(made: Windows, **options: Any) -> PredictionProtocol:
    return PredictionProtocol(made, history=HISTORY, **{"mean_motion": MOTION, **options})


def judged(made: Windows, values: Tensor, size: int = 4, **options: Any) -> Report:
    one = protocol(made, **options)
    for rows in torch.arange(len(values)).split(size):
        one.update(values[rows], batch(rows.tolist()))
    return one.compute()


def plain(made: Windows, values: Tensor, threshold: float) -> dict[str, np.ndarray]:
    """Numbers of every window, one difference after the other."""
    whole, found = motion(made).double().numpy(), {name: [] for name in (*PUBLISHED, "motion")}
    past, future, predicted = whole[:, HISTORY - 1], whole[:, HISTORY:], values.double().numpy()
    for row, several in enumerate(predicted):
        pairs = [np.linalg.norm(a - b) for i, a in enumerate(several) for b in several[i + 1 :]]
        found["apd"].append(np.mean(pairs) if pairs else 0.0)
        near = [j for j in range(len(past)) if j == row or np.linalg.norm(past[j] - past[row]) < threshold]
        errors = {j: np.linalg.norm(several - future[j], axis=-1) for j in near}
        found["ade"].append(errors[row].mean(1).min())
        found["fde"].append(errors[row][:, -1].min())
        found["mmade"].append(np.mean([one.mean(1).min() for one in errors.values()]))
        found["mmfde"].append(np.mean([one[:, -1].min() for one in errors.values()]))
        steps = np.linalg.norm(np.diff(several, axis=1).reshape(len(several), HORIZON - 1, 16, 3), axis=-1)
        found["motion"].append(steps.mean((0, 2)))
    return {name: np.array(rows) for name, rows in found.items()}


@pytest.mark.parametrize("threshold", [0.5, 1.0, 0.0])
def test_every_number_is_what_a_loop_over_windows_finds(threshold: float) -> None:
    made = windows()
    values = samples(made)
    found, expected = judged(made, values, threshold=threshold), plain(made, values, threshold)
    assert set(found.scalars) >= {*PUBLISHED, "cmd"}
    for name in PUBLISHED:
        np.testing.assert_allclose(found.arrays[name], expected[name], rtol=1e-5)
        assert found.scalars[name] == pytest.approx(expected[name].mean(), rel=1e-5)
    sizes = found.arrays["group"]
    assert (sizes == 1).all() if threshold == 0 else 1 < sizes.mean() < len(sizes)


def test_cmd_weighs_classes_by_their_windows() -> None:
    made = windows()
    values = samples(made)
    found, expected = judged(made, values), plain(made, values, 0.5)["motion"]
    follow, parts = np.arange(HORIZON - 1, 0, -1), {}
    for action, mean in MOTION.items():
        rows = found.arrays["action"] == action
        parts[action] = (np.abs(expected[rows].mean(0) - mean) * follow).sum()
        own = next(row for row in found.tables["action"] if row["action"] == action)
        assert own["cmd"] == pytest.approx(parts[action], rel=1e-5)
    weighted = sum(parts[action] for action in found.arrays["action"]) / len(made)
    assert found.scalars["cmd"] == pytest.approx(weighted, rel=1e-5)


def test_cmd_is_of_actions_whose_motion_is_known(caplog: pytest.LogCaptureFixture) -> None:
    made = windows()
    values = samples(made)
    with caplog.at_level("INFO"):
        for _ in range(2):  # one protocol per variant
            found = judged(made, values, mean_motion={"Walking": 0.02, "Running": 1.0})
    assert caplog.text.count("Eating, Sitting") == 1
    walking = next(row["cmd"] for row in found.tables["action"] if row["action"] == "Walking")
    assert found.scalars["cmd"] == pytest.approx(walking)
    unknown = judged(made, values, mean_motion=None)
    assert "cmd" not in unknown.scalars and unknown.shown("cmd", unknown.tables["action"][0]) == "-"


def test_apde_compares_with_the_group_and_leaves_out_who_is_alone() -> None:
    made = windows()
    values = samples(made)
    found, whole = judged(made, values, threshold=1.0), motion(made).double().numpy()
    expected = []
    for row in range(len(made)):
        near = np.linalg.norm(whole[:, HISTORY - 1] - whole[row, HISTORY - 1], axis=-1) < 1.0
        truths = whole[near, HISTORY:].reshape(near.sum(), -1)
        pairs = [np.linalg.norm(a - b) for i, a in enumerate(truths) for b in truths[i + 1 :]]
        expected.append(abs(found.arrays["apd"][row] - np.mean(pairs)) if pairs else np.nan)
    np.testing.assert_allclose(found.arrays["apde"], expected, rtol=1e-4)
    assert found.scalars["apde"] == pytest.approx(np.nanmean(expected), rel=1e-4)
    assert "apde" not in judged(made, values, threshold=0.0).scalars, "everybody is alone"


def test_batches_fillers_and_order_do_not_matter() -> None:
    made = windows()
    values = samples(made)
    whole = judged(made, values, size=len(made))
    one = protocol(made)
    rows = torch.randperm(len(made), generator=torch.Generator().manual_seed(1)).tolist()
    for part in (rows[:3], rows[3:4], rows[4:]):
        garbage = torch.full((1, *values.shape[1:]), torch.nan)
        one.update(torch.cat([values[part], garbage]), batch([*part, -1]))
    one.update(torch.full((2, *values.shape[1:]), torch.nan), batch([-1, -1]))
    found = one.compute()
    for name, value in whole.scalars.items():
        assert found.scalars[name] == pytest.approx(value, rel=1e-6), name


def test_one_prediction_has_no_diversity() -> None:
    found = judged(windows(), samples(windows(), 1))
    assert found.scalars["apd"] == 0
    assert found.summary["samples"] == 1


def test_numbers_of_a_window_do_not_depend_on_which_others_are_tested() -> None:
    made = windows()
    values = samples(made)
    few = made.evenly_spaced(4)
    rows = np.arange(4) * len(made) // 4
    whole, found = judged(made, values), judged(few, values[torch.from_numpy(rows)])
    for name in (*PUBLISHED, "apde", "start", "group"):
        np.testing.assert_array_equal(found.arrays[name], whole.arrays[name][rows])


def test_a_subset_is_told_in_every_table() -> None:
    made = windows()
    few = made.evenly_spaced(4)
    found = judged(few, samples(made)[:4])
    told = f"4 of {len(made)} windows"
    table = methods({"test": found}, "SMRNet")
    assert table is not None
    for report in (found, table):
        assert told in report.to_markdown() and "evenly spaced" in report.to_markdown()
        (drawn,) = report.to_rich()[:1]
        assert told in str(drawn.caption)
    assert told in found.to_csv()
    assert {"windows": "4", "of": str(len(made))}.items() <= next(csv.DictReader(table.to_csv().splitlines())).items()
    whole = judged(made, samples(made))
    assert f"all {len(made)} windows" in whole.to_markdown() and "evenly" not in whole.to_markdown()


def test_a_table_per_action_has_the_means_of_its_windows() -> None:
    made = windows()
    found = judged(made, samples(made))
    rows = found.tables["action"]
    assert [row["action"] for row in rows] == ["Eating", "Sitting", "Walking"]
    for row in rows:
        mine = found.arrays["action"] == row["action"]
        assert row["windows"] == mine.sum()
        for name in PUBLISHED:
            assert row[name] == pytest.approx(found.arrays[name][mine].mean())
    flat = found.to_metrics("test")
    assert flat["test/ade/Walking"] == rows[2]["ade"] and flat["test/ade"] == found.scalars["ade"]
    (footer,) = found.footers["action"]
    assert footer["ade"] == found.scalars["ade"] and footer["windows"] == len(made)
    assert found.arrays["trial"][0] == "Walking 0" and found.arrays["start"][:2].tolist() == [0, 3]


def test_a_method_without_predictions_has_dashes() -> None:
    made = windows()
    values = samples(made)
    absent = judged(made, torch.full_like(values, torch.nan))
    assert absent.to_metrics("test/nearest") == {}
    assert absent.shown("ade", absent.tables["action"][0]) == "-"
    assert not absent.figures
    table = methods({"test": judged(made, values), "test/nearest": absent}, "SMRNet")
    assert table is not None
    lines = table.to_markdown().splitlines()
    assert lines[4].startswith("| SMRNet | 4 |") and "nan" not in "".join(lines)
    assert lines[5].replace(" ", "").startswith(f"|nearest|4|{len(made)}|-|-|-|-|-|-|-|")


def test_a_network_that_diverged_is_no_missing_number() -> None:
    made = windows()
    values = samples(made)
    values[2] = torch.nan
    found = judged(made, values)
    assert np.isnan(found.scalars["ade"]), "the objective of a training sees it"


def test_the_official_files_are_those_of_the_released_program() -> None:
    made = windows()
    found = judged(made, samples(made))
    latest = found.official["stats_latest.csv"](None)
    rows = list(csv.reader(latest.splitlines()))
    assert rows[0] == ["Metric", "HumanMAC"]
    assert [row[0] for row in rows[1:]] == ["APD", "ADE", "FDE", "MMADE", "MMFDE"]
    assert all(np.float32(row[1]) == np.float32(found.scalars[row[0].lower()]) for row in rows[1:])
    first = found.official["stats.csv"](None)
    assert first == latest
    third = list(csv.reader(found.official["stats.csv"](found.official["stats.csv"](first)).splitlines()))
    assert third[0] == ["0", "1", "2", "3"]
    assert third[1] == ["APD", *[rows[1][1]] * 3]


def test_an_interrupted_protocol_goes_on() -> None:
    made = windows()
    values = samples(made)
    first, second = protocol(made), protocol(made)
    first.update(values[:5], batch(range(5)))
    second.update(values[5:], batch(range(5, len(made))))
    second.take_up(first.standing())
    second.update(values[5:], batch(range(5, len(made))))
    assert second.compute().scalars == judged(made, values, size=5).scalars


def test_variants_share_the_truth() -> None:
    made = windows()
    assert protocol(made)._truth is protocol(made)._truth
    assert protocol(made)._truth is not protocol(made, threshold=0.4)._truth


def test_the_figure_shows_the_error_over_time() -> None:
    made = windows()
    found = judged(made, samples(made))
    figure = found.figures["error_over_time"]()
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["nearest sample of each frame", "mean of the samples"]
    expected = np.linalg.norm(samples(made) - motion(made)[:, None, HISTORY:], axis=-1)
    np.testing.assert_allclose(lines[0].get_ydata(), expected.min(1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(lines[1].get_ydata(), expected.mean((0, 1)), rtol=1e-5)
    assert lines[0].get_xdata()[-1] == pytest.approx(HORIZON / 50)
    assert len(png(figure)) > 1000
    bars = found.figures["error_per_action"]()
    assert bars.axes[0].get_title(loc="left") == "ADE per action (m)"
    assert [text.get_text() for text in bars.axes[0].texts] == [f"{row['ade']:.3f}" for row in found.tables["action"]]
    unknown = windows(fps=float("nan"))
    assert judged(unknown, samples(unknown)).figures["error_over_time"]().axes[0].get_xlabel() == "predicted frame"


@pytest.mark.parametrize("history", [0, HISTORY + HORIZON])
def test_windows_need_both_parts(history: int) -> None:
    with pytest.raises(ConfigError, match="cannot show"):
        PredictionProtocol(windows(), history=history)


def test_predictions_of_another_shape_are_refused() -> None:
    made = windows()
    with pytest.raises(ValueError, match="prediction"):
        protocol(made).update(samples(made)[:, :, :-1], batch(range(len(made))))


def test_names_of_scalars_are_known_ahead() -> None:
    assert set(PredictionProtocol.scalars) == {*PUBLISHED, *FURTHER}


def test_samples_that_are_no_bodies_are_told() -> None:
    made = windows()
    values = samples(made)
    assert "the network does not belong" not in judged(made, values).note
    report = judged(made, values * 40)
    assert "Samples reach" in report.note and report.note.endswith("not trained.")
    table = methods({"test": report}, "x")
    assert table is not None and "the network does not belong" in table.to_markdown()
    assert not judged(made, torch.full_like(values, float("nan"))).note

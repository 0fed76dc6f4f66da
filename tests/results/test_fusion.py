"""A fusion from beginning to end, without files: what is fitted on which clips, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from kinema.errors import ConfigError, DataError
from kinema.results import fuse, fusion
from kinema.results.fusion import Options
from kinema.results.score_files import Scores

CLASSES = 6


def stream(seed: int, strength: float = 1.5, clips: int = 200, prefix: str = "test") -> Scores:
    labels = np.random.default_rng(len(prefix)).integers(0, CLASSES, clips)
    logits = strength * np.eye(CLASSES)[labels] + np.random.default_rng(seed).normal(size=(clips, CLASSES))
    return Scores(
        source=Path(f"{prefix}{seed}.npz"),
        names=np.array([f"{prefix}{i}" for i in range(clips)]),
        values=fuse.log_softmax(logits),
        kind="log",
        labels=labels,
    )


@pytest.fixture
def streams() -> dict[str, Scores]:
    return {"joint": stream(0), "bone": stream(1)}


@pytest.fixture
def held_out() -> dict[str, Scores]:
    return {"joint": stream(2, prefix="val"), "bone": stream(3, prefix="val")}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": "search"}, r"fuse.weights=search needs validation scores.*report_val.npz.*split_test=val"),
        ({"temperature": "fit"}, r"fuse.temperature=fit needs validation scores"),
        ({"weights": [1, 1, 1]}, r"3 numbers for 2 streams.*fuse.weights=\[2,1\]"),
        ({"weights": "best"}, r"fuse.weights=best is unknown"),
        ({"weights": [0, 0]}, r"one of them above 0"),
        ({"weights": [2, -1]}, r"weights are 0 or more"),
        ({"weights": {"joint": 1, "legs": 1}}, r"names joint, legs, the streams are joint, bone"),
        ({"temperature": [1, 0]}, r"not above 0"),
        ({"rule": "mean"}, r"fuse.rule=mean is unknown. Use one of prob, log, score"),
        ({"search": "grid"}, r"fuse.search=grid is unknown"),
        ({"objective": "f1_mean"}, r"fuse.classes=ma52"),
        ({"objective": "accuracy"}, r"fuse.objective=accuracy is unknown"),
        ({"step": 0}, r"fuse.step=0 is no step"),
        ({"bootstrap": 1}, r"fuse.bootstrap=1 draws make no interval"),
    ],
)
def test_options_that_do_not_fit_get_their_sentence(given: dict, message: str, streams: dict[str, Scores]) -> None:
    with pytest.raises(ConfigError, match=message):
        fusion.run(streams, None, Options(**given))


def test_validation_belongs_to_the_same_streams(streams: dict[str, Scores], held_out: dict[str, Scores]) -> None:
    with pytest.raises(ConfigError, match=r"fuse.inputs names joint, bone, fuse.validation joint\. Name the same"):
        fusion.run(streams, {"joint": held_out["joint"]}, Options(weights="search"))
    unknown = {name: dataclasses.replace(one, labels=np.full(200, -1)) for name, one in held_out.items()}
    with pytest.raises(DataError, match="No validation clip has a label"):
        fusion.run(streams, unknown, Options(weights="search"))


def test_a_clip_that_is_judged_is_refused_whatever_its_scores(
    streams: dict[str, Scores], held_out: dict[str, Scores]
) -> None:
    """The best epoch on the test clips scores them otherwise than the last one; they are the same clips."""
    with pytest.raises(DataError, match=r"200 of the clips that are judged.*judged too well.*dataset.selection=val"):
        fusion.run(streams, streams, Options(weights="search"))
    for name, one in held_out.items():
        names = one.names.copy()
        names[7] = "test3"
        held_out[name] = dataclasses.replace(one, names=names)
    with pytest.raises(DataError, match=r"1 of the clips that are judged \(first test3"):
        fusion.run(streams, held_out, Options(temperature="fit"))


def stream_rows(made: fusion.Fusion) -> dict[str, dict]:
    return {row["stream"]: row for row in made.report.tables["stream"]}


def test_the_calibration_error_before_and_after_temperatures_stands_in_the_table(held_out: dict[str, Scores]) -> None:
    judged = {"joint": stream(0), "bone": stream(1)}
    sure = {name: dataclasses.replace(one, values=10 * one.values) for name, one in judged.items()}
    held_out = {name: dataclasses.replace(one, values=10 * one.values) for name, one in held_out.items()}
    plain = stream_rows(fusion.run(sure, None, Options(weights=[2, 1], bootstrap=100)))
    assert all("ece_before" not in row for row in plain.values())
    rows = stream_rows(fusion.run(sure, held_out, Options(weights=[2, 1], temperature="fit", bootstrap=100)))
    assert list(rows) == list(plain) == ["joint", "bone", "fused", "fused, equal weights"]
    for name, row in rows.items():
        assert row["ece_before"] == pytest.approx(plain[name]["ece"]), name
    assert all(rows[name]["ece"] < rows[name]["ece_before"] - 5 for name in judged)
    assert rows["fused"]["ece"] < rows["fused"]["ece_before"]


@pytest.mark.parametrize(("strength", "end"), [(40.0, "0.05, an end of its range: all of them are right"),
                                               (0.0, "20, an end of its range: they tell nothing")])  # fmt: skip
def test_a_temperature_at_the_end_of_its_range_is_told(
    strength: float, end: str, streams: dict[str, Scores], held_out: dict[str, Scores], caplog: pytest.LogCaptureFixture
) -> None:
    fusion.run(streams, held_out, Options(temperature="fit", bootstrap=100))
    assert "end of its range" not in caplog.text
    odd = stream(2, prefix="val", strength=strength)
    scale = 1.0 if strength else 40.0  # very sure of noise
    held_out["joint"] = dataclasses.replace(odd, values=scale * odd.values)
    fusion.run(streams, held_out, Options(temperature="fit", bootstrap=100))
    told = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("joint: ") and end in line for line in told), told
    assert not any(line.startswith("bone: ") for line in told)


def test_what_is_fitted_does_not_depend_on_the_judged_clips(
    streams: dict[str, Scores], held_out: dict[str, Scores]
) -> None:
    options = Options(weights="search", temperature="fit", bootstrap=100)
    others = {"joint": stream(8, strength=0.1), "bone": stream(9, strength=4.0)}
    one, two = (fusion.run(judged, held_out, options) for judged in (streams, others))
    assert (one.weights, one.temperatures) == (two.weights, two.temperatures)
    assert one.value != two.value


def test_the_gain_is_over_the_stream_that_turned_out_best(held_out: dict[str, Scores]) -> None:
    """Not over the one that looked best on validation, which would make it look larger."""
    judged = {"joint": stream(8, strength=0.5), "bone": stream(9, strength=3.0)}
    held_out["bone"] = stream(3, strength=0.1, prefix="val")
    made = fusion.run(judged, held_out, Options(weights="search", bootstrap=100))
    assert made.best == "bone" and made.gain is not None and made.gain.value < 0


def test_a_label_that_one_stream_withholds_is_taken_from_the_other(streams: dict[str, Scores]) -> None:
    whole = fusion.run(streams, None, Options(bootstrap=100))
    streams["joint"] = dataclasses.replace(streams["joint"], labels=np.full(200, -1))
    assert fusion.run(streams, None, Options(bootstrap=100)).value == whole.value


def test_equal_weights_of_two_copies_are_the_stream_itself(streams: dict[str, Scores]) -> None:
    twice = {"a": streams["joint"], "b": dataclasses.replace(streams["joint"], source=Path("copy.npz"))}
    for rule in ("prob", "log"):
        made = fusion.run(twice, None, Options(rule=rule, bootstrap=100))
        assert made.gain is not None
        assert (made.gain.value, made.gain.low, made.gain.high, made.gain.p_value) == (0, 0, 0, 1)
        np.testing.assert_allclose(made.report.arrays["scores"], streams["joint"].values, atol=1e-5)
        assert "not distinguishable from no gain" in fusion.sentence(made, Options(rule=rule))


def test_given_temperatures_change_what_a_stream_weighs(streams: dict[str, Scores]) -> None:
    """A hot stream is nearly uniform: the fusion follows the other one."""
    made = fusion.run(streams, None, Options(temperature={"joint": 1.0, "bone": 100.0}, bootstrap=100))
    predicted = made.report.arrays["scores"].argmax(1)
    assert (predicted == streams["joint"].values.argmax(1)).mean() > 0.97


def test_a_list_of_class_names_is_added_to_scores_without_one() -> None:
    both = {}
    for seed, name in enumerate(("joint", "bone")):
        values = np.log(np.random.default_rng(seed).dirichlet(np.ones(52), 30))
        both[name] = Scores(Path(name), np.array([str(i) for i in range(30)]), values, "log", np.arange(30))
    made = fusion.run(both, None, Options(objective="f1_mean", bootstrap=100), classes="ma52")
    assert made.report.tables["class"][9]["class"] == "nodding"
    assert made.report.arrays["group_scores"].shape == (30, 7)

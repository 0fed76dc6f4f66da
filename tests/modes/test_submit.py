"""mode=submit: from stored scores and the official list to the files of the server."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import kinema
from kinema.data.class_list import class_list
from kinema.errors import ConfigError, DataError
from kinema.modes import submit as mode

MA52 = class_list("ma52")
CLIPS = 8


def make_run(folder: Path, **changes: object) -> Path:
    """What a test on clips with withheld labels leaves."""
    prob = np.random.default_rng(0).dirichlet(np.ones(52), CLIPS)
    content = {
        "names": np.array([f"test{i:04d}" for i in reversed(range(CLIPS))]),
        "labels": np.full(CLIPS, -1), "scores": np.log(prob).astype(np.float32),
        "classes": np.array(MA52.names), "groups": np.array(MA52.groups), "protocol": "ma52",
    } | changes  # fmt: skip
    (folder / "predictions").mkdir(parents=True)
    np.savez(folder / "predictions" / "report.npz", **content)
    return folder


@pytest.fixture
def official_list(tmp_path: Path) -> Path:
    """The public list carries label 0 everywhere."""
    path = tmp_path / "test_list.txt"
    path.write_text("".join(f"test{i:04d}.mp4 0\n" for i in range(CLIPS)))
    return path


def submitted(tmp_path: Path, *overrides: str) -> list[list[str]]:
    config = kinema.compose(["mode=submit", "trainer=cpu", f"paths.output_dir={tmp_path}/out", *overrides])
    mode.run(config)
    assert (tmp_path / "out" / "submission.zip").is_file()
    return list(csv.reader((tmp_path / "out" / "prediction.csv").open(newline="")))


def test_the_rows_stand_in_the_order_of_the_list(tmp_path: Path, official_list: Path) -> None:
    run = make_run(tmp_path / "run")
    header, *rows = submitted(tmp_path, f"input={run}", f"submit.list={official_list}")
    assert header[0] == "vid" and len(header) == 11
    assert [row[0] for row in rows] == [f"test{i:04d}.mp4" for i in range(CLIPS)]
    scores = np.load(run / "predictions" / "report.npz")["scores"][::-1]
    expected = np.argsort(-scores, 1)[:, :5]
    np.testing.assert_array_equal(np.array(rows)[:, 1:6].astype(int), expected)
    np.testing.assert_array_equal(np.array(rows)[:, 6:].astype(int), np.array(MA52.groups)[expected])


def test_the_layout_of_2024_names_body_and_action(tmp_path: Path, official_list: Path) -> None:
    """Scores without names take them from the list, in its order; the class list is the benchmark's."""
    prob = np.random.default_rng(1).dirichlet(np.ones(52), CLIPS)
    np.savez(tmp_path / "scores.npz", scores=prob)
    header, *rows = submitted(
        tmp_path, f"input={tmp_path}/scores.npz", f"submit.list={official_list}", "submit.layout=2024"
    )
    assert header == ["id", "pred_label_1", "pred_label_2"]
    best = prob.argmax(1)
    assert rows == [
        [f"test{i:04d}.mp4", str(MA52.groups[action]), str(action)]
        for i, action in enumerate(best)  # type: ignore[index]
    ]


@pytest.mark.parametrize("key", ["group_scores", "body_scores"])
def test_bodies_come_from_another_file_by_clip(key: str, tmp_path: Path, official_list: Path) -> None:
    run = make_run(tmp_path / "run")
    own = np.random.default_rng(2).normal(size=(CLIPS, 7))
    order = np.random.default_rng(3).permutation(CLIPS)
    np.savez(tmp_path / "bodies.npz", names=np.array([f"test{i:04d}" for i in order]), **{key: own[order]})
    words = (
        f"input={run}",
        f"submit.list={official_list}",
        "submit.body=head",
        f"submit.body_input={tmp_path}/bodies.npz",
    )
    rows = np.array(submitted(tmp_path, *words)[1:])
    np.testing.assert_array_equal(rows[:, 6:].astype(int), np.argsort(-own, 1)[:, :5])


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({}, ["submit.layout=2023"], r"submit.layout=2023 is unknown. Use one of 2025, 2024"),
        ({}, ["submit.body=best"], r"submit.body=best is unknown. Use one of map, sum, head"),
        ({}, ["submit.classes=ntu60"], r"submit.classes=ntu60 has no groups.*submit.classes=ma52"),
        ({}, ["submit.body=head"], r"submit.body=head needs scores of the bodies"),
        (
            {"classes": np.array(MA52.names)[::-1]},
            [],
            r"class 0 is 'scratching feet', and 'shaking body'.*other actions",
        ),
        (
            {"names": np.array([f"x{i}" for i in range(CLIPS)])},
            [],
            r"8 \(test0000, .*of the list without scores, 8 \(x0",
        ),
    ],
)
def test_what_cannot_be_submitted_gets_its_sentence(
    changes: dict, words: list[str], message: str, tmp_path: Path, official_list: Path
) -> None:
    run = make_run(tmp_path / "run", **changes)
    with pytest.raises((ConfigError, DataError), match=message):
        submitted(tmp_path, f"input={run}", f"submit.list={official_list}", *words)


def test_a_submission_needs_scores_of_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none are given.*input=RUN"):
        submitted(tmp_path)
    np.savez(tmp_path / "six.npz", scores=np.ones((2, 6)), names=np.array(["a", "b"]))
    with pytest.raises(DataError, match=r"scores 6 classes, submit.classes=ma52 has 52"):
        submitted(tmp_path, f"input={tmp_path}/six.npz")

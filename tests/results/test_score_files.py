"""Stored scores: every layout that is read, what kind the numbers are, alignment, and what is refused."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from kinema.errors import DataError
from kinema.results import score_files
from kinema.results.score_files import Scores

NAMES = np.array(["S1_a", "S1_b", "S2_a", "S2_b"])
LABELS = np.array([0, 2, 1, -1])
CLASSES = np.array(["nod", "shake", "wave"])


def probabilities(seed: int = 0, clips: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), clips)


def scores(seed: int = 0, **changes: object) -> Scores:
    one = Scores(
        source=Path(f"stream{seed}.npz"), names=NAMES, values=np.log(probabilities(seed)), kind="log", labels=LABELS,
        classes=CLASSES,
    )  # fmt: skip
    return dataclasses.replace(one, **changes)


def test_a_run_directory_is_read_with_its_stream(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    (tmp_path / "config.resolved.yaml").write_text("dataset:\n  stream: bone\n")
    values = np.log(probabilities()).astype(np.float32)
    np.savez(
        tmp_path / "predictions" / "report.npz", names=NAMES, labels=LABELS, scores=values, classes=CLASSES,
        groups=np.array([0, 0, 1]), protocol="action", version=1,
    )  # fmt: skip
    found = score_files.read(tmp_path)
    assert (found.stream, found.kind) == ("bone", "log")
    np.testing.assert_array_equal(found.values, values.astype(np.float64))
    np.testing.assert_array_equal(found.names, NAMES)
    np.testing.assert_array_equal(found.groups, [0, 0, 1])
    np.testing.assert_array_equal(found.labels, LABELS)


def test_a_run_without_test_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "report_single.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"no predictions/report.npz. There: predictions/report_single.npz.*mode=test"):
        score_files.read(tmp_path)


@pytest.mark.parametrize("kind", ["prob", "log", "logits"])
def test_what_the_numbers_are_is_seen_also_in_half_precision(kind: str) -> None:
    prob = probabilities(clips=50)
    values = {"prob": prob, "log": np.log(prob), "logits": np.log(prob) * 2 + 1}[kind]
    assert score_files.kind_of(values.astype(np.float16).astype(np.float64)) == kind


def test_probabilities_log_probabilities_and_logits_of_one_stream_predict_the_same() -> None:
    prob = probabilities()
    for kind, values in (("prob", prob), ("log", np.log(prob)), ("logits", np.log(prob) + 3)):
        logits = scores(values=values, kind=kind).logits()
        np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), prob, atol=1e-12)


def test_a_result_list_of_pyskl_takes_its_names_from_the_annotations(tmp_path: Path) -> None:
    """In the order of the annotations, not of the split."""
    prob = probabilities(clips=2)
    (tmp_path / "result.pkl").write_bytes(pickle.dumps(list(prob.astype(np.float32))))
    content = {
        "split": {"xsub_train": ["c"], "xsub_val": ["b", "a"]},
        "annotations": [{"frame_dir": name, "label": i} for i, name in enumerate("acb")],
    }
    (tmp_path / "ntu.pkl").write_bytes(pickle.dumps(content))
    found = score_files.read(tmp_path / "result.pkl", names=tmp_path / "ntu.pkl", split="xsub_val")
    assert list(found.names) == ["a", "b"] and list(found.labels) == [0, 2]
    np.testing.assert_allclose(found.values, prob, atol=1e-6)
    with pytest.raises(DataError, match=r"no split 'xsub' \(xsub_train, xsub_val\)"):
        score_files.read(tmp_path / "result.pkl", names=tmp_path / "ntu.pkl", split="xsub")


def test_unaveraged_clips_of_a_result_list_are_averaged_as_probabilities(tmp_path: Path) -> None:
    prob = np.random.default_rng(0).dirichlet(np.ones(3), (2, 10))
    (tmp_path / "result.pkl").write_bytes(pickle.dumps(list(np.log(prob) + 2)))
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 1\n\n")
    found = score_files.read(tmp_path / "result.pkl", names=tmp_path / "list.txt")
    np.testing.assert_allclose(found.values, prob.mean(1), atol=1e-12)
    assert list(found.names) == ["a.mp4", "b.mp4"] and list(found.labels) == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"scores": np.full((4, 3), np.nan)}, "hold NaN or infinity .first S1_a"),
        ({"scores": np.ones((3, 3))}, "3 score vectors, and there are 4 clip names"),
        ({"scores": np.ones(4)}, r"shape \(4,\).*\(clips, classes\) is needed"),
        ({"names": np.array(["a", "a", "b", "c"])}, "1 clips more than once .first a"),
        ({"labels": np.array([0, 1, 2, 3])}, "class id 3 with scores of 3 classes"),
        ({"classes": np.array(["a", "b"])}, "2 class names for scores of 3 classes"),
        ({"classes": np.array(["a", "b", "a"])}, "names a class twice"),
        ({"groups": np.zeros(5, int)}, "5 groups for scores of 3 classes"),
        ({"group_scores": np.ones((2, 2))}, "groups of 2 clips of 4"),
        ({"labels": np.array([0])}, "4 score vectors and 1 labels"),
    ],
)
def test_a_damaged_file_gets_its_sentence(content: dict, message: str, tmp_path: Path) -> None:
    whole = {"names": NAMES, "labels": LABELS, "scores": probabilities(), "classes": CLASSES} | content
    np.savez(tmp_path / "scores.npz", **whole)
    with pytest.raises(DataError, match=message):
        score_files.read(tmp_path / "scores.npz")


def test_files_without_scores_names_or_vectors_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=np.ones((2, 3)))
    with pytest.raises(DataError, match=r"holds no `scores` \(only features\)"):
        score_files.read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", scores=probabilities())
    with pytest.raises(DataError, match=r"4 score vectors without clip names.*names=FILE"):
        score_files.read(tmp_path / "b.npz")
    for content in ({"a": 1}, [], [[1.0, 2.0], [1.0]]):
        (tmp_path / "c.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=r"no (result list|list of score vectors)"):
            score_files.read(tmp_path / "c.pkl", names=tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"none\.npz not found"):
        score_files.read(tmp_path / "none.npz")


def test_streams_are_aligned_by_clip_and_by_class_name() -> None:
    first = scores()
    rows, columns = np.array([2, 0, 3, 1]), np.array([1, 2, 0])
    other = scores(
        seed=1, names=NAMES[rows], values=first.values[rows][:, columns], classes=CLASSES[columns],
        labels=np.array([0, 2, -1, 1]), groups=np.array([5, 6, 7]),
    )  # fmt: skip
    aligned = score_files.align({"joint": first, "bone": other})
    np.testing.assert_array_equal(aligned["bone"].names, NAMES)
    np.testing.assert_array_equal(aligned["bone"].values, first.values)
    np.testing.assert_array_equal(aligned["bone"].labels, LABELS)
    np.testing.assert_array_equal(aligned["bone"].groups, [7, 5, 6])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": np.array(["S1_a", "S1_b", "S2_a", "S9_z"])}, r"1 \(S2_b\) only in joint, 1 \(S9_z\) only in bone"),
        ({"labels": np.array([0, 1, 1, -1])}, r"disagree on the class of 1 clips \(first S1_b: 2 and 1\)"),
        ({"classes": np.array(["nod", "shake", "jump"])}, r"another one than that of joint: 1 \(wave\) not in it"),
        ({"values": np.log(np.full((4, 4), 0.25)), "classes": None}, "scores 3 classes, bone .* 4"),
    ],
)
def test_streams_that_do_not_belong_together_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score_files.align({"joint": scores(), "bone": scores(seed=1, **changes)})


def test_a_withheld_label_contradicts_nothing() -> None:
    known = score_files.align({"a": scores(), "b": scores(seed=1, labels=np.array([-1, 2, -1, 0]))})
    np.testing.assert_array_equal(known["b"].labels, [-1, 2, -1, 0])

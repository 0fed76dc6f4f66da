"""Submission files: ranking, bodies, order of the official list, and bytes that do not change."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from kinema.data.class_list import class_list
from kinema.errors import ConfigError, DataError
from kinema.results import submission

GROUPS = np.array(class_list("ma52").groups)


def test_equal_scores_rank_in_the_order_of_their_ids() -> None:
    scores = np.array([[0.1, 0.4, 0.4, 0.0, 0.4], [0.2, 0.2, 0.2, 0.2, 0.2]])
    np.testing.assert_array_equal(submission.ranked(scores, 3), [[1, 2, 4], [0, 1, 2]])


def test_mapped_bodies_repeat_and_summed_bodies_do_not() -> None:
    """Two likely head movements, and many small chances of an upper limb that add up to more."""
    prob = np.full(52, 0.001)
    prob[[9, 10]] = 0.25, 0.2
    prob[11:24] = 0.04
    log_probs = np.log(prob / prob.sum())[None]
    actions = submission.ranked(log_probs, 5)
    np.testing.assert_array_equal(submission.bodies_of(log_probs, actions, GROUPS, "map"), [[1, 1, 2, 2, 2]])
    summed = submission.bodies_of(log_probs, actions, GROUPS, "sum")
    assert list(summed[0][:2]) == [2, 1] and len(set(summed[0])) == 5


def test_bodies_of_a_head_are_ranked_by_it() -> None:
    own = np.array([[0.0, 3.0, 1.0, -2.0, 5.0, 0.5, -1.0]])
    actions = np.array([[0, 1, 2, 3, 4]])
    np.testing.assert_array_equal(
        submission.bodies_of(np.zeros((1, 52)), actions, GROUPS, "head", own), [[4, 1, 2, 5, 0]]
    )
    with pytest.raises(ConfigError, match=r"submit.body=head needs scores of the bodies.*submit.body_input"):
        submission.bodies_of(np.zeros((1, 52)), actions, GROUPS, "head")
    with pytest.raises(ConfigError, match=r"6 body scores per clip; 7 bodies and 5 columns"):
        submission.bodies_of(np.zeros((1, 52)), actions, GROUPS, "head", own[:, :6])


def test_both_layouts_have_their_header_order_and_line_ends() -> None:
    actions, bodies = np.array([[9, 10, 5, 6, 7]]), np.array([[1, 0, 2, 3, 4]])
    assert submission.table(["test0000.mp4"], actions, bodies, 2025) == (
        "vid,action_pred_1,action_pred_2,action_pred_3,action_pred_4,action_pred_5,"
        "body_pred_1,body_pred_2,body_pred_3,body_pred_4,body_pred_5\r\n"
        "test0000.mp4,9,10,5,6,7,1,0,2,3,4\r\n"
    )
    assert submission.table(["test0000.mp4"], actions, bodies, 2024) == (
        "id,pred_label_1,pred_label_2\r\ntest0000.mp4,1,9\r\n"
    )


def test_rows_follow_the_list_whichever_side_has_the_suffix() -> None:
    scored, listed = np.array(["c", "a.mp4", "b"]), ["a.mp4", "b.mp4", "c"]
    rows, names = submission.in_list_order(scored, listed, ".mp4")
    assert list(rows) == [1, 2, 0] and names == ["a.mp4", "b.mp4", "c.mp4"]
    rows, names = submission.in_list_order(scored, None, ".mp4")
    assert list(rows) == [0, 1, 2] and names == ["c.mp4", "a.mp4", "b.mp4"]


def test_clips_that_are_missing_surplus_or_listed_twice_are_refused() -> None:
    scored = np.array(["a", "b", "z"])
    with pytest.raises(DataError, match=r"1 \(c\) of the list without scores, 1 \(z\) scored but not listed"):
        submission.in_list_order(scored, ["a.mp4", "b.mp4", "c.mp4"], ".mp4")
    with pytest.raises(DataError, match="names 1 clips twice"):
        submission.in_list_order(scored, ["a", "b", "b.mp4", "z"], ".mp4")


def test_the_zip_holds_the_table_at_its_top_and_is_the_same_every_time(tmp_path: Path) -> None:
    made = [submission.write(tmp_path / name, "vid\r\n")[1].read_bytes() for name in "ab"]
    assert made[0] == made[1]
    with zipfile.ZipFile(tmp_path / "a" / "submission.zip") as archive:
        assert archive.namelist() == ["prediction.csv"]
        assert archive.read("prediction.csv") == b"vid\r\n" == (tmp_path / "a" / "prediction.csv").read_bytes()

"""What is checked of every clip, and what a clip becomes in a store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kinema.core.clip_preprocess import clip_preprocess
from kinema.core.skeleton import skeleton
from kinema.core.streams import stream
from kinema.data.clip_rows import ClipOptions, clip_rows, clip_store
from kinema.data.raw import raise_fault
from kinema.errors import ConfigError, DataError
from tests.data.clip_layouts import clip, options


def chosen(**changes: Any) -> ClipOptions:
    return ClipOptions.parse("test", options(**changes))


def rows(keypoints: np.ndarray, label: int | None = 1, *, report: Any = raise_fault, **changes: Any) -> list[Any]:
    more = {key: changes.pop(key) for key in ("score", "size", "trial", "subject", "first") if key in changes}
    return clip_rows(clip="c1", keypoints=keypoints, label=label, split="train", options=chosen(**changes),
                     report=report, **more)  # fmt: skip


def broken(at: tuple[Any, ...], value: float) -> np.ndarray:
    x = clip(0)[None].copy()
    x[at] = value
    return x


BAD = {
    "label too large": (clip(0)[None], 3, {}, r"c1 has label 3, but 3 classes have the ids 0 to 2"),
    "label below -1": (clip(0)[None], -2, {}, r"c1 has label -2"),
    "no label": (clip(0)[None], None, {}, r"c1 has no label.*dataset\.unlabeled=drop"),
    "joints": (clip(0, joints=16)[None], 0, {}, r"\(1, 9, 16, 3\).*h36m17 .* has 17 joints of 3 coordinates"),
    "coordinates": (clip(0, channels=2)[None], 0, {}, r"17 joints of 3 coordinates"),
    "axes": (clip(0), 0, {}, r"\(9, 17, 3\)"),
    "three persons": (clip(0, persons=3), 0, {"persons": 2}, r"3 persons, dataset\.persons=2.*dataset\.surplus=drop"),
    "no frame": (clip(0)[None, :0], 0, {}, r"c1 is empty: no frame"),
    "no person": (clip(0, persons=1)[:0], 0, {}, r"c1 is empty: no person"),
    "only zeros": (0 * clip(0)[None], 0, {}, r"c1 is empty: only zeros"),
    "one frame": (clip(0, frames=1)[None], 0, {"min_frames": 2}, r"1 frame, dataset\.min_frames=2.*min_frames=1"),
    "NaN": (broken((0, 4, 2), np.nan), 0, {}, r"1 of 9 frames hold NaN \(first 4\).*dataset\.on_nan=mask"),
    "infinite": (broken((0, slice(2, 4), 2), np.inf), 0, {}, r"2 of 9 frames hold NaN \(first 2\)"),
    "planar": (clip(0)[None] * [1, 1, 0], 0, {}, r"c1 is flat.*dataset\.reader_options\.flat=keep"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_clip_gets_its_sentence_and_others_go_on(name: str) -> None:
    keypoints, label, changes, sentence = BAD[name]
    with pytest.raises(DataError, match=sentence):
        rows(keypoints, label, **changes)
    faults: list[DataError] = []
    assert rows(keypoints, label, report=faults.append, **changes) == []
    assert len(faults) == 1


def test_a_clip_becomes_its_prepared_stream() -> None:
    x = clip(1)[None]
    body = skeleton("h36m17")
    (row,) = rows(x, preprocess="heading", stream="bone", trial="walk 1", subject="P1", first=7)
    expected = stream(clip_preprocess("heading").apply(x, skeleton=body), "bone", body, score_channel=False)
    np.testing.assert_array_equal(row["pose3d"], expected[0])
    facts = {
        key: row[key] for key in ("clip", "trial", "subject", "first", "label", "action", "split", "person", "persons")
    }
    assert facts == {"clip": "c1", "trial": "walk 1", "subject": "P1", "first": 7, "label": 1, "action": "waving",
                     "split": "train", "person": 0, "persons": 1}  # fmt: skip


def test_persons_are_neighbouring_rows() -> None:
    two = rows(clip(2, persons=2), persons=2)
    assert [(row["person"], row["persons"]) for row in two] == [(0, 2), (1, 2)]
    store = clip_store([*two, *rows(clip(3)[None], persons=2)], chosen(persons=2))
    assert store.table["person"].tolist() == [0, 1, 0]
    assert store.table["start"].tolist() == [0, 9, 18]
    assert store.skeleton == skeleton("h36m17") and store.skeleton2d is None


def test_surplus_persons_are_cut_on_demand() -> None:
    three = clip(4, persons=3)
    kept = rows(three, persons=2, surplus="drop")
    expected = clip_preprocess("ma52").apply(three[:2], skeleton="h36m17")
    np.testing.assert_array_equal(np.stack([row["pose3d"] for row in kept]), expected)


def test_a_person_in_no_frame_is_no_row_unless_published() -> None:
    x = clip(5, persons=2)
    x[1] = 0
    assert len(rows(x, persons=2)) == 1
    assert len(rows(x, persons=2, preprocess="ma52_fork")) == 2


def test_two_dimensional_points_without_scores_get_ones() -> None:
    pixels = 100 * clip(6, channels=2)[None]
    (row,) = rows(pixels, preprocess="pyskl_2d", size=(640, 480))
    assert "pose3d" not in row
    assert (row["pose2d"][..., 2] == 1).all()
    assert (row["width"], row["height"]) == (640, 480)


def test_what_the_preprocessing_misses_is_named_with_the_clip() -> None:
    with pytest.raises(DataError, match=r"Clip c1: .*size of the image"):
        rows(100 * clip(6, channels=2)[None], preprocess="pyskl_2d")


def test_holes_are_filled_in_from_the_frames_around() -> None:
    x = clip(7)[None]
    damaged = x.copy()
    damaged[0, 3, 5] = np.nan
    damaged[0, 0, 6] = np.nan
    (row,) = rows(damaged, on_nan="mask")
    repaired = x.copy()
    repaired[0, 3, 5] = (x[0, 2, 5] + x[0, 4, 5]) / 2
    repaired[0, 0, 6] = x[0, 1, 6]
    (expected,) = rows(repaired)
    np.testing.assert_allclose(row["pose3d"], expected["pose3d"], atol=1e-5)


def test_holes_in_two_dimensions_lose_their_score() -> None:
    pixels = 100 * clip(8, channels=2)[None]
    pixels[0, 3, 5] = np.nan
    (row,) = rows(
        pixels, preprocess="pyskl_2d", size=(640, 480), on_nan="mask", score=np.full((1, 9, 17), 0.5, np.float32)
    )
    assert np.isfinite(row["pose2d"]).all()
    expected = np.full((9, 17), 0.5)
    expected[3, 5] = 0
    np.testing.assert_array_equal(row["pose2d"][..., 2], expected)


def test_flat_clips_are_kept_on_demand() -> None:
    (row,) = rows(clip(0)[None] * [1, 1, 0], flat="keep")
    assert np.ptp(row["pose3d"][..., 2]) == 0


def test_unlabelled_clips_are_dropped_on_demand() -> None:
    assert rows(clip(0)[None], None, unlabeled="drop") == []


def test_a_withheld_label_has_no_class_name() -> None:
    (row,) = rows(clip(0)[None], -1)
    assert (row["label"], row["action"]) == (-1, "")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_classes": 4}, r"num_classes=4, but dataset\.classes has 3 .*Use dataset\.num_classes=3"),
        ({"surplus": "cut"}, r"dataset\.surplus=cut .* dataset\.surplus=error"),
        ({"unlabeled": "keep"}, r"dataset\.unlabeled=keep"),
        ({"on_nan": "zero"}, r"dataset\.on_nan=zero"),
        ({"flat": "yes"}, r"flat=yes"),
        ({"preprocess": "ma53"}, r"dataset\.preprocess=ma52"),
        ({"skeleton": "coco17", "preprocess": "ntu"}, r"Use dataset\.skeleton=h36m17 dataset\.num_joints=17"),
        ({"speed": 1}, r"no option 'speed'"),
    ],
)
def test_a_bad_option_gets_its_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        chosen(**changes)


def test_a_store_of_nothing_says_where_clips_come_from() -> None:
    with pytest.raises(DataError, match=r"Not one usable clip was found\. Ask the owners\."):
        clip_store([], chosen(source="Ask the owners."))


def test_two_and_three_dimensions_do_not_mix() -> None:
    flat = rows(100 * clip(6, channels=2)[None], preprocess="pyskl_2d", size=(640, 480))
    with pytest.raises(DataError, match="Keep them in two data sets"):
        clip_store([*rows(clip(1)[None]), *flat], chosen())

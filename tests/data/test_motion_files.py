"""What the readers of motion files share: names, axes, frame rates, units, parents."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from kinema.core.skeleton import skeleton
from kinema.data.motion_files import (
    MotionOptions,
    Place,
    action_of,
    find,
    motion_row,
    place,
    resampled,
    upright,
)
from kinema.data.motion_rows import own_skeleton
from kinema.errors import ConfigError, DataError
from tests.data.motion_layouts import walk

H36M = skeleton("h36m17")
WHERE = Place("a", "walk", "walk 1", "")


@pytest.mark.parametrize(
    ("path", "names", "expected"),
    [
        ("anna/walk 2", None, ("anna", "walk", "walk 2", "")),
        ("train/anna/walk_02", None, ("anna", "walk", "walk_02", "train")),
        ("lab/anna/walk2", None, ("lab/anna", "walk", "walk2", "")),
        ("anna_walk_2", None, ("anna", "walk", "walk_2", "")),
        ("walk", None, ("walk", "walk", "walk", "")),
        ("07/07_01", None, ("07", "07", "07_01", "")),
        ("123", None, ("123", "123", "123", "")),
        ("walk1_subject5", "{trial}_{subject}", ("subject5", "walk", "walk1", "")),
        ("x/dataset-1_walk_active_001", "dataset-1_{action}_*_*", ("x", "walk", "dataset-1_walk_active_001", "")),
        ("Angry/Angry_BR", "{subject}/*_{action}", ("Angry", "BR", "Angry_BR", "")),
        ("s1-test-jump", "{subject}-{split}-{trial}", ("s1", "jump", "jump", "test")),
    ],
)
def test_names_come_from_where_a_file_lies(path: str, names: str | None, expected: tuple[str, ...]) -> None:
    found = place(PurePosixPath(path), names)
    assert (found.subject, found.action, found.trial, found.split) == expected


def test_a_name_that_does_not_follow_the_pattern_gets_its_sentence() -> None:
    with pytest.raises(DataError, match=r"'walk' does not follow dataset\.reader_options\.names=\{trial\}_\{subject\}"):
        place(PurePosixPath("walk"), "{trial}_{subject}")


@pytest.mark.parametrize("names", ["walk", "{person}_{trial}", "{trial}_{trial}"])
def test_a_pattern_without_known_fields_is_refused(names: str) -> None:
    with pytest.raises(ConfigError, match=r"must hold some of \{subject\}, \{trial\}, \{action\}, \{split\} once"):
        MotionOptions.parse("bvh", {"names": names})


def test_actions_lose_the_number_of_the_trial_only() -> None:
    assert [action_of(name) for name in ("walk 2", "walk_02", "walk2", "walk-12", "2", "run fast")] == [
        "walk", "walk", "walk", "walk", "2", "run fast",
    ]  # fmt: skip


@pytest.mark.parametrize(("up", "head"), [("y", (0.0, 2.0, 0.0)), ("-y", (0.0, -2.0, 0.0)), ("z", (0.0, 0.0, 2.0))])
def test_up_becomes_z_and_nothing_is_mirrored(up: str, head: tuple[float, ...]) -> None:
    np.testing.assert_allclose(upright(np.array(head), up), (0, 0, 2))
    axes = upright(np.eye(3), up)
    np.testing.assert_allclose(np.linalg.det(axes), 1)
    np.testing.assert_allclose(upright(np.array((1.0, 0, 0)), up), (1, 0, 0))


def test_a_whole_ratio_takes_every_nth_frame() -> None:
    pose = np.random.default_rng(0).normal(size=(121, 3, 3))
    np.testing.assert_array_equal(resampled(pose, 120, 60), pose[::2])
    np.testing.assert_array_equal(resampled(pose[:119], 120, 40), pose[:119:3])


@pytest.mark.parametrize(
    ("source", "target"), [(30.0, 50.0), (120.0, 50.0), (100.0, 50.0), (59.94, 50.0), (50.0, 24.0)]
)
def test_straight_lines_between_frames_at_the_times_of_the_new_rate(source: float, target: float) -> None:
    time = np.arange(100) / source
    line = np.stack([time, 1 - 2 * time, 0.5 * time], axis=-1)[:, None]
    made = resampled(line, source, target)
    at = np.arange(len(made)) / target
    np.testing.assert_allclose(made[:, 0, 0], at, atol=1e-6)
    np.testing.assert_allclose(made[:, 0, 1], 1 - 2 * at, atol=1e-6)
    assert at[-1] <= time[-1] + 1e-6 < at[-1] + 1 / target + 2e-6


def test_the_same_rate_changes_nothing() -> None:
    pose = np.random.default_rng(0).normal(size=(7, 2, 3))
    assert resampled(pose, 50.0, 50.0) is pose


def test_a_frame_with_nan_spoils_only_what_is_made_of_it() -> None:
    pose = np.zeros((9, 1, 3))
    pose[4] = np.nan
    assert np.flatnonzero(np.isnan(resampled(pose, 100, 50)[:, 0, 0])).tolist() == [2]
    assert np.flatnonzero(np.isnan(resampled(pose[1:], 100, 50)[:, 0, 0])).tolist() == []


def row(pose: np.ndarray, told: float | None = None, **options: object) -> dict[str, np.ndarray]:
    return motion_row(pose, WHERE, "walk.npy", MotionOptions.parse("motion_npz", options), H36M, told)


def test_a_row_is_in_metres_with_z_up_at_the_wanted_rate() -> None:
    pose = walk()
    lying = np.stack([pose[..., 0], pose[..., 2], -pose[..., 1]], axis=-1) * np.float32(100)  # y up, centimetres
    made = row(lying, 100.0, up="y", unit="cm", fps=50.0)
    np.testing.assert_allclose(made["pose3d"], pose[::2], atol=1e-5)
    assert made["pose3d"].dtype == np.float32
    assert (made["fps"], made["recorded_fps"], made["subject"], made["trial"]) == (50.0, 100.0, "a", "walk 1")


@pytest.mark.parametrize(
    ("options", "fps", "expected"),
    [
        ({"fps": 50.0}, None, (50.0, 50.0)),  # nobody knows: what is wanted
        ({"fps": 50.0, "file_fps": 25.0}, 100.0, (50.0, 25.0)),  # stated against the file
        ({}, 100.0, (100.0, 100.0)),
        ({}, None, (np.nan, np.nan)),
    ],
)
def test_the_rate_is_what_is_stated_then_what_the_file_says(
    options: dict[str, float], fps: float | None, expected: tuple[float, float]
) -> None:
    made = row(walk(), fps, **options)
    np.testing.assert_equal((made["fps"], made["recorded_fps"]), expected)


@pytest.mark.parametrize(
    ("factor", "options", "remedy"),
    [
        (1000, {}, r"dataset\.unit=m\. Use dataset\.unit=mm\."),
        (100, {}, r"Use dataset\.unit=cm\."),
        (1, {"unit": "mm"}, r"with dataset\.unit=mm\. Use dataset\.unit=m\."),
        (17.7, {}, r"State the metres of one unit: dataset\.reader_options\.scale=0\.0\d+ makes it 1\.7 m"),
        (
            1,
            {"scale": 0.0254},
            r"reader_options\.scale=0\.0254\. Use dataset\.unit=m dataset\.reader_options\.scale=null",
        ),
    ],
)
def test_other_units_get_the_one_that_fits(factor: float, options: dict[str, object], remedy: str) -> None:
    with pytest.raises(DataError, match=rf"walk\.npy: the body is .* m large .*{remedy}"):
        row(walk() * factor, **options)


def test_what_the_remedy_says_works() -> None:
    np.testing.assert_allclose(row(walk() / 0.0254, scale=0.0254)["pose3d"], walk(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(row(walk() * 1000, unit="mm")["pose3d"], walk(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("pose", "options", "message"),
    [
        (walk()[:1], {}, r"walk\.npy has 1 frame: no motion\. Leave the file out"),
        (walk()[:10], {"skip": 9}, r"has 1 frame after the 9 that are skipped"),
        (walk()[:, :16], {}, r"shape \(200, 16, 3\), \(frames, 17 joints, 3\) expected for the skeleton h36m17"),
        (np.zeros((9, 17, 3)), {}, r"all joints lie on one point"),
    ],
)
def test_motion_that_is_none_gets_its_sentence(pose: np.ndarray, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        row(pose, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "miles"}, r"unit=miles is not known\. Choose one of m, cm, mm"),
        ({"up": "x"}, r"up=x is not known\. Choose one of z, y, -y"),
        ({"scale": 0.0}, r"scale=0\.0 is no number of metres"),
        ({"file_fps": 0}, r"dataset\.reader_options\.file_fps=0 are no frames per second"),
        ({"fps": -1}, r"dataset\.fps=-1 are no frames per second\. Use dataset\.fps=50"),
        ({"skip": -1}, r"skip=-1 is negative"),
        ({"ups": "y"}, r"no option 'ups'\. Known in dataset\.reader_options: skeleton, unit,"),
        ({"skeleton": "h36m16"}, r"No skeleton is called 'h36m16'\. Did you mean"),
    ],
)
def test_wrong_options_get_their_sentence(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MotionOptions.parse("bvh", options)


@pytest.mark.parametrize(
    ("parents", "joints", "message"),
    [
        ([-1, 0, -1], None, r"2 joints have the parent -1\. Exactly one is the root"),
        ([1, 2, 0], None, r"0 joints have the parent -1"),
        ([-1, 0, 5], None, r"joint 2 has the parent 5, but there are the joints 0 to 2"),
        ([-1, 2, 1], None, r"joint 1 is its own ancestor"),
        ([-1, 0], ["a"], r"1 joint names, but 2 parents"),
        ("x", None, r"parents=x is no list of joint numbers\. Write parents=\[-1, 0, 1, \.\.\.\]"),
    ],
)
def test_wrong_parents_get_their_sentence(parents: object, joints: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=rf"^f\.npz: {message}"):
        own_skeleton(parents, joints, "f.npz")


def test_no_files_get_where_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no BVH file in it\. Expected this\. Ask anna\. If they are elsewhere: dataset\.root="
    ):
        find(tmp_path, (".bvh",), "BVH", "Ask anna.", "Expected this.")
    with pytest.raises(DataError, match=r"nowhere: no such folder\. Expected this\."):
        find(tmp_path / "nowhere", (".bvh",), "BVH", "", "Expected this.")

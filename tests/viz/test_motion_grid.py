"""Grids of moving bodies: the published look, a context that freezes, a view from the front, and speed."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.core.skeleton import Skeleton, skeleton
from kinema.errors import DataError
from kinema.viz import motion_grid
from kinema.viz.clip import ffmpeg
from kinema.viz.motion_grid import (
    GIVEN,
    OBSERVED,
    PREDICTED,
    SWITCHED,
    Cell,
    MotionGrid,
    facing,
    pictures,
    project,
    still,
)
from tests.viz.test_action_clip import world

BODY = skeleton("h36m17")
HISTORY, FRAMES = 4, 12


def motion(frames: int = FRAMES, seed: int = 0) -> np.ndarray:
    """A body that faces -y and moves a little."""
    sway = 0.1 * np.random.default_rng(seed).standard_normal((frames, 17, 3)).cumsum(0)
    return world(1)[0] + sway


def grid(**changes: object) -> MotionGrid:
    rows = [
        [
            Cell(motion(seed=r), "context", frozen=True),
            Cell(motion(seed=r), "truth", truth=True),
            Cell(motion(seed=9 + r), "sample 1"),
        ]
        for r in range(2)
    ]
    return replace(MotionGrid(rows, BODY, HISTORY, 50.0, ("a", "b"), name="both"), **changes)


def has(picture: np.ndarray, colour: str) -> bool:
    picture = picture[: -round(motion_grid._CLOCK * motion_grid.DPI)]  # without the legend below
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(picture.astype(int) - wanted).max(-1) < 8).any())


def test_colours_tell_what_was_observed_from_what_is_predicted() -> None:
    shown = list(pictures(grid()))
    assert len(shown) == FRAMES
    assert shown[0].dtype == np.uint8
    right = [(has(one, OBSERVED[2]), has(one, PREDICTED[2])) for one in shown]
    assert right == [(True, False)] * HISTORY + [(True, True)] * (FRAMES - HISTORY)


def test_a_switched_motion_and_given_joints_have_colours_of_their_own() -> None:
    switched = list(pictures(grid(switched=8)))
    assert [has(one, SWITCHED[2]) for one in switched] == [False] * 8 + [True] * 4
    rows = [[Cell(motion(), given=(14, 15, 16))]]
    given = list(pictures(grid(rows=rows, labels=())))
    assert [has(one, GIVEN) for one in given] == [False] * HISTORY + [True] * (FRAMES - HISTORY)
    assert not any(has(one, "#0a2a8c") for one in switched)


def test_the_context_stands_still_after_the_history() -> None:
    rows = [[Cell(motion(), frozen=True)]]
    shown = list(pictures(grid(rows=rows, labels=())))
    body = [one[: round(0.85 * len(one))] for one in shown]  # the clock below goes on
    assert not np.array_equal(body[HISTORY - 2], body[HISTORY - 1])
    for later in body[HISTORY:]:
        np.testing.assert_array_equal(later, body[HISTORY - 1])


def test_the_body_is_seen_from_the_front() -> None:
    pose = world(1)[0, 0]  # faces -y: its left hand is at +x, on the viewer's right
    left, right = project(pose - pose[0], facing(pose, BODY))[[BODY.index("left_wrist"), BODY.index("right_wrist")]]
    assert left[0] > 0 > right[0]
    turned = np.stack([-pose[:, 1], pose[:, 0], pose[:, 2]], -1)
    assert (facing(turned, BODY) - facing(pose, BODY)) % 360 == pytest.approx(90)


def test_the_published_viewer_stands_at_x() -> None:
    flat = project(np.array([[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]]), motion_grid.PUBLISHED_AZIMUTH)
    assert flat[0] == pytest.approx([1.0, 0.0])  # y to the right
    assert flat[1][1] > 0.9 and abs(flat[1][0]) < 1e-9  # z up
    assert flat[2][1] < 0  # what is nearer is lower, the viewer looks down


def test_bodies_without_sides_and_files_without_speed_are_drawn() -> None:
    body = Skeleton.from_parents([-1, 0, 1, 2])
    rows = [[Cell(np.random.default_rng(0).standard_normal((5, 4, 3)))]]
    made = MotionGrid(rows, body, 2)
    assert made.moment(0) == "-1 frames"
    assert len(list(pictures(made))) == 5
    assert still(made).get_size_inches()[0] > 2


def test_wild_samples_do_not_make_the_others_small() -> None:
    calm = next(pictures(grid(rows=[[Cell(motion())]], labels=())))
    wild = motion()
    wild[5, 3] = 1e4
    assert next(pictures(grid(rows=[[Cell(wild)]], labels=()))).shape[1] < 3 * calm.shape[1]


def test_grids_of_several_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="one shape"):
        grid(rows=[[Cell(motion()), Cell(motion(5))]], labels=())
    with pytest.raises(DataError, match="17 joints"):
        grid(rows=[[Cell(motion()[:, :5])]], labels=())
    with pytest.raises(DataError, match="observed"):
        grid(history=FRAMES + 1)


def test_files_are_written_by_their_endings(tmp_path: Path) -> None:
    endings = ["png", "gif", *(["mp4"] if ffmpeg() else [])]
    paths = [tmp_path / f"grid.{ending}" for ending in endings]
    motion_grid.write(paths, grid())
    assert [path.stat().st_size > 1000 for path in paths] == [True] * len(paths)
    with Image.open(tmp_path / "grid.gif") as gif:
        assert gif.n_frames == FRAMES // 2  # 50 frames per second are shown at 25
        assert gif.info["duration"] == 40
        gif.seek(gif.n_frames - 1)
        last = np.asarray(gif.convert("RGB"))
        assert has(last, PREDICTED[0]) and has(last, PREDICTED[2])  # though no first frame has them


def test_twelve_bodies_of_125_frames_take_seconds() -> None:
    rows = [[Cell(motion(125, seed)) for seed in range(4)] for _ in range(3)]
    made = MotionGrid(rows, BODY, 25, 50.0)
    start = time.process_time()
    assert sum(1 for _ in pictures(made)) == 125
    assert time.process_time() - start < 5

"""Pictures of a recognised clip: bodies upright whatever the axes, bars and labels of the moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.core.skeleton import skeleton
from kinema.viz.action_clip import ActionClip, Bodies, azimuth, pictures, standing, still, write
from kinema.viz.clip import ffmpeg
from tests.data.bodies import synthetic

BODY = skeleton("h36m17")
NAMES = ("walking", "waving", "sitting")


def world(frames: int = 12) -> np.ndarray:
    """A body that faces -y, z up, metres."""
    pose = np.zeros((17, 3))
    heights = {"head": 1.7, "nose": 1.6, "thorax": 1.4, "spine": 1.15, "pelvis": 0.9}
    for name, height in heights.items():
        pose[BODY.index(name)] = (0, 0, height)
    for side, x in (("left", 0.15), ("right", -0.15)):
        for name, height in (("hip", 0.9), ("knee", 0.5), ("ankle", 0.0)):
            pose[BODY.index(f"{side}_{name}")] = (x, 0, height)
        for name, height in (("shoulder", 1.4), ("elbow", 1.1), ("wrist", 0.9)):
            pose[BODY.index(f"{side}_{name}")] = (1.6 * x, 0, height)
    sway = np.linspace(0, 0.3, frames)[:, None, None] * (1, 0, 0)
    return (pose + sway)[None]


AXES = {
    "room": lambda p: p,
    "camera": lambda p: np.stack([p[..., 0], -p[..., 2], p[..., 1]], -1),  # x right, y down, z away
    "Kinect": lambda p: np.stack([p[..., 0], p[..., 2], -p[..., 1]], -1),  # y up, z towards the viewer
    "upside down": lambda p: p * (1, -1, -1),
}


@pytest.mark.parametrize("axes", AXES)
def test_bodies_are_set_upright_whatever_their_axes(axes: str) -> None:
    np.testing.assert_allclose(standing(AXES[axes](world()), BODY), world(), atol=1e-9)


@pytest.mark.parametrize("scale", [0.01, 1000.0])
def test_bodies_of_another_unit_are_drawn_as_tall_as_people(scale: float) -> None:
    np.testing.assert_allclose(standing(scale * world(), BODY), world(), atol=1e-6)


def test_people_are_seen_from_the_front() -> None:
    assert azimuth(world(), BODY) == pytest.approx(-70)  # the viewer stands at -y, a little aside
    turned = np.stack([-world()[..., 1], world()[..., 0], world()[..., 2]], -1)  # now facing +x
    assert azimuth(turned, BODY) == pytest.approx(20)


def shown(points: np.ndarray, fps: float | None = 25.0) -> ActionClip:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2]])
    spans = np.array([[0.0, 6.5], [6.5, 12.0]])
    return ActionClip(points, BODY, probabilities, spans, NAMES, fps)


def test_a_frame_belongs_to_the_window_that_holds_it() -> None:
    clip = shown(world())
    assert [clip.window(frame) for frame in (0, 6, 7, 11)] == [0, 0, 1, 1]
    assert clip.moment(5) == "0.20 s" and shown(world(), None).moment(5) == "frame 5"


def test_pictures_change_with_the_body_and_the_label() -> None:
    first, same, other = pictures(shown(world()), [0, 0, 11], 2.0)
    assert first.shape == other.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, same)
    height = 200
    assert (first[:height, :200] != other[:height, :200]).any()  # the body
    assert (first[:height, 200:] != other[:height, 200:]).any()  # the bars
    assert (first[height:] != other[height:]).any()  # the moment on the strip


def test_keypoints_and_several_persons_are_drawn() -> None:
    flat = np.stack([synthetic("h36m17", frames=12), synthetic("h36m17", frames=12) + np.array((200, 0))])
    two, one = Bodies(flat, BODY, 2.0).draw(0), Bodies(flat[:1], BODY, 2.0).draw(0)
    assert (two != one).any()
    apart = np.stack([world()[0], world()[0] + (1.0, 0.5, 0)])
    pair, alone = Bodies(apart, BODY, 2.0).draw(3), Bodies(apart[:1], BODY, 2.0).draw(3)
    inked = [int((picture < 100).any(-1).sum()) for picture in (pair, alone)]
    assert inked[0] > 1.2 * inked[1]


def test_an_absent_person_is_not_drawn() -> None:
    empty = np.concatenate([world(), np.zeros_like(world())])
    both, alone = Bodies(empty, BODY, 2.0).draw(0), Bodies(world(), BODY, 2.0).draw(0)
    np.testing.assert_array_equal(both, alone)


def test_files_hold_the_clip(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "a.gif", *([tmp_path / "a.mp4"] if ffmpeg() else [])]
    write(paths, shown(world(), 50.0), size=2.0)
    assert all(path.stat().st_size > 1000 for path in paths)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 6  # every second one of 12 at 50 frames per second
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == still(shown(world(), 50.0)).shape[1::-1]

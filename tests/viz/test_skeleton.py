"""What is drawn is where it should be, in the right colours, and nothing is left behind in pyplot."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from kinema.core.skeleton import SKELETONS, skeleton
from kinema.viz.figures import Scene, Shot, contact_sheet, error_bars, sheet
from kinema.viz.prepare import Clip
from kinema.viz.skeleton import RIGHT, Panel2D, Panel3D, bone_colours, new_figure, picture_of

BODY = skeleton("h36m17")


def standing(frames: int = 1) -> np.ndarray:
    """A stick figure (T, 17, 3), z up, facing +x, walking along +x."""
    place = {
        "pelvis": (0, 0, 0.95), "spine": (0, 0, 1.2), "thorax": (0, 0, 1.45), "nose": (0.05, 0, 1.55),
        "head": (0, 0, 1.7),
    }  # fmt: skip
    for side, sign in (("left", 1), ("right", -1)):
        place |= {
            f"{side}_hip": (0, 0.13 * sign, 0.95), f"{side}_knee": (0, 0.13 * sign, 0.5),
            f"{side}_ankle": (0, 0.13 * sign, 0.08), f"{side}_shoulder": (0, 0.2 * sign, 1.42),
            f"{side}_elbow": (0, 0.3 * sign, 1.15), f"{side}_wrist": (0.1, 0.35 * sign, 0.95),
        }  # fmt: skip
    pose = np.array([place[name] for name in BODY.joints])
    return pose + np.linspace(0, 1, frames)[:, None, None] * np.array((1.0, 0, 0))


def clip_of(frames: int = 6, poses: int = 2, viewport: tuple[int, int] = (640, 360)) -> Clip:
    world = standing(frames)
    keypoints = np.stack((320 + 100 * world[..., 1], 330 - 180 * world[..., 2]), -1)
    names = ("Reconstruction", "Ground truth")[:poses]
    return Clip(keypoints, {name: world for name in names}, viewport, azimuth=0.0, fps=25.0)


def coloured(picture: np.ndarray, colour: str) -> np.ndarray:
    """Rows and columns (N, 2) of pixels of about a colour."""
    far = np.abs(picture.astype(float) - 255 * np.array(to_rgb(colour))).max(-1)
    return np.argwhere(far < 40)


@pytest.mark.parametrize("name", SKELETONS)
def test_bones_to_right_joints_stand_out(name: str) -> None:
    body = SKELETONS[name]
    colours = bone_colours(body, right="red", other="black")
    assert len(colours) == len(body.bones)
    for colour, (child, _) in zip(colours, body.bones, strict=True):
        assert (colour == "red") == (child in body.right)


@pytest.mark.parametrize("name", SKELETONS)
def test_every_skeleton_can_be_drawn(name: str) -> None:
    body = SKELETONS[name]
    points = np.random.default_rng(0).uniform(0.1, 0.9, (len(body), 3))
    shot = Shot(points[:, :2] * 100, {"Prediction": points}, (100, 100))
    blank = picture_of(new_figure(2.2, 4.2))
    drawn = picture_of(sheet([shot], body, body))
    assert drawn.shape[1] > 0 and drawn.std() > blank.std()


def test_keypoints_are_drawn_at_their_pixels() -> None:
    figure = new_figure(4, 2)
    panel = Panel2D(figure.add_axes((0, 0, 1, 1)), BODY, (400, 200))
    keypoints = np.full((17, 2), (60.0, 40.0))
    panel.update(keypoints)
    picture = picture_of(figure)
    marked = np.argwhere((picture < 100).all(-1) | (picture[..., 0].astype(int) - picture[..., 1] > 100))
    assert np.abs(marked.mean(0) - (40, 60)).max() < 2


def test_a_keypoint_that_is_missing_is_left_out() -> None:
    figure = new_figure(4, 2)
    panel = Panel2D(figure.add_axes((0, 0, 1, 1)), BODY, (400, 200))
    keypoints = np.full((17, 2), np.nan)
    panel.update(keypoints)
    empty = picture_of(figure)
    keypoints[[0, 1]] = (50, 50), (150, 150)
    panel.update(keypoints)
    assert (picture_of(figure) != empty).any(-1).sum() > 50


def test_the_picture_of_the_video_lies_under_the_keypoints() -> None:
    figure = new_figure(4, 2)
    panel = Panel2D(figure.add_axes((0, 0, 1, 1)), BODY, (400, 200))
    video = np.zeros((100, 200, 3), np.uint8)
    video[:, 100:] = (0, 0, 250)
    panel.update(np.full((17, 2), (60.0, 40.0)), video)
    picture = picture_of(figure)
    assert tuple(picture[150, 300]) == (0, 0, 250)
    assert tuple(picture[150, 100]) == (0, 0, 0)
    assert picture[40, 60].max() > 0


def test_the_body_is_upright_and_its_right_is_on_the_viewers_left_when_it_faces_him() -> None:
    figure = new_figure(3, 3)
    panel = Panel3D(figure.add_axes((0, 0, 1, 1), projection="3d"), BODY, azimuth=0.0)  # the viewer stands at +x
    panel.update(standing()[0])
    picture = picture_of(figure)
    red = coloured(picture, RIGHT)
    dark = np.argwhere((picture < 80).all(-1))
    assert len(red) > 100
    assert red[:, 1].mean() < dark[:, 1].mean()
    assert np.ptp(dark[:, 0]) > 0.55 * picture.shape[0]  # the body fills the panel
    head_up = dark[dark[:, 0] < np.percentile(dark[:, 0], 5)]
    assert abs(head_up[:, 1].mean() - picture.shape[1] / 2) < 10


def test_the_view_follows_the_root_while_the_floor_lies_still() -> None:
    figure = new_figure(3, 3)
    panel = Panel3D(figure.add_axes((0, 0, 1, 1), projection="3d"), BODY, azimuth=30.0)
    panel.update(standing()[0])
    here = picture_of(figure)
    panel.update(standing()[0] + np.array((0.1, 0.0, 0.0)))
    moved = picture_of(figure)
    panel.update(standing()[0] + np.array((0.5, 1.0, 0.0)))  # whole squares of the floor
    again = picture_of(figure)
    np.testing.assert_array_equal(here, again)
    assert (here != moved).any()
    # The floor shines through the edges of the bones, which decides about single pixels.
    np.testing.assert_allclose(coloured(here, RIGHT).mean(0), coloured(moved, RIGHT).mean(0), atol=0.5)


def test_errors_colour_the_bones_from_blue_to_red() -> None:
    pictures = []
    for error in (0.0, 0.3):
        figure = new_figure(3, 3)
        panel = Panel3D(figure.add_axes((0, 0, 1, 1), projection="3d"), BODY)
        panel.update(standing()[0], np.full(17, error))
        picture = picture_of(figure).astype(int)
        pictures.append(picture[np.ptp(picture, -1) > 80].mean(0))
    low, high = pictures
    assert low[2] > low[0] + 50
    assert high[0] > high[2] + 50


@pytest.mark.parametrize("poses", [1, 2])
@pytest.mark.parametrize("viewport", [(640, 360), (1000, 1002), (1080, 1920)])
def test_a_scene_of_any_viewport_draws_a_panel_per_pose(poses: int, viewport: tuple[int, int]) -> None:
    clip = clip_of(3, poses, viewport)
    frames = list(Scene(clip, BODY, BODY, size=2.0).frames(clip))
    assert [frame.shape for frame in frames] == [(200, 200 * (1 + poses), 3)] * 3
    assert frames[0].dtype == np.uint8
    for panel in range(1 + poses):
        assert len(coloured(frames[0][:, 200 * panel : 200 * (panel + 1)], RIGHT)) > 15


def test_redrawing_leaves_nothing_of_the_frame_before() -> None:
    clip = clip_of(5)
    scene = Scene(clip, BODY, BODY, size=2.0)
    there_and_back = [scene.draw(clip.keypoints[i], [pose[i] for pose in clip.poses.values()]) for i in (0, 1, 0)]
    np.testing.assert_array_equal(there_and_back[0], there_and_back[2])
    assert (there_and_back[0] != there_and_back[1]).any()


def test_frames_are_drawn_when_they_are_asked_for_and_end_with_the_video() -> None:
    clip = clip_of(6, 1)
    asked = []

    def video() -> object:
        for number in range(2):
            asked.append(number)
            yield np.full((36, 64, 3), 60 * number, np.uint8)

    frames = Scene(clip, BODY, BODY, size=2.0).frames(clip, video())  # type: ignore[arg-type]
    next(frames)
    assert asked == [0]
    rest = list(frames)
    assert len(rest) == 1
    assert tuple(rest[0][70, 20]) == (60, 60, 60)


def test_a_picture_of_the_video_is_cut_with_the_view() -> None:
    figure = new_figure(2, 2)
    panel = Panel2D(figure.add_axes((0, 0, 1, 1)), BODY, (400, 200))
    video = np.zeros((20, 40, 3), np.uint8)  # a tenth of the size of the picture
    video[:, :20], video[:10, 20:] = (0, 0, 250), (0, 250, 0)
    keypoints = np.full((17, 2), np.nan)
    panel.update(keypoints, video)
    panel.zoom(np.array([[150.0, 50.0], [250.0, 150.0]]), margin=1.0)
    shown = picture_of(figure)  # 100 x 100 units around the middle
    assert tuple(shown[100, 20]) == (0, 0, 250)
    assert tuple(shown[20, 180]) == (0, 250, 0)
    assert tuple(shown[180, 180]) == (0, 0, 0)
    panel.zoom(np.array([[350.0, 100.0], [550.0, 300.0]]), margin=1.0)  # half of it is beyond the picture
    beyond = picture_of(figure)
    assert tuple(beyond[20, 20]) == (0, 0, 0)
    assert beyond[180, 180].min() > 240


def test_a_contact_sheet_has_a_column_per_moment() -> None:
    short, long = (contact_sheet(clip_of(frames), BODY, BODY) for frames in (3, 50))
    assert len(short.axes) == 3 * 3
    assert len(long.axes) == 8 * 3
    labels = [text.get_text() for text in long.texts]
    assert "0.00 s" in labels and f"{49 / 25:.2f} s" in labels
    assert {"Input", "Reconstruction", "Ground truth"} <= set(labels)


def test_error_bars_name_every_value_and_bear_missing_ones() -> None:
    figure = error_bars(
        {"left_knee": 12.0, "right_knee": 34.5, "nose": float("nan")}, title="MPJPE", highlight=["right_knee"]
    )
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["left knee", "right knee", "nose"]
    assert [text.get_text() for text in axes.texts] == ["12.0", "34.5"]
    assert len(coloured(picture_of(figure), RIGHT)) > 100
    assert picture_of(error_bars({"walk": float("nan")}, title="MPJPE")).size


def test_drawing_imports_no_pyplot() -> None:
    script = (
        "import sys, numpy as np\n"
        "from kinema.core.skeleton import skeleton\n"
        "from kinema.viz.figures import Shot, error_bars, sheet\n"
        "from kinema.viz.skeleton import picture_of\n"
        "body = skeleton('h36m17')\n"
        "picture_of(sheet([Shot(np.zeros((17, 2)), {'a': np.ones((17, 3))})], body, body))\n"
        "picture_of(error_bars({'a': 1.0}, title='a'))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"

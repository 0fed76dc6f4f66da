"""The built-in motion: people with bones and joints, feet that stand, cameras that see them, a detector that errs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kinema.core.camera import project
from kinema.core.preprocess import preprocess
from kinema.data.readers import synthetic
from kinema.data.sequences import Sequences
from kinema.data.synthetic.actions import ACTIONS, perform
from kinema.data.synthetic.curves import curve, ellipse
from kinema.data.synthetic.skeleton import SIDES, SKELETON, Body
from kinema.errors import ConfigError

FPS = 50.0
ROOT = Path("nowhere")


@cache
def act(name: str, seed: int = 0, frames: int = 250) -> tuple[Body, np.ndarray]:
    rng = np.random.default_rng([seed, list(ACTIONS).index(name)])
    body = Body.draw(rng)
    return body, perform(name, body, rng, frames, FPS)


@cache
def small(**options: object) -> Sequences:
    return synthetic.read(ROOT, **{"frames": 40, "actions": ("walk", "wave"), **options})  # type: ignore[arg-type]


def joint(pose: np.ndarray, name: str) -> np.ndarray:
    return pose[..., SKELETON.index(name), :]


def bend(pose: np.ndarray, first: str, middle: str, last: str) -> np.ndarray:
    """Degrees by which a limb is bent; 0 = straight."""
    a, b = joint(pose, middle) - joint(pose, first), joint(pose, last) - joint(pose, middle)
    cos = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.degrees(np.arccos(np.clip(cos, -1, 1)))


def forward(pose: np.ndarray) -> np.ndarray:
    """Unit vectors (T, 2) in which the hips face."""
    across = (joint(pose, "left_hip") - joint(pose, "right_hip"))[:, :2]
    ahead = np.stack((across[:, 1], -across[:, 0]), -1)
    return ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)


def planted(body: Body, pose: np.ndarray, side: str) -> np.ndarray:
    """(T - 1,) whether a foot stands between two frames."""
    low = joint(pose, f"{side}_ankle")[:, 2] < body.ankle + 0.006
    return low[1:] & low[:-1]


# Bodies and joints.


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bones_keep_their_length(name: str, seed: int) -> None:
    body, pose = act(name, seed)
    for child, parent in SKELETON.bones:
        length = np.linalg.norm(pose[:, child] - pose[:, parent], axis=-1)
        np.testing.assert_allclose(length, body.bone(SKELETON.joints[child]), atol=1e-9)


def test_people_differ_in_size_and_are_symmetric() -> None:
    bodies = [Body.draw(np.random.default_rng(seed)) for seed in range(40)]
    heights = [body.hip_height for body in bodies]
    assert 0.06 < np.std(heights) / np.mean(heights) * 1.5 < 0.15
    for body in bodies:
        np.testing.assert_array_equal(
            body.offsets[list(SKELETON.left)] * (1, -1, 1), body.offsets[list(SKELETON.right)]
        )


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_joints_stay_within_human_limits(name: str, seed: int) -> None:
    _, pose = act(name, seed)
    for side in SIDES:
        knee = bend(pose, f"{side}_hip", f"{side}_knee", f"{side}_ankle")
        assert knee.max() < 145
        assert bend(pose, f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist").max() < 150
        # A bent knee points to the front of the line from hip to ankle, seen from the pelvis.
        hip, ankle = joint(pose, f"{side}_hip"), joint(pose, f"{side}_ankle")
        across = joint(pose, "left_hip") - joint(pose, "right_hip")
        out = np.cross(ankle - hip, across)
        front = (out * (joint(pose, f"{side}_knee") - (hip + ankle) / 2)).sum(-1)
        assert (front[knee > 15] > 0).all()
    assert bend(pose, "pelvis", "spine", "thorax").max() < 45


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_movement_is_smooth_and_stays_on_the_floor(name: str, seed: int) -> None:
    body, pose = act(name, seed)
    velocity = np.diff(pose, axis=0) * FPS
    assert np.linalg.norm(velocity, axis=-1).max() < 11
    assert np.linalg.norm(np.diff(velocity, axis=0) * FPS, axis=-1).max() < 200
    for side in SIDES:
        assert joint(pose, f"{side}_ankle")[:, 2].min() > body.ankle - 0.008
    assert pose[..., 2].min() > 0.02
    assert np.abs(joint(pose, "pelvis")[:, :2]).max() < 1.8


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_standing_foot_does_not_slide(name: str, seed: int) -> None:
    body, pose = act(name, seed)
    for side in SIDES:
        speed = np.linalg.norm(np.diff(joint(pose, f"{side}_ankle")[:, :2], axis=0), axis=-1) * FPS
        still = speed[planted(body, pose, side)]
        assert len(still) == 0 or np.percentile(still, 95) < 0.06


# Actions look like what they are called.


@pytest.mark.parametrize("name", ["walk", "run"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_walkers_advance_by_their_footsteps(name: str, seed: int) -> None:
    body, pose = act(name, seed)
    pelvis = joint(pose, "pelvis")[:, :2]
    for side in SIDES:
        still = planted(body, pose, side)
        begins = np.flatnonzero(still[1:] & ~still[:-1]) + 1
        assert len(begins) >= 3
        prints = joint(pose, f"{side}_ankle")[begins, :2]
        ways = pelvis[begins]
        ratio = np.linalg.norm(np.diff(prints, axis=0), axis=-1) / np.linalg.norm(np.diff(ways, axis=0), axis=-1)
        assert ((ratio > 0.85) & (ratio < 1.15)).all()  # the way is curved, prints lie on its inner or outer side
    facing = (np.diff(pelvis, axis=0) * forward(pose)[1:]).sum(-1)
    assert (facing > 0).mean() > 0.98


@pytest.mark.parametrize("name", ["walk", "run"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_arms_swing_against_the_legs(name: str, seed: int) -> None:
    _, pose = act(name, seed)
    ahead = forward(pose)
    for side in SIDES:
        arm = ((joint(pose, f"{side}_wrist") - joint(pose, f"{side}_shoulder"))[:, :2] * ahead).sum(-1)
        leg = ((joint(pose, f"{side}_ankle") - joint(pose, f"{side}_hip"))[:, :2] * ahead).sum(-1)
        assert np.corrcoef(arm, leg)[0, 1] < -0.6


def test_runners_fly_and_walkers_do_not() -> None:
    for name, flies in (("run", True), ("walk", False)):
        body, pose = act(name)
        high = np.stack([joint(pose, f"{side}_ankle")[:, 2] > body.ankle + 0.045 for side in SIDES])
        assert high.all(0).any() == flies


def test_jumps_are_ballistic() -> None:
    body, pose = act("jump")
    ankles = np.minimum(*(joint(pose, f"{side}_ankle")[:, 2] for side in SIDES))
    air = ankles > body.ankle + 0.15
    fall = np.diff(joint(pose, "pelvis")[:, 2], n=2) * FPS**2
    inside = air[:-2] & air[1:-1] & air[2:]
    assert inside.sum() > 5
    np.testing.assert_allclose(np.median(fall[inside]), -9.81, atol=0.8)  # breathing and sway are added


def test_sitting_is_low_with_bent_knees() -> None:
    body, pose = act("sit_down")
    pelvis = joint(pose, "pelvis")[:, 2]
    seated = pelvis < pelvis.min() + 0.03
    assert 0.45 < pelvis.min() < 0.62
    assert pelvis.max() > 0.97 * body.hip_height
    assert 70 < np.median(bend(pose, "left_hip", "left_knee", "left_ankle")[seated]) < 110


def test_a_waving_hand_is_up_and_goes_to_and_fro() -> None:
    _, pose = act("wave", frames=200)
    hand = max(SIDES, key=lambda side: joint(pose, f"{side}_wrist")[100, 2])
    assert joint(pose, f"{hand}_wrist")[100, 2] > joint(pose, "thorax")[100, 2]
    swing = bend(pose, f"{hand}_shoulder", f"{hand}_elbow", f"{hand}_wrist")[60:140]
    turns = np.diff(np.sign(np.diff(swing))) != 0
    assert np.ptp(swing) > 25
    assert turns.sum() >= 3


def test_an_unknown_action_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'jumping_jack'"):
        perform("jumpingjack", act("walk")[0], np.random.default_rng(0), 10, FPS)


def test_a_curve_meets_its_keys_without_overshoot() -> None:
    keys = [(0.0, 1.0), (0.5, 3.0), (0.6, 3.0), (1.5, 0.0)]
    values = curve(np.linspace(-1, 3, 401), keys)
    np.testing.assert_allclose(curve(np.array([time for time, _ in keys]), keys), [value for _, value in keys])
    assert values.min() >= 0
    assert values.max() <= 3
    around = curve(np.array([-0.3, 1.7, 3.7]), keys, 2.0)
    np.testing.assert_allclose(around, around[0])


def test_an_ellipse_is_travelled_at_even_speed() -> None:
    path = ellipse(np.zeros(2), (1.5, 0.8), 0.3, 0.1, stride=1.2, turn=-1)
    place, facing = path(np.linspace(0, 9, 2001))
    steps = np.diff(place, axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=-1), 1.2 * 9 / 2000, rtol=1e-3)
    ways = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    np.testing.assert_allclose(np.unwrap(facing[:-1]) - ways, (facing[0] - ways[0]), atol=0.02)
    assert (np.diff(facing) < 0).all()


# The data set.


def test_the_same_seed_gives_the_same_motion_and_another_seed_another() -> None:
    first, again = small(), synthetic.read(ROOT, frames=40, actions=("walk", "wave"))
    for key in ("pose2d", "pose3d"):
        np.testing.assert_array_equal(first.arrays[key], again.arrays[key])
        assert not np.allclose(first.arrays[key], small(seed=1).arrays[key], atol=0.05)


def test_a_take_does_not_depend_on_what_else_is_made() -> None:
    both, alone = small(), small(actions=("wave",))
    for row in range(len(alone)):
        match = np.flatnonzero(
            (both.table["subject"] == alone.table["subject"][row])
            & (both.table["trial"] == "wave")
            & (both.table["camera"] == alone.table["camera"][row])
        )
        np.testing.assert_array_equal(both.sequence(int(match[0]))["pose2d"], alone.sequence(row)["pose2d"])


def test_takes_of_one_action_differ_and_have_their_own_names() -> None:
    made = small(takes=2, actions=("walk",))
    assert sorted(set(made.table["trial"])) == ["walk", "walk 1"]
    assert set(made.table["action"]) == {"walk"}
    one, two = (made.sequence(int(np.flatnonzero(made.table["trial"] == trial)[0])) for trial in ("walk", "walk 1"))
    assert np.abs(one["pose3d"] - two["pose3d"]).max() > 0.1


def test_every_subject_acts_in_front_of_four_cameras_with_a_label() -> None:
    made = small()
    assert len(made) == 7 * 2 * 4
    assert made.num_frames == made.arrays.rows == 7 * 2 * 4 * 40
    assert list(dict.fromkeys(made.table["subject"])) == list(synthetic.SUBJECTS)
    classes = np.array(made.meta["classes"])
    np.testing.assert_array_equal(classes[made.table["label"]], made.table["action"])
    np.testing.assert_allclose(np.linalg.norm(made.cameras["orientation"], axis=-1), 1, atol=1e-6)
    assert made.arrays["pose2d"].shape == made.arrays["pose3d"].shape
    assert {made.arrays[key].dtype for key in ("pose2d", "pose3d")} == {np.dtype(np.float32)}


def test_clean_keypoints_are_the_projection_and_everybody_is_in_the_picture() -> None:
    made = synthetic.read(ROOT, frames=60, noise=0)
    assert set(made.table["action"]) == set(ACTIONS)
    assert made.arrays["pose3d"][..., 2].min() > 2.5
    for row in range(0, len(made), 5):
        views = made.sequence(row)
        exact = project(views["pose3d"], made.cameras["intrinsics"][row])
        np.testing.assert_allclose(views["pose2d"][..., :2], exact, atol=1e-5)  # pixels in between are float32
        aspect = made.table["height"][row] / made.table["width"][row]
        assert (np.abs(exact) < (1, aspect)).all()
    assert (made.arrays["pose2d"][..., 2] == 1).all()


def test_the_detector_errs_by_some_pixels_and_knows_when() -> None:
    exact, seen = small(noise=0, actions=None), small(actions=None)
    distance = np.linalg.norm((seen.arrays["pose2d"] - exact.arrays["pose2d"])[..., :2], axis=-1) * 500
    score = seen.arrays["pose2d"][..., 2]
    assert 2 < np.median(distance) < 5
    assert np.percentile(distance, 99.5) > 15
    assert 0 < score.min() < score.max() < 1
    assert np.corrcoef(distance.ravel(), score.ravel())[0, 1] < -0.5
    weak = small(noise=0.5, actions=None)
    half = np.linalg.norm((weak.arrays["pose2d"] - exact.arrays["pose2d"])[..., :2], axis=-1) * 500
    np.testing.assert_allclose(np.median(half), np.median(distance) / 2, rtol=0.02)


def test_a_level_camera_sees_people_upright() -> None:
    made = small(noise=0)
    head, pelvis = SKELETON.index("head"), SKELETON.root
    assert (made.arrays["pose2d"][:, head, 1] < made.arrays["pose2d"][:, pelvis, 1]).all()


def test_another_preprocessing_is_applied_to_the_same_pixels() -> None:
    one, other = small(noise=0), small(noise=0, preprocess="motionbert_pixel")
    width, height = one.table["width"][0], one.table["height"][0]
    pixels = preprocess("videopose3d").from_network(one.sequence(0)["pose2d"], width, height)
    again = preprocess("motionbert_pixel").from_network(other.sequence(0)["pose2d"], width, height)
    np.testing.assert_allclose(pixels, again, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actions": ["wlak"]}, "Did you mean 'walk'"),
        ({"frames": 1}, "frames=1: synthetic motion needs at least 2"),
        ({"takes": 0}, "takes=0"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"preprocess": "videopose"}, "Did you mean 'videopose3d'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        synthetic.read(ROOT, **options)  # type: ignore[arg-type]


def test_there_are_no_raw_files_and_unknown_options_are_named() -> None:
    assert synthetic.files(ROOT, seed=3) == []
    with pytest.raises(ConfigError, match="no option 'sead'"):
        synthetic.files(ROOT, sead=3)
    assert "walk" in synthetic.describe()

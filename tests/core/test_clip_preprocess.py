"""Preparation of clips against slow forms and against what it must not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.clip_preprocess import PREPROCESSES, clip_preprocess
from kinema.core.skeleton import skeleton
from kinema.errors import ConfigError, DataError
from tests.core.poses import poses, rotation, seeds

few = settings(max_examples=20, deadline=None)
HEADINGS = ("heading", "heading_path")
SIZE = (1920, 1080)


def standing(seed: int, persons: int = 1, frames: int = 7) -> np.ndarray:
    """Clips of h36m17 in a room: random joints, hips level enough to have a heading."""
    clip = poses(seed, persons, frames, 17, 3) + np.array([3.0, -2.0, 1.0])
    body = skeleton("h36m17")
    clip[:, :, body.index("left_hip")] = clip[:, :, body.index("right_hip")] + np.array([0.2, 0.1, 0.05])
    return clip


def about_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def detected(seed: int, persons: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """COCO keypoints in pixels and scores, persons far apart and moving little."""
    generator = np.random.default_rng(seed)
    start = generator.uniform(0, 200, (persons, 1, 17, 2)) + 800 * np.arange(persons)[:, None, None, None]
    walk = generator.normal(0, 2, (persons, frames, 17, 2)).cumsum(1)
    return (start + walk).astype(np.float32), generator.uniform(0.1, 1, (persons, frames, 17)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(PREPROCESSES))
@pytest.mark.parametrize("frames", [1, 6])
def test_every_way_gives_a_clip_of_its_skeleton_in_float32(name: str, frames: int) -> None:
    way = clip_preprocess(name)
    body = skeleton(way.source or "h36m17")
    points, score = detected(1, 2, frames)
    if way.channels == 3:
        made = way.apply(standing(1, 2, frames), skeleton=body)
    else:
        made = way.apply(points, score, SIZE, skeleton=body)
    persons = 1 if name == "mmn" else 2
    assert made.shape == (persons, frames, len(way.skeleton(body)), 3)
    assert made.dtype == np.float32
    assert np.isfinite(made).all()
    assert way.name == name


@few
@given(seeds)
def test_the_fork_gives_each_axis_unit_spread_and_ours_one_scale(seed: int) -> None:
    clip = poses(seed, 2, 5, 17, 3) * np.array([1.0, 4.0, 0.3])
    relative = clip - clip[:, :, :1]
    fork = clip_preprocess("ma52_fork").apply(clip, skeleton="h36m17")
    for person in range(2):
        for axis in range(3):
            values = relative[person, ..., axis]
            np.testing.assert_allclose(fork[person, ..., axis], values / values.std(), rtol=1e-5, atol=1e-6)
    ours = clip_preprocess("ma52").apply(clip, skeleton="h36m17")
    np.testing.assert_allclose(ours, relative / relative.std(), rtol=1e-5, atol=1e-6)
    assert abs(ours.std() - 1) < 1e-5


@pytest.mark.parametrize("name", ["ma52", "ma52_fork"])
def test_coinciding_joints_stay_finite(name: str) -> None:
    made = clip_preprocess(name).apply(np.full((1, 4, 17, 3), 2.5), skeleton="h36m17")
    np.testing.assert_array_equal(made, 0)


@few
@given(seeds, st.floats(-7, 7))
def test_heading_undoes_turns_and_places(seed: int, angle: float) -> None:
    clip = standing(seed, 2)
    moved = clip @ about_z(angle).T + np.array([5.0, -1.0, 0.0])
    for name in HEADINGS:
        way = clip_preprocess(name)
        found = way.apply(moved, skeleton="h36m17")
        np.testing.assert_allclose(found, way.apply(clip, skeleton="h36m17"), atol=1e-5)
        middle = found[0, clip.shape[1] // 2]
        axis = middle[skeleton("h36m17").index("left_hip")] - middle[skeleton("h36m17").index("right_hip")]
        np.testing.assert_allclose(axis, [np.hypot(0.2, 0.1), 0, 0.05], atol=1e-5)


@few
@given(seeds)
def test_heading_is_root_relative_and_path_keeps_way_and_height(seed: int) -> None:
    clip = standing(seed, 2)
    still = clip_preprocess("heading").apply(clip, skeleton="h36m17")
    path = clip_preprocess("heading_path").apply(clip, skeleton="h36m17")
    np.testing.assert_array_equal(still[:, :, 0], 0)
    np.testing.assert_allclose(path - path[:, :, :1], still, atol=1e-5)
    np.testing.assert_allclose(path[..., 2], clip[..., 2], atol=1e-5)
    np.testing.assert_allclose(path[0, 3, 0, :2], 0, atol=1e-6)
    between = np.linalg.norm(clip[0, :, 0] - clip[1, :, 0], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(path[0, :, 0] - path[1, :, 0], axis=-1), between, atol=1e-5)


def test_upright_hips_have_no_heading_and_are_not_turned() -> None:
    clip, body = standing(0), skeleton("h36m17")
    clip[:, :, body.index("left_hip")] = clip[:, :, body.index("right_hip")] + np.array([0, 0.001, 0.2])
    found = clip_preprocess("heading").apply(clip, skeleton="h36m17")
    np.testing.assert_allclose(found, clip - clip[:, :, :1], atol=1e-5)


@pytest.mark.parametrize("cuts", [[], [3], [2, 3, 8]])
def test_scores_follow_joints_and_identities_in_ours_and_not_in_the_published_form(cuts: list[int]) -> None:
    points, score = detected(4, 2, 10)
    # Scores that tell whose joint it was.
    score[:] = np.arange(17) + 20 * np.arange(2)[:, None, None]
    mixed, mixed_score = points.copy(), score.copy()
    for cut in cuts:
        mixed[:, cut:], mixed_score[:, cut:] = mixed[::-1, cut:].copy(), mixed_score[::-1, cut:].copy()
    ours = clip_preprocess("ntu").apply(mixed, mixed_score, SIZE)
    coco = skeleton("coco17")
    for person in range(2):
        for joint, name in enumerate(skeleton("h36m17").joints):
            if name in coco.joints:
                assert (ours[person, :, joint, 2] == coco.index(name) + 20 * person).all(), name
    hips = (coco.index("left_hip") + coco.index("right_hip")) / 2
    np.testing.assert_array_equal(ours[:, 0, 0, 2], [hips, 20 + hips])
    np.testing.assert_array_equal(ours, clip_preprocess("ntu").apply(points, score, SIZE))

    released = clip_preprocess("ntu_compat").apply(mixed, mixed_score, SIZE)
    np.testing.assert_allclose(released[..., :2], ours[..., :2], atol=1e-6)
    np.testing.assert_array_equal(released[..., 2], mixed_score)


def test_half_precision_is_kept_in_the_published_form_only() -> None:
    points, score = detected(5, 1, 12)
    half = points.astype(np.float16)
    exact = clip_preprocess("ntu").apply(half.astype(np.float64), score, SIZE)
    ours = clip_preprocess("ntu").apply(half, score.astype(np.float16), SIZE)
    released = clip_preprocess("ntu_compat").apply(half, score.astype(np.float16), SIZE)
    np.testing.assert_allclose(ours[..., :2], exact[..., :2], atol=1e-6)
    gap = np.abs(released[..., :2] - exact[..., :2]).max()
    assert 1e-5 < gap < 2e-3


def test_unseen_points_of_pyskl_stand_in_the_middle_with_their_score() -> None:
    points, score = detected(6, 2, 5)
    score[0, 1, 3], score[1, 2, 4] = 0.01, 0.011
    made = clip_preprocess("pyskl_2d").apply(points, score, SIZE, skeleton="coco17")
    np.testing.assert_allclose(made[0, 1, 3], [0, 0, 0.01])
    x, y = points[1, 2, 4]
    np.testing.assert_allclose(made[1, 2, 4], [x / 960 - 1, y / 540 - 1, 0.011], rtol=1e-5)


@few
@given(seeds, st.sampled_from(["ntu25", "h36m17"]))
def test_pyskl_3d_does_not_see_place_nor_turn_and_keeps_distances(seed: int, name: str) -> None:
    body = skeleton(name)
    clip = poses(seed, 2, 6, len(body), 3)
    way = clip_preprocess("pyskl_3d")
    made = way.apply(clip, skeleton=body)
    joints = body.tables["prenormalise"]
    np.testing.assert_allclose(made[0, 0, joints["centre"]], 0, atol=1e-6)
    right, left = joints["shoulders"]
    across = made[0, 0, right] - made[0, 0, left]
    np.testing.assert_allclose(across, [np.linalg.norm(across), 0, 0], atol=1e-3)
    apart = np.linalg.norm(clip[0, :, None] - clip[0, :, :, None].swapaxes(1, 2), axis=-1)
    found = np.linalg.norm(made[0, :, None] - made[0, :, :, None].swapaxes(1, 2), axis=-1)
    np.testing.assert_allclose(found, apart, atol=1e-3)
    placed = way.apply(clip + np.array([3.0, 1.0, -2.0]), skeleton=body)
    np.testing.assert_allclose(placed, made, atol=2e-3)
    turned = way.apply(clip @ rotation(seed).T, skeleton=body)
    # Only the two axes are fixed; joints stay as far from the centre as they were.
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(made, axis=-1), atol=1e-3)


def test_pyskl_3d_leaves_empty_frames_out_and_puts_the_longer_lived_person_first() -> None:
    clip = poses(7, 2, 6, 25, 3)
    clip[0, 2:], clip[1, 1] = 0, 0
    clip[1, 3, 4] = 0
    made = clip_preprocess("pyskl_3d").apply(clip, skeleton="ntu25")
    assert made.shape == (2, 5, 25, 3)
    assert (made[1] == 0).all((1, 2)).tolist() == [False, True, True, True, True]
    np.testing.assert_array_equal(made[0, 2, 4], 0)
    nobody = np.zeros((2, 3, 25, 3))
    np.testing.assert_array_equal(clip_preprocess("pyskl_3d").apply(nobody, skeleton="ntu25"), nobody)


def test_spine_and_shoulders_that_point_on_already_are_not_turned() -> None:
    clip = np.zeros((1, 2, 25, 3))
    clip[0, :, 0], clip[0, :, 1], clip[0, :, 8], clip[0, :, 4] = [1, 1, 0], [1, 1, 1], [3, 1, 1], [2, 1, 1]
    made = clip_preprocess("pyskl_3d").apply(clip, skeleton="ntu25")
    np.testing.assert_allclose(made[0, 0, [0, 1, 8, 4]], [[0, 0, -1], [0, 0, 0], [2, 0, 0], [1, 0, 0]], atol=1e-6)


@few
@given(seeds)
def test_mmn_spreads_the_first_person_over_the_box(seed: int) -> None:
    points, score = detected(seed, 2, 8)
    made = clip_preprocess("mmn").apply(points, score, skeleton="coco17")
    assert made.shape[0] == 1
    for axis in range(2):
        np.testing.assert_allclose([made[..., axis].min(), made[..., axis].max()], [-1, 1], atol=1e-5)
    np.testing.assert_array_equal(made[0, ..., 2], score[0])
    assert (clip_preprocess("mmn").apply(points, skeleton="coco17")[..., 2] == 1).all()
    still = clip_preprocess("mmn").apply(np.full((1, 3, 17, 2), 5.0), skeleton="coco17")
    np.testing.assert_array_equal(still[..., :2], -1)


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("ma52", (1, 4, 16, 3), {}, r"keypoints for preprocess=ma52 .* V=17, found 16"),
        ("ma52", (4, 17, 3), {}, "4 axes, not 3"),
        ("ma52", (1, 4, 17, 2), {}, r"takes points of 3 coordinates, these have 2.*dataset.preprocess=.*pyskl_2d"),
        ("pyskl_2d", (1, 4, 17, 3), {"size": SIZE}, r"takes points of 2 coordinates.*dataset.preprocess=.*ma52"),
        ("heading", (0, 4, 17, 3), {}, "A clip of 0 persons and 4 frames is empty"),
        ("heading", (1, 0, 17, 3), {}, "A clip of 1 persons and 0 frames is empty"),
        ("pyskl_2d", (1, 4, 17, 2), {"size": SIZE}, "needs the scores of the points"),
        ("pyskl_2d", (1, 4, 17, 2), {"score": (1, 4, 17)}, "needs the size of the image"),
        ("pyskl_2d", (1, 4, 17, 2), {"score": (1, 4, 16), "size": SIZE}, r"Scores have shape \(1, 4, 16\)"),
    ],
)
def test_clips_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...], options: dict, message: str) -> None:
    score = np.ones(options["score"]) if "score" in options else None
    with pytest.raises(DataError, match=message):
        clip_preprocess(name).apply(np.ones(shape), score, options.get("size"), skeleton="h36m17")


def test_three_persons_have_no_identities_to_repair() -> None:
    for name in ("ntu", "ntu_compat"):
        with pytest.raises(DataError, match=r"this clip has 3. Keep two: dataset.surplus=drop"):
            clip_preprocess(name).apply(np.ones((3, 4, 17, 2)), np.ones((3, 4, 17)), SIZE)


def test_names_and_skeletons_are_checked_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match=r"No preparation of clips is called 'ma25'. Use dataset.preprocess=ma52"):
        clip_preprocess("ma25")
    with pytest.raises(ConfigError, match=r"takes any skeleton. Name it"):
        clip_preprocess("ma52").body()
    with pytest.raises(ConfigError, match=r"ntu takes coco17, not h36m17. Use dataset.preprocess=ma52"):
        clip_preprocess("ntu").body("h36m17")
    with pytest.raises(ConfigError, match="not defined for posetrack17, which has no joints named as spine"):
        clip_preprocess("pyskl_3d").body("posetrack17")
    named = skeleton("coco17").subset(["nose", "left_hip"])
    with pytest.raises(ConfigError, match="not defined for coco17-2, which has no right_hip"):
        clip_preprocess("heading").body(named)
    assert clip_preprocess("ntu").skeleton("coco17").name == "h36m17"
    assert clip_preprocess("pyskl_3d").skeleton("ntu25").name == "ntu25"

"""Motions that are handed over: shapes, units, axes, speeds, orders of joints, and what is refused."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kinema.core.skeleton import Skeleton, skeleton
from kinema.data.input_motion import InputMotion, Reading, motions, sources
from kinema.errors import ConfigError, DataError
from tests.data.motion_layouts import walk

BODY = skeleton("h36m17")
WALK = walk(0, 40).astype(np.float64)


def read(path: Path, reading: Reading | None = None, rate: float | None = 50.0) -> list[InputMotion]:
    return motions(path, path.stem, BODY, rate, reading or Reading())


def one(path: Path, reading: Reading | None = None, rate: float | None = 50.0) -> np.ndarray:
    (found,) = read(path, reading, rate)
    return found.pose


def test_a_plain_array_is_taken_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "walk.npy", WALK)
    np.testing.assert_allclose(one(tmp_path / "walk.npy"), WALK, atol=1e-6)
    assert read(tmp_path / "walk.npy")[0].name == "walk"


def test_a_missing_root_is_the_origin(tmp_path: Path) -> None:
    relative = WALK - WALK[:, :1]
    np.save(tmp_path / "walk.npy", relative[:, 1:])
    np.testing.assert_allclose(one(tmp_path / "walk.npy"), relative, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 20, 17, 3), (2, 1, 20, 17, 3)])
def test_several_motions_of_a_file_are_numbered(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "amass.npy", WALK.reshape(shape))
    found = read(tmp_path / "amass.npy")
    assert [motion.name for motion in found] == ["amass/0", "amass/1"]
    np.testing.assert_allclose(found[1].pose, WALK[20:], atol=1e-6)


def test_units_axes_and_speed_become_those_of_the_network(tmp_path: Path) -> None:
    camera = np.stack([WALK[..., 0], -WALK[..., 2], WALK[..., 1]], -1) * 1000
    np.savez(tmp_path / "walk.npz", positions=camera, fps=100.0)
    found = one(tmp_path / "walk.npz", Reading(unit="mm", up="-y"))
    np.testing.assert_allclose(found, WALK[::2], atol=1e-6)
    stated = one(tmp_path / "walk.npz", Reading(unit="mm", up="-y", fps=25))
    assert len(stated) == 2 * len(WALK) - 1
    np.testing.assert_allclose(stated[::2], WALK, atol=1e-6)


def test_joints_are_found_by_their_names(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(17)
    names = np.array(BODY.joints)[order]
    np.savez(tmp_path / "walk.npz", pose3d=WALK[:, order], joints=names)
    np.testing.assert_allclose(one(tmp_path / "walk.npz"), WALK, atol=1e-6)


def test_another_tree_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "walk.npz", pose3d=WALK, parents=np.arange(17) - 1)
    with pytest.raises(DataError, match="trained on h36m17"):
        one(tmp_path / "walk.npz")


def test_predictions_of_a_lifting_network_are_set_upright(tmp_path: Path) -> None:
    camera = np.stack([WALK[..., 0], -WALK[..., 2], WALK[..., 1]], -1)
    np.savez(tmp_path / "predictions.npz", **{"pose3d/v": camera, "meta": np.array(json.dumps({"fps": 25.0}))})
    found = one(tmp_path / "predictions.npz")
    np.testing.assert_allclose(found[::2], WALK, atol=1e-6)


def test_own_files_are_read_again_as_the_motion_behind_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", samples=WALK[None], history=WALK[:5], truth=WALK[:20], meta=np.array("{}"))
    np.testing.assert_allclose(one(tmp_path / "own.npz"), WALK[:20], atol=1e-6)


def test_millimetres_taken_for_metres_are_refused_with_the_unit(tmp_path: Path) -> None:
    np.save(tmp_path / "walk.npy", WALK * 1000)
    with pytest.raises(DataError, match=r"predict\.unit=mm"):
        one(tmp_path / "walk.npy")
    np.testing.assert_allclose(one(tmp_path / "walk.npy", Reading(unit=0.001)), WALK, atol=1e-6)


def test_a_lying_body_is_told_with_the_axis_that_would_make_it_stand(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "walk.npy", np.stack([WALK[..., 0], -WALK[..., 2], WALK[..., 1]], -1))
    with caplog.at_level(logging.WARNING):
        one(tmp_path / "walk.npy")
    assert "predict.up=-y" in caplog.text


def test_an_end_may_be_one_pose(tmp_path: Path) -> None:
    np.save(tmp_path / "end.npy", WALK[3])
    np.savez(tmp_path / "end.npz", pose=WALK[3], joints=np.array(BODY.joints))
    np.save(tmp_path / "relative.npy", WALK[3, 1:] - WALK[3, 0])
    for name, expected in (("end.npy", WALK[3]), ("end.npz", WALK[3]), ("relative.npy", WALK[3] - WALK[3, 0])):
        (found,) = motions(tmp_path / name, "end", BODY, 50.0, Reading(), still=True)
        np.testing.assert_allclose(found.pose, expected[None], atol=1e-6)
        with pytest.raises(DataError, match=r"\(frames, joints, 3\)"):  # a history is no single pose
            one(tmp_path / name)


def y_up(pose: np.ndarray) -> np.ndarray:
    return np.stack([pose[..., 0], pose[..., 2], -pose[..., 1]], -1)


@pytest.mark.parametrize(
    ("change", "fps", "sentence"),
    [
        (lambda x: x[::6], None, r"it moves \d+ times faster than people at 50 frames .* predict\.fps=\d+ perhaps"),
        (lambda x: x[::6], 50.0, r"it moves \d+ times faster than people at 50 frames per second"),
        (lambda x: x.repeat(4, 0), None, r"75 % of the frames equal the one before: .* predict\.fps=12\.5"),
        (y_up, None, r"with z up the body lies on its side: predict\.up=y would make it stand"),
        (lambda x: x * (1, -1, -1), None, "with z up the body stands on its head"),
        (lambda x: x[:, BODY.flip_index], None, r"knees bend backward: .*predict\.exchange_sides"),
    ],
    ids=["fast", "fast as stated", "repeated", "y up", "upside down", "sides"],
)
def test_what_is_no_motion_of_people_is_told_once_for_a_file(
    change: Callable[[np.ndarray], np.ndarray], fps: float | None, sentence: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    clips = np.stack([change(walk(seed, 150).astype(np.float64)) for seed in range(3)])
    np.save(tmp_path / "clips.npy", clips)
    assert len(read(tmp_path / "clips.npy", Reading(fps=fps))) == 3
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1 and re.search(f"clips.npy: {sentence}", told[0])


def test_motion_of_people_is_taken_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, pose in (("walk", WALK), ("still", np.repeat(WALK[:1], 1, 0)), ("slow", WALK[::2])):
        np.savez(tmp_path / f"{name}.npz", pose3d=pose, fps=25.0 if name == "slow" else 50.0)
        one(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "y.npz", pose3d=y_up(WALK), fps=50.0)
    np.testing.assert_allclose(one(tmp_path / "y.npz", Reading(up="y")), WALK, atol=1e-6)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_unknown_rate_is_told_once_for_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "clips.npy", np.stack([WALK] * 3))
    with caplog.at_level(logging.INFO):
        read(tmp_path / "clips.npy")
    assert caplog.text.count("does not say its frames per second") == 1


def test_sides_of_the_published_retargeting_are_put_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exchanged = WALK[:, BODY.flip_index]
    for name in ("amass_retargeted", "mine"):
        np.save(tmp_path / f"{name}.npy", exchanged[None])
    np.testing.assert_allclose(one(tmp_path / "amass_retargeted.npy"), WALK, atol=1e-6)
    np.testing.assert_allclose(one(tmp_path / "mine.npy", Reading(exchange_sides=True)), WALK, atol=1e-6)
    assert "knees" not in caplog.text
    for name, reading in (("amass_retargeted", Reading(exchange_sides=False)), ("mine", Reading())):
        caplog.clear()
        np.testing.assert_allclose(one(tmp_path / f"{name}.npy", reading), exchanged, atol=1e-6)
        assert "knees bend backward" in caplog.text and "predict.exchange_sides" in caplog.text


def test_sides_that_a_skeleton_has_not_are_not_exchanged(tmp_path: Path) -> None:
    np.save(tmp_path / "arm.npy", np.cumsum(np.full((20, 3, 3), 0.3), 1))
    arm = Skeleton.from_parents([-1, 0, 1], None)
    with pytest.raises(ConfigError, match=r"no left and right joints\. Leave predict\.exchange_sides out"):
        motions(tmp_path / "arm.npy", "arm", arm, 50.0, Reading(exchange_sides=True))


def test_holes_and_other_shapes_are_refused(tmp_path: Path) -> None:
    holed = WALK.copy()
    holed[7, 3] = np.nan
    for name, array, sentence in (
        ("holed", holed, r"1 of 40 frames hold NaN \(first 7, joint right_ankle\)"),
        ("joints", WALK[:, :9], "17 joints"),
        ("flat", WALK[..., :2], "frames, joints, 3"),
        ("none", WALK[:0], "no frames"),
        ("point", WALK * 0, "one point"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(DataError, match=sentence):
            one(tmp_path / f"{name}.npy")
    with pytest.raises(DataError, match="does not exist"):
        one(tmp_path / "nowhere.npy")
    (tmp_path / "cut.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="cannot be read"):
        one(tmp_path / "cut.npz")


def test_options_are_checked() -> None:
    for reading, sentence in (
        ({"up": "x"}, "predict.up"),
        ({"fps": 0.0}, "predict.fps"),
        ({"unit": "feet"}, "predict.unit"),
        ({"exchange_sides": "yes"}, "predict.exchange_sides"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            Reading(**reading)


def test_a_folder_is_walked_in_the_order_of_the_names(tmp_path: Path) -> None:
    for name in ("b.npy", "a/pose_3d.npy", "a2.npz", ".hidden.npy", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [name for name, _ in sources(tmp_path)] == ["a", "a2", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no motion"):
        sources(tmp_path / "empty")

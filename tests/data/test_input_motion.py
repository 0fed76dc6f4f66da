"""Motions that are handed over: shapes, units, axes, speeds, orders of joints, and what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from kinema.core.skeleton import skeleton
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

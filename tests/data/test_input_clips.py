"""Clips from anywhere: names of files and folders, poses, keypoints and persons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kinema.core.skeleton import skeleton
from kinema.data.input_clips import keypoints, poses, sources
from kinema.data.readers.detections import Options
from kinema.data.readers.detections.conversion import Conversion
from kinema.errors import DataError
from tests.data.bodies import synthetic
from tests.data.clip_layouts import clip, save
from tests.data.keypoint_formats import FORMATS

WAY = Conversion(None, skeleton("coco17"), "pyskl_2d", 1000, 1002)


def points(layout: str) -> np.ndarray:
    pixels = synthetic(layout, frames=8)
    return np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)


def test_clips_are_named_by_their_place(tmp_path: Path) -> None:
    save(tmp_path / "test" / "b" / "pose_3d.npy", clip(1))
    save(tmp_path / "test" / "a" / "pose_3d.npy", clip(1))
    save(tmp_path / "train" / "c.npy", clip(1))
    FORMATS["openpose"][0](tmp_path / "train", points)
    for name in ("class_names.json", "lifted.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / ".half.npy").write_bytes(b"")
    (tmp_path / "train_labels.txt").write_text("c 0\n")
    assert [name for name, _ in sources(tmp_path)] == ["test/a", "test/b", "train/c", "train/openpose"]
    assert [name for name, _ in sources(tmp_path / "train" / "openpose")] == ["openpose"]
    assert [name for name, _ in sources(tmp_path / "test" / "a" / "pose_3d.npy")] == ["a"]
    assert [name for name, _ in sources(tmp_path / "train" / "c.npy")] == ["c"]


def test_a_place_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        sources(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no clips"):
        sources(tmp_path)


def test_poses_are_of_one_or_several_persons(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", clip(1))
    np.save(tmp_path / "two.npy", np.stack([clip(1), clip(2)]))
    np.savez(tmp_path / "named.npz", keypoints=clip(3), fps=25.0)
    assert poses(tmp_path / "one.npy", "x")[0].keypoints.shape == (1, 9, 17, 3)
    assert poses(tmp_path / "two.npy", "x")[0].keypoints.shape == (2, 9, 17, 3)
    (named,) = poses(tmp_path / "named.npz", "x")
    assert named.fps == 25.0 and not named.camera


def test_poses_of_predict_are_in_camera_axes(tmp_path: Path) -> None:
    meta = np.asarray(json.dumps({"fps": 50, "unit": "metres"}))
    np.savez(tmp_path / "p.npz", **{"pose3d/a": clip(1), "pose3d/b": clip(2, frames=5)}, meta=meta)
    first, second = poses(tmp_path / "p.npz", "p")
    assert (first.name, second.name) == ("p/a", "p/b")
    assert first.camera and first.fps == 50 and first.unit == "metres"
    assert second.keypoints.shape == (1, 5, 17, 3)


def test_a_record_of_lifting_says_axes_unit_and_speed(tmp_path: Path) -> None:
    path, other = tmp_path / "train" / "deep" / "a" / "pose_3d.npy", tmp_path / "train" / "b.npy"
    save(path, clip(1))
    save(other, clip(1))
    for axes, camera in (("camera: x right, y down, z away from the camera", True), ("x right, z up", False)):
        (tmp_path / "lifted.json").write_text(json.dumps({"axes": axes, "unit": "metres", "fps": 25}))
        (found,) = poses(path, "x")
        assert (found.camera, found.unit, found.fps) == (camera, "metres", 25)
    (own,) = poses(other, "x")  # mode=lift gives no file that name
    assert not own.camera and own.unit == ""
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "lifted.json").write_text(damaged)
        with pytest.raises(DataError, match=r"lifted\.json is damaged .* mode=lift"):
            poses(path, "x")


def test_pixels_are_no_poses(tmp_path: Path) -> None:
    np.save(tmp_path / "scored.npy", points("coco17"))
    np.save(tmp_path / "plain.npy", points("coco17")[..., :2])
    for path in (tmp_path / "scored.npy", tmp_path / "plain.npy", FORMATS["openpose"][0](tmp_path, points)):
        with pytest.raises(DataError, match=r"predict\.lifter="):
            poses(path, "x")


def test_millimetres_are_poses(tmp_path: Path) -> None:
    np.save(tmp_path / "mm.npy", 1000 * clip(1))
    assert poses(tmp_path / "mm.npy", "x")[0].keypoints.shape == (1, 9, 17, 3)


def test_keypoints_of_any_format_are_pixels_in_the_joints_of_the_network(tmp_path: Path) -> None:
    for name in ("alphapose coco", "custom npz", "array coco17"):
        (found,) = keypoints(FORMATS[name][0](tmp_path, points), "x", WAY, Options(check=False))
        np.testing.assert_allclose(found.keypoints[0], points("coco17")[..., :2], atol=1e-3)
        assert found.score is not None and found.score.shape == (1, 8, 17) and found.size == (1000, 1002)


def test_an_array_of_persons_is_one_clip_without_those_who_are_not_there(tmp_path: Path) -> None:
    both = np.stack([points("coco17"), np.zeros_like(points("coco17")), points("coco17") * (0.5, 0.5, 1)])
    np.save(tmp_path / "people.npy", both)
    np.savez(tmp_path / "people.npz", keypoints=both[..., :2], score=both[..., 2], size=(640, 480), fps=30)
    bare = Conversion(None, skeleton("coco17"), "pyskl_2d", None, None)
    (found,) = keypoints(tmp_path / "people.npy", "x", bare, Options(check=False))
    np.testing.assert_allclose(found.keypoints, both[[0, 2], ..., :2])
    assert found.size is None
    (sized,) = keypoints(tmp_path / "people.npz", "x", bare, Options(check=False))
    assert sized.size == (640, 480) and sized.fps == 30
    np.testing.assert_allclose(sized.keypoints, found.keypoints)


def test_persons_are_told_apart_in_one_video(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=points("coco17"), b=points("coco17"))
    with pytest.raises(DataError, match="holds 2 sequences"):
        keypoints(tmp_path / "two.npz", "x", WAY, Options(check=False), persons=[0, 1])
    first, second = keypoints(tmp_path / "two.npz", "x", WAY, Options(check=False))
    assert first.name != second.name


def test_the_folder_of_one_clip_gives_it_its_name(tmp_path: Path) -> None:
    (tmp_path / "b0055").mkdir()
    np.save(tmp_path / "b0055" / "pose_3d.npy", np.zeros((4, 17, 3), np.float32))
    assert sources(tmp_path / "b0055") == [("b0055", tmp_path / "b0055" / "pose_3d.npy")]
    assert sources(tmp_path) == sources(tmp_path / "b0055")

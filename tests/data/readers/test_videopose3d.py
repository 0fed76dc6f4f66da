"""The VideoPose3D reader: rows, spaces and units against plain computations, and a sentence for every fault."""

from __future__ import annotations

import copy
import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.core.camera import intrinsics_vector, recorded_camera
from kinema.core.keypoints import coco_to_h36m
from kinema.core.skeleton import skeleton
from kinema.data.readers import videopose3d
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError
from tests.data.layouts import H36M17, LENSES, Layout, layout

CMU: dict[str, Any] = {
    "dataset": "cmu", "keypoints": "noisy", "cameras": "cameras_cmu.json", "skeleton": "h36m17", "skeleton2d": "h36m17",
}  # fmt: skip
H36M: dict[str, Any] = {**CMU, "dataset": "h36m", "keypoints": "gt", "cameras": "h36m", "source_skeleton": "h36m32"}


@cache
def _clean() -> Layout:
    return layout({"train_A": ("walk 1", "squat"), "test_C": ("walk 5",)}, frames=12)


@pytest.fixture
def data() -> Layout:
    return copy.deepcopy(_clean())


def row(sequences: Sequences, subject: str, trial: str, camera: int) -> dict[str, Any]:
    """Arrays, table row and cameras of one sequence."""
    columns = sequences.table
    (place,) = np.flatnonzero(
        (columns["subject"] == subject) & (columns["trial"] == trial) & (columns["camera"] == str(camera))
    )
    return {
        **{name: column[place] for name, column in columns.items()},
        **{name: column[place] for name, column in sequences.cameras.items()},
        **sequences.sequence(int(place)),
    }


def rotation(q: np.ndarray) -> np.ndarray:
    """Matrix of a unit quaternion (w, x, y, z)."""
    w, x, y, z = np.asarray(q, np.float64)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def test_rows_equal_a_plain_reading(tmp_path: Path, data: Layout) -> None:
    data.save(tmp_path)
    read = videopose3d.read(tmp_path, **CMU)
    expected = [(s, a, str(c)) for s in data.positions_3d for a in data.positions_2d[s] for c in range(4)]
    assert list(zip(*(read.table[key].tolist() for key in ("subject", "trial", "camera")), strict=True)) == expected
    assert read.table["action"].tolist() == ["walk"] * 4 + ["squat"] * 4 + ["walk"] * 4
    assert (read.space, read.skeleton, read.skeleton2d) == ("camera", H36M17, H36M17)
    for subject, trial, camera in expected:
        found = row(read, subject, trial, int(camera))
        outer, lens = data.cameras["extrinsics"][subject][int(camera)], LENSES[int(camera)]
        world = data.positions_3d[subject][trial].astype(np.float64)
        pose3d = (world - outer["translation"]) @ rotation(outer["orientation"])
        # float32 at a distance of 6 m.
        np.testing.assert_allclose(found["pose3d"], pose3d, atol=2e-6)
        pixels = data.positions_2d[subject][trial][int(camera)]
        size = [lens["res_w"], lens["res_h"]]
        # The published order: float32 division and doubling, float64 subtraction, stored as float32.
        normal = (pixels / size[0] * 2 - np.array([1, size[1] / size[0]])).astype(np.float32)
        np.testing.assert_array_equal(found["pose2d"], normal)
        assert found["pose2d"].dtype == found["pose3d"].dtype == np.float32
        assert [found["width"], found["height"], found["fps"]] == [*size, 50]
        np.testing.assert_array_equal(found["intrinsics"], intrinsics_vector(lens))
        np.testing.assert_array_equal(found["translation"], np.float32(outer["translation"]))


def test_longer_2d_is_cut_and_shorter_2d_refused(tmp_path: Path, data: Layout) -> None:
    view = data.positions_2d["train_A"]["walk 1"][1]
    data.positions_2d["train_A"]["walk 1"][1] = np.concatenate([view, view[:3] + 99])
    data.save(tmp_path)
    found = row(videopose3d.read(tmp_path, **CMU), "train_A", "walk 1", 1)
    assert found["length"] == len(data.positions_3d["train_A"]["walk 1"])
    data.positions_2d["train_A"]["walk 1"][1] = view[:-1]
    data.save(tmp_path)
    with pytest.raises(DataError, match=r"train_A/walk 1/1: 2D has 11 frames, 3D has 12"):
        videopose3d.read(tmp_path, **CMU)


def test_faults_that_can_be_stepped_over_are_reported(tmp_path: Path, data: Layout) -> None:
    data.positions_2d["train_A"]["walk 1"][1] = data.positions_2d["train_A"]["walk 1"][1][:-1]
    data.positions_2d["train_A"]["squat"].pop()
    data.save(tmp_path)
    faults: list[DataError] = []
    read = videopose3d.read(tmp_path, report=faults.append, **CMU)
    assert len(faults) == 2
    assert len(read) == 3 + 4


def test_what_has_only_2d_is_left_out(tmp_path: Path, data: Layout) -> None:
    data.positions_2d["S2"] = data.positions_2d["train_A"]
    data.positions_2d["test_C"]["wave 7"] = data.positions_2d["test_C"]["walk 5"]
    data.save(tmp_path)
    read = videopose3d.read(tmp_path, **CMU)
    assert set(read.table["subject"].tolist()) == {"train_A", "test_C"}
    assert "wave 7" not in read.table["trial"]


def test_3d_without_2d_is_refused_unless_dropped(tmp_path: Path, data: Layout) -> None:
    del data.positions_2d["train_A"]["squat"]
    data.save(tmp_path)
    with pytest.raises(DataError, match=r"train_A/squat is in data_3d_cmu\.npz but not in data_2d_cmu_noisy\.npz"):
        videopose3d.read(tmp_path, **CMU)
    read = videopose3d.read(tmp_path, **CMU, drop=["train_A/squat"])
    assert set(read.table["trial"].tolist()) == {"walk 1", "walk 5"}


def human36m(data: Layout) -> Layout:
    """The same motion as the Human3.6M archive has it: 32 joints, S-names, cameras of the table."""
    places = skeleton("h36m32").map_to(H36M17)

    def spread(world: np.ndarray) -> np.ndarray:
        out = np.full((len(world), 32, 3), 7.0, np.float32)
        out[:, places] = world
        return out

    for old, new in (("train_A", "S1"), ("test_C", "S11")):
        data.positions_3d[new] = {key: spread(world) for key, world in data.positions_3d.pop(old).items()}
        data.positions_2d[new] = data.positions_2d.pop(old)
    del data.metadata["layout_name"]  # as in the real ground-truth file
    return data


def test_32_joints_are_reduced_and_the_table_cameras_used(tmp_path: Path, data: Layout) -> None:
    world = data.positions_3d["train_A"]["walk 1"]
    human36m(data).save(tmp_path, "h36m", "gt")
    found = row(videopose3d.read(tmp_path, **H36M), "S1", "walk 1", 2)
    camera = recorded_camera("h36m", "S1", 2)
    expected = (world - camera["translation"]) @ rotation(camera["orientation"])
    np.testing.assert_allclose(found["pose3d"], expected, atol=2e-6)
    np.testing.assert_array_equal(found["intrinsics"], camera["intrinsics"])


def test_32_joints_without_the_reduction_get_its_sentence(tmp_path: Path, data: Layout) -> None:
    human36m(data).save(tmp_path, "h36m", "gt")
    with pytest.raises(
        DataError, match=r"32 joints, 17 expected \(h36m17\)\. .* dataset\.reader_options\.source_skeleton=h36m32"
    ):
        videopose3d.read(tmp_path, **{**H36M, "source_skeleton": None})


def test_corrupted_recording_is_dropped(tmp_path: Path, data: Layout) -> None:
    human36m(data).save(tmp_path, "h36m", "gt")
    read = videopose3d.read(tmp_path, **H36M, drop=["S11/walk 5"])
    assert set(read.table["subject"].tolist()) == {"S1"}


def test_millimetres_become_metres(tmp_path: Path, data: Layout) -> None:
    data.save(tmp_path / "m")
    data.positions_3d = {
        subject: {action: world * 1000 for action, world in actions.items()}
        for subject, actions in data.positions_3d.items()
    }
    data.save(tmp_path / "mm")
    metres = videopose3d.read(tmp_path / "m", **CMU).arrays["pose3d"]
    np.testing.assert_allclose(videopose3d.read(tmp_path / "mm", **CMU, unit="mm").arrays["pose3d"], metres, atol=2e-6)


def test_scores_become_the_third_channel(tmp_path: Path, data: Layout) -> None:
    random = np.random.default_rng(0)
    data.confidence = {
        subject: {
            action: [random.uniform(size=view.shape[:2]).astype(np.float16) for view in views]
            for action, views in actions.items()
        }
        for subject, actions in data.positions_2d.items()
    }
    view = data.positions_2d["train_A"]["walk 1"][3]
    data.positions_2d["train_A"]["walk 1"][3] = np.concatenate([view, view[:2]])
    score = data.confidence["train_A"]["walk 1"][3]
    data.confidence["train_A"]["walk 1"][3] = np.concatenate([score, score[:2]])
    data.save(tmp_path)
    found = row(videopose3d.read(tmp_path, **CMU), "train_A", "walk 1", 3)
    assert found["pose2d"].shape == (12, 17, 3)
    np.testing.assert_array_equal(found["pose2d"][..., 2], score.astype(np.float32))
    data.confidence["train_A"]["walk 1"][3] = score[:, :5]
    data.save(tmp_path)
    with pytest.raises(DataError, match=r"train_A/walk 1/3: confidence"):
        videopose3d.read(tmp_path, **CMU)
    del data.confidence["train_A"]["walk 1"]
    data.save(tmp_path)
    with pytest.raises(DataError, match=r"confidence of train_A/walk 1/0 cannot be read"):
        videopose3d.read(tmp_path, **CMU)


def humaneva(tmp_path: Path, joints2d: int) -> Path:
    """A file of the HumanEva kind: prefixed subjects, three cameras, 15 joints."""
    random = np.random.default_rng(0)
    kept = skeleton("humaneva15") if joints2d == 15 else skeleton("coco17")
    made = Layout(
        {"Train/S1": {"Walking 1 chunk0": random.normal(size=(5, 15, 3)).astype(np.float32)}},
        {
            "Train/S1": {"Walking 1 chunk0": [random.uniform(0, 480, (5, joints2d, 2)).astype(np.float32)] * 3},
            "Unlabeled/S1": {"Walking 1 chunk1": [random.uniform(0, 480, (5, joints2d, 2)).astype(np.float32)] * 3},
        },
        {},
        {
            "layout_name": "humaneva15" if joints2d == 15 else "coco", "num_joints": joints2d,
            "keypoints_symmetry": [list(kept.left), list(kept.right)],
        },
    )  # fmt: skip
    return made.save(tmp_path, "humaneva15", "gt")


@pytest.mark.parametrize(("joints2d", "skeleton2d"), [(15, "humaneva15"), (17, "coco17")])
def test_humaneva_has_extrinsics_but_no_lens(tmp_path: Path, joints2d: int, skeleton2d: str) -> None:
    humaneva(tmp_path, joints2d)
    options = {**CMU, "dataset": "humaneva15", "keypoints": "gt", "cameras": "humaneva15", "skeleton": "humaneva15"}
    read = videopose3d.read(tmp_path, **{**options, "skeleton2d": skeleton2d})
    assert len(read) == 3
    assert read.arrays["pose2d"].shape == (15, joints2d, 2)
    assert read.arrays["pose3d"].shape == (15, 15, 3)
    assert "intrinsics" not in read.cameras
    found = row(read, "Train/S1", "Walking 1 chunk0", 1)
    np.testing.assert_array_equal(found["orientation"], recorded_camera("humaneva15", "S1", 1)["orientation"])
    assert (found["action"], found["fps"], found["width"], found["height"]) == ("Walking", 60, 640, 480)
    with pytest.raises(DataError, match=rf"holds {skeleton2d} keypoints, not .* Set dataset\.skeleton2d={skeleton2d}"):
        videopose3d.read(tmp_path, **{**options, "skeleton2d": "halpe26"})


def custom(tmp_path: Path, views: dict[str, np.ndarray], layout_name: str = "coco", **metadata: Any) -> dict[str, Any]:
    """Write detections of videos and return the options that read them."""
    kept = skeleton({"coco": "coco17", "h36m": "h36m17"}[layout_name])
    sizes = {"video_metadata": {name: {"w": 640, "h": 360} for name in views}}
    made = Layout(
        {}, {name: {"custom": [view]} for name, view in views.items()}, {},
        {"layout_name": layout_name, "num_joints": 17, "keypoints_symmetry": [list(kept.left), list(kept.right)],
         **sizes, **metadata},
    )  # fmt: skip
    made.save(tmp_path, "custom", "demo")
    (tmp_path / "data_3d_custom.npz").unlink()
    return {
        **CMU, "dataset": "custom", "keypoints": "demo", "cameras": "custom", "has_3d": False, "fill_gaps": True,
        "convert2d": True,
    }  # fmt: skip


def test_custom_video_is_converted_and_has_a_camera_to_draw_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    view = np.random.default_rng(0).uniform(1, 300, (6, 17, 2)).astype(np.float32)
    options = custom(tmp_path, {"a.mp4": view, "b.mp4": view + 1})
    with caplog.at_level(logging.INFO):
        read = videopose3d.read(tmp_path, **options)
    assert "COCO keypoints are converted" in caplog.text
    assert set(read.arrays) == {"pose2d"}
    found = row(read, "b.mp4", "custom", 0)
    expected = coco_to_h36m(view + 1) / np.float32(640) * 2 - np.array([1, 360 / 640])
    np.testing.assert_allclose(found["pose2d"], expected, atol=1e-6)
    assert (found["width"], found["height"], found["length"]) == (640, 360, 6)
    assert np.isnan(found["fps"])
    assert found["azimuth"] == 70
    np.testing.assert_array_equal(found["translation"], recorded_camera("h36m", "S1", 0)["translation"])


def test_custom_video_keeps_its_layout_where_asked(tmp_path: Path) -> None:
    view = np.random.default_rng(0).uniform(1, 300, (6, 17, 2)).astype(np.float32)
    options = custom(tmp_path, {"a.mp4": view})
    plain = (view / np.float32(640) * 2 - np.array([1, 360 / 640])).astype(np.float32)
    read = videopose3d.read(tmp_path, **{**options, "skeleton2d": "coco17"})
    np.testing.assert_array_equal(read.arrays["pose2d"], plain)
    with pytest.raises(DataError, match=r"skeleton2d=coco17, or dataset\.reader_options\.convert2d=true"):
        videopose3d.read(tmp_path, **{**options, "convert2d": False})
    read = videopose3d.read(tmp_path, **custom(tmp_path, {"a.mp4": view}, "h36m"))
    np.testing.assert_array_equal(read.arrays["pose2d"], plain)


def test_missing_detections_are_interpolated(tmp_path: Path) -> None:
    view = np.random.default_rng(0).uniform(1, 300, (6, 17, 3)).astype(np.float32)
    whole = view.copy()
    view[2:4] = np.nan
    view[5] = 0
    view[0, 4] = np.nan
    read = videopose3d.read(tmp_path, **{**custom(tmp_path, {"a.mp4": view}, "h36m")})
    pixels = (read.arrays["pose2d"][..., :2] + np.array([1, 360 / 640])) * 320
    for i, share in ((2, 1 / 3), (3, 2 / 3)):
        middle = whole[1, :, :2] + share * (whole[4, :, :2] - whole[1, :, :2])
        np.testing.assert_allclose(pixels[i], middle, atol=1e-3)
    np.testing.assert_allclose(pixels[5], whole[4, :, :2], atol=1e-3)
    np.testing.assert_allclose(pixels[0, 4], whole[1, 4, :2], atol=1e-3)
    score = read.arrays["pose2d"][..., 2]
    assert (score[[2, 3, 5]] == 0).all()
    assert score[0, 4] == 0
    np.testing.assert_array_equal(score[[1, 4]], whole[[1, 4], :, 2])
    # Without the option NaN stays, for the checks of the data module.
    kept = videopose3d.read(tmp_path, **{**custom(tmp_path, {"a.mp4": view}, "h36m"), "fill_gaps": False})
    assert np.isnan(kept.arrays["pose2d"][2:4]).all()


def test_video_without_a_size_is_refused(tmp_path: Path) -> None:
    options = custom(tmp_path, {"a.mp4": np.ones((2, 17, 2), np.float32)}, video_metadata={})
    with pytest.raises(DataError, match=r"No image size of a\.mp4 is given\. Add video_metadata"):
        videopose3d.read(tmp_path, **options)


def test_missing_file_says_where_it_is_expected_and_what_is_there(tmp_path: Path, data: Layout) -> None:
    options = {**CMU, "source": "It comes from Ada (docs/datasets/x.md)."}
    with pytest.raises(DataError, match=rf"data_3d_cmu\.npz not found in {tmp_path} .*\. It comes from Ada"):
        videopose3d.files(tmp_path, **options)
    data.save(tmp_path, keypoints="gt")
    with pytest.raises(DataError, match=r"data_2d_cmu_noisy\.npz not found .* dataset\.reader_options\.keypoints=gt\."):
        videopose3d.files(tmp_path, **options)
    data.save(tmp_path)
    names = [path.name for path in videopose3d.files(tmp_path, **options)]
    assert names == ["data_3d_cmu.npz", "data_2d_cmu_noisy.npz", "cameras_cmu.json"]
    (tmp_path / "cameras_cmu.json").unlink()
    with pytest.raises(DataError, match=r"cameras_cmu\.json not found"):
        videopose3d.files(tmp_path, **options)
    # All files in one folder above are welcome.
    data.save(tmp_path)
    assert videopose3d.files(tmp_path / "cmu_mocap", **options)[0] == tmp_path / "data_3d_cmu.npz"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keypoitns": "gt"}, "has no option 'keypoitns'"),
        ({"unit": "cm"}, "reader_options.unit=cm is not known"),
        ({"cameras": "mine"}, "reader_options.cameras=mine is not known"),
        ({"cameras": "custom"}, "3D data needs cameras"),
    ],
)
def test_wrong_option_is_refused(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        videopose3d.files(tmp_path, **{**CMU, **options})


def damage(data: Layout, how: str) -> None:
    """One fault of a file's structure."""
    if how == "list":
        data.positions_3d = [1, 2]  # type: ignore[assignment]
    elif how == "flat":
        data.positions_2d = {"train_A": np.zeros(3)}  # type: ignore[dict-item]
    elif how == "text":
        data.positions_3d["train_A"]["walk 1"] = "none"  # type: ignore[assignment]
    elif how == "axes":
        data.positions_3d["train_A"]["walk 1"] = np.zeros((3, 17, 2), np.float32)
    elif how == "plane":
        data.positions_2d["train_A"]["walk 1"][0] = np.zeros((12, 34), np.float32)
    elif how == "joints":
        data.positions_3d["train_A"]["walk 1"] = np.zeros((3, 15, 3), np.float32)
    elif how == "nothing":
        data.positions_3d = {}
    elif how == "no frames":
        data.positions_3d["train_A"]["walk 1"] = np.zeros((0, 17, 3), np.float32)
    elif how == "symmetry":
        data.metadata = {"num_joints": 16, "keypoints_symmetry": [[3, 4], [1, 2]]}
    elif how == "far":
        data.cameras["extrinsics"]["train_A"][0]["translation"] = [1000, 4000, 1500]
    elif how == "three":
        data.cameras["extrinsics"]["train_A"].pop()
    elif how == "quaternion":
        del data.cameras["extrinsics"]["train_A"][0]["orientation"]
    elif how == "keys":
        del data.cameras["extrinsics"]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("list", r"data_3d_cmu\.npz: positions_3d is no dict of subjects and actions"),
        ("flat", r"data_2d_cmu_noisy\.npz: positions_2d is no dict of subjects and actions"),
        ("text", r"data_3d_cmu\.npz, train_A/walk 1: no array of numbers"),
        ("axes", r"train_A/walk 1: shape \(3, 17, 2\), expected \(frames, joints, 3\)"),
        ("plane", r"data_2d_cmu_noisy\.npz, train_A/walk 1/0: float32 \(12, 34\), expected"),
        ("joints", r"train_A/walk 1: 15 joints, 17 expected \(h36m17\)\. Set dataset\.skeleton=humaneva15"),
        ("nothing", "holds no sequence that can be used"),
        ("no frames", "train_A/walk 1/0 has no frames"),
        ("symmetry", r"The keypoints' layout \(16 joints, left \[3, 4\], right \[1, 2\]\) is none"),
        ("far", r"cameras_cmu\.json: a camera \d+ m away\. Divide its translations by 1000"),
        ("three", r"cameras_cmu\.json: the cameras of train_A cannot be read"),
        ("quaternion", r"cameras_cmu\.json: the cameras of train_A cannot be read"),
        ("keys", r"cameras_cmu\.json is no camera file"),
    ],
)
def test_damaged_structure_is_named(tmp_path: Path, data: Layout, how: str, sentence: str) -> None:
    damage(data, how)
    data.save(tmp_path)
    with pytest.raises(DataError, match=sentence):
        videopose3d.read(tmp_path, **CMU)


def test_damaged_json_and_missing_entry_are_named(tmp_path: Path, data: Layout) -> None:
    data.save(tmp_path)
    (tmp_path / "cameras_cmu.json").write_text(json.dumps(data.cameras)[:-5])
    with pytest.raises(DataError, match=r"cameras_cmu\.json is no readable json file"):
        videopose3d.read(tmp_path, **CMU)
    data.save(tmp_path)
    np.savez(tmp_path / "data_3d_cmu.npz", positions=np.zeros(1))
    with pytest.raises(DataError, match=r"data_3d_cmu\.npz has no entry 'positions_3d'; it holds positions"):
        videopose3d.read(tmp_path, **CMU)


def test_recording_without_cameras_in_the_table_is_refused(tmp_path: Path, data: Layout) -> None:
    data.save(tmp_path)
    with pytest.raises(DataError, match=r"has no cameras of subject train_A\. .*cameras=<file>\.json"):
        videopose3d.read(tmp_path, **{**CMU, "cameras": "h36m"})


def test_two_frame_rates_are_refused(tmp_path: Path, data: Layout) -> None:
    data.save(tmp_path)
    with pytest.raises(DataError, match=r"says 50 frames per second, not 25\. Use dataset\.fps=50"):
        videopose3d.read(tmp_path, **CMU, fps=25)
    del data.cameras["fps"]
    data.save(tmp_path)
    assert (videopose3d.read(tmp_path, **CMU, fps=25).table["fps"] == 25).all()


def test_describe_names_the_files() -> None:
    assert "data_2d_<dataset>_<keypoints>.npz" in videopose3d.describe()

"""The reader of MotionBERT's pickle against a plain reading, and a sentence for every fault."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.data.readers import motionbert_h36m
from kinema.errors import ConfigError, DataError
from tests.data.layouts import LENSES, motionbert, save_motionbert


@cache
def _clean() -> dict[str, dict[str, Any]]:
    return motionbert()


@pytest.fixture
def splits() -> dict[str, dict[str, Any]]:
    return copy.deepcopy(_clean())


SIZES = {lens["id"]: (lens["res_w"], lens["res_h"]) for lens in LENSES}


def expected(columns: dict[str, Any]) -> dict[str, np.ndarray]:
    """Frame by frame, in the published order: float32, division and doubling, float64 subtraction, float32."""
    pose2d, pose3d, size = [], [], []
    score = np.asarray(columns["confidence"], np.float32).reshape(-1, 17, 1)
    detected = np.asarray(columns["joint_2d"]).astype(np.float32)
    label = np.asarray(columns["joint3d_image"]).astype(np.float32)
    for i, camera in enumerate(columns["camera_name"]):
        w, h = SIZES[camera]
        flat = (detected[i] / w * 2 - [1, h / w]).astype(np.float32)
        pose2d.append(np.concatenate([flat, score[i]], axis=-1))
        solid = label[i].copy()
        solid[:, :2] = solid[:, :2] / w * 2 - np.array([1, h / w])
        solid[:, 2] = solid[:, 2] / w * 2
        pose3d.append(solid)
        size.append((w, h))
    return {"pose2d": np.stack(pose2d), "pose3d": np.stack(pose3d), "size": np.asarray(size, np.float32)}


def test_frames_equal_a_plain_reading(tmp_path: Path, splits: dict[str, Any]) -> None:
    read = motionbert_h36m.read(save_motionbert(tmp_path, splits))
    plain = [expected(splits[split]) for split in ("train", "test")]
    for key in ("pose2d", "pose3d", "size"):
        np.testing.assert_array_equal(read.arrays[key], np.concatenate([part[key] for part in plain]))
        assert read.arrays[key].dtype == np.float32
    train = len(splits["train"]["source"])
    assert np.isnan(read.arrays["factor"][:train]).all()
    assert np.isnan(read.arrays["pose3d_eval"][:train]).all()
    np.testing.assert_allclose(read.arrays["factor"][train:], splits["test"]["2.5d_factor"], rtol=1e-7)
    np.testing.assert_allclose(read.arrays["pose3d_eval"][train:], splits["test"]["joints_2.5d_image"], rtol=1e-6)
    names = read.meta["actions"]
    assert names == ["Greet", "Walk"]
    assert (read.arrays["action"][:train] == -1).all()
    assert [names[i] for i in read.arrays["action"][train:]] == splits["test"]["action"]


def test_sequences_are_runs_of_one_source(tmp_path: Path, splits: dict[str, Any]) -> None:
    read = motionbert_h36m.read(save_motionbert(tmp_path, splits))
    table = read.table
    assert table["source"].tolist() == [
        "s_01_act_02_cam_01", "s_05_act_03_cam_02", "s_09_act_02_subact_01_ca_03", "s_09_act_05_subact_02_ca_04",
    ]  # fmt: skip
    assert table["trial"].tolist() == ["s_01_act_02", "s_05_act_03", "s_09_act_02_subact_01", "s_09_act_05_subact_02"]
    assert table["subject"].tolist() == ["S1", "S5", "S9", "S9"]
    assert table["camera"].tolist() == ["0", "1", "2", "3"]
    assert table["split"].tolist() == ["train", "train", "test", "test"]
    assert table["action"].tolist() == ["", "", "Walk", "Greet"]
    assert table["length"].tolist() == [30, 31, 30, 31]
    assert table["start"].tolist() == [0, 30, 61, 91]
    assert table["width"].tolist() == [1000] * 4
    assert table["height"].tolist() == [1002, 1000, 1000, 1002]
    assert (table["fps"] == 50).all()
    assert (read.space, read.num_frames) == ("image", 122)


def test_lists_float64_and_flat_confidence_are_welcome(tmp_path: Path, splits: dict[str, Any]) -> None:
    plain = motionbert_h36m.read(save_motionbert(tmp_path / "a", splits))
    for columns in splits.values():
        columns["confidence"] = columns["confidence"][..., 0].tolist()
        columns["joint_2d"] = list(columns["joint_2d"].astype(np.float64))
        columns["joint_2d"] = [np.concatenate([frame, np.ones((17, 1))], axis=-1) for frame in columns["joint_2d"]]
        columns["camera_name"] = np.asarray(columns["camera_name"])
        columns["source"] = np.asarray(columns["source"], dtype=object)
    splits["test"]["2.5d_factor"] = splits["test"]["2.5d_factor"].tolist()
    other = motionbert_h36m.read(save_motionbert(tmp_path / "b", splits))
    for key in plain.arrays:
        np.testing.assert_array_equal(other.arrays[key], plain.arrays[key])
    for key in plain.table:
        np.testing.assert_array_equal(other.table[key], plain.table[key])


def test_missing_confidence_is_1(tmp_path: Path, splits: dict[str, Any]) -> None:
    for columns in splits.values():
        del columns["confidence"]
    assert (motionbert_h36m.read(save_motionbert(tmp_path, splits)).arrays["pose2d"][..., 2] == 1).all()


def test_blocks_do_not_show(tmp_path: Path, splits: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_motionbert(tmp_path, splits)
    whole = motionbert_h36m.read(folder)
    monkeypatch.setattr(motionbert_h36m, "_BLOCK", 7)
    np.testing.assert_array_equal(motionbert_h36m.read(folder).arrays["pose3d"], whole.arrays["pose3d"])


def test_one_split_is_enough(tmp_path: Path, splits: dict[str, Any]) -> None:
    del splits["train"]
    read = motionbert_h36m.read(save_motionbert(tmp_path, splits))
    assert set(read.table["split"].tolist()) == {"test"}


def change(splits: dict[str, Any], how: str) -> None:
    columns = splits["test"]
    if how == "column":
        del columns["joints_2.5d_image"]
    elif how == "rows":
        columns["2.5d_factor"] = columns["2.5d_factor"][:-1]
    elif how == "joints":
        columns["joint_2d"] = columns["joint_2d"][:, :16]
    elif how == "targets":
        columns["joints_2.5d_image"] = columns["joints_2.5d_image"][..., :2]
    elif how == "camera":
        columns["camera_name"][3] = "12345678"
    elif how == "ragged":
        columns["joint_2d"] = [*columns["joint_2d"][:-1], np.zeros((3, 2))]
    elif how == "scores":
        columns["confidence"] = columns["confidence"][:, :5]
    elif how == "splits":
        splits.clear()
        splits["positions_3d"] = {}


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("column", r"h36m_sh_conf_cam_source_final\.pkl, test: no column 'joints_2\.5d_image'"),
        ("rows", r"test, 2\.5d_factor: 60 rows, but source has 61"),
        ("joints", r"test, joint_2d: shape \(61, 16, 2\), expected \(frames, 17, 2\)"),
        ("targets", r"joints_2\.5d_image: shape \(61, 17, 2\)"),
        ("camera", r"camera_name '12345678' has no known image size\. Known cameras: 54138969"),
        ("ragged", r"test, joint_2d: .* Every row must be alike"),
        ("scores", r"confidence: shape \(61, 5, 1\) for 17 joints"),
        ("splits", r"holds no 'train' or 'test' dict"),
    ],
)
def test_fault_is_named(tmp_path: Path, splits: dict[str, Any], how: str, sentence: str) -> None:
    change(splits, how)
    with pytest.raises(DataError, match=sentence):
        motionbert_h36m.read(save_motionbert(tmp_path, splits))


def test_missing_file_and_wrong_option_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"source_final\.pkl not found in {tmp_path} .* Ask Ada\."):
        motionbert_h36m.files(tmp_path, source="Ask Ada.")
    with pytest.raises(ConfigError, match="no option 'flie'"):
        motionbert_h36m.files(tmp_path, flie="x")


def test_malicious_pickle_runs_nothing(tmp_path: Path, splits: dict[str, Any]) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    splits["test"]["action"][0] = Attack()
    with pytest.raises(DataError, match=r"source_final\.pkl asks for"):
        motionbert_h36m.read(save_motionbert(tmp_path, splits))
    assert not (tmp_path / "executed").exists()


def test_describe_names_the_columns() -> None:
    assert "2.5d_factor" in motionbert_h36m.describe()

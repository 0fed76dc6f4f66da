"""The reader of 3D alone in the VideoPose3D layout: joints, names, units, and sentences for what it cannot read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.core.skeleton import skeleton
from kinema.data.motion_rows import base_action
from kinema.data.readers import humanmac
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError
from tests.data.motions import positions, write

H36M: dict[str, Any] = {"file": "data_3d_tiny.npz", "skeleton": "h36m17", "source_skeleton": "h36m32"}


def read(root: Path, **options: Any) -> Sequences:
    return humanmac.read(root, **{**H36M, **options})


def wide(random: np.random.Generator, length: int = 12) -> np.ndarray:
    return random.normal(size=(length, 32, 3)).astype(np.float32)


def test_rows_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    stored = positions()
    found = read(write(tmp_path, stored), fps=50)
    expected = [(subject, trial) for subject, trials in stored.items() for trial in trials]
    assert list(zip(found.table["subject"].tolist(), found.table["trial"].tolist(), strict=True)) == expected
    assert found.space == "world" and found.skeleton == skeleton("h36m17") and set(found.arrays) == {"pose3d"}
    assert set(found.table["fps"].tolist()) == {50.0}
    for row, (subject, trial) in enumerate(expected):
        np.testing.assert_array_equal(found.sequence(row)["pose3d"], stored[subject][trial])
        assert found.label(row) == f"{subject}/{trial}"


def test_the_archives_32_joints_become_17_and_17_stay(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    stored = {"S1": {"Walking 1": wide(random)}, "S5": {"Sitting": random.normal(size=(8, 17, 3)).astype(np.float32)}}
    found = read(write(tmp_path, stored))
    kept = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]  # published
    np.testing.assert_array_equal(found.sequence(0)["pose3d"], stored["S1"]["Walking 1"][:, kept])
    np.testing.assert_array_equal(found.sequence(1)["pose3d"], stored["S5"]["Sitting"])
    with pytest.raises(DataError, match=r"S1/Walking 1: 32 joints, 17 expected .*source_skeleton=h36m32"):
        read(tmp_path, source_skeleton=None)


def test_actions_are_keys_without_numbers_or_what_the_table_of_names_says(tmp_path: Path) -> None:
    root = write(tmp_path, {"S1": {"Directions": positions()["S1"]["Walk"], "Walk 1": positions()["S1"]["Walk 1"]}})
    assert read(root).table["action"].tolist() == ["Directions", "Walk"]
    (root / "names.json").write_text(json.dumps({"S1": {"Directions": "train_Q03 / directing_traffic 1"}}))
    found = read(root, names="names.json")
    assert found.table["action"].tolist() == ["directing_traffic", "Walk"]
    assert found.table["recording"].tolist() == ["train_Q03 / directing_traffic 1", ""]
    assert humanmac.files(root, **H36M, names="names.json") == [root / "data_3d_tiny.npz", root / "names.json"]
    assert humanmac.files(root, **H36M, names="absent.json") == [root / "data_3d_tiny.npz"]
    (root / "names.json").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"names\.json cannot be read.*reader_options\.names=null"):
        read(root, names="names.json")


@pytest.mark.parametrize(
    ("trial", "action"),
    [("Walking", "Walking"), ("Walking 1", "Walking"), ("Box 1 chunk3", "Box"), ("walking_turn 22", "walking_turn"),
     ("ThrowCatch 1 chunk10", "ThrowCatch"), ("run2", "run2")],
)  # fmt: skip
def test_action_of_a_trial(trial: str, action: str) -> None:
    assert base_action(trial) == action


def test_dropped_recordings_and_those_that_are_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path)
    found = read(root, drop=["S1/Walk", "S1/Wolk", "S77/Walk"])
    assert "S1/Walk" not in [found.label(row) for row in range(len(found))]
    assert "there is no S1/Wolk to leave out; S1 has Walk 1, Walk, Sit." in caplog.text
    assert "S77" not in caplog.text


def test_units(tmp_path: Path) -> None:
    root = write(tmp_path, {"S1": {"Walk": positions()["S1"]["Walk"] * 100}})
    np.testing.assert_allclose(read(root, unit="cm").sequence(0)["pose3d"], positions()["S1"]["Walk"], rtol=1e-6)
    with pytest.raises(ConfigError, match="unit=feet is not known"):
        read(root, unit="feet")


def test_what_it_cannot_read_has_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data_3d_tiny\.npz not found in .*Ask the owners\."):
        read(tmp_path, source="Ask the owners.")
    write(tmp_path, {"S1": {"Walk": np.zeros((4, 17))}})
    with pytest.raises(DataError, match=r"S1/Walk: float64 \(4, 17\), expected numbers \(frames, joints, 3\)"):
        read(tmp_path)
    write(tmp_path, {"S1": {"Walk": np.zeros((0, 17, 3), np.float32)}})
    with pytest.raises(DataError, match="S1/Walk has no frames"):
        read(tmp_path)
    write(tmp_path, {"S1": {"Walk": positions()["S1"]["Walk"], "Sit": np.zeros((4, 9, 3), np.float32)}})
    stepped: list[DataError] = []
    assert len(humanmac.read(tmp_path, report=stepped.append, **H36M)) == 1
    assert len(stepped) == 1 and "9 joints, 17 or 32 expected" in str(stepped[0])
    write(tmp_path, {"S1": {"Walk": np.zeros((4, 16, 3), np.float32)}})
    with pytest.raises(DataError, match=r"16 joints, 17 or 32 expected .*Put it back as joint 0"):
        read(tmp_path)
    np.savez(tmp_path / "data_3d_tiny.npz", positions_3d=np.zeros(3))
    with pytest.raises(DataError, match="positions_3d is no dict subject -> trial -> array"):
        read(tmp_path)
    np.savez(tmp_path / "data_3d_tiny.npz", positions=np.zeros(3))
    with pytest.raises(DataError, match="has no entry 'positions_3d'"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="humanmac has no option 'joints'"):
        read(tmp_path, joints=17)
    write(tmp_path)
    with pytest.raises(ConfigError, match=r"does not say its skeleton\. Use dataset\.skeleton=h36m17"):
        read(tmp_path, skeleton=None)

"""The real action clips: counts, recordings and the doctor; needs the CMU files where paths.data_dir points."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.composition import compose, make
from kinema.data.doctor import examine
from kinema.data.safe_pickle import load_npz

ROOT = Path(os.environ.get("KINEMA_DATA", "data")) / "cmu_mocap"
pytestmark = pytest.mark.skipif(
    not (ROOT / "cmu_actions").is_dir(), reason=f"no CMU clips in {ROOT} (docs/datasets/cmu_actions.md, KINEMA_DATA)"
)


@cache
def data(root: Path = ROOT / "cmu_actions") -> Any:
    config = compose(["dataset=cmu_actions", f"dataset.root={root}", "dataset.cache_dir=null"])
    return make(config.dataset, _recursive_=False)


def test_counts_are_those_of_the_data() -> None:
    table = data().sequences.table
    counts = {split: np.bincount(table["label"][table["split"] == split]).tolist() for split in ("train", "test")}
    assert counts == {
        "train": [36, 40, 39, 40, 39, 39, 38, 34, 35],
        "test": [14, 14, 14, 14, 14, 9, 11, 15, 14],
    }
    medians = {split: np.median(table["length"][table["split"] == split]) for split in counts}
    assert medians == {"train": 72, "test": 85}
    assert (table["length"].min(), table["length"].max()) == (41, 218)


def test_clips_stand_where_segments_say() -> None:
    recordings = load_npz(ROOT / "data_3d_cmu.npz")["positions_3d"]
    table = data().sequences.table
    for row in range(0, len(table["clip"]), 37):
        subject, trial = str(table["trial"][row]).split("/")
        first, length = int(table["first"][row]), int(table["length"][row])
        split, clip = table["split"][row], table["clip"][row]
        stored = np.load(ROOT / "cmu_actions" / str(split) / str(clip) / "pose_3d.npy")
        np.testing.assert_array_equal(stored, recordings[subject][trial][first : first + length])


def test_no_recording_is_trained_and_tested_on() -> None:
    table = data().sequences.table
    trials = [set(table["trial"][table["split"] == split].tolist()) for split in ("train", "test")]
    assert not trials[0] & trials[1]


def test_the_doctor_finds_no_fault() -> None:
    assert "fault" not in {finding.severity for finding in examine(data())}


def test_a_folder_with_test_clips_alone_can_be_tested(tmp_path: Path) -> None:
    source = ROOT / "cmu_actions"
    shutil.copytree(source / "test", tmp_path / "test")
    shutil.copy(source / "test_labels.txt", tmp_path)
    alone = data(tmp_path)
    assert len(alone.windows("test")) == 119 and alone.has_test()
    whole = data().sequences
    expected = whole.select(whole.table["split"] == "test")
    np.testing.assert_array_equal(alone.sequences.table["label"], expected.table["label"])
    np.testing.assert_array_equal(alone.sequences.sequence(7)["pose3d"], expected.sequence(7)["pose3d"])

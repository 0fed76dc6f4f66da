"""The real CMU motion in HumanMAC's layout: windows, withheld recordings; needs the files where KINEMA_DATA points."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.composition import compose, make
from kinema.data.doctor import examine
from kinema.data.safe_pickle import load_npz

DATA = Path(os.environ.get("KINEMA_DATA", "data"))
pytestmark = pytest.mark.skipif(
    not (DATA / "cmu_mocap" / "data_3d_cmu_humanmac.npz").is_file(),
    reason=f"no CMU motion in {DATA} (docs/datasets/cmu_motion.md, KINEMA_DATA)",
)


@cache
def data(*overrides: str) -> Any:
    config = compose(["dataset=cmu_motion", f"paths.data_dir={DATA}", "dataset.cache_dir=null", *overrides])
    return make(config.dataset, _partial_=True, _recursive_=False)(signature=None)


def test_windows_are_those_of_the_data() -> None:
    windows = data().windows("test")
    subject = windows.sequences.table["subject"][windows.table[:, 0]].tolist()
    assert (subject.count("S9"), subject.count("S11"), len(subject)) == (157, 31, 188)
    assert len(data().windows("val")) == 73
    assert len(data().training_windows(25, withheld=True)) == 440
    assert len(data().training_windows(5, withheld=True)) == 2099


def test_the_joints_are_those_of_the_other_file() -> None:
    names = {str(row) for row in data().sequences.table["recording"]}
    assert "" not in names and len(names) == len(data().sequences)
    recordings = load_npz(DATA / "cmu_mocap" / "data_3d_cmu.npz")["positions_3d"]
    for row in range(0, len(data().sequences), 9):
        person, trial = str(data().sequences.table["recording"][row]).split(" / ")
        np.testing.assert_array_equal(data().sequences.sequence(row)["pose3d"], recordings[person][trial])


def test_actions_with_several_recordings_are_validated_and_none_is_lost() -> None:
    sequences = data().sequences
    trained, held = (sequences.select(data().splits.rows(sequences, stage)).table for stage in ("train", "val"))
    trials = {str(action): int((held["action"] == action).sum()) for action in np.unique(held["action"])}
    assert trials == {
        "basketball": 1, "basketball_signal": 1, "jumping": 2, "soccer": 1, "walking": 3, "walking_turn": 1,
    }  # fmt: skip
    assert set(trials) <= set(trained["action"].tolist())
    both = set(trained["recording"].tolist()) & set(held["recording"].tolist())
    assert not both and len(trained["recording"]) + len(held["recording"]) == 53
    persons = [{name.split(" / ")[0] for name in table["recording"].tolist()} for table in (trained, held)]
    assert persons[1] - persons[0] == {"train_P07", "train_Q12", "train_Q23"}


def test_standing_still_scores_as_published() -> None:
    motion = torch.cat([data().transform(batch)["motion"][batch["index"] >= 0] for batch in data().test_dataloader()])
    error = (motion[:, 25:] - motion[:, 24:25]).norm(dim=-1)
    assert (round(float(error.mean()), 3), round(float(error[:, -1].mean()), 3)) == (0.546, 0.696)


def test_the_doctor_finds_no_fault() -> None:
    assert "fault" not in {finding.severity for finding in examine(data())}


def test_how_much_the_actions_move() -> None:
    measured = data().mean_motion()
    assert "directing_traffic" in measured and "Directions" not in measured and "washwindow" not in measured
    assert measured["balancing"] < measured["basketball_signal"] < measured["walking"] < measured["styled_hop"] < 0.02

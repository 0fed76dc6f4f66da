"""Reader of BVH motion: real small files through the data set, in the units, axes and rates that programs write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.composition import compose, make
from kinema.core.skeleton import skeleton
from kinema.data.bvh import parse
from kinema.data.readers import bvh as reader
from kinema.errors import ConfigError, DataError
from tests.data.motion_layouts import bvh, moving, write

H36M = skeleton("h36m17")
PLAIN: dict[str, Any] = {"skeleton": "h36m17", "unit": "cm", "up": "y", "fps": 50.0}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("train/anna/walk 1", "train/ben/walk", "val/carl/wave_2", "test/dora/walk")):
        write(tmp_path / f"{name}.bvh", bvh(moving(80, seed=seed)))
    return tmp_path


def composed(root: Path, *words: str) -> Any:
    sizes = ["dataset.history=10", "dataset.horizon=20", "dataset.cache_dir=null"]
    config = compose(["dataset=bvh_motion", f"dataset.root={root}", *sizes, *words])
    return make(config.dataset, _recursive_=False)


def joint(pose: np.ndarray, name: str) -> np.ndarray:
    return pose[:, H36M.index(name)]


def test_people_stand_on_their_feet_in_metres(root: Path) -> None:
    found = reader.read(root, **PLAIN)
    assert found.skeleton == H36M and found.space == "world" and found.arrays["pose3d"].dtype == np.float32
    pose = found.sequence(0)["pose3d"]
    # In a T pose facing z with y up: left is +x, up is +z, and forward is -y.
    assert (joint(pose, "head")[:, 2] - joint(pose, "left_ankle")[:, 2] > 1.2).all()
    assert (joint(pose, "left_hip")[:, 0] > joint(pose, "right_hip")[:, 0]).all()
    thigh = np.linalg.norm(joint(pose, "left_knee") - joint(pose, "left_hip"), axis=-1)
    np.testing.assert_allclose(thigh, 0.43, atol=1e-5)
    np.testing.assert_allclose(joint(pose, "pelvis")[:, 0], np.arange(80) / 50 * 0.8, atol=1e-5)
    np.testing.assert_allclose(joint(pose, "pelvis")[:, 1], -np.arange(80) / 50 * 0.2, atol=1e-5)


def test_joints_are_those_of_the_file_where_they_are(root: Path) -> None:
    found = reader.read(root, **PLAIN).sequence(0)["pose3d"]
    motion = parse((root / "test/dora/walk.bvh").read_text(), "walk.bvh")  # first in the order of the names
    x, y, z = np.moveaxis(motion.positions()[:, motion.joints.index("RightForeArm")] / 100, -1, 0)
    np.testing.assert_allclose(joint(found, "right_elbow"), np.stack([x, -z, y], -1), atol=1e-5)


def test_folders_say_subject_trial_action_and_split(root: Path) -> None:
    table = reader.read(root, **PLAIN).table
    rows = zip(*(table[key].tolist() for key in ("split", "subject", "trial", "action")), strict=True)
    assert sorted(rows) == [
        ("test", "dora", "walk", "walk"),
        ("train", "anna", "walk 1", "walk"),
        ("train", "ben", "walk", "walk"),
        ("val", "carl", "wave_2", "wave"),
    ]


def test_the_data_set_opens_and_gives_windows(root: Path) -> None:
    data = composed(root, "dataset.windows_per_epoch=64")
    assert [len(data.windows(stage)) for stage in ("train", "val", "test")] == [2 * 51, 5, 5]
    assert data.has_test() and data.training_windows(10).shape == (10, 30, 48)
    assert set(data.mean_motion()) == {"walk"}
    pose = data.windows("test")[torch.tensor([[0, 0, 1]])]["pose3d"]
    np.testing.assert_array_equal(pose[0].numpy(), data.sequences.sequence(0)["pose3d"][10:40])


def test_another_rate_is_resampled(root: Path) -> None:
    write(root / "test/dora/walk.bvh", bvh(moving(80, seed=3), fps=100.0))
    found = reader.read(root, **PLAIN)
    assert found.table["length"].tolist() == [40, 80, 80, 80] and set(found.table["fps"].tolist()) == {50.0}
    assert found.table["recorded_fps"].tolist() == [100.0, 50.0, 50.0, 50.0]
    fast = reader.read(root, **{**PLAIN, "fps": None})
    assert fast.table["fps"].tolist() == [100.0, 50.0, 50.0, 50.0]
    np.testing.assert_array_equal(found.sequence(0)["pose3d"], fast.sequence(0)["pose3d"][::2])


def test_the_files_own_skeleton_is_kept_on_demand(root: Path) -> None:
    found = reader.read(root, **{**PLAIN, "skeleton": None})
    body = found.skeleton
    assert body is not None and len(body) == 20 and body.joints[0] == "Hips" and len(body.left) == 7
    assert body == reader.body(root, **{**PLAIN, "skeleton": None})
    words = ["dataset.skeleton=null", "dataset.num_joints=20", "dataset.num_features=57"]
    assert composed(root, *words).windows("test")[torch.tensor([[0, 0, 0]])]["pose3d"].shape == (1, 30, 20, 3)
    with pytest.raises(ConfigError, match=r"custom20 has 20 joints, its root included\. Use dataset\.num_joints=20"):
        composed(root, "dataset.skeleton=null")


def test_joints_of_the_own_skeleton_are_chosen_by_globs(root: Path) -> None:
    kept = reader.body(root, **{**PLAIN, "skeleton": None}, joints=["Hips", "*Leg", "*Foot", "Head", "Head_end"])
    assert kept.joints == (
        "Hips", "LeftUpLeg", "LeftLeg", "LeftFoot", "RightUpLeg", "RightLeg", "RightFoot", "Head", "Head_end",
    )  # fmt: skip
    assert kept.parents == (-1, 0, 1, 2, 0, 4, 5, 0, 7) and kept.left == (1, 2, 3) and kept.right == (4, 5, 6)
    with pytest.raises(ConfigError, match=r"has no joint 'Tail\*'\. It has: Hips, LeftUpLeg"):
        reader.body(root, **{**PLAIN, "skeleton": None}, joints=["Hips", "Tail*"])
    with pytest.raises(ConfigError, match=r"leaves out the root Hips\. Add it"):
        reader.body(root, **{**PLAIN, "skeleton": None}, joints=["*Leg"])


def test_joints_are_stated_on_the_command_line(root: Path) -> None:
    words = "dataset.reader_options.joint_map={spine: Spine, head: [Head, Head_end]}"
    pose = composed(root, words).sequences.sequence(0)["pose3d"]
    plain = composed(root).sequences.sequence(0)["pose3d"]
    middle = (joint(plain, "nose") + joint(plain, "head")) / 2
    np.testing.assert_allclose(joint(pose, "head"), middle, atol=1e-5)
    assert np.abs(joint(pose, "spine") - joint(plain, "spine")).max() > 0.1


def test_one_file_is_a_data_set(root: Path) -> None:
    found = reader.read(root / "val/carl/wave_2.bvh", **PLAIN)
    assert found.table["trial"].tolist() == ["2"] and found.table["subject"].tolist() == ["wave"]
    named = reader.read(root / "val/carl/wave_2.bvh", **PLAIN, names="{action}_{trial}")
    assert named.table["action"].tolist() == ["wave"]


def test_dropped_files_are_not_opened(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "train/ben/walk.bvh").write_text("broken")
    found = reader.read(root, **PLAIN, drop=["ben/walk", "ben/wolk"])
    assert found.table["subject"].tolist() == ["dora", "anna", "carl"]
    assert [record.getMessage() for record in caplog.records] == ["dataset.drop: there is no ben/wolk to leave out."]


def test_calibration_frames_are_skipped(root: Path) -> None:
    whole, cut = reader.read(root, **PLAIN), reader.read(root, **PLAIN, skip=3)
    np.testing.assert_array_equal(cut.sequence(1)["pose3d"], whole.sequence(1)["pose3d"][3:])


FAULTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "truncated": (lambda text: text[:-300], {}, r"dora/walk\.bvh says Frames: 80, but holds 79 whole ones: it was cut"),
    "millimetres": (
        lambda text: bvh(moving(80, scale=10), scale=10),
        {},
        r"dora/walk\.bvh: the body is .* m large with dataset\.unit=cm\. Use dataset\.unit=mm\.",
    ),
    "metres": (lambda text: bvh(moving(80, scale=0.01), scale=0.01), {}, r"Use dataset\.unit=m\."),
    "too short": (lambda text: bvh(moving(1)), {}, r"dora/walk\.bvh has 1 frame: no motion\. Leave the file out"),
    "wrong time": (lambda text: text.replace("0.020000", "20.0"), {}, r"would be 0\.05 frames per second"),
    "other names": (
        lambda text: text.replace("RightLeg", "RightBone"),
        {},
        r"no joint stands for right_hip, right_knee, right_ankle, left_hip, \.\.\. of h36m17|no joint stands for",
    ),
    "another skeleton": (
        lambda text: text.replace("JOINT Spine1", "JOINT Belly"),
        {"skeleton": None},
        r"has the joints Hips, .* and 14 more, the files before it .*to a common one: dataset\.skeleton=h36m17",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_broken_files_get_their_sentence_and_the_others_are_read_on(name: str, root: Path) -> None:
    tamper, options, message = FAULTS[name]
    path = root / "test/dora/walk.bvh"
    text = tamper(path.read_text())
    path.unlink()
    write(root / "zoe/dora/walk.bvh", text)  # the last one, so that the others come before it
    message = message.replace("dora/", "zoe/dora/")
    with pytest.raises(DataError, match=message):
        reader.read(root, **{**PLAIN, **options})
    faults: list[DataError] = []
    found = reader.read(root, report=faults.append, **{**PLAIN, **options})
    assert len(found) == 3 and len(faults) == 1


def test_nan_is_told_by_the_data_set_and_filled_in_on_demand(root: Path) -> None:
    path = root / "test/dora/walk.bvh"
    lines = path.read_text().splitlines()
    lines[-10] = "nan " + lines[-10].partition(" ")[2]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"dora/walk: 1 of 80 frames hold NaN \(first 70\)\. .*dataset\.on_nan=mask"):
        composed(root).windows("test")
    filled = composed(root, "dataset.on_nan=mask").sequences.sequence(0)["pose3d"]
    assert np.isfinite(filled).all()
    np.testing.assert_allclose(filled[70], (filled[69] + filled[71]) / 2, atol=1e-5)


def test_files_shorter_than_a_window_are_left_out_in_one_line(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(root / "train/anna/short.bvh", bvh(moving(29)))
    with caplog.at_level("INFO"):
        assert len(composed(root).windows("train")) == 2 * 51
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert told == ["train: 1 of 3 sequences are shorter than 30 frames and left out: anna/short."]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"skeleton": None, "joint_map": {"spine": "Spine"}},
            r"dataset\.skeleton is null\. Use dataset\.skeleton=h36m17",
        ),
        ({"joints": ["Hips"]}, r"dataset\.skeleton names another\. Use dataset\.skeleton=null"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str, root: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        reader.files(root, **{**PLAIN, **options})


def test_two_files_of_one_name_are_refused(root: Path) -> None:
    write(root / "train/anna/walk 2.bvh", bvh(moving(80, seed=9)))
    (root / "train/ben/walk.bvh").unlink()
    with pytest.raises(DataError, match=r"Two motions are called anna/walk\. Rename one, or tell them apart"):
        reader.read(root / "train", **PLAIN, names="{trial} *")

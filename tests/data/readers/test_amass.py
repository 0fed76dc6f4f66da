"""Reader of AMASS: HumanMAC's retargeted clips and positions of SMPL's joints, with both conventions of sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.composition import compose, make
from kinema.core.skeleton import skeleton
from kinema.data.readers import amass as reader
from kinema.errors import ConfigError, DataError
from tests.data.motion_layouts import walk

H36M, SMPL = skeleton("h36m17"), skeleton("smpl22")
PLAIN: dict[str, Any] = {"skeleton": "h36m17", "fps": 50.0}
# Slots 0..16 as the published script fills them from SMPL's joints.
PUBLISHED = ([0], [1], [4], [7], [2], [5], [8], [3, 6], [9], [12], [15], [17], [19], [21], [16], [18], [20])


def smpl(frames: int = 200, joints: int = 52, seed: int = 0) -> np.ndarray:
    """Positions of a SMPL-H body whose torso and limbs are those of a walk."""
    body = walk(seed, frames)
    made = np.tile(body[:, :1], (1, joints, 1)).astype(np.float32)
    for name in SMPL.joints:
        made[:, SMPL.index(name)] = body[:, H36M.index(name if name in H36M.joints else "thorax")]
    made[:, SMPL.index("spine1")] = made[:, SMPL.index("spine2")] = body[:, H36M.index("spine")]
    made[:, SMPL.index("neck")] = body[:, H36M.index("nose")]
    return made


def test_slots_are_copied_as_published() -> None:
    pose = np.random.default_rng(0).normal(size=(5, 22, 3))
    expected = np.stack([pose[:, slot].mean(1) for slot in PUBLISHED], axis=1)
    np.testing.assert_allclose(reader.retargeted(pose, "published"), expected, atol=1e-12)


def test_correct_sides_are_the_published_ones_exchanged() -> None:
    pose = np.random.default_rng(0).normal(size=(2, 5, 22, 3))
    correct, published = reader.retargeted(pose), reader.retargeted(pose, "published")
    np.testing.assert_array_equal(correct[..., H36M.flip_index, :], published)
    for joint in ("left_hip", "right_knee", "left_wrist", "pelvis", "head"):
        np.testing.assert_array_equal(correct[..., H36M.index(joint), :], pose[..., SMPL.index(joint), :])


@pytest.mark.parametrize("sides", ["correct", "published"])
def test_retargeted_clips_have_published_sides_in_the_file(sides: str, tmp_path: Path) -> None:
    clips = np.stack([reader.retargeted(smpl(160, seed=i), "published") for i in range(3)])
    np.save(tmp_path / "amass_retargeted.npy", clips[:, None])  # squeezed when read
    for root in (tmp_path, tmp_path / "amass_retargeted.npy"):
        found = reader.read(root, **PLAIN, sides=sides)
        assert found.table["length"].tolist() == [160] * 3 and found.skeleton == H36M
        assert found.table["trial"].tolist() == ["retargeted 0", "retargeted 1", "retargeted 2"]
        np.testing.assert_allclose(found.sequence(1)["pose3d"], reader.retargeted(smpl(160, seed=1), sides), atol=1e-6)


def test_sides_that_are_right_in_the_file_stay(tmp_path: Path) -> None:
    np.save(tmp_path / "amass_retargeted.npy", reader.retargeted(smpl(160))[None])
    amass_file(tmp_path / "a/walk_poses.npz", joints=smpl())
    found = reader.read(tmp_path, **PLAIN, sides="as_is")
    expected = {"retargeted": reader.retargeted(smpl(160)), "walk": reader.retargeted(smpl())[::2]}
    for row, trial in enumerate(found.table["trial"].tolist()):
        np.testing.assert_allclose(found.sequence(row)["pose3d"], expected[trial.split(" ")[0]], atol=1e-6)


def test_one_clip_alone_is_squeezed_too(tmp_path: Path) -> None:
    np.save(tmp_path / "amass_retargeted.npy", reader.retargeted(smpl(), "published")[None, None])
    assert len(reader.read(tmp_path, **PLAIN)) == 1


def amass_file(path: Path, **entries: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shared = {"poses": np.zeros((200, 156)), "trans": np.zeros((200, 3)), "gender": np.array("female")}
    np.savez(path, mocap_framerate=np.array(100.0), **shared, **entries)
    return path


def test_positions_beside_the_rotations_of_a_file_are_taken(tmp_path: Path) -> None:
    amass_file(tmp_path / "ACCAD/Female1_c3d/A1 - walk_poses.npz", joints=smpl())
    np.savez(tmp_path / "ACCAD/Female1_c3d/shape.npz", betas=np.zeros(10))
    found = reader.read(tmp_path, **PLAIN)
    assert found.table["subject"].tolist() == ["ACCAD/Female1_c3d"] and found.table["trial"].tolist() == ["A1 - walk"]
    assert (found.table["length"][0], found.table["recorded_fps"][0], found.table["fps"][0]) == (100, 100.0, 50.0)
    np.testing.assert_allclose(found.sequence(0)["pose3d"], reader.retargeted(smpl())[::2], atol=1e-6)


def test_the_joints_of_smpl_are_kept_on_demand(tmp_path: Path) -> None:
    amass_file(tmp_path / "a/walk_poses.npz", joints=smpl())
    found = reader.read(tmp_path, **{**PLAIN, "skeleton": "smpl22"})
    assert found.skeleton == SMPL
    np.testing.assert_array_equal(found.sequence(0)["pose3d"], smpl()[::2, :22])


def test_the_data_set_cuts_the_clips_into_windows_for_testing(tmp_path: Path) -> None:
    clips = np.stack([reader.retargeted(smpl(160, seed=i), "published") for i in range(3)])
    np.save(tmp_path / "amass_retargeted.npy", clips)
    config = compose(["dataset=amass_motion", f"dataset.root={tmp_path}", "dataset.cache_dir=null"])
    data = make(config.dataset, _recursive_=False)
    assert len(data.windows("test")) == 3 * 2  # from 0 and 25 of 160 frames
    assert data.training_windows(25) is None and data.mean_motion() is None
    words = ["dataset.skeleton=smpl22", "dataset.num_joints=22", "dataset.num_features=63", "dataset.cache_dir=null"]
    amass_file(tmp_path / "raw/a/walk_poses.npz", joints=smpl(400))
    config = compose(["dataset=amass_motion", f"dataset.root={tmp_path / 'raw'}", *words])
    assert len(make(config.dataset, _recursive_=False).windows("test")) == 3


def test_rotations_without_positions_get_their_sentence(tmp_path: Path) -> None:
    path = amass_file(tmp_path / "ACCAD/a/walk_poses.npz")
    with pytest.raises(DataError, match=rf"^{path} holds rotations of SMPL and no positions\. Add an entry `joints`"):
        reader.read(tmp_path, **PLAIN)


@pytest.mark.parametrize(
    ("pose", "options", "message"),
    [
        (np.ones((3, 90, 20, 3)), {}, r"has 20 joints: neither 17 retargeted ones nor at least 22 of SMPL"),
        (walk(), {"skeleton": "smpl22"}, r"is retargeted to 17 joints\. Use dataset\.skeleton=h36m17"),
        (walk() * 1000, {}, r"with dataset\.unit=m\. Use dataset\.unit=mm"),
        (np.ones((5, 4)), {}, r"has shape \(5, 4\), \(frames, joints, 3\) or several of them expected"),
    ],
)
def test_other_arrays_get_their_sentence(
    pose: np.ndarray, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "amass_retargeted.npy", pose)
    with pytest.raises(DataError, match=message):
        reader.read(tmp_path, **{**PLAIN, **options})


def test_a_missing_file_gets_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.npz or \.npy file in it\. Expected amass_retargeted\.npy, .* Ask here"):
        reader.files(tmp_path, **PLAIN, source="Ask here.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sides": "left"}, r"sides=left is not known\. Choose one of correct, published, as_is"),
        ({"skeleton": "coco17"}, r"skeleton=coco17 cannot be made of SMPL's joints\. Use dataset\.skeleton=h36m17"),
        ({"skeleton": "smpl22", "sides": "published"}, r"Use dataset\.skeleton=h36m17, or .*sides=correct"),
    ],
)
def test_wrong_options_get_their_sentence(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        reader.files(tmp_path, **{**PLAIN, **options})

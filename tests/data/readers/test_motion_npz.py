"""Reader of plain arrays: every way in which people store motion, any skeleton, and a sentence for every fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.composition import compose, make
from kinema.core.skeleton import skeleton
from kinema.data.readers import motion_npz as reader
from kinema.errors import ConfigError, DataError
from tests.data.motion_layouts import save, walk

H36M = skeleton("h36m17")
PLAIN: dict[str, Any] = {"skeleton": "h36m17", "unit": "m", "up": "z", "fps": 50.0}
# A dog: a spine, four legs, a tail.
DOG = {
    "parents": [-1, 0, 1, 0, 3, 0, 5, 1, 7, 1, 9, 0],
    "joints": ["hip", "chest", "nose", "hind_l", "paw_hind_l", "hind_r", "paw_hind_r", "fore_l", "paw_l", "fore_r",
               "paw_r", "tail"],
}  # fmt: skip


def dog(frames: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rest = rng.uniform((-0.4, -0.4, 0.1), (0.4, 0.4, 0.9), (12, 3))
    swing = 0.1 * np.sin(np.arange(frames)[:, None, None] / 9 + rng.uniform(0, 6, (12, 3)))
    return (rest + swing).astype(np.float32)


def composed(root: Path, *words: str) -> Any:
    sizes = ["dataset.history=10", "dataset.horizon=20", "dataset.cache_dir=null"]
    config = compose(["dataset=npz_motion", f"dataset.root={root}", *sizes, *words])
    return make(config.dataset, _recursive_=False)


def test_npy_and_npz_files_of_a_named_skeleton(tmp_path: Path) -> None:
    save(tmp_path / "train/anna/walk 1.npy", walk(0))
    save(tmp_path / "train/anna/run.npz", walk(1), fps=100)
    save(tmp_path / "test/ben/walk.npy", walk(2).astype(np.float64))
    found = reader.read(tmp_path, **PLAIN)
    assert found.skeleton == H36M and found.space == "world"
    assert found.table["trial"].tolist() == ["walk", "run", "walk 1"]
    assert found.table["length"].tolist() == [200, 100, 200]
    np.testing.assert_array_equal(found.sequence(0)["pose3d"], walk(2))
    np.testing.assert_array_equal(found.sequence(1)["pose3d"], walk(1)[::2])


def test_one_npz_is_a_data_set(tmp_path: Path) -> None:
    arrays = {"train/anna/walk 1": walk(0), "train/anna/run": walk(1), "test/ben/walk": walk(2)}
    np.savez(tmp_path / "all.npz", fps=50, **arrays)
    for root in (tmp_path / "all.npz", tmp_path):
        found = reader.read(root, **PLAIN)
        rows = zip(*(found.table[key].tolist() for key in ("split", "subject", "trial", "action")), strict=True)
        assert list(rows) == [
            ("train", "anna", "walk 1", "walk"), ("train", "anna", "run", "run"), ("test", "ben", "walk", "walk"),
        ]  # fmt: skip
    data = composed(tmp_path / "all.npz", "dataset.windows_per_epoch=64")
    assert (len(data.windows("train")), len(data.windows("test"))) == (2 * 171, 17)


def test_entries_without_folders_are_trials_of_their_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "anna.npz", walk=walk(0), run=walk(1), note=np.zeros(3))
    found = reader.read(tmp_path, **PLAIN)
    assert found.table["subject"].tolist() == ["anna", "anna"] and found.table["trial"].tolist() == ["walk", "run"]
    one = reader.read(tmp_path, **PLAIN, entry="run")
    np.testing.assert_array_equal(one.sequence(0)["pose3d"], walk(1))


def test_several_motions_of_one_array_are_numbered(tmp_path: Path) -> None:
    save(tmp_path / "anna/walk.npy", np.stack([walk(0), walk(1)])[:, None])
    found = reader.read(tmp_path, **PLAIN)
    assert found.table["trial"].tolist() == ["walk 0", "walk 1"] and set(found.table["action"].tolist()) == {"walk"}
    np.testing.assert_array_equal(found.sequence(1)["pose3d"], walk(1))


def test_predictions_of_mode_predict_are_read_in_camera_axes(tmp_path: Path) -> None:
    camera = np.stack([walk(0)[..., 0], -walk(0)[..., 2], walk(0)[..., 1]], axis=-1)
    meta = np.array(json.dumps({"unit": "metres"}))
    np.savez(tmp_path / "predictions.npz", meta=meta, **{"pose3d/anna/walk/0": camera, "pose3d/ben/walk/0": camera})
    found = reader.read(tmp_path / "predictions.npz", **{**PLAIN, "up": "-y"})
    assert found.table["subject"].tolist() == ["anna/walk", "ben/walk"]
    np.testing.assert_allclose(found.sequence(0)["pose3d"], walk(0), atol=1e-6)


@pytest.mark.parametrize("where", ["file", "yaml"])
def test_any_skeleton_with_a_list_of_parents(where: str, tmp_path: Path) -> None:
    for i, split in enumerate(("train", "test")):
        told = {"parents": DOG["parents"], "joints": np.array(DOG["joints"])} if where == "file" else {}
        save(tmp_path / f"{split}/rex/run.npz", dog(seed=i), **told)
    stated = "null" if where == "file" else "{parents:%s,joints:%s}" % (DOG["parents"], DOG["joints"])  # noqa: UP031
    stated = stated.replace("'", "")
    data = composed(tmp_path, f"dataset.skeleton={stated}", "dataset.num_joints=12", "dataset.num_features=33")
    assert data.skeleton.joints == tuple(DOG["joints"]) and data.skeleton.left == (3, 4, 7, 8)
    batch = data.transform(data.windows("test")[torch.tensor([[0, 0, 0]])])
    assert batch["motion"].shape == (1, 30, 33)
    pose = dog(seed=1)[:30]
    expected = (pose - pose[:, :1])[:, 1:].reshape(30, 33)
    np.testing.assert_allclose(batch["motion"][0].numpy(), expected, atol=1e-6)


def test_joints_in_another_order_are_found_by_their_names(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(17)
    place = np.argsort(order)
    parents = [-1 if H36M.parents[j] < 0 else int(place[H36M.parents[j]]) for j in order]
    names = np.array([H36M.joints[j] for j in order])
    save(tmp_path / "anna/walk.npz", walk()[:, order], parents=parents, joints=names)
    np.testing.assert_array_equal(reader.read(tmp_path, **PLAIN).sequence(0)["pose3d"], walk())


def test_the_joints_of_an_archive_are_reduced_by_their_names(tmp_path: Path) -> None:
    full = skeleton("h36m32")
    pose = np.zeros((200, 32, 3), np.float32)
    pose[:, list(full.map_to(H36M))] = walk()
    save(tmp_path / "anna/walk.npz", pose, parents=full.parents, joints=np.array(full.joints))
    np.testing.assert_array_equal(reader.read(tmp_path, **PLAIN).sequence(0)["pose3d"], walk())


def test_a_stated_joint_replaces_the_one_of_that_name(tmp_path: Path) -> None:
    save(tmp_path / "anna/walk.npz", walk(), parents=H36M.parents, joints=np.array(H36M.joints))
    found = reader.read(tmp_path, **PLAIN, joint_map={"spine": ["pelvis", "thorax"]}).sequence(0)["pose3d"]
    np.testing.assert_allclose(found[:, 7], (walk()[:, 0] + walk()[:, 8]) / 2, atol=1e-6)
    np.testing.assert_array_equal(found[:, 8:], walk()[:, 8:])


def pickled(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, positions_3d=np.array({"S1": {"walk": walk()}}, dtype=object))


def cut(path: Path) -> None:
    save(path, walk())
    path.write_bytes(path.read_bytes()[:5000])


def told(**entries: Any) -> Any:
    return lambda path: save(path, entries.pop("pose", walk()) if "pose" in entries else walk(), **entries)


FAULTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "truncated": (cut, {}, r"cannot be read \(.*\): it was cut off, or is no \.npz\. Copy it again"),
    "pickled": (pickled, {}, r"positions_3d is pickled: for the layout of VideoPose3D use dataset=h36m_motion"),
    "nothing in it": (
        lambda path: np.savez(path, a=np.zeros(3)), {}, r"holds no positions of joints, only a \(3,\)\. Positions are",
    ),
    "two coordinates": (told(pose=walk()[..., :2]), {}, r"holds no positions of joints, only pose3d \(200, 17, 2\)"),
    "no frames": (told(pose=walk()[:0]), {}, r"shape \(0, 17, 3\): no frames"),
    "one frame": (told(pose=walk()[:1]), {}, r"has 1 frame: no motion"),
    "other joints": (told(pose=walk()[:, :15]), {}, r"\(frames, 17 joints, 3\) expected for the skeleton h36m17"),
    "millimetres": (told(pose=walk() * 1000), {}, r"with dataset\.unit=m\. Use dataset\.unit=mm"),
    "two roots": (told(parents=[-1, *[0] * 15, -1]), {}, r"2 joints have the parent -1\. Exactly one is the root"),
    "a circle": (told(parents=[-1, 2, 1, *[0] * 14]), {}, r"joint 1 is its own ancestor"),
    "a parent too far": (told(parents=[-1, 17, *[0] * 15]), {}, r"joint 1 has the parent 17, but .* 0 to 16"),
    "too few parents": (told(parents=[-1, 0]), {}, r"positions of 17 joints, but 2 parents\. Give every joint one"),
    "too few names": (told(joints=np.array(["a"])), {}, r"positions of 17 joints, but 1 names of joints"),
    "another tree": (told(parents=[-1, *[0] * 16]), {}, r"the skeleton h36m17 has \[-1, 0, .*dataset\.skeleton=null"),
    "no skeleton": (told(), {"skeleton": None}, r"does not say its skeleton\. Add an entry `parents`"),
    "a wrong rate": (told(fps=0.02), {}, r"fps=0\.02 are no frames per second\. Correct it, or .*file_fps=50"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_broken_files_get_their_sentence_and_the_others_are_read_on(name: str, tmp_path: Path) -> None:
    spoil, options, message = FAULTS[name]
    good: dict[str, Any] = {"parents": H36M.parents, "joints": np.array(H36M.joints)}
    save(tmp_path / "anna/good.npz", walk(1), **good)
    spoil(tmp_path / "anna/walk.npz")
    with pytest.raises(DataError, match=rf"anna/walk\.npz.*{message}"):
        reader.read(tmp_path, **{**PLAIN, **options})
    faults: list[DataError] = []
    found = reader.read(tmp_path, report=faults.append, **{**PLAIN, **options})
    assert found.table["trial"].tolist() == ["good"] and len(faults) == 1


def test_files_of_two_skeletons_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "anna/walk.npz", walk(), parents=H36M.parents)
    save(tmp_path / "rex/run.npz", dog(), parents=DOG["parents"])
    with pytest.raises(DataError, match=r"rex/run\.npz has the joints .*, the files before it .*Keep files of one"):
        reader.read(tmp_path, **{**PLAIN, "skeleton": None})
    other = [*H36M.parents[:-1], 0]
    save(tmp_path / "rex/run.npz", walk(), parents=other, joints=np.array(H36M.joints))
    save(tmp_path / "anna/walk.npz", walk(), parents=H36M.parents, joints=np.array(H36M.joints))
    with pytest.raises(DataError, match=r"rex/run\.npz has another list of parents than the files before it\. Keep"):
        reader.read(tmp_path, **{**PLAIN, "skeleton": None})
    # What is left out is not looked at.
    assert len(reader.read(tmp_path, **{**PLAIN, "skeleton": None, "drop": ["rex/run"]})) == 1


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"The reader motion_npz has no option 'entries'\. Known"):
        reader.files(tmp_path, **PLAIN, entries="a")

"""The reader of MPI-INF-3DHP against a plain reading, a sentence for every fault, and the doctor on the same files."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.composition import compose, make
from kinema.core.keypoints import mpi_inf_3dhp_to_h36m
from kinema.core.skeleton import skeleton
from kinema.data.doctor import examine
from kinema.data.findings import Finding
from kinema.data.readers import mpi_inf_3dhp
from kinema.errors import ConfigError, DataError
from tests.data.mpi_layout import LABELS, TEST, TRAIN, contents, labels, save

Made = dict[str, dict[str, Any]]
Tamper = Callable[[Made], Any]
BODY = skeleton("mpi_inf_3dhp17")


@cache
def _clean() -> Made:
    return contents()


@pytest.fixture
def made() -> Made:
    return copy.deepcopy(_clean())


def plain(views: dict[str, Any], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    corner = np.array([1, height / width])
    solid = views["data_3d"] / width * 2
    solid[..., :2] -= corner
    return views["data_2d"] / width * 2 - corner, solid


def test_frames_equal_a_plain_reading(tmp_path: Path, made: Made) -> None:
    read = mpi_inf_3dhp.read(save(tmp_path, made))
    rows = [(name, camera, views, 2048, 2048) for name, (cameras, _) in made[TRAIN].items()
            for camera, views in cameras.items()]  # fmt: skip
    rows += [(name, "0", views, *((1920, 1080) if name == "TS5" else (2048, 2048)))
             for name, views in made[TEST].items()]  # fmt: skip
    assert len(read) == len(rows)
    for row, (name, camera, views, width, height) in enumerate(rows):
        flat, solid = plain(views, width, height)
        arrays = read.sequence(row)
        np.testing.assert_allclose(arrays["pose2d"], flat, atol=1e-6)
        np.testing.assert_allclose(arrays["pose3d"], solid, atol=1e-6)
        np.testing.assert_array_equal(arrays["valid"], views.get("valid", np.ones(len(flat))) != 0)
        assert read.table["camera"][row] == camera
        assert name.startswith(read.table["subject"][row])
        assert (read.table["width"][row], read.table["height"][row]) == (width, height)
    assert read.arrays["pose3d"].dtype == read.arrays["pose2d"].dtype == np.float32
    assert read.table["trial"].tolist() == ["Seq1", "Seq1", "Seq2", "Seq2", "TS1", "TS2", "TS5"]
    assert read.table["split"].tolist() == ["train"] * 4 + ["test"] * 3
    assert read.table["fps"][:4].tolist() == [25, 25, 50, 50]
    assert np.isnan(read.table["fps"][4:]).all()
    assert "activity" not in read.arrays
    assert read.space == "image"


def test_half_an_image_width_turns_labels_into_millimetres(tmp_path: Path, made: Made) -> None:
    read = mpi_inf_3dhp.read(save(tmp_path, made))
    for row, name in enumerate(made[TEST], start=4):
        pose = read.sequence(row)["pose3d"].astype(np.float64)
        found = (pose - pose[:, [BODY.root]]) * read.table["width"][row] / 2
        truth = made[TEST][name]["data_3d"]
        np.testing.assert_allclose(found, truth - truth[:, [BODY.root]], atol=1e-3)


def test_labels_of_activities_are_optional(tmp_path: Path, made: Made) -> None:
    activities = labels(made[TEST])
    missing = activities.pop("TS2")
    read = mpi_inf_3dhp.read(save(tmp_path, made, activities))
    found = {name: read.sequence(row)["activity"] for row, name in enumerate(read.table["trial"]) if name[0] == "T"}
    np.testing.assert_array_equal(found["TS1"], activities["TS1"])
    np.testing.assert_array_equal(found["TS5"], activities["TS5"])
    np.testing.assert_array_equal(found["TS2"], np.zeros(len(missing)))
    assert not read.sequence(0)["activity"].any()
    assert tmp_path / LABELS in mpi_inf_3dhp.files(tmp_path)
    assert tmp_path / LABELS not in mpi_inf_3dhp.files(tmp_path, activities=None)
    with pytest.raises(DataError, match=r"mine\.npz not found"):
        mpi_inf_3dhp.read(tmp_path, activities="mine.npz")
    np.savez(tmp_path / "short.npz", TS1=np.ones(3, int))
    with pytest.raises(DataError, match="3 labels for 29 frames"):
        mpi_inf_3dhp.read(tmp_path, activities="short.npz")


def test_one_of_the_files_is_enough(tmp_path: Path, made: Made) -> None:
    del made[TRAIN]
    save(tmp_path, made)
    assert set(mpi_inf_3dhp.read(tmp_path, train=None).table["split"]) == {"test"}
    with pytest.raises(DataError, match=r"data_train_3dhp\.npz not found in .*From there\."):
        mpi_inf_3dhp.files(tmp_path, source="From there.")
    with pytest.raises(DataError, match="Neither"):
        mpi_inf_3dhp.files(tmp_path, train=None, test=None)
    with pytest.raises(ConfigError, match="no option 'tests'"):
        mpi_inf_3dhp.files(tmp_path, tests="x")


class Evil:
    """Asks the unpickler to run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def test_nothing_in_the_pickle_is_run(tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made[TEST]["TS1"]["extra"] = Evil()
    with pytest.raises(DataError, match="Nothing of it was executed"):
        mpi_inf_3dhp.read(save(tmp_path, made))
    assert not (tmp_path / "executed").exists()


def _camera(made: Made) -> dict[str, Any]:
    camera: dict[str, Any] = made[TRAIN]["S1 Seq1"][0]["4"]
    return camera


def views_of(made: Made, file: str) -> list[dict[str, Any]]:
    values = made[file].values()
    return [view for cameras, _ in values for view in cameras.values()] if file == TRAIN else list(values)


def reorder(made: Made, file: str, *keys: str) -> None:
    """Store the joints of a file in the order of Human3.6M."""
    for view in views_of(made, file):
        view.update({key: mpi_inf_3dhp_to_h36m(view[key]) for key in keys})


FAULTS = [
    (lambda m: reorder(m, TRAIN, "data_2d", "data_3d"), "lengths and pairs",
     r"data_train_3dhp\.npz: the joints of data_2d and data_3d stand in the order of Human3\.6M"),
    (lambda m: reorder(m, TEST, "data_2d", "data_3d"), "lengths and pairs",
     r"data_test_3dhp\.npz: the joints of data_2d and data_3d stand in the order of Human3\.6M"),
    (lambda m: m[TRAIN]["S1 Seq1"].__setitem__(1, None), "files", "S1 Seq1: None is no frame rate"),
    (lambda m: m[TRAIN]["S1 Seq1"].__setitem__(1, []), "files", r"S1 Seq1: \[\] is no frame rate"),
    (lambda m: _camera(m).update(data_3d=np.repeat(_camera(m)["data_3d"], 2, 1)[:, :28]), "files",
     r"S1 Seq1, camera 4, data_3d: shape \(31, 28, 3\)"),
    (lambda m: _camera(m).pop("data_2d"), "files", "camera 4 has no 'data_2d'"),
    (lambda m: m[TRAIN].update({"S1 Seq1": m[TRAIN]["S1 Seq1"][0]}), "files", "S1 Seq1: no pair of cameras"),
    (lambda m: m[TEST]["TS2"].pop("valid"), "files", "TS2 has no 'valid'"),
    (lambda m: m.update({TEST: {}}), "files", "holds no dict of sequences"),
    (lambda m: m[TRAIN]["S2 Seq2"].__setitem__(1, 30), "lengths and pairs", "S2 Seq2: 30 frames per second"),
    (lambda m: _camera(m).update(data_2d=_camera(m)["data_2d"][:20]), "lengths and pairs", "20 frames of 2D and 31"),
    (lambda m: m[TEST]["TS1"].update(valid=np.ones(7)), "lengths and pairs", "7 entries of 'valid' for 29 frames"),
    (lambda m: m[TEST]["TS1"].update(valid=np.zeros(29)), "lengths and pairs", "TS1: no frame is valid"),
    (lambda m: _camera(m).update(data_3d=_camera(m)["data_3d"] / 1000), "lengths and pairs", "bones average 0.2"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "check", "text"), FAULTS)
def test_faults_are_named(tmp_path: Path, made: Made, tamper: Any, check: str, text: str) -> None:
    tamper(made)
    save(tmp_path, made)
    with pytest.raises(DataError, match=text):
        mpi_inf_3dhp.read(tmp_path)
    found = [one for one in examined(tmp_path) if one.severity == "fault"]
    assert found
    assert {one.check for one in found} == {check}
    assert all(one.remedy for one in found), found


@pytest.mark.parametrize("keys", [("data_2d",), ("data_3d",)])
def test_each_array_in_another_order_is_found_alone(tmp_path: Path, made: Made, keys: tuple[str, ...]) -> None:
    reorder(made, TRAIN, *keys)
    with pytest.raises(DataError, match=rf"data_train_3dhp\.npz: the joints of {keys[0]} stand in the order of Human"):
        mpi_inf_3dhp.read(save(tmp_path, made))


def still(views: dict[str, Any]) -> None:
    views.update({key: np.repeat(views[key][:1], len(views[key]), axis=0) for key in ("data_2d", "data_3d")})


def turned(views: dict[str, Any]) -> None:
    """Seen from the side, lying: neither the image's width nor the depth tell left from right."""
    pose = views["data_3d"] - views["data_3d"][:, [BODY.root]]
    pose = pose[..., [2, 0, 1]] + np.array([0, 0, 4000.0])
    views.update(data_3d=pose, data_2d=pose[..., :2] / pose[..., 2:] * 2200 + 1024)


def noisy(views: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    views["data_3d"] += random.normal(scale=20, size=views["data_3d"].shape)
    views["data_2d"] += random.normal(scale=20, size=views["data_2d"].shape)


@pytest.mark.parametrize("change", [still, turned, noisy])
def test_the_order_is_known_whatever_the_body_does(
    tmp_path: Path, made: Made, change: Callable[[dict[str, Any]], None]
) -> None:
    for file in (TRAIN, TEST):
        for views in views_of(made, file):
            change(views)
    mpi_inf_3dhp.read(save(tmp_path, made))
    reorder(made, TEST, "data_2d", "data_3d")
    with pytest.raises(DataError, match="the joints of data_2d and data_3d stand in the order of Human3"):
        mpi_inf_3dhp.read(save(tmp_path, made))


def test_poses_of_no_body_are_not_taken_for_another_order(tmp_path: Path, made: Made) -> None:
    random = np.random.default_rng(0)
    for views in views_of(made, TRAIN):
        views["data_3d"] = random.normal(scale=200, size=views["data_3d"].shape) + np.array([0, 0, 4000])
        views["data_2d"] = random.uniform(0, 2048, size=views["data_2d"].shape)
    for views in views_of(made, TEST):
        views["data_3d"][:] = np.nan
    mpi_inf_3dhp.read(save(tmp_path, made))


def test_labels_that_are_words_are_named(tmp_path: Path, made: Made) -> None:
    save(tmp_path, made, {"TS1": np.array(["Sitting"] * len(made[TEST]["TS1"]["valid"]))})
    (found,) = [one for one in examined(tmp_path) if one.severity == "fault"]
    assert found.text == "activity_test_3dhp.npz, TS1: labels are no whole numbers."
    assert found.remedy == "Store 1 to 7, 0 for none."


@cache
def _config() -> Any:
    return compose(["dataset=mpi_inf_3dhp"])


def examined(folder: Path) -> list[Finding]:
    config = copy.deepcopy(_config())
    config.paths.data_dir, config.paths.cache_dir = str(folder), str(folder / "cache")
    return examine(make(config.dataset, _recursive_=False))


def test_doctor_passes_clean_files(tmp_path: Path, made: Made) -> None:
    findings = examined(save(tmp_path, made))
    # The recordings themselves differ in their frame rate.
    assert [(one.severity, one.check) for one in findings if one.severity != "ok"] == [("warning", "frame rate")]


@pytest.mark.parametrize(
    ("tamper", "check", "text"),
    [
        (lambda m: _camera(m)["data_3d"][4:6].fill(np.nan), "NaN", "S1/Seq1/4; in the first of them 2 of 31"),
        (lambda m: m[TEST]["TS5"].update(data_2d=m[TEST]["TS5"]["data_2d"] * 2), "image", "1920 x 1080"),
        (lambda m: _camera(m).update(data_2d=_camera(m)["data_2d"] / 1024 - 1), "image", "less than 1 %"),
        (lambda m: _camera(m).update(data_2d=_camera(m)["data_2d"][:, list(BODY.flip_index)]), "left and right",
         "left and right are exchanged between 2D and 3D: 1 sequences, S1/Seq1/4"),
    ],
)  # fmt: skip
def test_doctor_finds_what_reading_does_not(tmp_path: Path, made: Made, tamper: Any, check: str, text: str) -> None:
    tamper(made)
    found = [one for one in examined(save(tmp_path, made)) if one.severity == "fault"]
    assert [one.check for one in found] == [check]
    assert text in found[0].text


def test_doctor_says_where_missing_files_come_from(tmp_path: Path) -> None:
    (found,) = examined(tmp_path)
    assert found.severity == "fault"
    assert "data_train_3dhp.npz not found" in found.text
    assert "docs/datasets/mpi_inf_3dhp.md" in found.remedy

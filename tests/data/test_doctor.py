"""The doctor passes clean data and finds each fault in a copy that was tampered with."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from kinema.composition import compose, make
from kinema.data.doctor import examine
from kinema.data.findings import Finding, faults
from kinema.errors import DataError
from kinema.modes import doctor
from tests.data.layouts import H36M17, Layout, layout, motionbert, save_motionbert

TRIALS_VAL = ["train_B/wave 4"]


@cache
def _clean() -> Layout:
    return layout()


@pytest.fixture
def data() -> Layout:
    return copy.deepcopy(_clean())


@cache
def _composed(dataset: str) -> DictConfig:
    return compose([f"dataset={dataset}"])


def config(folder: Path, dataset: str = "cmu", **changes: Any) -> DictConfig:
    """A composed data set, with values set at dotted keys (two underscores stand for a dot)."""
    composed = copy.deepcopy(_composed(dataset))
    composed.paths.data_dir, composed.paths.cache_dir = str(folder), str(folder / "cache")
    changes = {"trials_val": TRIALS_VAL, **changes} if dataset == "cmu" else changes
    for key, value in changes.items():
        OmegaConf.update(composed.dataset, key.replace("__", "."), value)
    return composed


def examined(folder: Path, dataset: str = "cmu", **changes: Any) -> list[Finding]:
    return examine(make(config(folder, dataset, **changes).dataset, _recursive_=False))


def summary(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.text) for finding in findings]


def test_clean_data_passes_every_check(tmp_path: Path, data: Layout) -> None:
    data.save(tmp_path)
    findings = examined(tmp_path)
    assert {finding.severity for finding in findings} == {"ok"}, summary(findings)
    looked = {finding.check for finding in findings}
    assert looked >= {
        "files", "contents", "NaN", "subjects", "overlap", "frame rate", "image", "units", "bones", "left and right",
        "projection", "speed", "cache",
    }  # fmt: skip
    assert doctor.run(config(tmp_path)) is None


def test_cache_is_measured_and_not_written(tmp_path: Path, data: Layout) -> None:
    data.save(tmp_path)
    assert examined(tmp_path)[-1].text.startswith("0.0 MB")
    assert not (tmp_path / "cache").exists()


Tamper = Callable[[Layout], Any]


def each(data: Layout, change: Callable[[np.ndarray], np.ndarray], dimensions: int) -> None:
    """Apply a change to every 2D or 3D array."""
    if dimensions == 3:
        data.positions_3d = {s: {a: change(x) for a, x in v.items()} for s, v in data.positions_3d.items()}
    else:
        data.positions_2d = {s: {a: [change(x) for x in c] for a, c in v.items()} for s, v in data.positions_2d.items()}


def mirror_image(data: Layout, swap: bool) -> None:
    order = list(H36M17.flip_index) if swap else slice(None)
    each(data, lambda x: (np.array([1000, 0]) + np.array([-1, 1]) * x)[:, order].astype(np.float32), 2)


def mirror_world(data: Layout) -> None:
    each(data, lambda x: x * np.array([-1, 1, 1], np.float32), 3)
    data.project()


def permute(data: Layout) -> None:
    """Exchange a shoulder and a hip: a wrong joint order, in both files."""
    order = list(range(17))
    order[1], order[14] = 14, 1
    each(data, lambda x: x[:, order], 3)
    data.project()


def shake(data: Layout) -> None:
    random = np.random.default_rng(0)
    world = data.positions_3d["train_A"]["walk 1"]
    world += random.normal(scale=0.08, size=world.shape).astype(np.float32)


def copy_trial(data: Layout) -> None:
    """A training motion among the test motions, under another name and seen by other cameras."""
    data.positions_3d["test_C"]["walk 9"] = data.positions_3d["train_A"]["walk 1"]
    data.project()


def move_cameras(data: Layout) -> None:
    for outer in data.cameras["extrinsics"]["test_C"]:
        outer["translation"] = [value + 0.7 for value in outer["translation"]]


def grow(data: Layout) -> None:
    data.positions_3d["train_A"]["walk 1"] *= 1.4
    data.project()


def jump(data: Layout) -> None:
    data.positions_3d["train_A"]["walk 1"][20:, :, 2] += 0.7
    data.project()


@pytest.mark.parametrize(
    ("tamper", "check", "severity", "text"),
    [
        (lambda d: each(d, lambda x: x * 1000, 3), "units", "fault", "train_A, train_B, test_C average 2.*millimetres"),
        (lambda d: d.positions_3d["train_B"]["walk 3"][5:7].fill(np.nan), "NaN", "fault",
         r"4 sequences hold NaN: train_B/walk 3/0.*2 of 40 frames, from frame 5"),
        (lambda d: d.positions_2d["test_C"]["walk 5"].__setitem__(2, d.positions_2d["test_C"]["walk 5"][2][:30]),
         "lengths and pairs", "fault", "test_C/walk 5/2: 2D has 30 frames, 3D has 40"),
        (lambda d: d.positions_2d["test_C"]["walk 5"].pop(), "lengths and pairs", "fault", "has 3 cameras"),
        (lambda d: d.positions_2d["test_C"].pop("walk 5"), "lengths and pairs", "fault", "walk 5 is in data_3d_cmu"),
        (lambda d: d.positions_2d.pop("test_C"), "lengths and pairs", "fault", "has no subject test_C"),
        (lambda d: each(d, lambda x: x[:, list(H36M17.flip_index)], 2), "left and right", "fault",
         "left and right are exchanged between 2D and 3D: 24 sequences"),
        (lambda d: mirror_image(d, swap=False), "left and right", "fault", "the image is mirrored against the 3D: 24"),
        (lambda d: mirror_image(d, swap=True), "left and right", "fault", "mirrored .* with exchanged labels: 24"),
        (mirror_world, "left and right", "fault", "knees bend backward: train_A, train_B, test_C"),
        (permute, "left and right", "fault", "bones of the two sides differ"),
        (shake, "bones", "fault", "bones change their length by .* train_A/walk 1/0"),
        (grow, "bones", "warning", "another size than their subject's: train_A"),
        (move_cameras, "projection", "fault", "8 sequences, test_C/walk 5/0"),
        (lambda d: each(d, lambda x: np.concatenate([x[20:], x[:20]]), 2), "projection", "fault", "pixels"),
        (lambda d: each(d, lambda x: x / 500 - 1, 2), "image", "fault", "less than 1 % of the image"),
        (lambda d: each(d, lambda x: x * 2, 2), "image", "fault", "24 sequences have many keypoints outside"),
        (copy_trial, "overlap", "fault", r"train_A/walk 1 = test_C/walk 9"),
        (jump, "speed", "warning", r"up to \d+ m/s: train_A/walk 1/0"),
        (lambda d: d.positions_3d["train_A"].update({"walk 1": d.positions_3d["train_A"]["walk 1"][:2]}), "lengths",
         "warning", "4 sequences of less than 3 frames"),
        (lambda d: d.positions_3d.pop("test_C"), "subjects", "fault", r"subjects_test: .* no subject 'test_\*'"),
        (lambda d: d.cameras["extrinsics"].pop("test_C"), "files", "fault", "has no cameras of test_C"),
        (lambda d: each(d, lambda x: np.repeat(x, 2, axis=1)[:, :32], 3), "files", "fault", "32 joints, 17 expected"),
        (lambda d: each(d, lambda x: x[:, :15], 2), "files", "fault", "15 joints in the image, 17 expected"),
    ],
)  # fmt: skip
def test_fault_is_found(tmp_path: Path, data: Layout, tamper: Tamper, check: str, severity: str, text: str) -> None:
    tamper(data)
    data.save(tmp_path)
    findings = examined(tmp_path)
    found = [finding for finding in findings if finding.severity != "ok"]
    assert any((one.check, one.severity) == (check, severity) and re.search(text, one.text) for one in found), summary(
        found
    )
    assert all(one.remedy for one in found)
    if severity == "fault":
        with pytest.raises(DataError, match=r"doctor found \d+ faults? in dataset=cmu"):
            doctor.run(config(tmp_path))
    else:
        assert not faults(findings), summary(found)
        assert doctor.run(config(tmp_path)) is None


@pytest.mark.parametrize(
    ("changes", "check", "severity", "text"),
    [
        ({"unit": "mm"}, "units", "fault", "far too short for metres"),
        ({"fps": 25}, "files", "fault", "cameras_cmu.json says 50 frames per second, not 25"),
        ({"subjects_train": ["train_A", "train_Z"]}, "subjects", "fault", "no subject 'train_Z'"),
        ({"subjects_train": ["train_A"], "trials_val": []}, "subjects", "warning", "in no split: train_B"),
        (
            {"subjects_train": ["*"]},
            "overlap",
            "fault",
            "2 trials are in train and test: test_C/squat 6, test_C/walk 5",
        ),
        ({"trials_val": ["train_A/walk"]}, "subjects", "fault", "no trial 'train_A/walk'"),
        ({"trials_val": []}, "subjects", "warning", "val: no sequence"),
        ({"skeleton": "humaneva15", "num_joints_out": 15}, "files", "fault", "17 joints, 15 expected"),
    ],
)
def test_yaml_that_does_not_fit_is_found(
    tmp_path: Path, data: Layout, changes: dict[str, Any], check: str, severity: str, text: str
) -> None:
    data.save(tmp_path)
    found = [finding for finding in examined(tmp_path, **changes) if finding.severity != "ok"]
    assert [(one.check, one.severity) for one in found if text in one.text] == [(check, severity)], summary(found)


def test_masked_nan_is_a_warning(tmp_path: Path, data: Layout) -> None:
    data.positions_3d["train_B"]["walk 3"][5, 3] = np.nan
    data.save(tmp_path)
    found = [finding for finding in examined(tmp_path, on_nan="mask") if finding.severity != "ok"]
    assert [(one.check, one.severity) for one in found] == [("NaN", "warning")]


def test_several_faults_are_found_in_one_examination(tmp_path: Path, data: Layout) -> None:
    data.positions_3d["train_B"]["walk 3"][5, 3] = np.nan
    data.positions_2d["train_A"]["walk 1"][0] = data.positions_2d["train_A"]["walk 1"][0][:-1]
    data.positions_2d["test_C"]["walk 5"] = [
        x[:, list(H36M17.flip_index)] for x in data.positions_2d["test_C"]["walk 5"]
    ]
    data.save(tmp_path)
    found = {finding.check for finding in faults(examined(tmp_path))}
    assert found == {"NaN", "lengths and pairs", "left and right"}


def test_many_faults_of_one_kind_are_counted(tmp_path: Path, data: Layout) -> None:
    each(data, lambda x: x[:-1], 2)
    # One sequence stays whole, so that there is something left to examine.
    data.positions_2d["train_A"]["walk 1"] = [np.zeros((40, 17, 2), np.float32)] * 4
    data.save(tmp_path)
    found = [finding for finding in examined(tmp_path) if finding.check == "lengths and pairs"]
    assert len(found) == 20
    each(data, lambda x: x, 2)
    data.positions_3d["train_A"]["kick 7"] = data.positions_3d["train_A"]["squat 2"]
    data.save(tmp_path)
    assert examined(tmp_path)[21].text == "1 more of this kind"


def test_missing_and_damaged_files_are_faults(tmp_path: Path, data: Layout) -> None:
    findings = examined(tmp_path)
    assert [finding.check for finding in findings] == ["files"]
    assert f"data_3d_cmu.npz not found in {tmp_path / 'cmu_mocap'}" in findings[0].text
    assert "docs/datasets/cmu.md" in findings[0].remedy
    data.save(tmp_path)
    path = tmp_path / "data_2d_cmu_noisy.npz"
    path.write_bytes(path.read_bytes()[:-500])
    findings = examined(tmp_path)
    assert "data_2d_cmu_noisy.npz is no readable npz file" in faults(findings)[0].text


def test_malicious_file_is_a_fault_and_runs_nothing(tmp_path: Path, data: Layout) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    data.positions_3d["train_A"]["walk 1"] = Attack()  # type: ignore[assignment]
    data.save(tmp_path)
    found = faults(examined(tmp_path))
    assert "asks for" in found[0].text
    assert not (tmp_path / "executed").exists()


def test_detections_without_3d_pass(tmp_path: Path, data: Layout) -> None:
    data.positions_2d = {"clip.mp4": {"custom": [data.positions_2d["train_A"]["walk 1"][0]]}}
    data.metadata["video_metadata"] = {"clip.mp4": {"w": 1000, "h": 1002}}
    data.save(tmp_path, "custom", "myvideos")
    findings = examined(tmp_path, "custom")
    assert {finding.severity for finding in findings} == {"ok"}, summary(findings)


def test_image_space_file_passes_and_wrong_targets_are_found(tmp_path: Path) -> None:
    splits = motionbert()
    save_motionbert(tmp_path, splits)
    findings = examined(tmp_path, "h36m_sh")
    assert {finding.severity for finding in findings} == {"ok"}, summary(findings)
    assert "2.5D targets" in {finding.check for finding in findings}
    splits["test"]["2.5d_factor"] = splits["test"]["2.5d_factor"] * 1.1
    save_motionbert(tmp_path, splits)
    found = faults(examined(tmp_path, "h36m_sh"))
    assert [finding.check for finding in found] == ["2.5D targets"]


def test_frame_rate_of_yaml_and_reader_must_agree(tmp_path: Path) -> None:
    save_motionbert(tmp_path, motionbert())
    found = faults(examined(tmp_path, "h36m_sh", reader_options__fps=25))
    assert [(one.check, one.text) for one in found] == [("frame rate", "25 per second, but dataset.fps=50")]


def test_mode_prints_the_findings(tmp_path: Path, data: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    each(data, lambda x: x * 1000, 3)
    data.save(tmp_path)
    with pytest.raises(DataError, match=r"doctor found 1 fault in dataset=cmu\. First: units: Bones of subject"):
        doctor.run(config(tmp_path))
    shown = capsys.readouterr().out
    assert "fault" in shown
    assert "dataset.unit=mm" in shown


def test_short_videos_are_told_where_clips_are_strided(tmp_path: Path) -> None:
    save_motionbert(tmp_path, motionbert())  # 30 and 31 frames in both splits

    def clips(frames: int | None) -> list[tuple[str, str]]:
        found = examined(tmp_path, "h36m_sh", frames=frames)
        return [(one.severity, one.text) for one in found if one.check == "clips"]

    assert clips(30) == [("ok", f"{split}: every video has a clip of 30 frames") for split in ("train", "test")]
    assert [severity for severity, _ in clips(31)] == ["warning", "warning"]
    assert "1 videos are shorter than a clip of 31 frames and are resampled at random" in clips(31)[0][1]
    lost = [text for _, text in clips(40) if "left out" in text]
    name = "S9/s_09_act_05_subact_02/3"
    assert lost[1] == f"test: {name} is left out: as the last video, with 31 of 40 frames, it gives no clip"
    assert [severity for severity, _ in clips(None)] == ["ok", "ok"]

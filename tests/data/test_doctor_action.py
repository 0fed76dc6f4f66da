"""The doctor on action clips: clean clips pass, and every fault that a format checker should find is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from kinema.composition import compose, make
from kinema.data.doctor import examine
from kinema.data.doctor_action import same_clips
from kinema.data.findings import Finding, faults
from kinema.data.readers import ma52
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.skeleton import Body
from kinema.errors import DataError
from kinema.modes import doctor
from tests.data import clip_layouts
from tests.data.clip_layouts import CLASSES, options, save

SPLITS = {
    "train": {f"000{i}_{i}": i % 3 for i in range(6)},
    "val": {f"001{i}_{i}": i % 3 for i in range(3)},
    "test": {f"002{i}_{i}": i % 3 for i in range(3)},
}


@cache
def _composed(dataset: str) -> str:
    return OmegaConf.to_yaml(compose([f"dataset={dataset}"]))


def config(root: Path, dataset: str = "ma52", **changes: Any) -> DictConfig:
    made = OmegaConf.create(_composed(dataset))
    changes = {"root": str(root), "cache_dir": None, "classes": list(CLASSES), "num_classes": 3, **changes}
    for key, value in changes.items():
        OmegaConf.update(made.dataset, key.replace("__", "."), value)
    assert isinstance(made, DictConfig)
    return made


def examined(root: Path, dataset: str = "ma52", **changes: Any) -> list[Finding]:
    return examine(make(config(root, dataset, **changes).dataset, _recursive_=False))


def texts(findings: list[Finding], severity: str) -> str:
    return "\n".join(f"{one.check}: {one.text} {one.remedy}" for one in findings if one.severity == severity)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return clip_layouts.ma52(tmp_path / "ma52", SPLITS)


def test_clean_clips_pass_every_check(root: Path) -> None:
    findings = examined(root)
    assert {finding.severity for finding in findings} == {"ok"}
    said = texts(findings, "ok")
    for words in (
        "layout: train: 6 folders, 6 with pose_3d.npy, 6 of them labelled",
        "contents: 12 clips, 129 frames",
        "classes: train: 6 clips of 3 classes, 2 of each",
        "lengths: 9 to 14 frames",
        "overlap: no clip and no recording is in train and val",
        "copies: no two clips are the same",
        "motion: every clip moves and has depth",
    ):
        assert words in said


def copied(source: str, target: str, change: Callable[[np.ndarray], np.ndarray] = lambda x: x) -> Any:
    def tamper(root: Path) -> None:
        save(root / target / "pose_3d.npy", change(np.load(root / source / "pose_3d.npy")))

    return tamper


def listed(split: str, line: str) -> Any:
    def tamper(root: Path) -> None:
        path = root / f"{split}_labels.txt"
        path.write_text(path.read_text() + line + "\n")

    return tamper


def relabelled(old: str, new: str) -> Any:
    def tamper(root: Path) -> None:
        path = root / "train_labels.txt"
        path.write_text(path.read_text().replace(old, new))

    return tamper


def both(*tampers: Callable[[Path], None]) -> Any:
    def tamper(root: Path) -> None:
        for one in tampers:
            one(root)

    return tamper


def array(name: str, value: np.ndarray) -> Any:
    return lambda root: save(root / name / "pose_3d.npy", value)


def broken(root: Path) -> None:
    (root / "train/0001_1/pose_3d.npy").write_bytes(b"no array")


def slight(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) * 1.5 + 1e-6


STILL = np.repeat(clip_layouts.clip(70, frames=1), 9, axis=0)
CLIP = clip_layouts.clip(71)
HOLE = np.where(np.arange(9)[:, None, None] == 5, np.nan, CLIP)

FOUND = {
    "id range": (
        relabelled("0001_1.mp4 1", "0001_1.mp4 7"), "fault",
        "Clip 0001_1 has label 7, but 3 classes have the ids 0 to 2.",
    ),
    "two ids": (listed("train", "0001_1 2"), "fault", "train_labels.txt gives 0001_1 two different ids."),
    "NaN": (array("train/0001_1", HOLE), "fault", "Clip 0001_1: 1 of 9 frames hold NaN (first 5)."),
    "no frame": (array("val/0010_0", CLIP[:0]), "fault", "Clip 0010_0 is empty: no frame."),
    "one frame": (array("val/0010_0", CLIP[:1]), "fault", "Clip 0010_0 has 1 frame, dataset.min_frames=2."),
    "every file": (broken, "fault", "0001_1/pose_3d.npy cannot be read"),
    "joints": (array("test/0020_0", CLIP[:, 1:]), "fault", "Clip 0020_0 has shape (1, 9, 16, 3)"),
    "planar": (array("test/0020_0", CLIP * [1, 1, 0]), "fault", "Clip 0020_0 is flat"),
    "missing label": (array("test/new", CLIP), "fault", "Clip new has no label."),
    "extra label": (listed("test", "ghost 1"), "fault", "test_labels.txt gives ghost a label, but there is no such"),
    "overlap by name": (
        both(copied("train/0001_1", "test/0001_1", slight), listed("test", "0001_1 1")), "fault",
        "overlap: 1 clip in train and in test: 0001_1 Remove them from one of the lists.",
    ),
    "overlap by content": (
        both(copied("train/0001_1", "test/9999", slight), listed("test", "9999 1")), "fault",
        "copies: 1 clip in two stages under two names: train/0001_1 = test/9999",
    ),
    "twice in a split": (
        both(copied("train/0001_1", "train/9999"), listed("train", "9999 1")), "warning",
        "copies: 1 clip twice under two names: train/0001_1 = train/9999",
    ),
    "class not trained": (
        relabelled(".mp4 2", ".mp4 1"), "fault", "classes: train: 1 of 3 classes have no clip: sitting",
    ),
    "class not tested": (
        lambda root: (root / "test_labels.txt").write_text("0020_0 0\n0021_1 1\n0022_2 1\n"), "warning",
        "classes: test: 1 of 3 classes have no clip: sitting",
    ),
    "duplicate label": (listed("train", "0001_1 1"), "warning", "labels: train: 1 clip listed more than once: 0001_1"),
    "line without label": (listed("train", "oops"), "warning", "labels: train: 1 line without a label: line 7: oops"),
    "still": (array("train/0001_1", STILL), "warning", "motion: 1 clip without motion: train/0001_1"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_a_fault_is_found(root: Path, name: str) -> None:
    tamper, severity, words = FOUND[name]
    tamper(root)
    findings = examined(root)
    assert words in texts(findings, severity)
    others = [one for one in faults(findings) if words not in f"{one.check}: {one.text} {one.remedy}"]
    # A clip that two splits share is a copy as well, and is told once; nothing else is blamed.
    assert others == []


def test_mode_doctor_fails_on_a_fault(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(config(root)) is None
    listed("test", "ghost 1")(root)
    with pytest.raises(DataError, match=r"doctor found 1 fault in dataset=ma52\. First: clips: test_labels\.txt"):
        doctor.run(config(root))
    assert "ghost" in capsys.readouterr().out


def test_what_the_fork_passes_over_is_told_as_a_warning(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val_labels.txt").unlink()
    listed("test", "ghost 1")(root)
    array("test/new", CLIP)(root)
    (root / "test" / "bare").mkdir()
    array("test/0020_0", CLIP * [1, 1, 0])(root)
    array("test/0021_1", CLIP[:1])(root)
    findings = examined(root, "ma52_fork")
    assert faults(findings) == []
    said = texts(findings, "warning")
    for words in (
        "layout: test: 1 x label without a clip: ghost",
        "layout: test: 1 x folder without pose_3d.npy: test/bare",
        "layout: test: 1 x clip without a label: new",
        "depth: 1 clip without depth: test/0020_0",
        "1 clip of one frame: test/0021_1",
    ):
        assert words in said


def test_validation_cut_from_training_is_examined_too(root: Path) -> None:
    findings = examined(root, split_val=None, validation__by="clip", validation__share=0.34)
    assert "classes: val: 3 clips of 3 classes, 1 of each" in texts(findings, "ok")
    assert "splits: 3 clips of split val are in no stage" in texts(findings, "warning")


def test_a_split_that_is_not_there_is_told(root: Path) -> None:
    said = texts(examined(root, split_test="tset"), "warning")
    assert "splits: test: no clip is of split tset" in said
    assert "splits: 3 clips of split test are in no stage" in said


def test_one_recording_on_both_sides_is_a_fault(root: Path) -> None:
    facts = {"subject": "S", "name": "walk 1", "person": "P", "frames": [0, 9]}
    (root / "segments.json").write_text(json.dumps({"train": {"0001_1": facts}, "test": {"0020_0": facts}}))
    findings = examined(root, reader_options__segments="segments.json")
    assert "overlap: clips of 1 recording in train and in test: S/walk 1" in texts(findings, "fault")


def test_millimetres_are_found_where_metres_matter(root: Path) -> None:
    assert "units: people extend over 1.7 metres" in texts(examined(root, preprocess="heading"), "ok")
    for path in root.rglob("*.npy"):
        np.save(path, 1000 * np.load(path))
    assert "these are no metres" in texts(examined(root, preprocess="heading"), "fault")
    assert faults(examined(root)) == []


def standing(root: Path, turn: Callable[[np.ndarray], np.ndarray]) -> None:
    random = np.random.default_rng(0)
    for number, path in enumerate(sorted(root.rglob("pose_3d.npy"))):
        np.save(path, turn(perform("walk", Body.draw(random), random, 9 + number, 50.0)).astype(np.float32))


def camera(pose: np.ndarray) -> np.ndarray:
    return np.stack([pose[..., 0], -pose[..., 2], pose[..., 1]], -1)


def test_axes_are_looked_at_where_z_must_point_up(root: Path) -> None:
    standing(root, lambda pose: pose)
    assert "axes: z points up" in texts(examined(root, preprocess="heading"), "ok")
    assert "axes: " not in texts(examined(root), "ok")
    standing(root, camera)
    findings = examined(root, preprocess="heading")
    assert "axes: most people lie, or z does not point up" in texts(findings, "warning") and not faults(findings)
    standing(root, lambda pose: pose * [1, 1, -1])
    assert "axes: z points down" in texts(examined(root, preprocess="heading"), "fault")


def test_clips_that_were_lifted_in_camera_axes_are_a_fault_where_z_must_point_up(root: Path) -> None:
    record = root / "train" / "lifted.json"
    record.write_text(json.dumps({"axes": "camera: x right, y down, z away", "unit": "metres", "fps": 50}))
    said = texts(examined(root, preprocess="heading"), "fault")
    assert "axes: clips are in camera axes" in said and str(record) in said and "lift.axes=up" in said
    assert faults(examined(root)) == []
    record.write_text("{")
    assert "lifted.json is damaged" in texts(examined(root, preprocess="heading"), "fault")


def test_a_published_split_that_is_not_whole_is_told(root: Path) -> None:
    findings = examined(root, classes="ma52", num_classes=52)
    assert "classes: val: 3 clips, the published split has 5586" in texts(findings, "warning")


def test_withheld_labels_are_told(tmp_path: Path) -> None:
    splits = {**SPLITS, "test": {"test0000": 0, "test0001": 0}}
    findings = examined(clip_layouts.ma52(tmp_path, splits))
    assert faults(findings) == []
    assert "classes: test: 2 clips, labels withheld (mode=submit)" in texts(findings, "ok")


def test_copies_are_found_among_clips_of_equal_length_and_size(tmp_path: Path) -> None:
    root = clip_layouts.ma52(tmp_path, {"train": {f"c{i}": 0 for i in range(8)}})
    base = clip_layouts.clip(3)
    for i in range(8):
        # Joints in another order have the same mean size; only the last two are copies.
        save(root / "train" / f"c{i}" / "pose_3d.npy", base[:, np.roll(np.arange(17), min(i, 6))])
    assert same_clips(ma52.read(root, **options(preprocess="ma52_fork"))) == [(6, 7)]

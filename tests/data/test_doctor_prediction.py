"""The doctor on motion for prediction: clean motion passes, and every fault of files from elsewhere is found."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from kinema.composition import compose, make
from kinema.core.skeleton import skeleton
from kinema.data.doctor import examine
from kinema.data.findings import Finding
from kinema.errors import DataError
from kinema.modes import doctor
from tests.data.motion_layouts import bvh, moving, save, walk, write

H36M = skeleton("h36m17")
PEOPLE = {"train/anna/walk": 0, "train/ben/run": 1, "val/carl/walk": 2, "test/dora/walk": 3, "test/eva/throw": 4}


@cache
def _composed(dataset: str) -> str:
    return OmegaConf.to_yaml(compose([f"dataset={dataset}"]))


def config(root: Path, dataset: str = "npz_motion", **changes: Any) -> DictConfig:
    made = OmegaConf.create(_composed(dataset))
    for key, value in {"root": str(root), "cache_dir": None, "history": 25, "horizon": 50, **changes}.items():
        OmegaConf.update(made.dataset, key.replace("__", "."), value)
    assert isinstance(made, DictConfig)
    return made


def examined(root: Path, dataset: str = "npz_motion", **changes: Any) -> list[Finding]:
    return examine(make(config(root, dataset, **changes).dataset, _recursive_=False))


def texts(findings: list[Finding], severity: str) -> str:
    return "\n".join(f"{one.check}: {one.text} {one.remedy}".strip() for one in findings if one.severity == severity)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, seed in PEOPLE.items():
        save(tmp_path / f"{name}.npz", walk(seed, 160, name.rpartition("/")[2]), fps=50)
    return tmp_path


def change(name: str, how: Callable[[np.ndarray], np.ndarray], **entries: Any) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        save(root / f"{name}.npz", how(walk(PEOPLE[name], 160, name.rpartition("/")[2])), **{"fps": 50, **entries})

    return spoil


def everybody(how: Callable[[np.ndarray], np.ndarray], **entries: Any) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        for name in PEOPLE:
            change(name, how, **entries)(root)

    return spoil


def test_clean_motion_passes_every_check(root: Path) -> None:
    findings = examined(root)
    assert {finding.severity for finding in findings} == {"ok"}, texts(findings, "warning") + texts(findings, "fault")
    said = texts(findings, "ok")
    for words in (
        "contents: 5 sequences, 800 frames, 5 subjects, 3 actions; pose3d (17, 3)",
        "NaN: every number is finite",
        "subjects: test: 2 sequences, 320 frames, subjects dora, eva",
        "frame rate: 50 per second",
        "units: bones average 0.2",
        "left and right: knees bend forward",
        "windows: train: 172 windows of 25 + 50 frames from 2 sequences",
        "windows: val: 4 windows",
        "pace: hands and feet usually pass the root at up to ",
        "axes: z points up",
        "copies: no sequence of one split is a part of one of another",
    ):
        assert words in said


def nan(pose: np.ndarray) -> np.ndarray:
    pose = pose.copy()
    pose[20:23, 4] = np.nan
    return pose


def turned(pose: np.ndarray) -> np.ndarray:
    """Somewhere else, with another heading."""
    c, s = np.cos(1.1), np.sin(1.1)
    return (pose @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) + (3, 2, 0)).astype(np.float32)


def wobbling(pose: np.ndarray) -> np.ndarray:
    return pose * (1 + 0.5 * np.sin(np.arange(len(pose)) / 5))[:, None, None].astype(np.float32)


def copied(source: str, target: str, how: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    action = source.rpartition("/")[2]
    return lambda root: save(root / f"{target}.npz", how(walk(PEOPLE[source], 160, action)), fps=50) and None


CASES: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str, str]] = {
    "NaN": (change("train/ben/run", nan), {}, "fault", "NaN: 1 sequences hold NaN: ben/run; in the first of"),
    "NaN, masked": (change("train/ben/run", nan), {"on_nan": "mask"}, "warning", "NaN: 1 sequences hold NaN: ben/run"),
    "millimetres": (
        change("train/ben/run", lambda x: x * 1000), {}, "fault",
        "train/ben/run.npz: the body is 1.",
    ),
    "too short": (
        change("train/ben/run", lambda x: x[:70]), {}, "warning",
        "windows: train: 86 windows of 25 + 50 frames; 1 sequence of 2 are shorter than 75 frames, left out: ben/run",
    ),
    "all too short": (
        everybody(lambda x: x[:60]), {}, "fault",
        "windows: test: 0 windows of 25 + 50 frames: the longest of 2 sequences has 60 frames "
        "Use dataset.horizon=34 or less.",
    ),
    "a frame too short for a test": (
        everybody(lambda x: x[:75]), {}, "fault", "windows: val: 0 windows of 25 + 50 frames: the longest of 1",
    ),
    "wrong rate": (
        everybody(lambda x: x[::5]), {"history": 5, "horizon": 10}, "fault",
        "pace: hands and feet of most people pass the root at",
    ),
    "recorded slower": (
        everybody(lambda x: x[::2], fps=25), {}, "warning",
        "recorded rate: 5 sequences recorded at 25 per second, with frames put between them to make 50",
    ),
    "frames repeated": (
        everybody(lambda x: x[::2].repeat(2, 0)), {}, "warning", "repeated frames: in 5 sequences up to 50 % of",
    ),
    "nobody moves": (
        everybody(lambda x: x[:1] + 1e-4 * np.sin(np.arange(160)).astype(np.float32)[:, None, None]), {}, "warning",
        "pace: most people hardly move (0.000 m/s)",
    ),
    "bones change": (change("train/ben/run", wobbling), {}, "fault", "bones: bones change their length by"),
    "y up": (
        everybody(lambda x: np.stack([x[..., 0], x[..., 2], -x[..., 1]], -1)), {}, "warning",
        "axes: most people lie, or z does not point up Fine where they lie. Say which axis of the files points up",
    ),
    "upside down": (everybody(lambda x: x * np.float32((1, -1, -1))), {}, "fault", "axes: z points down: most people"),
    "sides exchanged": (
        everybody(lambda x: x[:, H36M.flip_index]), {}, "fault", "left and right: knees bend backward",
    ),
    "the same motion in two splits": (
        copied("train/anna/walk", "test/dora/walk 2", turned), {}, "fault",
        "overlap: 1 motions are in train and test under two names: anna/walk = dora/walk 2",
    ),
    "a part of it in two splits": (
        copied("train/anna/walk", "test/dora/walk 2", lambda x: turned(x)[30:130]), {}, "fault",
        "copies: 1 sequence in two splits: dora/walk 2 (test) is in anna/walk (train)",
    ),
    "nothing to validate on": (
        lambda root: (root / "val/carl/walk.npz").unlink(), {}, "warning", "subjects: val: no sequence",
    ),
    "an unknown subject": (
        lambda root: None, {"subjects_test": ["dorra"]}, "fault",
        "subjects: dataset.subjects_test: the data has no subject 'dorra'. Did you mean 'dora'?",
    ),
    "nobody for training": (
        lambda root: None, {"subjects_train": [], "subjects_val": [], "subjects_test": ["d*"]}, "warning",
        "subjects: in no split: ",
    ),
    "a broken file": (
        lambda root: (root / "train/ben/run.npz").write_bytes(b"PK"), {}, "fault", "motion: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_faults_are_found(name: str, root: Path) -> None:
    spoil, changes, severity, words = CASES[name]
    spoil(root)
    findings = examined(root, **changes)
    assert words in texts(findings, severity), "\n".join(map(str, findings))


def test_what_is_no_body_of_ours_is_judged_by_its_extent(tmp_path: Path) -> None:
    parents = np.array([-1, 0, 1, 2])
    for i, split in enumerate(("train", "val", "test")):
        sway = 0.3 * np.sin(np.arange(160) / 9 + i)
        pose = np.zeros((160, 4, 3), np.float32)
        pose[:, :, 1] = np.arange(4) * 0.5  # a chain along y
        pose[:, 1:, 0] = sway[:, None]
        save(tmp_path / f"{split}/worm/crawl.npz", pose, parents=parents)
    changes = {"skeleton": None, "num_joints": 4, "num_features": 9}
    findings = examined(tmp_path, **changes)
    assert "axes: bodies extend 1.50 m along y and 0.00 m along z, which should point up" in texts(findings, "warning")
    findings = examined(tmp_path, **changes, reader_options__up="y")
    assert "axes: bodies extend 1.50 m along z" in texts(findings, "ok")


def test_bvh_files_are_examined_and_a_faulty_one_does_not_hide_the_others(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        write(tmp_path / f"{split}/anna{seed}/walk.bvh", bvh(moving(160, seed)))
    write(tmp_path / "train/anna0/cut.bvh", bvh(moving(160, 7))[:-500])
    findings = examined(tmp_path, "bvh_motion")
    assert "cut.bvh says Frames: 160, but holds 159 whole ones: it was cut off" in texts(findings, "fault")
    assert "contents: 3 sequences, 480 frames" in texts(findings, "ok") and "axes: z points up" in texts(findings, "ok")


@pytest.mark.parametrize(
    ("in_file", "sides", "advised"),
    [("right", "correct", "as_is"), ("exchanged", "as_is", "correct"), ("exchanged", "published", "correct")],
)
def test_sides_of_retargeted_motion_are_advised_by_their_option(
    in_file: str, sides: str, advised: str, tmp_path: Path
) -> None:
    clips = np.stack([walk(seed, 160) for seed in range(3)])
    np.save(tmp_path / "amass_retargeted.npy", clips if in_file == "right" else clips[:, :, H36M.flip_index])
    faults = texts(examined(tmp_path, "amass_motion", reader_options__sides=sides), "fault")
    assert "left and right: knees bend backward" in faults and f"dataset.reader_options.sides={advised}" in faults
    findings = examined(tmp_path, "amass_motion", reader_options__sides=advised)
    assert "left and right: knees bend forward" in texts(findings, "ok")


def test_the_mode_exits_with_the_first_fault(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config(root)
    OmegaConf.update(settings, "input", None)
    assert doctor.run(settings) is None
    assert "copies" in capsys.readouterr().out
    change("train/ben/run", nan)(root)
    with pytest.raises(DataError, match=r"doctor found 1 fault in dataset=npz_motion\. First: NaN: 1 sequences"):
        doctor.run(settings)

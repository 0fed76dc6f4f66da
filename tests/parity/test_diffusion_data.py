"""Data of motion prediction on the golden files: skeletons, windows, training batches, groups, multi-modal files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.composition import compose, make
from kinema.core.motion_metrics import groups
from kinema.core.skeleton import skeleton
from kinema.data import multimodal
from kinema.data.motion_orders import Published
from kinema.data.motion_windows import counts
from kinema.data.prediction import PredictionDataModule
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity

# The yaml of a name in the golden files.
YAML = {"h36m": "h36m_motion", "humaneva": "humaneva15_motion"}


def datamodule(case: Case, name: str, file: str, **changes: Any) -> PredictionDataModule:
    """The data set as its yaml has it, on the golden file."""
    told = case.json()
    config = compose([f"dataset={YAML[name]}"]).dataset
    overrides = {
        "root": str(case.path / "data"), "cache_dir": None, "history": told["t_his"], "horizon": told["t_pred"],
        "stride": told["step"], "batch_size": told["batch_size"], "windows_per_epoch": told["num_samples"],
        "seed": told["numpy_seed_train_batches"], "order": "legacy", "augment": [], **changes,
    }  # fmt: skip
    for key, value in overrides.items():
        config[key] = value
    config.reader_options.file = file
    made = make(config, _partial_=True, _recursive_=False)(signature=None)
    assert isinstance(made, PredictionDataModule)
    return made


def published_layout(pose: torch.Tensor, root: int) -> torch.Tensor:
    """Joints relative to the root, which stays where it stands."""
    made = pose - pose[..., root : root + 1, :]
    made[..., root, :] = pose[..., root, :]
    return made


def check_skeleton(case: Case, arrays: Arrays, name: str, data: PredictionDataModule) -> None:
    body = data.skeleton
    source = skeleton(data.source.options["source_skeleton"] or body.name)
    for key, found in (
        ("parents", body.parents), ("joints_left", body.left), ("joints_right", body.right),
        ("kept_joints", source.map_to(body)), ("traj_dim", 3 * (len(body) - 1)),
    ):  # fmt: skip
        case.close(f"{name}_{key}", np.asarray(found), arrays[f"{name}_{key}"])


def check_test(case: Case, arrays: Arrays, name: str, data: PredictionDataModule) -> None:
    windows = data.windows("test")
    assert windows is not None
    rows, columns = windows.table, windows.sequences.table
    with case.check(f"{name}: test windows"):
        assert columns["subject"][rows[:, 0]].tolist() == arrays[f"{name}_test_subject"].tolist()
        assert columns["trial"][rows[:, 0]].tolist() == arrays[f"{name}_test_action"].tolist()
        assert rows[:, 1].tolist() == arrays[f"{name}_test_start"].tolist()
    batches = [data.transform(batch) for batch in data.test_dataloader()]
    shown = torch.cat([batch["index"] for batch in batches]) >= 0
    pose = torch.cat([batch["pose3d"] for batch in batches])[shown]
    case.close(f"{name}_test_windows", published_layout(pose, data.skeleton.root), arrays[f"{name}_test_windows"])
    motion = torch.cat([batch["motion"] for batch in batches])[shown]
    case.close(f"{name}_gt_group", motion[:, data.history :], arrays[f"{name}_gt_group"])
    found = groups(motion[:, data.history - 1], float(arrays[f"{name}_group_threshold"]))
    case.close(f"{name}_group_flat", found[0], arrays[f"{name}_group_flat"])
    case.close(f"{name}_group_ptr", found[1], arrays[f"{name}_group_ptr"])


def check_training(case: Case, arrays: Arrays, name: str, file: str) -> None:
    for augmented in (0, 1):
        data = datamodule(case, name, file, augment=["published_turns"] if augmented else [])
        key = f"{name}_train_batches_aug{augmented}"
        batches = [data.transform(batch, training=True) for batch in data.train_dataloader()]
        pose = torch.stack([published_layout(batch["pose3d"], data.skeleton.root) for batch in batches])
        motion = torch.stack([batch["motion"] for batch in batches])
        expected = arrays[key]
        tolerance = 1e-6 if augmented else 0.0
        case.close(key, pose, expected, atol=tolerance)
        joints = [joint for joint in range(len(data.skeleton)) if joint != data.skeleton.root]
        case.close(f"{key}: motion", motion, expected[..., joints, :].reshape(motion.shape), atol=tolerance)
        windows = data.windows("train")
        assert windows is not None
        if not augmented:
            case.close(f"{name}_train_data_len", windows.sequences.num_frames, arrays[f"{name}_train_data_len"])


def check_multimodal(case: Case, arrays: Arrays, name: str, data: PredictionDataModule) -> None:
    told = case.json()
    windows = data.windows("train")
    assert windows is not None
    chosen = windows.sequences
    made = multimodal.candidates(chosen, data.length, told[f"skip_rate_{name}"])
    case.close(f"{name}_candidate", made, arrays[f"{name}_candidate"], atol=1e-6)
    (path,) = (case.path / "data").glob(f"data_candi_{name}*.npz")
    stored = multimodal.load_candidates(case.file(f"data/{path.name}"))
    case.close(path.name, stored, made, atol=1e-6)

    subjects = list(dict.fromkeys(chosen.table["subject"].tolist()))
    limits = {"near": told["thre_his"], "apart": told["thre_pred"]}
    found = multimodal.index(chosen, made, data.history, subjects=subjects, **limits)
    listed = [rows for trials in found[subjects[0]].values() for rows in trials.values()]
    case.close(f"{name}_mm_first_subject_flat", np.concatenate(listed), arrays[f"{name}_mm_first_subject_flat"])
    ends = np.cumsum([0, *(len(rows) for rows in listed)])
    case.close(f"{name}_mm_first_subject_ptr", ends, arrays[f"{name}_mm_first_subject_ptr"])
    index = multimodal.load_index(case.file(f"data/{name}_multimodal.npz"))
    with case.check(f"{name}_multimodal.npz"):
        assert {s: {t: list(starts) for t, starts in trials.items()} for s, trials in index.items()} == {
            s: {t: list(starts) for t, starts in trials.items()} for s, trials in found.items()
        }
        for subject, trials in index.items():
            for trial, starts in trials.items():
                for start, rows in starts.items():
                    where = f"{subject}/{trial}/{start}"
                    np.testing.assert_array_equal(found[subject][trial][start], rows, err_msg=where)

    # The sampler of the loader, on one generator for windows and choices.
    expected, others = arrays[f"{name}_multi_sample"], arrays[f"{name}_multi_sample_modalities"]
    random = np.random.RandomState(told["numpy_seed_multi_sample"])
    drawn = Published(chosen.table["subject"], counts(windows), batch_size=1, batches=1, seed=0, augmented=False)
    for number in range(len(expected)):
        row = drawn.window(random)
        sequence, start = windows.table[row, :2]
        subject, trial = (str(chosen.table[column][sequence]) for column in ("subject", "trial"))
        pose = torch.from_numpy(np.array(chosen.sequence(sequence)["pose3d"][start : start + data.length]))
        window = published_layout(pose, data.skeleton.root).numpy()
        case.close(f"{name}_multi_sample[{number}]", window, expected[number])
        first = chosen.sequence(int((chosen.table["subject"] == subject).argmax()))["pose3d"][0]
        modes = multimodal.modalities(
            window, index[subject][trial][int(start)], stored, np.asarray(first), data.skeleton,
            history=data.history, most=others.shape[1], random=random,
        )  # fmt: skip
        case.close(f"{name}_multi_sample_modalities[{number}]", modes, others[number], atol=1e-6)


@cases("diffusion", "dataset")
def test_dataset(case: Case) -> None:
    arrays = case.arrays()
    files = {path.name: path for path in (case.path / "data").glob("data_3d_*.npz")}
    for name in sorted({re.sub("_parents$", "", key) for key in arrays if key.endswith("_parents")}):
        (file,) = [file for file in files if file.startswith(f"data_3d_{name}")]
        case.file(f"data/{file}")
        data = datamodule(case, name, file)
        check_skeleton(case, arrays, name, data)
        check_test(case, arrays, name, data)
        check_training(case, arrays, name, file)
        check_multimodal(case, arrays, name, data)
    case.finish()


def test_multimodal_files_are_written_as_they_are_read(tmp_path: Path) -> None:
    directions = np.random.default_rng(0).normal(size=(3, 4, 5, 3)).astype(np.float32)
    index = {"S1": {"Walking 1": {0: np.array([1, 2]), 1: np.array([], np.int64)}}}
    multimodal.save(tmp_path, candidates=("data_candi_x", directions), index=("t_his_x", index))
    np.testing.assert_array_equal(multimodal.load_candidates(tmp_path / "data_candi_x.npz"), directions)
    read = multimodal.load_index(tmp_path / "t_his_x.npz")
    assert {start: rows.tolist() for start, rows in read["S1"]["Walking 1"].items()} == {0: [1, 2], 1: []}

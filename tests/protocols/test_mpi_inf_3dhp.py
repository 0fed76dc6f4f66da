"""The MPI-INF-3DHP protocol against plain loops; sheets, export, and a run from files to reports."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.core.keypoints import h36m_to_mpi_inf_3dhp, mpi_inf_3dhp_to_h36m
from kinema.core.skeleton import skeleton
from kinema.data.sequences import Sequences
from kinema.data.windows import SEQUENCE, Windows
from kinema.errors import ConfigError
from kinema.protocols import mpi_inf_3dhp
from kinema.protocols.mpi_inf_3dhp import MPIINF3DHPProtocol, save_inference
from kinema.protocols.report import Report
from tests.data import mpi_layout
from tests.e2e.running import metrics, run
from tests.protocols.stores import batches, picks, store

BODY = skeleton("mpi_inf_3dhp17")
LENGTHS = {"TS1": 7, "TS2": 5, "TS3": 6, "TS5": 9}


def image_store(*, activity: bool = True, valid: bool = True) -> Sequences:
    """Test sequences in image space; bodies of a metre around a root that is metres away."""
    random = np.random.default_rng(1)
    items = []
    for name, length in LENGTHS.items():
        width, height = (1920, 1080) if name == "TS5" else (2048, 2048)
        pose = random.normal(size=(length, 17, 3)) * 150 + np.array([100, -50, 4000])
        item: dict[str, Any] = {
            "pose2d": random.uniform(-1, 1, (length, 17, 2)).astype(np.float32),
            "pose3d": (pose / width * 2 - np.array([1, height / width, 0])).astype(np.float32),
            "subject": name, "action": name, "trial": name, "split": "test", "width": width, "height": height,
        }  # fmt: skip
        if valid:
            item["valid"] = np.arange(length) % 4 != 2
        if activity:
            item["activity"] = np.arange(length) % 3  # 0: none
        items.append(item)
    return Sequences.from_arrays(items, skeleton=BODY, skeleton2d=BODY, space="image")


def predicted(batch: dict[str, Tensor], scale: float = 0.06) -> Tensor:
    """Near the truth, the same for the same frame in whatever window; the root is not predicted as zero."""
    target = batch["pose3d"] - batch["pose3d"][..., BODY.root : BODY.root + 1, :]
    noise = np.stack([[np.random.default_rng([4, int(frame)]).normal(size=(17, 3)) for frame in row]
                      for row in batch["frames"].tolist()])  # fmt: skip
    return target + scale * torch.from_numpy(noise.astype(np.float32))


def judged(windows: Windows, **options: Any) -> Report:
    protocol = MPIINF3DHPProtocol(windows, **options)
    for batch in batches(windows):
        protocol.update(predicted(batch), batch)
    return protocol.compute()


def loops(sequences: Sequences, relative: bool = True) -> tuple[np.ndarray, list[str], list[int]]:
    """Errors of every valid frame, its sequence and its activity, one frame after another."""
    whole = Windows.whole(sequences)
    errors, names, activities = [], [], []
    for batch in batches(whole):
        row = int(whole.table[int(batch["index"]), SEQUENCE])
        arrays, width = sequences.sequence(row), int(sequences.table["width"][row])
        for frame, pose in enumerate(predicted(batch)[0].double().numpy()):
            if not arrays["valid"][frame]:
                continue
            pose = pose.copy()
            if relative:
                pose[14] = 0
            pose = (pose - pose[14]) * width / 2
            truth = arrays["pose3d"][frame].astype(np.float64) * width / 2
            errors.append([np.sqrt(((pose[j] - (truth[j] - truth[14])) ** 2).sum()) for j in range(17)])
            names.append(str(sequences.table["subject"][row]))
            activities.append(int(arrays["activity"][frame]))
    return np.asarray(errors), names, activities


@pytest.mark.parametrize("relative", [True, False])
def test_numbers_equal_plain_loops(relative: bool) -> None:
    sequences = image_store()
    errors, names, activities = loops(sequences, relative)
    report = judged(Windows.centred(sequences, 5), root_relative=relative)
    joints = [joint for joint in range(17) if joint not in (14, 15, 16)]
    assert report.scalars["mpjpe"] == pytest.approx(errors.mean(), abs=1e-6)
    assert report.scalars["mpjpe_no_root"] == pytest.approx(errors.mean() * 17 / 16, abs=1e-6)
    assert report.scalars["pck"] == pytest.approx(100 * (errors[:, joints] < 150).mean())
    curve = [(errors[:, joints] < 5 * step).mean() for step in range(31)]
    assert report.scalars["auc"] == pytest.approx(100 * np.mean(curve))
    assert 5 < report.scalars["auc"] < report.scalars["pck"] < 95  # the numbers could be wrong
    np.testing.assert_allclose(report.arrays["errors"], errors, atol=1e-6)
    assert report.arrays["sequence"].tolist() == names
    rows = {row["sequence"]: row for row in report.tables["sequence"]}
    assert {name: row["frames"] for name, row in rows.items()} == {name: names.count(name) for name in LENGTHS}
    for name, row in rows.items():
        assert row["mpjpe"] == pytest.approx(errors[np.array(names) == name].mean(), abs=1e-6)
    scenes = {row["scene"]: row for row in report.tables["scene"]}
    studio = np.isin(names, ["TS1", "TS2"])
    assert scenes["studio, green screen"]["mpjpe"] == pytest.approx(errors[studio].mean(), abs=1e-6)
    assert scenes["studio, green screen"]["frames"] == studio.sum()
    assert [row["activity"] for row in report.tables["activity"]] == ["Standing/Walking", "Exercising"]
    assert report.tables["activity"][1]["mpjpe"] == pytest.approx(errors[np.array(activities) == 2].mean(), abs=1e-6)
    elbows = next(row for row in report.tables["group"] if row["group"] == "Elbow")
    assert elbows["pck"] == pytest.approx(100 * (errors[:, [3, 6]] < 150).mean())


def test_every_way_to_cut_the_sequences_judges_the_same_frames() -> None:
    sequences = image_store()
    expected = judged(Windows.centred(sequences, 5))
    for windows in (
        Windows.whole(sequences),
        Windows.tiled(sequences, 4, 3),
        Windows.stretched(sequences, 4, 4),
        Windows.centred(sequences, 1, context=(2, 2)),
    ):
        found = judged(windows)
        assert found.scalars == pytest.approx(expected.scalars, abs=1e-6)
        np.testing.assert_allclose(found.arrays["errors"], expected.arrays["errors"], atol=1e-6)


def test_batches_fillers_and_ranks_do_not_matter() -> None:
    windows = Windows.centred(image_store(), 3)
    expected = judged(windows)
    ranks = [MPIINF3DHPProtocol(windows) for _ in range(2)]
    rows = list(range(len(windows)))[::-1]
    for rank, protocol in enumerate(ranks):
        for start in range(rank * 4, len(rows), 8):
            batch = windows[picks([*rows[start : start + 4], -1])]
            protocol.update(predicted(batch), batch)
    for state in ("poses", "counts"):
        setattr(ranks[0], state, sum(getattr(protocol, state) for protocol in ranks))
    np.testing.assert_allclose(ranks[0].compute().arrays["errors"], expected.arrays["errors"], atol=1e-9)


def test_frames_that_were_not_predicted_are_left_out() -> None:
    windows = Windows.centred(image_store(), 3)
    protocol = MPIINF3DHPProtocol(windows)
    batch = windows[picks([0, 1])]
    protocol.update(predicted(batch), batch)
    report = protocol.compute()
    assert report.arrays["frame"].tolist() == [0, 1]
    assert [row["sequence"] for row in report.tables["sequence"]] == ["TS1"]
    assert report.scalars["mpjpe"] == pytest.approx(loops(windows.sequences)[0][:2].mean(), abs=1e-6)


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


def test_sheets_have_the_official_layout() -> None:
    sequences = image_store()
    report = judged(Windows.centred(sequences, 5))
    sheet = rows_of(report.files["sequencewise.csv"])
    assert {len(row) for row in sheet} == {19}
    assert sheet[0] == ["", *BODY.joints, "Average"]
    assert [row[0] for row in sheet[1:]] == [
        "TestSeq1", "TestSeq2", "TestSeq3", "TestSeq5", "PCK", "TestSeq1", "TestSeq2", "TestSeq3", "TestSeq5", "AUC",
        "TestSeq1", "TestSeq2", "TestSeq3", "TestSeq5",
    ]  # fmt: skip
    assert sheet[5] == ["PCK", "Head", "Neck", "Shou", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "Total", *[""] * 9]
    errors, names, activities = loops(sequences)
    mine = errors[np.array(names) == "TS2"]
    assert [float(cell) for cell in sheet[2][1:]] == pytest.approx([*mine.mean(0), mine.mean()], abs=1e-6)
    assert float(sheet[2][15]) == 0  # the root
    activity = rows_of(report.files["activitywise.csv"])
    assert [row[0] for row in activity[1:9]] == [*mpi_inf_3dhp.ACTIVITIES, "All"]
    assert float(activity[8][-1]) == pytest.approx(errors.mean(), abs=1e-6)
    exercising = errors[np.array(activities) == 2]
    assert float(activity[2][-1]) == pytest.approx(exercising.mean(), abs=1e-6)
    assert activity[3][1:] == ["-"] * 18  # nobody sits


def test_without_labels_activities_are_dashes() -> None:
    report = judged(Windows.centred(image_store(activity=False), 5))
    assert "activity" not in report.tables
    sheet = rows_of(report.files["activitywise.csv"])
    for row in sheet[1:8]:
        assert row[1:] == ["-"] * 18
    assert sheet[8][0] == "All"
    assert float(sheet[8][-1]) == pytest.approx(report.scalars["mpjpe"], abs=1e-6)


def test_poses_are_exported_for_the_official_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = image_store()
    report = judged(Windows.centred(sequences, 5))
    with np.load(save_inference(report, tmp_path / "inference_data.npz")) as file:
        assert file.files == list(LENGTHS)
        pose = file["TS5"]
    valid = sequences.sequence(3)["valid"]
    assert pose.shape == (3, 17, 1, valid.sum())
    truth = sequences.sequence(3)["pose3d"][valid].astype(np.float64) * 960
    errors = np.linalg.norm(pose[:, :, 0].transpose(2, 1, 0) - (truth - truth[:, [14]]), axis=-1)
    np.testing.assert_allclose(errors, report.arrays["errors"][report.arrays["sequence"] == "TS5"], atol=1e-3)
    with pytest.raises(ConfigError, match=r"neither \.mat nor \.npz"):
        save_inference(report, tmp_path / "inference_data.txt")

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(mpi_inf_3dhp.importlib, "import_module", absent)
    with pytest.raises(ConfigError, match="needs SciPy"):
        save_inference(report, tmp_path / "inference_data.mat")


def test_mat_files_are_written_where_scipy_is(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    report = judged(Windows.centred(image_store(), 5))
    stored = scipy_io.loadmat(save_inference(report, tmp_path / "inference_data.mat"))
    np.testing.assert_array_equal(stored["TS2"], report.arrays["inference/TS2"])


def test_other_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="dataset=mpi_inf_3dhp"):
        MPIINF3DHPProtocol(Windows.whole(store([5])))


def test_joint_orders_agree_in_their_sides() -> None:
    human = skeleton("h36m17")
    named = np.array(human.joints)
    order = list(BODY.tables["h36m17"])
    other = {"thorax": "neck", "nose": "head", "head": "head_top"}
    assert [BODY.joints[joint] for joint in order] == [other.get(name, name) for name in named]
    pose = np.random.default_rng(0).normal(size=(4, 17, 3))
    np.testing.assert_array_equal(h36m_to_mpi_inf_3dhp(mpi_inf_3dhp_to_h36m(pose)), pose)
    np.testing.assert_array_equal(mpi_inf_3dhp_to_h36m(torch.from_numpy(pose)).numpy(), pose[:, order])
    mirrored = mpi_inf_3dhp_to_h36m(pose[:, list(BODY.flip_index)])
    np.testing.assert_array_equal(mirrored, mpi_inf_3dhp_to_h36m(pose)[:, list(human.flip_index)])


@pytest.mark.slow
def test_a_run_trains_selects_and_reports(tmp_path: Path) -> None:
    made = mpi_layout.contents(frames=20)
    mpi_layout.save(tmp_path / "data", made, mpi_layout.labels(made[mpi_layout.TEST]))
    words = [
        "dataset=mpi_inf_3dhp", f"paths.data_dir={tmp_path / 'data'}", f"paths.cache_dir={tmp_path / 'cache'}",
        "model=dstformer_tiny", "model.num_frames=9", "model.dim=16", "model.dim_rep=16", "model.depth=1",
        "model.num_heads=2", "trainer=cpu", "trainer.max_epochs=1", "task/optimizer=adam",
    ]  # fmt: skip
    folder = tmp_path / "run"
    run(*words, f"hydra.run.dir={folder}", cwd=tmp_path)
    values = metrics(folder)
    valid = sum(int(views["valid"].sum()) for views in made[mpi_layout.TEST].values())
    assert values["test/mpjpe"] == pytest.approx(values["val/mpjpe"], rel=1e-5)
    assert values["test/mpjpe"] * 17 / 16 == pytest.approx(values["test/mpjpe_no_root"], rel=1e-5)
    assert "test/mpjpe_activity/Exercising" in values
    assert "test/pck_sequence/TS5" in values
    sheets = sorted(path.name for path in folder.glob("*wise.csv"))
    assert sheets == ["report_activitywise.csv", "report_sequencewise.csv"]
    with np.load(folder / "predictions" / "report.npz") as file:
        assert len(file["errors"]) == valid
        assert file["inference/TS1"].shape[:3] == (3, 17, 1)
    whole = tmp_path / "whole"
    run(*words, "mode=test", f"ckpt={folder / 'checkpoints' / 'best.ckpt'}", "dataset.eval_windows.kind=whole",
        f"hydra.run.dir={whole}", cwd=tmp_path)  # fmt: skip
    with np.load(whole / "predictions" / "report.npz") as file:
        assert len(file["errors"]) == valid

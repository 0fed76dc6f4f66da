"""HumanEva-I from its export to a report: any network, COCO in and 15 joints out, P2 per subject and action."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest

from kinema.composition import compose, make, quieten_lightning
from kinema.core.skeleton import skeleton
from kinema.data.convert.humaneva import convert
from kinema.data.safe_pickle import load_npz
from kinema.errors import DataError
from kinema.modes.train import build
from tests.data.convert import originals
from tests.e2e.running import in_process, metrics

pytest.importorskip("scipy.io", reason="the converter of HumanEva-I needs SciPy (kinema[mat])")

COCO = ["dataset.reader_options.keypoints=detectron_pt_coco", "dataset.skeleton2d=coco17", "dataset.num_joints=17"]
SHORT = ["trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "dataset.batch_size=16"]
CLIPS = ["model.num_frames=9", "model.dim=16", "model.depth=1"]
# The published graph has the 17 joints of Human3.6M.
BONES = [list(bone) for bone in skeleton("humaneva15").bones]
NETWORKS = {
    "videopose3d": ["model=videopose3d", "model.filter_widths=[3,3]", "model.channels=16"],
    "poseformer": ["model=poseformer", "model.num_frames=9", "model.dim=8", "model.depth=1"],
    "dstformer": ["model=dstformer_tiny", "model.dim_rep=16", *CLIPS],
    "motionagformer": ["model=motionagformer_xs", "model.dim_rep=16", f"model.edges={BONES}", *CLIPS],
    "dbmambapose": ["model=dbmambapose_xs", "model.dim_rep=16", *CLIPS],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted files, and COCO keypoints of the same frames with stretches that have no 3D."""
    home = tmp_path_factory.mktemp("humaneva")
    output = home / "humaneva15"
    convert([originals.humaneva(home / "exported", frames=26)], output)
    body, kept = skeleton("coco17"), skeleton("humaneva15")
    places = [kept.index(name) if name in kept.joints else kept.index("head") for name in body.joints]
    flat = {
        subject: {action: [view[:, places] for view in views] for action, views in actions.items()}
        for subject, actions in load_npz(output / "data_2d_humaneva15_gt.npz")["positions_2d"].items()
    }
    flat["Unlabeled/Train/S1"] = {"Walking 1 chunk2": [np.zeros((2, 17, 2), np.float32)] * 3}
    metadata = {"layout_name": "coco", "num_joints": 17, "keypoints_symmetry": [list(body.left), list(body.right)]}
    values = {"positions_2d": np.array(flat, dtype=object), "metadata": np.array(metadata, dtype=object)}
    np.savez(output / "data_2d_humaneva15_detectron_pt_coco.npz", **values)
    return home


def words(folder: Path, network: str, *more: str) -> list[str]:
    return [*NETWORKS[network], "dataset=humaneva15", f"paths.data_dir={folder}", *SHORT, *more]


def fitted(config: Any) -> tuple[Any, Any, Any]:
    """Two steps and a test in this process, without files."""
    quieten_lightning()
    model, data, task = build(config)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=2, limit_val_batches=0, limit_test_batches=4, use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data, verbose=False)
    return model, data, trainer


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_learns_fifteen_joints(folder: Path, network: str) -> None:
    model, _, trainer = fitted(compose(words(folder, network)))
    assert (model.signature.joints, model.signature.joints_out) == (15, 15)
    assert np.isfinite(float(trainer.callback_metrics["test/p_mpjpe"]))


@pytest.mark.parametrize("network", ["videopose3d", "poseformer"])
def test_coco_keypoints_become_fifteen_joints(folder: Path, network: str) -> None:
    model, data, trainer = fitted(compose(words(folder, network, *COCO)))
    assert (model.signature.joints, model.signature.joints_out) == (17, 15)
    sequences = data.sequences
    assert sequences.arrays["pose2d"].shape[1:] == (17, 2) and sequences.arrays["pose3d"].shape[1:] == (15, 3)
    assert not [name for name in sequences.table["subject"].tolist() if name.startswith("Unlabeled")]
    assert np.isfinite(float(trainer.callback_metrics["test/p_mpjpe"]))


def test_the_protocol_trains_on_three_actions_of_three_people(folder: Path) -> None:
    _, data, _ = build(compose(words(folder, "videopose3d")))
    for stage, split in (("train", "Train"), ("test", "Validate"), ("val", "Validate")):
        table = data.windows(stage).sequences.table
        rows = list(zip(*(table[key].tolist() for key in ("subject", "trial", "camera")), strict=True))
        # subjects as configured, actions in the order of the 2D file, cameras C1 to C3
        assert rows == [
            (f"{split}/{person}", trial, camera)
            for person in ("S1", "S2", "S3")
            for trial in ("Box 1 chunk0", "Jog 1 chunk0", "Walking 1 chunk1", "Walking 1 chunk3")
            for camera in "012"
        ]


def test_a_run_reports_p2_per_subject_and_action(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    by_subject = "task.protocol_options.videopose3d.by_subject=true"
    in_process(*words(folder, "poseformer", *COCO, by_subject, "hydra.run.dir=run", "logger=none"))
    values = metrics(tmp_path / "run")
    assert values["test/p_mpjpe"] > 0
    with (tmp_path / "run" / "report.csv").open() as file:
        found = list(csv.DictReader(file))
    rows = {row["name"]: row for row in found if row["table"] == "subject_action"}
    people, three = ("S1", "S2", "S3"), ("Box", "Jog", "Walking")
    assert list(rows) == [f"Validate/{person}/{action}" for person in people for action in three]
    # the mean over actions weights all of them alike, whatever their frames; the subjects' frames add up
    actions = {row["name"]: float(row["p_mpjpe"]) for row in found if row["table"] == "action" and row["name"] in three}
    assert values["test/p_mpjpe"] == pytest.approx(np.mean(list(actions.values())), rel=1e-6)
    for action, value in actions.items():
        mine = [row for name, row in rows.items() if name.endswith(action)]
        weights = [float(row["frames"]) for row in mine]
        assert np.average([float(row["p_mpjpe"]) for row in mine], weights=weights) == pytest.approx(value, rel=1e-6)
    in_process(
        "mode=test", "ckpt=run/checkpoints/last.ckpt", "dataset=humaneva15", f"paths.data_dir={folder}", *COCO,
        "trainer=cpu", "hydra.run.dir=again", "logger=none",
    )  # fmt: skip
    assert metrics(tmp_path / "again")["test/p_mpjpe"] == pytest.approx(values["test/p_mpjpe"], rel=1e-6)


def test_the_doctor_finds_nothing_wrong(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    in_process("mode=doctor", "dataset=humaneva15", f"paths.data_dir={folder}", "hydra.run.dir=doctor")


def test_absent_files_point_to_the_converter(tmp_path: Path) -> None:
    for dataset, name, script in (
        ("humaneva15", "data_3d_humaneva15.npz", "scripts/convert_humaneva.py"),
        ("h36m_gt", "data_3d_h36m.npz", "scripts/convert_h36m.py"),
        ("h36m_cpn", "data_3d_h36m.npz", "scripts/convert_h36m.py"),
        ("mpi_inf_3dhp", "data_train_3dhp.npz", "scripts/convert_mpi_inf_3dhp.py"),
    ):
        config = compose([f"dataset={dataset}", f"paths.data_dir={tmp_path}", "dataset.cache_dir=null"])
        data = make(config.dataset, _recursive_=False)
        with pytest.raises(DataError, match=rf"{name} not found .*{script}"):
            data.windows("test")

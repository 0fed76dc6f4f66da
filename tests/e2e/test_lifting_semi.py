"""Semi-supervised training from the command line: a tiny folder of the VideoPose3D format with cameras."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from kinema.checkpoints.load import load
from kinema.composition import compose
from kinema.errors import ConfigError
from kinema.modes import predict, render, test, train
from tests.data.layouts import layout
from tests.e2e import running

_SMALL = [
    "experiment=videopose3d/semi_supervised", "dataset=cmu", "dataset.reader_options.keypoints=noisy",
    "dataset.subjects_train=[train_A]", "dataset.subjects_unlabeled=[train_B]", "dataset.trials_val=[]",
    "dataset.selection=test", "dataset.subset=1", "dataset.batch_size=64", "model.filter_widths=[3,3]",
    "model.channels=16", "task.warmup=1", "trainer=cpu", "trainer.max_epochs=3", "~callbacks.figures",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and the run of a semi-supervised training."""
    home = tmp_path_factory.mktemp("semi")
    layout().save(home / "data" / "cmu_mocap")
    train.run(compose([*_SMALL, f"paths.data_dir={home / 'data'}", f"paths.output_dir={home / 'run'}"]))
    return home


def test_a_run_measures_the_pose_and_keeps_both_networks(trained: Path) -> None:
    measured = running.metrics(trained / "run")
    assert 0 < measured["test/mpjpe"] < 1000
    logged = next((trained / "run").rglob("metrics.csv")).read_text()
    for term in ("mpjpe", "trajectory", "projection", "bone_length"):
        assert f"train/{term}_epoch" in logged
    (path,) = (trained / "run").rglob("best.ckpt")
    assert load(path).signature.trajectory
    record = torch.load(path, weights_only=True)["kinema"]
    assert record["task"] == "lifting_semi" and record["args"]["trajectory"] is True


@pytest.mark.parametrize("mode", [predict, render, test])
def test_what_was_trained_is_tested_lifted_and_drawn(trained: Path, mode: ModuleType, tmp_path: Path) -> None:
    (path,) = (trained / "run").rglob("best.ckpt")
    words = [f"mode={mode.__name__.rsplit('.')[-1]}", "dataset=cmu", f"paths.data_dir={trained / 'data'}",
             "trainer=cpu", f"ckpt={path}", f"paths.output_dir={tmp_path / 'run'}", "~callbacks.figures"]  # fmt: skip
    value = mode.run(compose([*words, f"render.output={tmp_path / 'a.png'}", f"render.export={tmp_path / 'a.npy'}"]))
    if mode is test:
        assert value == pytest.approx(running.metrics(trained / "run")["test/mpjpe"], rel=1e-4)
    if mode is predict:
        with np.load(tmp_path / "run" / "predictions" / "predictions.npz") as file:
            assert json.loads(str(file["meta"]))["origin"] == "camera"
    if mode is render:
        assert (tmp_path / "a.png").is_file()
        assert np.abs(np.load(tmp_path / "a.npy")[:, 0]).max() < 1.5, "with truth the predicted path is left out"


def test_unlabelled_persons_need_the_task_that_uses_them() -> None:
    config = compose(["dataset=synthetic", "dataset.subjects_unlabeled=[S8]", "model.channels=8"])
    with pytest.raises(ConfigError, match=r"task=lifting_semi model\.trajectory=true") as refusal:
        train.build(config)
    remedy = str(refusal.value).rsplit("Use ", 1)[1].split(", or")[0].split()
    train.build(compose(["dataset=synthetic", "dataset.subjects_unlabeled=[S8]", "model.channels=8", *remedy]))


def test_image_space_has_no_path() -> None:
    config = compose(["task=lifting_semi", "dataset=h36m_sh", "model=videopose3d_small", "model.trajectory=true"])
    with pytest.raises(ConfigError, match="in camera space, such as dataset=h36m_gt"):
        train.build(config)

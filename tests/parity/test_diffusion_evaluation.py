"""The published evaluation, seed by seed: data set, windows, sampling in the original order of draws, metrics, file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from kinema import load
from kinema.callbacks.report import RunReport
from kinema.composition import build_data, build_task, check, compose, quieten_lightning
from kinema.launch import config_dir
from tests.parity.golden import Case, cases

pytestmark = pytest.mark.parity


def dataset_of(name: str) -> str:
    """Our data set by the published name: h36m is h36m_motion, humaneva humaneva15_motion."""
    (found,) = (config_dir() / "dataset").glob(f"{name}*_motion.yaml")
    return found.stem


def evaluated(case: Case, folder: Path) -> Any:
    """The task after its test, as mode=test runs one; the report stands in `folder`."""
    config = case.json()
    (weights,) = case.path.glob("ckpt*.pt")
    model = load(case.file(weights.name), num_heads=config["num_heads"])
    words = [
        "experiment=humanmac/h36m", f"dataset={dataset_of(config['dataset'])}", "dataset.cache_dir=null",
        f"paths.data_dir='{case.sibling('dataset') / 'data'}'", f"seed={config['seed']}",
        f"dataset.history={config['t_his']}", f"dataset.horizon={config['t_pred']}",
        f"dataset.eval_batch_size={int(case.arrays()['num_windows'])}", "task.compat_rng=true",
        f"task.num_samples={config['K']}", f"task.ddim_timesteps={config['ddim_timesteps']}",
        f"task.noise_steps={config['noise_steps']}", f"task.schedule={config['scheduler'].lower()}",
        f"task.mod_test={config['mod_test']}",
        f"task.protocol_options.prediction.threshold={config['multimodal_threshold']}",
        "task.variants={default:{},half_conditioned:null,zero_velocity:{baseline:zero_velocity}}",
    ]  # fmt: skip
    node = compose(words)
    data = build_data(node, model.signature)
    task = build_task(node, model)
    check(task, model.signature, data.spec, node)
    quieten_lightning()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        callbacks=[RunReport(str(folder))], enable_model_summary=False,
    )  # fmt: skip
    trainer.test(task, datamodule=data, verbose=False)
    return task


@cases("diffusion", "eval_end_to_end")
def test_the_whole_evaluation(case: Case, tmp_path: Path) -> None:
    arrays = case.arrays()
    task = evaluated(case, tmp_path)
    report = task.reports["test"]
    case.close("num_windows", report.summary["windows"], arrays["num_windows"])
    for name in arrays:
        if name != "num_windows":
            case.close(name, report.scalars[name.lower()], arrays[name], rtol=1e-4)

    official, ours = (
        list(csv.reader(io.StringIO(path.read_text())))
        for path in (case.file("stats_latest.csv"), tmp_path / "stats_latest.csv")
    )
    with case.check("stats_latest.csv"):
        assert [row[:1] for row in ours] == [row[:1] for row in official] and ours[0] == official[0]
    for row, expected in zip(ours[1:], official[1:], strict=True):
        case.close(f"stats_latest.csv {expected[0]}", float(row[1]), float(expected[1]), rtol=1e-4)
    assert report.scalars["ade"] != task.reports["test/zero_velocity"].scalars["ade"]
    case.finish()

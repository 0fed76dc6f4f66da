"""Where `resume=auto` goes on, what the commands for it say, and how run directories are called."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

import kinema
from kinema import launch, runs
from kinema.listing import size_of

WORDS = ["dataset=synthetic", "model=dstformer_tiny", "resume=auto"]


def config(folder: Path, *words: str) -> DictConfig:
    return kinema.compose([*WORDS, *words, f"paths.output_dir={folder}"])


def left(folder: Path, written: float, *words: str, status: str = "running", **more: object) -> Path:
    """A run directory with a training state of step 5, last written at a time."""
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    progress = {"current": {"processed": 3}, "is_last_batch": False}
    loop = {"epoch_loop.batch_progress": progress, "epoch_progress": {"current": {"processed": 1, "completed": 1}}}
    torch.save({"loops": {"fit_loop": loop}, "global_step": 5}, path)
    os.utime(path, (written, written))
    OmegaConf.save(config(folder, *words), folder / "config.resolved.yaml", resolve=True)
    (folder / "status.json").write_text(json.dumps({"status": status, **more}))
    return path


def test_auto_takes_the_newest_that_was_cut_short_in_the_same_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = config(tmp_path / "now", "trainer.max_epochs=40", "dataset.num_workers=2", "task.flip_average=false")
    caplog.set_level("INFO")
    assert runs.checkpoint_to_resume(now) is None, "there is nothing beside"
    # By name the first is the newest; what counts is when it was written.
    left(tmp_path / "z_older", 100.0, status="interrupted")
    wanted = left(tmp_path / "newer", 200.0, status="interrupted")
    left(tmp_path / "a_finished", 900.0, status="finished")
    left(tmp_path / "b_model", 901.0, "model.depth=2")
    left(tmp_path / "c_data", 902.0, "dataset.subset=0.5")
    left(tmp_path / "d_seed", 903.0, "seed=1")
    left(tmp_path / "e_rate", 904.0, "task.optimizer.lr=1")
    left(tmp_path / "f_alive", 905.0, pid=os.getpid(), host=socket.gethostname())
    assert runs.checkpoint_to_resume(now) == wanted
    own = left(tmp_path / "now", 1.0)
    assert runs.checkpoint_to_resume(now) == own, "the folder itself comes first"


def test_auto_says_what_it_passes_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    left(tmp_path / "a", 3.0, status="finished")
    left(tmp_path / "b", 2.0, "model=poseformer")
    left(tmp_path / "c", 1.0, "model.depth=2")
    assert runs.checkpoint_to_resume(config(tmp_path / "now")) is None
    assert (
        "passed over a (finished), b (another model), c (another model.depth); one of them: resume=FILE" in caplog.text
    )


def test_commands_start_as_they_were_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for program, start in (("../run.py", "python ../run.py"), ("/x/kinema/__main__.py", "python -m kinema"),
                           ("/x/bin/kinema", "kinema")):  # fmt: skip
        monkeypatch.setattr("sys.argv", [program])
        assert runs.command("resume=auto") == f"{start} resume=auto"


@pytest.mark.parametrize(
    ("experiment", "checkpoint", "expected"),
    [
        (None, None, "stgcnpp-ntu60"),
        ("ma52/joint", None, "ma52_joint"),
        ("ma52/joint", "x/best.ckpt", "ma52_joint"),
        (None, "outputs/action/stgcnpp-cmu/2026-01-31_12-00-00-000000/checkpoints/best.ckpt", "stgcnpp-cmu-best"),
        (None, "multirun/sweep/3/checkpoints/last.ckpt", "sweep-last"),
        (None, "checkpoint/FT_MB_lite/best_epoch.bin", "FT_MB_lite-best_epoch"),
        (None, "data/pretrained_h36m_cpn.bin", "pretrained_h36m_cpn"),
        (None, "data/a file, odd.bin", "a_file_odd"),
    ],
)
def test_runs_are_called_after_what_they_look_at(experiment: str, checkpoint: str, expected: str) -> None:
    assert launch.run_name(experiment, "stgcnpp", "ntu60", checkpoint) == expected


def test_a_size_is_named_for_a_family_and_its_values() -> None:
    assert size_of("action", {"backbone": "dstformer", "backbone.depth": 3, "hidden": 128}) == "action_tiny"
    assert size_of("dstformer", {"dim": 64, "dim_rep": 64, "depth": 3, "num_heads": 4}) == "dstformer_tiny"
    assert size_of("somebody_elses", {}) == "somebody_elses"

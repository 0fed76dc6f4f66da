"""Whole runs through `run.py`: train, test, predict, render, resume, sweep, two ranks."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.e2e.running import REPOSITORY, TINY, metrics, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run that the tests below look at."""
    home = tmp_path_factory.mktemp("trained")
    os.environ["KINEMA_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    run(*TINY, "hydra.run.dir=first", cwd=home)
    return home / "first"


def test_a_run_directory_explains_itself(trained: Path) -> None:
    for name in (
        ".hydra/config.yaml", "config.resolved.yaml", "command.txt", "environment.json", "status.json", "metrics.json",
        "metrics.csv", "report.md", "report.csv", "report.html", "run.log", "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    ):  # fmt: skip
        assert (trained / name).is_file(), name
    assert list((trained / "tensorboard").glob("events.*"))
    assert list((trained / "figures").glob("*.png"))
    assert json.loads((trained / "status.json").read_text())["status"] == "finished"
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["seed"] == 0 and "torch" in environment["packages"]
    assert "trainer=cpu" in (trained / "command.txt").read_text()


def test_monitor_shows_the_curves_of_a_run(trained: Path) -> None:
    words = ["mode=monitor", "monitor.folder=first", f"monitor.output={trained.parent}/seen", "hydra.run.dir=monitored"]
    shown = run(*words, cwd=trained.parent).stdout
    for word in ("finished", "epoch 2 of 2", "val/mpjpe"):
        assert word in shown
    assert (trained.parent / "seen" / "monitor.png").is_file()
    assert "data:image/png" in (trained.parent / "seen" / "monitor.html").read_text()


def test_metrics_are_flat_sorted_floats(trained: Path) -> None:
    text = json.loads((trained / "metrics.json").read_text())
    assert "_meta" in text
    values = metrics(trained)
    assert {"test/mpjpe", "test/p_mpjpe", "test/mpjpe_frames", "val/mpjpe"} <= set(values)
    assert list(values) == sorted(values)
    assert all(isinstance(value, float) for value in values.values())
    assert any(key.startswith("test/mpjpe/") for key in values), "per action"


def test_testing_the_best_checkpoint_again_gives_the_same_numbers(trained: Path) -> None:
    run(*TINY, "mode=test", "ckpt=first/checkpoints/best.ckpt", "hydra.run.dir=again", cwd=trained.parent)
    before, after = metrics(trained), metrics(trained.parent / "again")
    for key in ("test/mpjpe", "test/p_mpjpe", "test/n_mpjpe", "test/mpjve"):
        assert after[key] == pytest.approx(before[key], rel=1e-6), key


def test_predictions_are_written_per_sequence(trained: Path) -> None:
    run(*TINY, "mode=predict", "ckpt=first/checkpoints/best.ckpt", "hydra.run.dir=predicted", cwd=trained.parent)
    import numpy as np

    files = list((trained.parent / "predicted" / "predictions").glob("*.npz"))
    assert len(files) == 1
    with np.load(files[0]) as arrays:
        assert arrays.files
        for key in arrays.files:
            if key.startswith("pose3d/"):
                assert arrays[key].shape[1:] == (17, 3) and np.isfinite(arrays[key]).all()


def test_render_draws_png_and_gif(trained: Path) -> None:
    words = ["mode=render", "ckpt=first/checkpoints/best.ckpt", "render.limit=6", "hydra.run.dir=drawn"]
    run(*TINY, *words, cwd=trained.parent)
    from PIL import Image

    pictures = list((trained.parent / "drawn").rglob("*.png")) + list((trained.parent / "drawn").rglob("*.gif"))
    assert {path.suffix for path in pictures} == {".png", ".gif"}
    for path in pictures:
        with Image.open(path) as picture:
            assert min(picture.size) > 100


def test_kinema_load_reads_its_own_checkpoint(trained: Path) -> None:
    import kinema

    model = kinema.load(trained / "checkpoints" / "best.ckpt")
    pose = torch.zeros(1, 16, 17, model.signature.in_channels)
    assert model(pose).shape == (1, 16, 17, 3)


def test_resume_of_a_finished_run_says_so(trained: Path) -> None:
    result = run(*TINY, "resume=first/checkpoints/last.ckpt", "hydra.run.dir=more", cwd=trained.parent, check=False)
    assert result.returncode == 2
    assert "already finished" in result.stderr and "trainer.max_epochs" in result.stderr


def _weights(path: Path) -> dict[str, torch.Tensor]:
    """Averaged and live weights of a checkpoint."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {**state["state_dict"], **{f"live.{key}": value for key, value in state["current_model_state"].items()}}


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    """Kill in the middle of an epoch, go on with resume=auto: equal to the uninterrupted run, bit by bit."""
    words = [*TINY, "model.drop_path=0.2", "dataset.batch_size=8", "callbacks.checkpoint.every_n_train_steps=3",
             "trainer.max_epochs=3", "callbacks=ema", "~callbacks.figures"]  # fmt: skip
    run(*words, "hydra.run.dir=whole/a", cwd=tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "run.py"), *words, "hydra.run.dir=broken/a"],
        cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    last = tmp_path / "broken" / "a" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 300
    while not last.is_file() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert last.is_file()
    state = torch.load(last, map_location="cpu", weights_only=True)
    assert state["epoch"] < 2, "the run was over before it could be killed"
    run(*words, "resume=auto", "hydra.run.dir=broken/b", cwd=tmp_path)
    for name in ("last.ckpt", "best.ckpt"):
        whole, resumed = (_weights(tmp_path / part / "checkpoints" / name) for part in ("whole/a", "broken/b"))
        assert whole.keys() == resumed.keys()
        for key in whole:
            assert torch.equal(whole[key], resumed[key]), (name, key)
    assert metrics(tmp_path / "whole/a")["test/mpjpe"] == metrics(tmp_path / "broken/b")["test/mpjpe"]


def test_sigterm_saves_and_exits_143(tmp_path: Path) -> None:
    words = [*TINY, "trainer.max_epochs=500", "dataset.batch_size=8", "~callbacks.figures", "hydra.run.dir=stopped"]
    child = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "run.py"), *words],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 300
    while not last.is_file() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=120) == 143
    status = json.loads((tmp_path / "stopped" / "status.json").read_text())
    assert status["status"] == "interrupted" and "pid" not in status
    typed = shlex.split(status["resume"])
    assert typed == ["python", str(REPOSITORY / "run.py"), *words, "resume=auto"]


def test_sweep_lists_members_failures_and_the_best_command(tmp_path: Path) -> None:
    words = [*TINY, "trainer.max_epochs=1", "~callbacks.figures", "hydra.sweep.dir=swept"]
    # 3 heads do not divide 16 channels: that member fails, the others still run.
    result = run("-m", *words, "model.num_heads=2,3", "task.optimizer.lr=1e-3,1e-4", cwd=tmp_path, check=False)
    assert result.returncode != 0, "a failed member is not passed over in silence"
    summary = (tmp_path / "swept" / "summary.csv").read_text().splitlines()
    assert summary[0].startswith("run,status,val/mpjpe,model.num_heads,task.optimizer.lr")
    assert len(summary) == 5
    assert sum(",finished," in line for line in summary) == 2 and sum(",failed," in line for line in summary) == 2
    assert "best: val/mpjpe" in result.stdout and "python run.py" in result.stdout and "failed: run" in result.stdout


@pytest.mark.slow
def test_optuna_searches_a_space(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = [*TINY, "trainer.max_epochs=1", "callbacks=none", "hydra.sweep.dir=searched", "hydra.sweeper.n_trials=2"]
    result = run("-m", "search=lr_wd", "hydra/sweeper=optuna", *words, cwd=tmp_path)
    lines = (tmp_path / "searched" / "summary.csv").read_text().splitlines()
    assert lines[0].startswith("run,status,val/mpjpe,task.optimizer.lr,task.optimizer.weight_decay")
    assert len(lines) == 3 and all(",finished," in line for line in lines[1:])
    assert "best: val/mpjpe" in result.stdout


def test_two_ranks_measure_what_one_process_measures(trained: Path) -> None:
    one = metrics(trained)
    words = ["mode=test", "ckpt=first/checkpoints/best.ckpt", "hydra.run.dir=ranks", "trainer=ddp_cpu"]
    run(*[word for word in TINY if not word.startswith("trainer=")], *words, cwd=trained.parent)
    two = metrics(trained.parent / "ranks")
    for key, value in two.items():
        if key.startswith("test/"):
            assert value == pytest.approx(one[key], rel=1e-5), key


@pytest.mark.slow
def test_two_ranks_train_in_a_multirun(tmp_path: Path) -> None:
    """Each member of a sweep starts its own ranks, in its own directory (Lightning alone would repeat the sweep)."""
    words = [word for word in TINY if not word.startswith("trainer=")]
    words += ["trainer=ddp_cpu", "trainer.max_epochs=1", "~callbacks.figures", "hydra.sweep.dir=ranks"]
    run("-m", *words, "seed=0,1", cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ranks"]
    for number in ("0", "1"):
        assert (tmp_path / "ranks" / number / "run.rank1.log").is_file()
        assert metrics(tmp_path / "ranks" / number)["test/mpjpe"] > 0


def test_the_objective_is_what_run_returns(trained: Path) -> None:
    config = OmegaConf.load(trained / "config.resolved.yaml")
    assert config.objective == "val/mpjpe"
    status = json.loads((trained / "status.json").read_text())
    best = metrics(trained)["val/mpjpe"]
    assert status["objective"] <= best + 1e-3

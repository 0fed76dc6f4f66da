"""Tests that are killed go on where they stopped: mode=test, the test of a training, two ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import REPOSITORY, TINY, metrics, run

# `run.py` whose process is killed ahead of a batch of the test: what KILL_AT says, 3 of them are judged.
KILLED = """
import os, signal, sys
from kinema.tasks.base import Task
step = Task.test_step
def cut(self, batch, batch_idx):
    if batch_idx == int(os.environ["KILL_AT"]) and os.environ.get("LOCAL_RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, batch, batch_idx)
Task.test_step = cut
from kinema.cli import main
main()
"""
WORDS = [*TINY, "~callbacks.figures", "callbacks.journal.interval=0"]
JOURNAL = Path("journal", "journal.json")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished training."""
    folder = tmp_path_factory.mktemp("journals")
    os.environ["KINEMA_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
    run(*WORDS, "hydra.run.dir=whole", cwd=folder)
    assert not (folder / "whole" / "journal").exists(), "it is removed at the end"
    return folder


def killed(*words: str, cwd: Path, batch: int = 3) -> None:
    (cwd / "killed.py").write_text(KILLED)
    result = subprocess.run(
        [sys.executable, "killed.py", *words], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "KILL_AT": str(batch), "PYTHONPATH": str(REPOSITORY / "src")},
    )  # fmt: skip
    assert result.returncode < 0, result.stderr[-4000:]


def measured(folder: Path) -> dict[str, float]:
    return {key: value for key, value in metrics(folder).items() if key.startswith("test/")}


@pytest.mark.slow
def test_a_killed_test_goes_on(home: Path) -> None:
    test = [*WORDS, "mode=test", "ckpt=whole/checkpoints/best.ckpt"]
    killed(*test, "hydra.run.dir=tests/a", cwd=home)
    assert json.loads((home / "tests" / "a" / JOURNAL).read_text())["batches"] == 3
    assert not (home / "tests" / "a" / "report.md").exists()
    refused = run(*test, "dataset.eval_batch_size=7", "resume=tests/a", "hydra.run.dir=other/b", cwd=home, check=False)
    assert refused.returncode == 2
    assert "cannot be gone on with: its dataset.eval_batch_size is" in refused.stderr
    done = run(*test, "resume=auto", "hydra.run.dir=tests/b", cwd=home)
    assert "going on with" in done.stderr and "3 of " in done.stderr
    assert measured(home / "tests" / "b") == measured(home / "whole")
    assert not (home / "tests" / "a" / "journal").exists() and not (home / "tests" / "b" / "journal").exists()
    again = run(*test, "resume=tests/a", "hydra.run.dir=tests/c", cwd=home, check=False)
    assert again.returncode == 2 and "holds no interrupted evaluation" in again.stderr
    fresh = run(*test, "resume=auto", "hydra.run.dir=tests/d", cwd=home)
    assert "no interrupted evaluation to go on with" in fresh.stderr


def test_a_file_is_no_interrupted_test(home: Path) -> None:
    words = ["mode=test", "ckpt=whole/checkpoints/best.ckpt", "resume=whole/checkpoints/best.ckpt"]
    result = run(*WORDS, *words, "hydra.run.dir=tests/file", cwd=home, check=False)
    assert result.returncode == 2 and "resume=auto or resume=RUN_DIRECTORY" in result.stderr


@pytest.mark.slow
def test_the_test_of_a_training_goes_on(home: Path) -> None:
    killed(*WORDS, "hydra.run.dir=trainings/a", cwd=home)
    assert (home / "trainings" / "a" / JOURNAL).is_file()
    done = run(*WORDS, "resume=auto", "hydra.run.dir=trainings/b", cwd=home)
    assert "its training is complete, its test is not" in done.stderr and "3 of " in done.stderr
    assert measured(home / "trainings" / "b") == measured(home / "whole")
    assert (home / "trainings" / "b" / "checkpoints" / "best.ckpt").is_file()
    status = json.loads((home / "trainings" / "b" / "status.json").read_text())
    assert status["objective"] == pytest.approx(metrics(home / "whole")["val/mpjpe"], abs=1e-3)


@pytest.mark.slow
def test_two_ranks_go_on(home: Path) -> None:
    test = [*(word for word in WORDS if not word.startswith("trainer=")), "trainer=ddp_cpu", "mode=test",
            "ckpt=whole/checkpoints/best.ckpt"]  # fmt: skip
    run(*test, "hydra.run.dir=ranks/whole", cwd=home)
    killed(*test, "hydra.run.dir=ranks/a", cwd=home)
    assert len(list((home / "ranks" / "a" / "journal").glob("00000003-*.pt"))) == 2
    alone = [word.replace("ddp_cpu", "cpu") for word in test]
    refused = run(*alone, "resume=ranks/a", "hydra.run.dir=ranks/one", cwd=home, check=False)
    assert refused.returncode == 2 and "cannot be gone on with" in refused.stderr
    done = run(*test, "resume=auto", "hydra.run.dir=ranks/b", cwd=home)
    assert "going on with" in done.stderr
    assert measured(home / "ranks" / "b") == measured(home / "ranks" / "whole")

"""A motion prediction from training to predictions through `run.py`, interrupted, and on two ranks."""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema import cli
from kinema.tasks.prediction import PredictionTask
from tests.data.motion_layouts import walk
from tests.e2e.motion_files import NETWORK, RUN, TASK, data, save
from tests.e2e.running import in_process, metrics, run

SCALARS = ("apd", "ade", "fde", "mmade", "mmfde")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with motion and one training of two epochs."""
    folder = tmp_path_factory.mktemp("prediction")
    save(folder / "motion")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        in_process(*TASK, *NETWORK, *RUN, *data("motion"), "trainer.max_epochs=2", "hydra.run.dir=whole")
    return folder


@pytest.fixture(autouse=True)
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    assert isinstance(state, dict)
    return state


def judged(folder: str) -> dict[str, float]:
    return {key: value for key, value in metrics(Path(folder)).items() if key.startswith("test/")}


EVALUATION = ["mode=test", *TASK, *RUN, *data("motion"), "ckpt=whole/checkpoints/best.ckpt"]


def test_training_leaves_a_judged_network(home: Path) -> None:
    found = judged("whole")
    assert all(found[f"test/{name}"] >= 0 for name in SCALARS)
    assert found["test/ade"] > 0 and found["test/apd"] > 0
    table = (home / "whole" / "methods.md").read_text()
    assert all(f"| {name} |" in table for name in ("HumanMAC", "zero_velocity", "nearest"))
    assert (home / "whole" / "checkpoints" / "last.ckpt").is_file()


def test_a_test_of_its_checkpoint_gives_the_same_numbers() -> None:
    in_process(*EVALUATION, "hydra.run.dir=again")
    assert judged("again") == judged("whole")


def test_sigterm_ends_a_test_inside_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    went_on = []

    @functools.wraps(PredictionTask.predict)
    def predict(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        went_on.append("sampling")
        raise AssertionError("it went on")

    monkeypatch.setattr(PredictionTask, "predict", predict)
    monkeypatch.setattr("sys.argv", ["run.py", *EVALUATION, "hydra.run.dir=stopped"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 143 and not went_on
    status = json.loads(Path("stopped", "status.json").read_text())
    assert (status["status"], status["reason"]) == ("interrupted", "SIGTERM")
    assert "resume=auto" in status["resume"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interrupted_training_ends_where_it_would_have_ended(home: Path) -> None:
    """One epoch, then the second by `resume`: the same weights as two at once."""
    words = [*TASK, *NETWORK, *RUN, *data("motion"), "task.variants.nearest=null"]
    in_process(*words, "trainer.max_epochs=1", "trainer.limit_test_batches=0", "hydra.run.dir=half")
    in_process(*words, "trainer.max_epochs=2", "resume=half/checkpoints/last.ckpt", "trainer.limit_test_batches=0",
               "hydra.run.dir=rest")  # fmt: skip
    resumed, whole = (weights(home / name / "checkpoints" / "last.ckpt") for name in ("rest", "whole"))
    assert resumed.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_a_file_is_predicted(home: Path) -> None:
    np.save("walk.npy", walk(3, 20))
    in_process("mode=predict", "task=prediction", "ckpt=whole/checkpoints/best.ckpt", "input=walk.npy",
               "motion.num_samples=3", "motion.formats=[png]", "motion.columns=1",
               "hydra.run.dir=predicted")  # fmt: skip
    (path,) = (home / "predicted" / "predictions").rglob("*.npz")
    with np.load(path) as file:
        assert file["samples"].shape == (3, 15, 17, 3)
        expected = walk(3, 20)[-5:] - walk(3, 20)[-5:, :1]
        np.testing.assert_allclose(file["history"], expected, atol=1e-5)
        assert np.isfinite(file["samples"]).all()


@pytest.mark.slow
def test_two_ranks_judge_what_one_process_judges(home: Path) -> None:
    words = [word for word in EVALUATION if not word.startswith("trainer=")]
    run(*words, "trainer=ddp_cpu", "dataset.eval_batch_size=7", "hydra.run.dir=ranks", cwd=home)
    one = judged("whole")
    two = judged("ranks")
    assert two.keys() == one.keys()
    for key, value in two.items():
        assert value == pytest.approx(one[key], rel=1e-5, nan_ok=True), key

"""The class scores of the best validation stay with the run, and move with the best checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kinema.callbacks.checkpoint import RunCheckpoint
from kinema.callbacks.report import RunReport
from kinema.protocols.report import Report


def validated(
    callback: RunReport, value: float, best: float | None, mode: str = "max", selection: str | None = "val"
) -> None:
    """One validation whose scores are its value, while the checkpoint callback knows `best`."""
    keeper = SimpleNamespace(
        monitor="val/top1", mode=mode, best_model_score=None if best is None else torch.tensor(best)
    )
    trainer = SimpleNamespace(
        sanity_checking=False, is_global_zero=True, callback_metrics={"val/top1": torch.tensor(value)},
        checkpoint_callback=keeper, current_epoch=0, global_step=0, datamodule=SimpleNamespace(selection=selection),
    )  # fmt: skip
    report = Report("action", version=1, scalars={}, arrays={"scores": np.full((1, 2), value)})
    task = SimpleNamespace(objective="val/top1", reports={"val": report})
    callback.on_validation_end(trainer, task)  # type: ignore[arg-type]


def kept(folder: Path) -> float:
    return float(np.load(folder / "predictions" / "report_val.npz")["scores"][0, 0])


@pytest.mark.parametrize(("mode", "values", "expected"), [("max", [1, 3, 2, 3], 3), ("min", [2, 1, 3], 1)])
def test_only_the_best_validation_is_kept(mode: str, values: list[float], expected: float, tmp_path: Path) -> None:
    callback, best = RunReport(str(tmp_path)), None
    for value in values:
        validated(callback, value, best, mode)
        best = value if best is None else (max if mode == "max" else min)(best, value)
    assert kept(tmp_path) == expected


def test_a_validation_that_diverged_or_ties_changes_nothing(tmp_path: Path) -> None:
    callback = RunReport(str(tmp_path))
    validated(callback, 2.0, None)
    validated(callback, float("nan"), 2.0)
    assert kept(tmp_path) == 2


def test_nothing_is_kept_where_the_test_clips_choose_the_checkpoint(tmp_path: Path) -> None:
    """mode=fuse would find its weights on the clips that it is judged on."""
    validated(RunReport(str(tmp_path)), 2.0, None, selection="test")
    assert not (tmp_path / "predictions").exists()
    validated(RunReport(str(tmp_path)), 2.0, None, selection=None)  # a data module without such a choice
    assert kept(tmp_path) == 2


def test_the_scores_follow_the_best_file_into_the_folder_of_a_resumed_run(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    validated(RunReport(str(old)), 2.0, None)
    (old / "checkpoints").mkdir()
    (old / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    keeper = RunCheckpoint(dirpath=str(new / "checkpoints"), filename="best", monitor="val/top1", mode="max")
    path = str(old / "checkpoints" / "best.ckpt")
    keeper.load_state_dict(
        {
            "monitor": "val/top1", "best_model_score": torch.tensor(2.0), "best_model_path": path,
            "dirpath": str(old / "checkpoints"), "best_k_models": {path: torch.tensor(2.0)},
            "kth_best_model_path": path, "kth_value": torch.tensor(2.0), "last_model_path": "",
            "current_score": torch.tensor(2.0),
        }
    )  # fmt: skip
    assert (new / "checkpoints" / "best.ckpt").read_bytes() == b"weights"
    assert kept(new) == 2

"""Curves come out as they were logged, whoever logged them, also while they are being written."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from kinema.errors import DataError
from kinema.results.curves import Training, kind, metrics_of, trainings

Rows = Sequence[Mapping[str, float | str]]
# Two epochs of four steps, validated at their ends and once inside the second, then tested.
ROWS: Rows = [
    {"step": 0, "lr-AdamW": 0.1},
    {"step": 2, "train/loss": 4.0, "train/term": 8.0},
    {"step": 4, "train/loss": 3.0, "train/term": 6.0},
    {"epoch": 0, "step": 3, "val/top1": 20.0},
    {"epoch": 0, "step": 3, "train/loss_epoch": 3.5},
    {"step": 4, "lr-AdamW": 0.05},
    {"step": 6, "train/loss": 2.0, "train/term": 4.0},
    {"epoch": 1, "step": 5, "val/top1": 40.0},
    {"epoch": 1, "step": 7, "val/top1": 30.0},
    {"epoch": 1, "step": 7, "train/loss_epoch": 1.5},
    {"epoch": 2, "step": 8, "test/top1": 35.0},
]


def written(folder: Path, rows: Rows = ROWS, **status: str | int) -> Path:
    """A run directory with a metrics.csv as Lightning writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = sorted({name for row in rows for name in row})
    lines = [",".join(columns), *(",".join(str(row.get(name, "")) for name in columns) for row in rows)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    (folder / "config.resolved.yaml").write_text("objective: val/top1\nobjective_mode: max\ntrainer: {max_epochs: 5}\n")
    (folder / "status.json").write_text(json.dumps({"status": "running", **status}))
    return folder


def only(folder: Path) -> Training:
    found = trainings(folder)
    assert len(found) == 1
    return found[0]


def points(run: Training, name: str) -> list[tuple[float, float]]:
    curve = run.curves[name]
    return list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))


def test_steps_become_epochs(tmp_path: Path) -> None:
    run = only(written(tmp_path / "run"))
    assert run.unit == "epoch"
    assert points(run, "train/loss") == [(0.5, 4.0), (1.0, 3.0), (1.5, 2.0)]
    assert points(run, "train/loss_epoch") == [(1.0, 3.5), (2.0, 1.5)]
    assert points(run, "val/top1") == [(1.0, 20.0), (1.5, 40.0), (2.0, 30.0)]
    assert points(run, "lr-AdamW") == [(0.0, 0.1), (1.0, 0.05)]


def test_the_best_epoch_is_that_of_the_objective(tmp_path: Path) -> None:
    run = only(written(tmp_path / "run"))
    assert (run.objective, run.larger, run.best) == ("val/top1", True, (1.5, 40.0))
    (tmp_path / "run" / "config.resolved.yaml").write_text("objective: val/top1\nobjective_mode: min\n")
    assert only(tmp_path / "run").best == (1.0, 20.0)


def test_how_a_run_stands_comes_with_its_curves(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", status="finished")
    (folder / "metrics.json").write_text(json.dumps({"test/top1": 35.0, "val/top1": 30.0, "_meta": {}}))
    run = only(folder)
    assert (run.name, run.status, run.of, run.reached) == ("run", "finished", 5, 2.0)
    assert run.results == {"test/top1": 35.0}
    assert "test/top1" not in run.curves, "a result of the final test is no curve"


def test_a_run_whose_process_is_gone_is_lost(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    killed, here = int(gone.stdout), socket.gethostname()
    assert only(written(tmp_path / "run", pid=killed, host=here)).status == "lost"
    assert only(written(tmp_path / "run", pid=os.getpid(), host=here)).status == "running"
    assert only(written(tmp_path / "run", pid=killed, host=f"not-{here}")).status == "running", "who knows"
    assert only(written(tmp_path / "run", pid=killed, host=here, status="finished")).status == "finished"


def test_steps_count_where_their_number_ends_the_training(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    (folder / "config.resolved.yaml").write_text("objective: val/top1\ntrainer: {max_epochs: 20, max_steps: 12}\n")
    run = only(folder)
    assert (run.steps, run.of, run.reached) == ((8, 12), None, 2.0)


def test_before_the_first_epoch_has_ended_there_are_steps(tmp_path: Path) -> None:
    run = only(written(tmp_path / "run", ROWS[:3]))
    assert run.unit == "step"
    assert points(run, "train/loss") == [(2.0, 4.0), (4.0, 3.0)]
    assert (run.objective, run.best) == ("train/loss", (4.0, 3.0))


def test_an_unfinished_epoch_goes_on_at_the_pace_of_the_last(tmp_path: Path) -> None:
    run = only(written(tmp_path / "run", [*ROWS[:10], {"step": 10, "train/loss": 1.0}]))
    assert points(run, "train/loss")[-1] == (2.5, 1.0)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    with (folder / "metrics.csv").open("a") as file:
        file.write("2,")
    assert points(only(folder), "val/top1")[-1] == (2.0, 30.0)


def test_a_resumed_run_shows_what_it_goes_on_with(tmp_path: Path) -> None:
    first = written(tmp_path / "first", ROWS[:8])
    later = written(tmp_path / "later", [*ROWS[6:]], resumed_from=str(first / "checkpoints" / "last.ckpt"))
    run = next(one for one in trainings(tmp_path) if one.folder == later)
    assert points(run, "train/loss") == [(0.5, 4.0), (1.0, 3.0), (1.5, 2.0)]
    assert points(run, "val/top1") == [(1.0, 20.0), (1.5, 40.0), (2.0, 30.0)]


def test_event_files_give_the_same_curves_as_csv(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    expected = only(folder)
    writer = SummaryWriter(str(folder / "tensorboard"))
    for row in ROWS:
        for name, value in row.items():
            if name != "step":
                writer.add_scalar(name, float(value), int(row["step"]))
    writer.close()
    (folder / "metrics.csv").unlink()
    found = only(folder)
    assert found.curves.keys() == expected.curves.keys()
    for name, curve in expected.curves.items():
        np.testing.assert_allclose(found.curves[name].x, curve.x)
        np.testing.assert_allclose(found.curves[name].y, curve.y, rtol=1e-6)


def fork_logs(folder: Path, epochs: int, first: int = 0) -> None:
    """Event files as the MA-52 fork writes them: the epoch, counted from 1, is the step."""
    writer = SummaryWriter(str(folder / "logs"), filename_suffix=f".{first}")
    for epoch in range(first, epochs):
        values = {
            "train_loss": 4.0 - epoch, "train_top1": 10.0 * epoch, "train_top5": 20.0 * epoch, "test_loss": 4.0,
            "test_top1": [5.0, 15.0, 12.0][epoch], "test_top5": 30.0, "learning_rate": 1e-5 * 0.98**epoch,
        }  # fmt: skip
        for name, value in values.items():
            writer.add_scalar(name, value, epoch + 1)
    writer.close()


def test_logs_of_the_fork_are_curves_over_epochs(tmp_path: Path) -> None:
    fork_logs(tmp_path / "checkpoint_custom", 3)
    run = only(tmp_path / "checkpoint_custom")
    assert (run.name, run.unit, run.status, run.of) == ("checkpoint_custom", "epoch", "", None)
    assert points(run, "test_top1") == [(1.0, 5.0), (2.0, 15.0), (3.0, 12.0)]
    assert (run.objective, run.best) == ("test_top1", (2.0, 15.0))
    assert metrics_of([run]) == ["top1", "top5"]


def test_a_resumed_training_of_the_fork_is_one_curve(tmp_path: Path) -> None:
    fork_logs(tmp_path / "a", 2)
    fork_logs(tmp_path / "a", 3, first=2)
    assert [x for x, _ in points(only(tmp_path / "a"), "train_loss")] == [1.0, 2.0, 3.0]


def test_the_error_of_motionbert_is_better_when_it_is_small(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path / "pose" / "logs"))
    for epoch, error in enumerate((60.0, 45.0, 47.0)):
        writer.add_scalar("Error P1", error, epoch + 1)
        writer.add_scalar("loss_3d_pos", error / 100, epoch + 1)
    writer.close()
    assert only(tmp_path / "pose").best == (2.0, 45.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train/loss", "loss"), ("train/loss_epoch", "loss"), ("train_loss_supcon", "loss"), ("val/loss", "loss"),
        ("train/mpjpe_epoch", "term"), ("loss_3d_pos", "term"), ("val/mpjpe", "mpjpe"), ("train_top1", "top1"),
        ("train/top1", "top1"), ("train/top1_epoch", "top1"), ("val/acceleration", "acceleration"),
        ("lr-AdamW/pg1", "rate"), ("learning_rate", "rate"), ("Error P1", "Error P1"),
    ],
)  # fmt: skip
def test_names_tell_what_a_curve_shows(name: str, expected: str) -> None:
    assert kind(name) == expected


def test_runs_are_found_below_a_folder_the_newest_first(tmp_path: Path) -> None:
    for number, name in enumerate(("action/a/1", "action/b/2", "lifting/3")):
        os.utime(written(tmp_path / name) / "metrics.csv", (number, 1000 + number))
    assert [run.name for run in trainings(tmp_path)] == ["action/a/1", "action/b/2", "lifting/3"]
    assert [run.name for run in trainings(tmp_path, limit=2)] == ["action/b/2", "lifting/3"]


def test_a_run_of_mode_test_is_no_training(tmp_path: Path) -> None:
    written(tmp_path / "trained")
    written(tmp_path / "tested", ROWS[-1:])
    assert [run.name for run in trainings(tmp_path)] == ["trained"]


def test_a_folder_without_trainings_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no training.*monitor\.folder="):
        trainings(tmp_path)
    with pytest.raises(DataError, match=r"is no folder.*monitor\.folder="):
        trainings(tmp_path / "nowhere")

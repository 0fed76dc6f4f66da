"""mode=monitor: real curves as a table, a picture and a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import kinema
from kinema.errors import ConfigError
from kinema.modes import monitor
from kinema.results.curves import trainings
from kinema.viz.curves import draw_curves, swatches
from kinema.viz.skeleton import picture_of
from tests.results.test_curves import ROWS, fork_logs, written


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No broken lines in the table."""
    monkeypatch.setenv("COLUMNS", "200")


def monitored(folder: Path, *overrides: str) -> float | None:
    return monitor.run(kinema.compose(["mode=monitor", f"monitor.folder={folder}", *overrides]))


def test_a_run_gives_a_table_a_picture_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "run", status="finished")
    (folder / "metrics.json").write_text('{"test/top1": 35.5}')
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").write_bytes(bytes(2_500_000))
    assert monitored(folder) == 40.0
    shown = capsys.readouterr().out
    for word in ("run", "finished", "epoch 2 of 5", "1.5", "val/top1", "30", "40 at 1.5", "35.5", "0.05", "just now"):
        assert word in shown
    with Image.open(folder / "monitor.png") as image:
        assert min(image.size) > 300
    page = (folder / "monitor.html").read_text()
    assert "data:image/png;base64," in page
    assert "checkpoints/best.ckpt" in page and "2.5" in page
    assert 'http-equiv="refresh"' not in page


def test_a_training_by_steps_says_how_many_are_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rows in (("early", ROWS[:3]), ("later", ROWS)):
        folder = written(tmp_path / name, rows)
        (folder / "config.resolved.yaml").write_text("objective: val/top1\ntrainer: {max_epochs: 20, max_steps: 12}\n")
    monitored(tmp_path)
    shown = capsys.readouterr().out
    assert "epoch 2, step 8 of 12" in shown and " step 4 of 12" in shown.replace("epoch 2, step", "")


def test_panels_hold_what_was_logged(tmp_path: Path) -> None:
    panels = monitor.panels_of(trainings(written(tmp_path / "run")))
    assert list(panels) == ["Loss", "top1", "Learning rate"]  # one term is the loss itself
    loss = {line.label: line for line in panels["Loss"]}
    assert loss["train/loss"].style == "faint", "the steps stand behind the mean of the epoch"
    assert loss["train/loss_epoch"].style == "solid"
    assert panels["top1"][0].best == (1.5, 40.0) and panels["top1"][0].named


def test_training_is_dashed_beside_its_validation(tmp_path: Path) -> None:
    more = [{"step": 4, "train/top1": 50.0}, {"epoch": 0, "step": 3, "train/top1_epoch": 45.0}]
    panels = monitor.panels_of(trainings(written(tmp_path / "run", [*ROWS, *more])))
    styles = {line.label: line.style for line in panels["top1"]}
    assert styles == {"val/top1": "solid", "train/top1": "faint", "train/top1_epoch": "dashed"}


def test_losses_may_be_logarithmic_percents_are_not(tmp_path: Path) -> None:
    rows = [{"epoch": n, "step": n, "train/loss_epoch": 10.0**-n, "val/top1": 10.0**n} for n in range(3)]
    panels = monitor.panels_of(trainings(written(tmp_path / "run", rows)))
    figure = draw_curves(panels, wide=("Loss",))
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]
    assert picture_of(figure).std() > 5


def test_training_is_dashed_where_the_same_is_evaluated(tmp_path: Path) -> None:
    fork_logs(tmp_path / "a", 3)
    panels = monitor.panels_of(trainings(tmp_path / "a"))
    assert list(panels) == ["Loss", "top1", "top5", "Learning rate"]
    styles = {line.label: line.style for lines in panels.values() for line in lines}
    assert styles == {
        "train_loss": "dashed", "test_loss": "solid", "train_top1": "dashed", "test_top1": "solid",
        "train_top5": "dashed", "test_top5": "solid", "learning_rate": "solid",
    }  # fmt: skip


def test_several_runs_share_panels_in_a_colour_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fork_logs(tmp_path / "fork", 3)
    written(tmp_path / "ours")
    assert monitored(tmp_path) is None
    panels = monitor.panels_of(trainings(tmp_path))
    colours = [line.colour for line in panels["top1"]]
    assert colours[0] == colours[1] != colours[2]
    assert not any(line.label or line.named for lines in panels.values() for line in lines)
    page = (tmp_path / "monitor.html").read_text()
    assert ">fork<" in page and ">ours<" in page


def test_metrics_can_be_chosen(tmp_path: Path) -> None:
    fork_logs(tmp_path / "a", 3)
    runs = trainings(tmp_path / "a")
    assert list(monitor.panels_of(runs, ["top5"])) == ["Loss", "top5", "Learning rate"]
    with pytest.raises(ConfigError, match=r"names tpo1.*top1, top5.*monitor\.metrics=\[top1\]"):
        monitored(tmp_path / "a", "monitor.metrics=[tpo1]")


def test_the_page_can_lie_elsewhere(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    monitored(folder, f"monitor.output={tmp_path}/page")
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["monitor.html", "monitor.png"]
    assert not (folder / "monitor.html").exists()


def test_it_looks_again_until_the_run_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "run", ROWS[:5])
    waits: list[float] = []

    def wait(seconds: float) -> None:
        assert 'content="7"' in (folder / "monitor.html").read_text()
        waits.append(seconds)
        if len(waits) == 2:
            written(folder, status="finished")

    monkeypatch.setattr("kinema.modes.monitor.time.sleep", wait)
    assert monitored(folder, "monitor.every=7") == 40.0
    assert waits == [7, 7]


def test_it_stops_when_the_user_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kinema.modes.monitor.time.sleep", interrupt)
    assert monitored(written(tmp_path / "run"), "monitor.every=1") == 40.0


def test_a_time_that_cannot_be_waited_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"monitor\.every=30"):
        monitored(written(tmp_path / "run"), "monitor.every=0")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError, match=r"monitor\.output="):
        monitored(written(tmp_path / "run"), f"monitor.output={blocked}")


def test_a_run_that_has_logged_nothing_yet_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "run", [])
    assert monitored(folder) is None
    assert "running" in capsys.readouterr().out
    assert not (folder / "monitor.png").exists()


def test_every_run_has_a_colour_of_its_own() -> None:
    for count in (1, 8, 25):
        assert len(set(swatches(count))) == count

"""A test of motion prediction leaves one table of all methods, the official files and a page."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.callbacks.figures import Figures
from kinema.callbacks.report import RunReport
from kinema.protocols.methods import methods
from kinema.protocols.report import Report
from kinema.tasks.sampling import steps_of
from tests.data.motions import module, positions, write
from tests.tasks import lifters
from tests.tasks.test_prediction import task
from tests.viz.test_html import Tree

VARIANTS = {"default": {}, "zero_velocity": {"baseline": "zero_velocity"}, "nearest": {"baseline": "nearest"}}


def evaluated(folder: Path, capsys: pytest.CaptureFixture[str], contents: Any = None, **changes: Any) -> str:
    """Run a test; what it printed."""
    data = module(write(folder / "data", contents), **changes)
    callbacks = [RunReport(str(folder)), Figures(str(folder / "figures"))]
    lifters.trainer(callbacks=callbacks).test(task(variants=VARIANTS), datamodule=data, verbose=False)
    return capsys.readouterr().out


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "methods.csv").read_text().splitlines()))


def test_every_variant_stands_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = evaluated(tmp_path, capsys)
    rows = rows_of(tmp_path)
    assert [row["name"] for row in rows] == ["SMRNet", "zero_velocity", "nearest"]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for row, prefix in zip(rows, ("test", "test/zero_velocity", "test/nearest"), strict=True):
        for name in ("apd", "ade", "fde", "mmade", "mmfde", "cmd"):
            assert float(row[name]) == pytest.approx(metrics[f"{prefix}/{name}"]), (prefix, name)
    assert [row["samples"] for row in rows] == ["3", "1", "3"]
    assert [row["steps"] for row in rows] == [str(task().sampling.ddim_timesteps), "", ""]
    assert float(rows[1]["apd"]) == 0 < float(rows[2]["apd"])
    assert "test: per method" in printed and "| nearest |  | 3 |" in (tmp_path / "methods.md").read_text()
    page = Tree((tmp_path / "report.html").read_text())
    assert [one["id"] for one in page.named("h2")][:2] == ["methods", "test"]
    drawn = sorted(path.name for path in (tmp_path / "figures").rglob("*.png"))
    assert drawn == ["error_over_time.png"] * 3 + ["error_per_action.png"] * 3


def test_the_official_files_are_of_the_network_and_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(tmp_path, capsys)
    latest = (tmp_path / "stats_latest.csv").read_text()
    assert latest.splitlines()[0] == "Metric,HumanMAC"
    found = {line.split(",")[0]: float(line.split(",")[1]) for line in latest.splitlines()[1:]}
    assert found["ADE"] == pytest.approx(float(rows_of(tmp_path)[0]["ade"]), rel=1e-6)
    assert (tmp_path / "stats.csv").read_text() == latest
    evaluated(tmp_path, capsys)
    assert (tmp_path / "stats.csv").read_text().splitlines()[0] == "0,1,2"


def test_without_training_data_there_are_dashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = {subject: trials for subject, trials in positions().items() if subject == "S9"}
    printed = evaluated(tmp_path, capsys, contents)
    assert "test/zero_velocity: per action" in printed
    assert "test/nearest: per action" not in printed, "a table of dashes alone tells nothing"
    lines = (tmp_path / "methods.md").read_text().splitlines()
    nearest = next(line for line in lines if line.startswith("| nearest"))
    assert [cell.strip() for cell in nearest.split("|")[5:-1]] == ["-"] * 7
    assert not (tmp_path / "figures" / "test_nearest").exists()
    network = next(line for line in lines if line.startswith("| SMRNet"))
    assert network.count("| - |") == 1, "the mean motion of the actions is not known"
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert not any(key.startswith("test/nearest/") for key in metrics)
    assert all(np.isfinite(value) for key, value in metrics.items() if key != "_meta")


def test_a_subset_is_told_in_every_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = evaluated(tmp_path, capsys, limit_windows=3)
    total = len(module(tmp_path / "data").windows("test") or ())
    told = f"3 of {total} windows"
    for name in ("methods.md", "report.md", "report_test_nearest.md", "report.csv", "report.html"):
        assert told in (tmp_path / name).read_text(), name
    assert all((row["windows"], row["of"]) == ("3", str(total)) for row in rows_of(tmp_path))
    assert printed.count(told) >= 4


def test_reports_without_a_summary_make_no_table() -> None:
    assert methods({"test": Report("videopose3d", version=1, scalars={"mpjpe": 1.0})}, "x") is None


def test_a_chosen_name_stands_for_the_first_variant() -> None:
    report = Report("prediction", version=1, scalars={"ade": 1.0}, summary={"ade": 1.0})
    other = Report("prediction", version=1, scalars={"ade": 2.0}, summary={"ade": 2.0, "fid_cmu": 3.0})
    table = methods({"test": report, "test/other": other}, "mine")
    assert table is not None
    assert table.tables["method"] == [
        {"method": "mine", "ade": 1.0, "fid_cmu": None}, {"method": "other", "ade": 2.0, "fid_cmu": 3.0},
    ]  # fmt: skip


def test_steps_are_told_of_what_samples() -> None:
    report = Report("prediction", version=1, scalars={"ade": 1.0}, summary={"ade": 1.0})
    named = {"test": report, "test/fast": report, "test/nearest": report}
    network = task(variants={"plain": {}, "fast": {"ddim_timesteps": 2}, "nearest": {"baseline": "nearest"}})
    steps = steps_of(network)
    assert steps == {"test": network.sampling.ddim_timesteps, "test/fast": 2}
    table = methods(named, "mine", steps)
    assert table is not None
    assert [row.get("steps") for row in table.tables["method"]] == [network.sampling.ddim_timesteps, 2, None]
    table = methods({"test": report, "test/mine": report}, "nearest", {"test/mine": 5})
    assert table is not None
    assert "| nearest | - |" in table.to_markdown() and "| mine | 5 |" in table.to_markdown()

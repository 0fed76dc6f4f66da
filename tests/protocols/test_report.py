"""Report: names, tables and files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from rich.console import Console

from kinema.protocols.report import Report


def example() -> Report:
    return Report(
        "demo",
        version=3,
        scalars={"mpjpe": 51.26, "mpjve": 2.345},
        tables={
            "action": [
                {"action": "Walking", "frames": 10, "mpjpe": 40.0, "mpjve": 2.0},
                {"action": "Walk | Dog", "frames": 5, "mpjpe": 62.52, "mpjve": 2.69},
            ],
            "joint": [{"joint": "nose", "mpjpe": 7.0}],
            "subject_action": [{"subject": "S9", "action": "Walking", "frames": 10, "mpjpe": 40.0}],
        },
        footers={"action": [{"action": "mean over actions", "frames": None, "mpjpe": 51.26, "mpjve": 2.345}]},
        arrays={"errors": np.arange(3.0)},
        digits={"mpjve": 2},
    )


def test_metric_names_are_flat_and_tell_the_table() -> None:
    assert example().to_metrics("test/single") == {
        "test/single/mpjpe": 51.26,
        "test/single/mpjve": 2.345,
        "test/single/mpjpe/Walking": 40.0,
        "test/single/mpjve/Walking": 2.0,
        "test/single/mpjpe/Walk | Dog": 62.52,
        "test/single/mpjve/Walk | Dog": 2.69,
        "test/single/mpjpe_joint/nose": 7.0,
        "test/single/mpjpe_subject_action/S9/Walking": 40.0,
    }


def test_csv_holds_every_row_of_every_table_once() -> None:
    rows = list(csv.DictReader(io.StringIO(example().to_csv())))
    assert [(row["table"], row["name"], row["mpjpe"]) for row in rows] == [
        ("action", "Walking", "40.0"),
        ("action", "Walk | Dog", "62.52"),
        ("action", "mean over actions", "51.26"),
        ("joint", "nose", "7.0"),
        ("subject_action", "S9/Walking", "40.0"),
    ]
    assert rows[3]["mpjve"] == ""


def test_markdown_tables_have_as_many_cells_as_columns() -> None:
    lines = example().to_markdown("Result").splitlines()
    assert lines[0] == "## Result"
    table = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert [line.count("|") for line in table] == [5, 5, 5, 5, 5, 3, 3, 3, 5, 5, 5]
    assert "| **mean over actions** |  | **51.3** | **2.35** |" in lines
    assert [line for line in lines if line.startswith("###")] == [
        "### By action", "### By joint", "### By subject action",
    ]  # fmt: skip


def test_terminal_table_shows_actions_and_their_mean() -> None:
    console = Console(file=io.StringIO(), width=200)
    for table in example().to_rich("test: run"):
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "test: run" in text and "Walking" in text and "mean over actions" in text and "62.5" in text


def test_nan_is_shown_not_hidden() -> None:
    report = Report("demo", version=1, scalars={"mpjpe": float("nan")})
    assert "nan" in report.to_markdown()
    assert np.isnan(report.to_metrics("val")["val/mpjpe"])


def test_arrays_are_stored_with_the_protocol(tmp_path: Path) -> None:
    example().save_arrays(tmp_path / "predictions" / "demo.npz")
    with np.load(tmp_path / "predictions" / "demo.npz") as file:
        assert (str(file["protocol"]), int(file["version"])) == ("demo", 3)
        np.testing.assert_array_equal(file["errors"], [0, 1, 2])
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["demo.npz"]

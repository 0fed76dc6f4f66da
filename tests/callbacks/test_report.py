"""A test leaves tables, pictures and one page that holds them all; a log line says what a validation found."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
from PIL import Image

from kinema.callbacks.figures import Figures, drawings
from kinema.callbacks.page import report_page
from kinema.callbacks.report import RunReport, matrices
from kinema.protocols.report import Report
from kinema.viz.html import png
from tests.callbacks.test_figures import parts, trainer
from tests.viz.test_html import Tree

COUNTS = np.array([[30, 10, 0], [0, 20, 0], [5, 5, 30]])


def class_report() -> Report:
    """A classifier of three classes in two groups."""
    rng = np.random.default_rng(0)
    scores = np.log(rng.dirichlet(np.ones(3), 100))
    return Report(
        "ma52",
        version=1,
        scalars={"top1": 80.0, "top1_low": 71.1, "top1_high": 86.7, "ece": 3.21},
        tables={
            "level": [{"level": "action", "clips": 100, "top1": 80.0, "top5": None}],
            "class": [{"class": f"class {n}", "clips": 40, "f1": 75.5} for n in range(20)],
        },
        footers={"class": [{"class": "all clips", "clips": 100, "f1": 80.0}]},
        arrays={
            "classes": np.array(["nod", "bow, deep", "wave"]),
            "confusion": COUNTS,
            "groups": np.array([0, 0, 1]),
            "group_names": np.array(["head", "hand"]),
            "group_confusion": np.array([[60, 0], [10, 30]]),
            "training_counts": np.array([100, 10, 50]),
            "reliability": np.array([[40, 0.4, 0.5], [60, 0.9, 0.8]]),
            "scores": scores,
            "group_scores": np.stack([np.logaddexp(scores[:, 0], scores[:, 1]), scores[:, 2]], 1),
        },
        digits={"ece": 2},
    )


def page_of(folder: Path, *callbacks: pl.Callback) -> str:
    task, data = parts()
    task.variants = {"default": {}, "single": {"flip_average": False}}
    trainer(folder, RunReport(str(folder)), *callbacks).test(task, datamodule=data, verbose=False)
    return (folder / "report.html").read_text()


def test_a_test_leaves_one_page_with_every_table_and_picture(tmp_path: Path) -> None:
    (tmp_path / "command.txt").write_text("python run.py experiment=demo\n")
    (tmp_path / "environment.json").write_text(
        json.dumps({"seed": 3, "packages": {"torch": "2.13"}, "git": {"commit": "abc", "dirty": True}})
    )
    page = page_of(tmp_path, Figures(str(tmp_path / "figures")))
    tree = Tree(page)
    assert "VideoPose3D on synthetic" in page
    pictures = [one["src"] for one in tree.named("img")]
    assert len(pictures) == 5, "skeletons once, two kinds of bars per variant"
    assert [one["id"] for one in tree.named("h2")] == ["test", "test-single", "run"]
    assert {"walk", "jump", "left_wrist"} <= set(tree.cells)
    for word in ("python run.py experiment=demo", "torch 2.13", "abc with changes", "p_mpjpe"):
        assert word in page
    assert sorted(path.name for path in tmp_path.glob("report*")) == [
        "report.csv", "report.html", "report.md", "report_test_single.csv", "report_test_single.md",
    ]  # fmt: skip


def test_variants_have_pictures_of_their_own(tmp_path: Path) -> None:
    page_of(tmp_path, Figures(str(tmp_path / "figures")))
    drawn = sorted(str(path.relative_to(tmp_path / "figures")) for path in (tmp_path / "figures").rglob("*.png"))
    assert drawn == [
        "error_per_action.png", "error_per_joint.png", "skeletons.png",
        "test_single/error_per_action.png", "test_single/error_per_joint.png",
    ]  # fmt: skip


def test_without_figures_the_page_has_its_tables(tmp_path: Path) -> None:
    tree = Tree(page_of(tmp_path))
    assert not tree.named("img")
    assert "walk" in tree.cells


def test_the_page_does_not_depend_on_the_order_of_callbacks(tmp_path: Path) -> None:
    task, data = parts()
    callbacks = [Figures(str(tmp_path / "figures")), RunReport(str(tmp_path))]
    trainer(tmp_path, *callbacks).test(task, datamodule=data, verbose=False)
    assert len(Tree((tmp_path / "report.html").read_text()).named("img")) == 3


def test_a_validation_alone_writes_no_page(tmp_path: Path) -> None:
    task, data = parts()
    trainer(tmp_path, RunReport(str(tmp_path))).validate(task, datamodule=data, verbose=False)
    assert not (tmp_path / "report.html").exists()
    assert (tmp_path / "metrics.json").is_file()


def test_the_log_line_of_a_validation_names_the_objective(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task, data = parts()
    task.objective = "val/auc"
    with caplog.at_level(logging.INFO, logger="kinema.callbacks.report"):
        trainer(tmp_path, RunReport(str(tmp_path))).fit(task, datamodule=data)
    line = next(message for message in caplog.messages if message.startswith("epoch 0"))
    assert line.index("train/loss") < line.index("val/auc") < line.index("val/mpjpe")


# --- classifiers ------------------------------------------------------------------------------------------------------


def test_confusion_matrices_are_written_as_csv() -> None:
    files = matrices(class_report())
    assert list(files) == ["confusion.csv", "group_confusion.csv"]
    rows = list(csv.reader(files["confusion.csv"].splitlines()))
    assert rows[0] == ["true", "nod", "bow, deep", "wave"]
    assert rows[3] == ["wave", "5", "5", "30"]
    assert matrices(Report("videopose3d", version=1, scalars={"mpjpe": 1.0})) == {}


def test_files_of_a_classifier_stand_beside_its_report(tmp_path: Path) -> None:
    callback = RunReport(str(tmp_path))
    callback._write("report", class_report())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "predictions", "report.csv", "report.md", "report_confusion.csv", "report_group_confusion.csv",
    ]  # fmt: skip


def test_the_page_of_a_classifier_shows_numbers_tables_and_pictures() -> None:
    report = class_report()
    drawn = {name: png(make()) for name, make in drawings(report).items()}
    page = report_page({"test": report}, {"test": drawn}, title="ActionNet on ma52")
    tree = Tree(page)
    assert [one["alt"] for one in tree.named("img")] == list(drawn)
    assert len(drawn) == 6
    assert "<b>80.0</b><span>top1 (71.1 to 86.7)</span>" in page
    assert "<b>3.21</b><span>ece</span>" in page
    assert page.count("<b>") == 2, "the interval stands with its number"
    assert "<summary>By class (20)</summary>" in page
    assert tree.cells[:8] == ["level", "clips", "top1", "top5", "action", "100", "80.0", ""]


def test_a_validation_of_a_classifier_is_drawn_like_its_test() -> None:
    task = SimpleNamespace(reports={"val": class_report()}, spec=None)
    drawn = Figures("unused")._figures(task, "val")
    assert list(drawn) == list(drawings(class_report()))


def test_own_figures_of_a_report_are_drawn_too(tmp_path: Path) -> None:
    report = class_report()
    report.figures["mine"] = drawings(report)["reliability"]
    data = png(drawings(report)["mine"]())
    (tmp_path / "mine.png").write_bytes(data)
    with Image.open(tmp_path / "mine.png") as image:
        assert min(image.size) > 300

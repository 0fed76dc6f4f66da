"""`python -m scripts.table` from end to end: a checkpoint on tiny data, evaluated once, set beside published values."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import table

from kinema.models.videopose3d import VideoPose3D
from kinema.results import evaluate
from tests.data.layouts import layout

REGISTRY = """
actions:
  few: {Walk: walk, Squat: squat}
tables:
  tiny:
    {set: tiny, title: Tiny data, protocol: videopose3d, measure: mpjpe, actions: few, range: [1, 2000]}
methods:
  good: {name: Good net, paper: A 2020, experiment: cmu/videopose3d, checkpoints: [good.bin], weights: somebody}
  broken: {name: Broken file, paper: B 2020, experiment: cmu/videopose3d, checkpoints: [broken.bin], weights: somebody}
  absent: {name: Absent file, paper: C 2020, experiment: cmu/videopose3d, checkpoints: [absent.bin], weights: somebody}
results:
  tiny:
    - {method: broken, actions: [41.0, 43.0], average: 42.0, source: paper}
    - {method: good, actions: [2.0, 4.0], average: 3.0, source: "paper, table 1"}
    - {method: absent, average: 50.0, source: paper}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data, an official checkpoint, a broken one, and a registry of three rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("KINEMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KINEMA_DATA", raising=False)
    layout().save(tmp_path / "data" / "cmu_mocap")
    torch.manual_seed(0)
    sizes = {"num_joints": 17, "num_joints_out": 17, "in_channels": 3, "filter_widths": [3, 3, 3], "channels": 16}
    model = VideoPose3D(**sizes, dropout=0.25, causal=False, dense=False, trajectory=False, root=0)
    (tmp_path / "checkpoint").mkdir()
    state = {"epoch": 80, "lr": 1e-4, "random_state": np.random.RandomState(0), "optimizer": None}
    torch.save({**state, "model_pos": model.state_dict()}, tmp_path / "checkpoint" / "good.bin")
    (tmp_path / "checkpoint" / "broken.bin").write_bytes(b"no checkpoint")
    (tmp_path / "registry.yaml").write_text(REGISTRY)
    return tmp_path


def make(home: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Make the tables; lines of the CSV by system and whose values they are."""
    assert table.main(["tiny", "--registry", "registry.yaml", "trainer.accelerator=cpu"]) == 0
    with (home / "outputs/tables/tiny.csv").open() as file:
        return {(row["system"], row["values"]): row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_a_table_from_checkpoints(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = make(home)
    good = lines["Good net", "ours"]
    walk, squat, average = (float(good[column]) for column in ("Walk", "Squat", "Average"))
    assert average == pytest.approx((walk + squat) / 2) and average > 100, "a random network"
    assert "WRONG ORDER OF MAGNITUDE" in good["notes"] and "good.bin (sha256" in good["notes"]
    assert lines["Good net", "published"]["Average"] == "3.0"
    broken = lines["Broken file", "ours"]
    assert not broken["Average"] and "broken.bin failed" in broken["notes"]
    absent = lines["Absent file", "ours"]
    assert not absent["Average"] and "somebody offers absent.bin" in absent["notes"]
    shown = capsys.readouterr().out
    assert "Tiny data (protocol videopose3d, version 1)" in shown and f"{average:.1f}" in shown
    assert r"\begin{tabular}" in (home / "outputs/tables/tiny.tex").read_text()
    assert f"| {walk:.1f} | {squat:.1f} | {average:.1f} |" in (home / "outputs/tables/tiny.md").read_text()
    # What was measured is read again: only the broken file, of which nothing is known, is tried once more.
    (home / "checkpoint" / "broken.bin").unlink()
    monkeypatch.setattr(evaluate, "start", lambda *_: pytest.fail("evaluated again"))
    assert make(home)["Good net", "ours"] == good


TRAINED = """
actions: {few: {Walk: walk, Squat: squat}}
tables:
  tiny:
    set: tiny
    title: Tiny data
    protocol: videopose3d
    measure: mpjpe
    actions: few
    facts: [parameters, steps, CPU min, seed]
    range: [1, 2000]
methods:
  net:
    name: Net
    paper: A 2020
    experiment: cmu/videopose3d
    overrides:
      - trainer.max_steps=2
      - trainer.val_check_interval=2
      - model.channels=16
      - dataset.batch_size=4
      - dataset.trials_val=[train_B/wave 4]
results:
  tiny:
    - {method: net}
"""


@pytest.mark.slow  # a training of its own
def test_a_table_of_what_it_trains_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "registry.yaml").write_text(TRAINED)
    words = ["tiny", "--registry", "registry.yaml", "--train", "trainer.accelerator=cpu"]
    assert table.main(words) == 0
    first = (home / "outputs/tables/tiny.csv").read_text()
    (line,) = csv.DictReader(first.splitlines())
    assert float(line["Average"]) > 0 and line["steps"] == "2.0" and line["seed"] == "0.0"
    assert 0 < float(line["CPU min"]) < 5 and float(line["parameters"]) > 1000
    monkeypatch.setattr(evaluate, "start", lambda *_: pytest.fail("trained again"))
    assert table.main(words) == 0
    assert (home / "outputs/tables/tiny.csv").read_text() == first


def test_without_data_there_is_a_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "start", lambda *_: pytest.fail("nothing to evaluate"))
    (home / "data" / "cmu_mocap" / "data_3d_cmu.npz").unlink()
    good = make(home)["Good net", "ours"]
    assert not good["Average"] and "data_3d_cmu.npz not found" in good["notes"] and "paths.data_dir=" in good["notes"]


def test_an_unknown_table_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main(["tinny", "--registry", "registry.yaml"]) == 2
    assert "Use tiny." in capsys.readouterr().err

"""What is told of a sweep: results with their intervals, means over seeds, and the best of what was searched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kinema.summary import summarise


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def member(folder: Path, number: int, value: float, words: list[str], **metrics: float) -> None:
    run = folder / str(number)
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "overrides.yaml").write_text("\n".join(f"- {word!r}" for word in words))
    (run / "config.resolved.yaml").write_text("objective: val/top1\nobjective_mode: max\n")
    (run / "status.json").write_text(json.dumps({"status": "finished", "objective": value}))
    (run / "metrics.json").write_text(json.dumps({f"test/{name}": value for name, value in metrics.items()}))


def test_seeds_are_summed_up_by_what_was_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, (value, test) in enumerate(((90.0, 70.0), (92.0, 74.0), (94.0, 78.0))):
        words = ["task=action", f"seed={seed}"]
        member(tmp_path, seed, value, words, top1=test, top1_low=test - 8, top1_high=test + 7)
    summarise(tmp_path)
    shown = capsys.readouterr().out
    assert "all: val/top1 92 ± 2 over 3 seeds" in shown
    assert "all: test/top1 74 ± 4 over 3 seeds" in shown
    assert "78 (70 to 85)" in shown
    assert "best:" not in shown, "a seed is nothing to choose"


def test_a_search_over_seeds_tells_of_every_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (rate, seed) in enumerate((rate, seed) for rate in ("1e-3", "1e-4") for seed in (0, 1)):
        words = ["dataset.classes=[a,b]", f"task.optimizer.lr={rate}", f"seed={seed}"]
        member(tmp_path, number, 50.0 + number, words, top1=40.0 + number)
    best = summarise(tmp_path)
    shown = capsys.readouterr().out
    assert best is not None and best["run"] == "3"
    assert "best: val/top1 53 with" in shown
    assert "python run.py 'dataset.classes=[a,b]' task.optimizer.lr=1e-4 seed=1" in shown
    assert "task.optimizer.lr=1e-3: test/top1 40.5 ± 0.71 over 2 seeds" in shown
    assert "task.optimizer.lr=1e-4: val/top1 52.5 ± 0.71 over 2 seeds" in shown

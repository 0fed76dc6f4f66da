"""An interrupted test goes on from its journal to the numbers of a whole one, bit by bit, and of no other test."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from kinema.callbacks import journal as module
from kinema.callbacks.journal import ENTRY, FOLDER, Journal, difference, journals, weights_hash
from kinema.errors import ConfigError
from tests.data import motions
from tests.data.clips import module as clips
from tests.tasks import lifters
from tests.tasks.test_action import task as action_task
from tests.tasks.test_prediction import task as prediction_task


class Cut(Exception):
    """The power fails."""


class Cutter(pl.Callback):
    """End the process, as it were, inside a batch of the test."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_test_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        if batch_idx == self.batch:
            raise Cut


def lifting(folder: Path) -> tuple[Any, Any]:
    """A lifting task of two variants, and its data: a sequence of the test is a batch."""
    task = lifters.task(variants={"default": {}, "flipped": {"flip_average": True}})
    return task, lifters.data(folder, subjects_test=["S1", "S5", "S9"])


def actions(folder: Path) -> tuple[Any, Any]:
    """An action task with several batches of clips."""
    return action_task(), clips(folder, eval_batch_size=1)


def futures(folder: Path) -> tuple[Any, Any]:
    """A prediction task that samples, and a baseline; a window is a batch."""
    variants = {"default": {}, "half": {"mod_test": 0.5}, "nearest": {"baseline": "nearest"}}
    return prediction_task(variants=variants), motions.module(motions.write(folder / "motion"), eval_batch_size=1)


def measured(task: Any, data: Any, *callbacks: pl.Callback) -> tuple[dict[str, float], int]:
    """Metrics of a test, and how many batches were predicted."""
    calls = []
    predict = task.predict

    def counted(batch: Any, **options: Any) -> Any:
        calls.append(len(batch["index"]))
        return predict(batch, **options)

    task.predict = counted
    trainer = lifters.trainer(callbacks=list(callbacks))
    try:
        trainer.test(task, datamodule=data, verbose=False)
    finally:
        task.predict = predict
    return {key: float(value) for key, value in trainer.callback_metrics.items()}, len(calls)


def interrupted(make: Any, folder: Path, batch: int) -> Path:
    """The journal of a run that ended inside a batch."""
    with pytest.raises(Cut):
        measured(*make(folder), Journal(str(folder / "cut"), interval=0), Cutter(batch))
    return folder / "cut" / FOLDER


def offered(folder: Path, *where: Path, strict: bool = False) -> Journal:
    journal = Journal(str(folder / "again"), interval=0)
    journal.offered, journal.strict = list(where), strict
    return journal


@pytest.mark.parametrize("make", [lifting, actions, futures])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_test_goes_on_where_it_stopped_with_equal_numbers(make: Any, batch: int, tmp_path: Path) -> None:
    whole, all_batches = measured(*make(tmp_path))
    written = interrupted(make, tmp_path, batch)
    note = json.loads((written / ENTRY).read_text())
    assert note["batches"] == batch, "what is inside the batch that was cut is lost"
    assert 2 <= len(list(written.glob("*.pt"))) + (batch == 1) <= 3, "old entries are removed"
    resumed, batches = measured(*make(tmp_path), offered(tmp_path, written))
    assert resumed == whole
    variants = all_batches // note["total"]
    assert batches == all_batches - variants * batch
    assert not written.exists() and not (tmp_path / "again" / FOLDER).exists(), "it has ended"


def test_a_test_is_cut_twice(tmp_path: Path) -> None:
    whole, _ = measured(*lifting(tmp_path))
    first = interrupted(lifting, tmp_path, 1)
    with pytest.raises(Cut):
        measured(*lifting(tmp_path), offered(tmp_path, first), Cutter(3))
    second = tmp_path / "again" / FOLDER
    assert json.loads((second / ENTRY).read_text())["batches"] == 3
    journal = Journal(str(tmp_path / "third"), interval=0)
    journal.offered = [second, first]
    assert measured(*lifting(tmp_path), journal)[0] == whole


def test_no_entry_is_written_before_the_interval_is_over(tmp_path: Path) -> None:
    with pytest.raises(Cut):
        measured(*lifting(tmp_path), Journal(str(tmp_path / "cut"), interval=3600), Cutter(3))
    assert not (tmp_path / "cut").exists()


def test_running_generators_go_on_as_well(tmp_path: Path) -> None:
    def noisy(folder: Path) -> tuple[Any, Any]:
        task, data = lifting(folder)
        plain = type(task).predict

        def predict(batch: Any, **options: Any) -> Any:
            noise = random.random() + np.random.random() + torch.rand(())
            return plain(task, batch, **options) + noise

        task.predict = predict
        return task, data

    def seeded(*callbacks: pl.Callback) -> dict[str, float]:
        pl.seed_everything(5, verbose=False)
        return measured(*noisy(tmp_path), *callbacks)[0]

    whole = seeded()
    with pytest.raises(Cut):
        seeded(Journal(str(tmp_path / "cut"), interval=0), Cutter(2))
    pl.seed_everything(99, verbose=False)
    assert measured(*noisy(tmp_path), offered(tmp_path, tmp_path / "cut" / FOLDER))[0] == whole


def changed_weights(task: Any, data: Any) -> None:
    with torch.no_grad():
        task.model.head.bias[3] += 1


def changed_windows(task: Any, data: Any) -> None:
    data.windows("test").table[0, 0] = 1


def changed_config(task: Any, data: Any) -> None:
    task.config = {"dataset": {"flip": True}, "seed": 0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed_weights, "it tests other weights"),
        (changed_windows, "it tests other windows"),
        (changed_config, r"its seed is None, this one.s is 0"),
    ],
)
def test_another_evaluation_is_refused_or_passed_over(
    change: Any, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = interrupted(lifting, tmp_path, 2)
    task, data = lifting(tmp_path)
    change(task, data)
    with pytest.raises(ConfigError, match=words):
        measured(task, data, offered(tmp_path, written, strict=True))
    assert written.is_dir()
    task, data = lifting(tmp_path)
    change(task, data)
    with caplog.at_level("INFO", logger=module.__name__):
        _, batches = measured(task, data, offered(tmp_path, written))
    assert "passed over" in caplog.text and batches == 2 * 5
    assert written.is_dir(), "the journal of another evaluation is left alone"


def test_a_journal_without_its_entry_is_passed_over(tmp_path: Path) -> None:
    whole, batches = measured(*lifting(tmp_path))
    written = interrupted(lifting, tmp_path, 2)
    for path in written.glob("*.pt"):
        path.unlink()
    assert measured(*lifting(tmp_path), offered(tmp_path, written)) == (whole, batches)


def test_a_difference_names_the_key_and_both_values() -> None:
    before = {"weights": "a", "dataset": {"limit": {"windows": 20}}, "devices": 2}
    now = {"weights": "a", "dataset": {"limit": {"windows": 40}}, "devices": 2}
    assert difference(before, now) == "its dataset.limit.windows is 20, this one's is 40"
    assert difference(before, {**before, "devices": 1}) == "its devices is 2, this one's is 1"
    assert difference(before, before) is None


def test_places_and_workers_may_change(tmp_path: Path) -> None:
    def at(root: str, workers: int) -> tuple[Any, Any]:
        task, data = lifting(tmp_path)
        task.config = {"dataset": {"root": root, "num_workers": workers, "frames": 3}, "seed": 0}
        return task, data

    with pytest.raises(Cut):
        measured(*at("here", 0), Journal(str(tmp_path / "cut"), interval=0), Cutter(2))
    _, batches = measured(*at("there", 2), offered(tmp_path, tmp_path / "cut" / FOLDER, strict=True))
    assert batches == 2 * 3


def test_the_hash_sees_every_weight() -> None:
    task = lifters.task()
    before = weights_hash(task)
    assert weights_hash(lifters.task()) == before
    with torch.no_grad():
        task.model.head.weight[-1, -1] += 1e-3
    assert weights_hash(task) != before


def test_a_trainer_without_a_journal_has_none() -> None:
    assert journals(lifters.trainer()) == []
    assert len(journals(lifters.trainer(callbacks=[Journal("unused")]))) == 1

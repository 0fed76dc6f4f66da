"""Curves of trainings from `metrics.csv` or TensorBoard files: Kinema's own, MotionBERT's and the MA-52 fork's."""

from __future__ import annotations

import csv
import json
import logging
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from kinema.errors import DataError
from kinema.launch import standing

_EVENTS = "events.out.tfevents.*"
_INSIDE = ("tensorboard", "logs")  # folders of event files inside a run
_STAGE = re.compile(r"^(train|val|test)[/_]")
# What is better when it is larger; everything else is an error or a loss.
_LARGER = re.compile(r"top\d|accuracy|acc$|f1|auc|pck|mean_class", re.IGNORECASE)
# Objectives of programs that do not write theirs down: in their logs "test" is what the best epoch is chosen by.
_OBJECTIVES = ("test_top1", "Error P1", "test_loss", "train_loss", "loss_total", "train/loss_epoch", "train/loss")


@dataclass(frozen=True)
class Curve:
    """One quantity over a training: `x` epochs (or steps, see `Training.unit`) and `y`."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Training:
    """The curves of one run and how it stands.

    Attributes:
        name: the folder, relative to the one that was asked for.
        folder: of the run.
        curves: by the name under which they were logged, without results of the final test.
        unit: of their horizontal axis, "epoch" or "step".
        objective: name of the curve that the best epoch is chosen by, where there is one.
        larger: whether more of the objective is better.
        status: running, finished, interrupted, failed, lost (killed), or "" where nothing says so.
        of: epochs the training was to have, where known.
        steps: optimiser steps done and to be done, where their number ends the training.
        results: of the final test.
        changed: seconds since 1970 of the last entry.
    """

    name: str
    folder: Path
    curves: dict[str, Curve]
    unit: str
    objective: str | None
    larger: bool
    status: str = ""
    of: int | None = None
    steps: tuple[int, int] | None = None
    results: dict[str, float] = field(default_factory=dict)
    changed: float = 0.0

    @property
    def best(self) -> tuple[float, float] | None:
        """(x, y) of the best value of the objective, the first one of equals; None before there is one."""
        curve = self.curves.get(self.objective or "")
        if curve is None or not np.isfinite(curve.y).any():
            return None
        place = int(np.nanargmax(curve.y) if self.larger else np.nanargmin(curve.y))
        return float(curve.x[place]), float(curve.y[place])

    @property
    def reached(self) -> float:
        """The furthest point of all curves."""
        return max((float(curve.x[-1]) for curve in self.curves.values()), default=0.0)


def kind(name: str) -> str:
    """What a curve shows: "loss", "rate" (learning rate), "term" of a loss, or the metric without its stage ("top1").

    What Kinema measures in training are terms of the loss, in the unit of the targets, whatever their name.
    """
    base = _STAGE.sub("", name).removesuffix("_epoch")
    if base == "lr" or base.startswith("lr-") or "learning_rate" in base:
        return "rate"
    if base in ("loss", "loss_total", "loss_supcon"):
        return "loss"
    terms = base.startswith("loss") or (name.startswith("train/") and not _LARGER.search(base))
    return "term" if terms else base


def stage(name: str) -> str:
    """ "train", "val" or "test" by the beginning of a curve's name; "" where it says nothing."""
    found = _STAGE.match(name)
    return found[1] if found else ""


def trainings(folder: Path, *, limit: int = 10) -> list[Training]:
    """The trainings in a folder (itself one, or with some below it), the `limit` most recently changed, by name.

    Raises:
        DataError: where there is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder. Train something first, or name a run: monitor.folder=the/run.")
    found: list[Training] = []
    for run in sorted(_runs(folder), key=_changed, reverse=True):
        one = _training(run, folder) if len(found) < limit else None
        if one is not None:
            found.append(one)
    if not found:
        raise DataError(
            f"{folder} holds no training: no metrics.csv and no {_EVENTS} with curves. Train something first, or name "
            f"a run: monitor.folder=the/run."
        )
    return sorted(found, key=lambda one: one.name)


def _runs(folder: Path) -> set[Path]:
    """Folders of runs: those with metrics.csv, or with event files in themselves or one of the usual folders."""
    files = [path for pattern in ("metrics.csv", _EVENTS) for path in folder.rglob(pattern)]
    return {path.parent.parent if path.parent.name in _INSIDE else path.parent for path in files}


def _sources(run: Path) -> list[Path]:
    places = [run, *(run / name for name in _INSIDE)]
    return [run / "metrics.csv", *(file for place in places for file in sorted(place.glob(_EVENTS)))]


def _changed(run: Path) -> float:
    return max((path.stat().st_mtime for path in _sources(run) if path.is_file()), default=0.0)


def _training(run: Path, root: Path) -> Training | None:
    """The training of a run directory; None where it logged none, such as that of mode=test."""
    rows = _rows_of(run)
    logged = {name for row in rows.values() for name in row}
    if rows and all(name.startswith("test/") or name == "epoch" for name in logged):
        return None
    ours = any("/" in name or name == "epoch" for name in logged)
    unit, place = _epochs(rows) if ours else ("epoch", lambda step, name: float(step))
    curves: dict[str, Curve] = {}
    names = dict.fromkeys(name for step in sorted(rows) for name in rows[step])
    for name in names:
        points = [(place(step, name), rows[step][name]) for step in sorted(rows) if name in rows[step]]
        if name != "epoch" and not name.startswith("test/"):
            x, y = np.array(points, np.float64).T
            curves[name] = Curve(x, y)
    config = _yaml(run / "config.resolved.yaml")
    objective = config.get("objective")
    if objective not in curves:
        objective = next((name for name in _OBJECTIVES if name in curves), None)
    larger = bool(objective and _LARGER.search(objective))
    if config.get("objective_mode") and objective == config.get("objective"):
        larger = config["objective_mode"] == "max"
    trainer = config.get("trainer") or {}
    of, steps = trainer.get("max_epochs"), trainer.get("max_steps")
    limit = steps if isinstance(steps, int) and steps > 0 and ours else None
    done = max((_done(step, name) for step in rows for name in rows[step]), default=0)
    return Training(
        name=run.name if run == root else str(run.relative_to(root)),
        folder=run,
        curves=curves,
        unit=unit,
        objective=objective,
        larger=larger,
        status=standing(_json(run / "status.json")),
        of=of if isinstance(of, int) and of > 0 and limit is None else None,
        steps=None if limit is None else (done, limit),
        results={name: value for name, value in _json(run / "metrics.json").items() if name.startswith("test/")},
        changed=_changed(run),
    )


# --- what was logged --------------------------------------------------------------------------------------------------

Rows = dict[int, dict[str, float]]  # step -> name -> value


def _rows_of(run: Path, seen: frozenset[Path] = frozenset()) -> Rows:
    """What a run logged, after what the run logged that it went on with."""
    path = run / "metrics.csv"
    rows = _read_csv(path) if path.is_file() else {}
    if not rows:
        rows = _read_events(run)
    earlier = _json(run / "status.json").get("resumed_from")
    if earlier and rows:
        source = Path(earlier).parent.parent
        if source.is_dir() and source != run and source not in seen:
            first = min(step for step, row in rows.items() if any(stage(name) for name in row))
            before = _rows_of(source, seen | {run})
            rows = {**{step: row for step, row in before.items() if step < first}, **rows}
    return rows


def _read_csv(path: Path) -> Rows:
    """Rows of Lightning's CSVLogger; a line that is still being written is left out."""
    rows: Rows = {}
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            values = {name: _number(text) for name, text in line.items() if name and name != "step"}
            step = _number(line.get("step"))
            if step is not None and None not in line.values():
                rows.setdefault(int(step), {}).update({n: value for n, value in values.items() if value is not None})
    return rows


def _read_events(run: Path) -> Rows:
    """Scalars of all event files of a run; where a step was logged twice, the later entry counts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    logging.getLogger("tensorboard").setLevel(logging.WARNING)
    rows: Rows = {}
    for place in (run, *(run / name for name in _INSIDE)):
        if not any(place.glob(_EVENTS)):
            continue
        events = EventAccumulator(str(place), size_guidance={"scalars": 0, "images": 1}).Reload()
        entries = [(entry, name) for name in events.Tags()["scalars"] for entry in events.Scalars(name)]
        for entry, name in sorted(entries, key=lambda pair: pair[0].wall_time):
            rows.setdefault(entry.step, {})[name] = entry.value
    return rows


def _epochs(rows: Rows) -> tuple[str, Callable[[int, str], float]]:
    """A function from a step and what was logged at it to its place in epochs; in steps before a first epoch ended.

    Where an epoch ended stands a whole number, and straight lines between. Lightning logs what belongs to an epoch at
    the number of its last step, counted from 0, and everything else at the number of steps done.
    """
    ends = {
        step + 1: row["epoch"] + 1
        for step, row in sorted(rows.items())
        if "epoch" in row and any(name.startswith("train/") and name.endswith("_epoch") for name in row)
    }

    if not ends:
        return "step", lambda step, name: float(_done(step, name))
    steps, epochs = [0, *ends], [0.0, *ends.values()]
    rate = (epochs[-1] - epochs[-2]) / (steps[-1] - steps[-2])

    def place(step: int, name: str) -> float:
        at = _done(step, name)
        return float(np.interp(at, steps, epochs)) + max(at - steps[-1], 0) * rate

    return "epoch", place


def _done(step: int, name: str) -> int:
    return step + 1 if name.startswith("val/") or name.endswith("_epoch") else step


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if not math.isnan(value) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # not there, or just being written
        return {}


def _yaml(path: Path) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False) if path.is_file() else {}
    return found


def metrics_of(runs: Iterable[Training]) -> list[str]:
    """Names of the metrics that the curves of some runs show, without stages, losses and learning rates."""
    found = (kind(name) for run in runs for name in run.curves)
    return list(dict.fromkeys(name for name in found if name not in ("loss", "rate", "term")))

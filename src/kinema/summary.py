"""What a sweep found: a table of its members, the failed ones and the best command."""

from __future__ import annotations

import csv
import json
import logging
import math
import shlex
import statistics
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from kinema.errors import DataError
from kinema.launch import standing

log = logging.getLogger(__name__)


class MultirunSummary(Callback):
    """Hydra callback that remembers where a multirun writes.

    Hydra raises a failed member's error before its own end-of-multirun hook, so the command line prints the summary.
    """

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the sweep directory."""
        type(self).folder = Path(config.hydra.sweep.dir)


def summarise_multirun() -> None:
    """Print the summary of the multirun of this process, if there was one with members."""
    folder = MultirunSummary.folder
    if folder is not None and any(folder.glob("*/status.json")):
        summarise(folder)


def members(folder: Path) -> list[dict[str, Any]]:
    """One record per run of a sweep: number, status, objective, overrides, metrics.

    Raises:
        DataError: where the folder holds no runs.
    """
    found = []
    numbered = sorted(folder.glob("*/status.json"), key=lambda path: (len(path.parent.name), path.parent.name))
    for path in numbered:
        status = json.loads(path.read_text())
        run = path.parent
        config: Any = OmegaConf.load(run / "config.resolved.yaml")
        typed = run / ".hydra" / "overrides.yaml"
        overrides: Any = OmegaConf.load(typed) if typed.is_file() else []
        metrics = run / "metrics.json"
        values = json.loads(metrics.read_text()) if metrics.is_file() else {}
        values.pop("_meta", None)
        found.append(
            {
                "run": run.name,
                "status": standing(status),
                "reason": str(status.get("reason", "")),
                "objective": status.get("objective"),
                "name": config.get("objective", "objective"),
                "mode": config.get("objective_mode", "min"),
                "overrides": [str(word) for word in overrides],
                "metrics": values,
            }
        )
    if not found:
        raise DataError(f"{folder} holds no runs (no */status.json). Name a folder under multirun/.")
    return found


def summarise(folder: Path) -> dict[str, Any] | None:
    """Write `summary.csv`, print the members, the failures and the best command; return the best member."""
    from rich.console import Console
    from rich.table import Table

    runs = members(folder)
    name = str(runs[0]["name"])
    sign = 1.0 if runs[0]["mode"] == "min" else -1.0

    def rank(run: dict[str, Any]) -> float:
        value = run["objective"]
        return sign * value if isinstance(value, (int, float)) and math.isfinite(value) else math.inf

    ordered = sorted(runs, key=rank)
    varied = _varied(runs)
    others = sorted({key for run in runs for key in run["metrics"] if key.startswith("test/") and key.count("/") == 1})
    with (folder / "summary.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "status", name, *varied, *others, "reason"])
        for run in ordered:
            told = dict(_split(word) for word in run["overrides"])
            cells = [told.get(key, "") for key in varied] + [run["metrics"].get(key, "") for key in others]
            writer.writerow([run["run"], run["status"], run["objective"], *cells, run["reason"]])
    tested = _tested(name)
    results = [tested] if any(tested in run["metrics"] for run in runs) and tested != name else []
    table = Table(title=f"{folder}: {len(runs)} runs")
    for column in ("run", "status", name, *results, *varied):
        table.add_column(column, justify="left" if column == "status" else "right")
    for run in ordered:
        told = dict(_split(word) for word in run["overrides"])
        shown = [_shown(run["objective"]), *(_with_interval(run["metrics"], result) for result in results)]
        table.add_row(run["run"], run["status"], *shown, *(told.get(key, "") for key in varied))
    console = Console() if Console().is_terminal else Console(width=160)
    console.print(table)
    failed = [run for run in runs if run["status"] != "finished"]
    for run in failed:
        console.print(f"failed: run {run['run']} ({run['status']}): {run['reason'] or 'see its run.log'}", markup=False)
    best = ordered[0] if rank(ordered[0]) < math.inf else None
    if best is not None and varied != ["seed"]:  # the best of some seeds is no finding
        console.print(f"best: {name} {best['objective']:.4g} with", markup=False)
        console.print(f"  python run.py {shlex.join(best['overrides'])}", markup=False, soft_wrap=True)
    for group in _over_seeds(runs):
        title = " ".join(w for w in group[0]["overrides"] if _split(w)[0] in varied and _split(w)[0] != "seed") or "all"
        for column in (name, *results):
            values = [_value(run, name, column) for run in group]
            known = [float(value) for value in values if isinstance(value, (int, float))]
            if len(known) > 1:
                mean, deviation = statistics.fmean(known), statistics.stdev(known)
                line = f"{title}: {column} {mean:.4g} ± {deviation:.2g} over {len(known)} seeds"
                console.print(line, markup=False, soft_wrap=True)
    return best


def _tested(objective: str) -> str:
    """The test result beside an objective that was measured on validation data."""
    return f"test/{objective.partition('/')[2] or objective}"


def _value(run: dict[str, Any], name: str, column: str) -> Any:
    return run["objective"] if column == name else run["metrics"].get(column)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "-"


def _with_interval(metrics: dict[str, Any], name: str) -> str:
    """A result with its confidence interval, where it has one: "81.5 (73.4 to 87.5)"."""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    interval = "" if low is None or high is None else f" ({_shown(low)} to {_shown(high)})"
    return _shown(metrics.get(name)) + interval


def _split(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.lstrip("+~"), value


def _varied(runs: list[dict[str, Any]]) -> list[str]:
    """Overrides that differ between the members, in the order they were given."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        for word in run["overrides"]:
            key, value = _split(word)
            seen.setdefault(key, set()).add(value)
    return [key for key, values in seen.items() if len(values) > 1]


def _over_seeds(runs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Finished members in groups that differ in their seed only."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        if run["status"] == "finished":
            rest = tuple(word for word in run["overrides"] if not word.startswith("seed="))
            groups.setdefault(rest, []).append(run)
    return [members for members in groups.values() if len(members) > 1]

"""What a sweep found: a table of its members, the failed ones and the best command."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from kinema.errors import DataError

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
                "status": status["status"],
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
    table = Table(title=f"{folder}: {len(runs)} runs")
    for column in ("run", "status", name, *varied):
        table.add_column(column, justify="left" if column == "status" else "right")
    for run in ordered:
        told = dict(_split(word) for word in run["overrides"])
        value = run["objective"]
        shown = f"{value:.4g}" if isinstance(value, (int, float)) else "-"
        table.add_row(run["run"], run["status"], shown, *(told.get(key, "") for key in varied))
    console = Console() if Console().is_terminal else Console(width=160)
    console.print(table)
    failed = [run for run in runs if run["status"] != "finished"]
    for run in failed:
        console.print(f"failed: run {run['run']} ({run['status']}): {run['reason'] or 'see its run.log'}", markup=False)
    best = ordered[0] if rank(ordered[0]) < math.inf else None
    if best is not None:
        console.print(f"best: {name} {best['objective']:.4g} with", markup=False)
        console.print(f"  python run.py {' '.join(best['overrides'])}", markup=False, soft_wrap=True)
    groups = _over_seeds(runs)
    for title, values in groups.items():
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        console.print(f"{title}: {mean:.4g} ± {deviation:.2g} over {len(values)} seeds", markup=False)
    return best


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


def _over_seeds(runs: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Finished members that differ in their seed only: objective values by the rest of their overrides."""
    groups: dict[str, list[float]] = {}
    for run in runs:
        if run["status"] == "finished" and isinstance(run["objective"], (int, float)):
            rest = " ".join(word for word in run["overrides"] if not word.startswith("seed="))
            groups.setdefault(rest or "all", []).append(float(run["objective"]))
    return {key: values for key, values in groups.items() if len(values) > 1}

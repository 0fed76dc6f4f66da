"""Trainings that a table can show: finished runs of an experiment, with nothing changed that its row does not name."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kinema.launch import config_dir
from kinema.results.registry import Method
from kinema.results.tables import Measured

log = logging.getLogger(__name__)
# Overrides that say where and on what a run goes, not what is trained; `init` is compared by itself.
NEUTRAL = (
    "experiment=", "mode=train", "seed=", "resume=", "init=", "tags=", "traceback=", "paths.", "hydra.", "hydra/",
    "logger", "callbacks.figures", "~callbacks.figures", "callbacks.progress", "~callbacks.progress", "trainer=",
    "trainer.accelerator=", "trainer.devices=", "trainer.enable_progress_bar=", "dataset.num_workers=",
    "dataset.cache_dir=", "dataset.root=",
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """A finished run of an experiment.

    Attributes:
        folder: the run directory.
        experiment: its recipe.
        changed: overrides that change what is trained.
        seed: of the run.
        finished: time at which it ended, seconds.
        init: the weights that it started from; None = from scratch.
    """

    folder: Path
    experiment: str
    changed: frozenset[str]
    seed: int
    finished: float
    init: str | None


def trainings(folder: Path) -> list[Training]:
    """Every finished training with test results below a folder; unreadable ones are skipped, with a line each."""
    found = []
    for status in sorted(folder.rglob("status.json")):
        try:
            one = _training(status)
        except (OSError, ValueError, KeyError) as error:
            log.warning("%s cannot be read and is left out: %s", status.parent, error)
            continue
        if one is not None:
            found.append(one)
    return found


def _training(status: Path) -> Training | None:
    run = status.parent
    metrics = run / "metrics.json"
    if json.loads(status.read_text()).get("status") != "finished" or not metrics.is_file():
        return None
    words = typed(run)
    experiment = [word.partition("=")[2] for word in words if word.startswith(("experiment=", "+experiment="))]
    trains = all(word == "mode=train" for word in words if word.startswith("mode="))
    if not experiment or not trains or not any(key.startswith("test/") for key in json.loads(metrics.read_text())):
        return None
    changed = frozenset(plain(word) for word in words if not word.startswith(NEUTRAL))
    config: Any = OmegaConf.load(run / "config.resolved.yaml")
    return Training(run, experiment[-1], changed, int(config.seed), status.stat().st_mtime, config.get("init"))


def typed(run: Path) -> list[str]:
    """The overrides of a run: those that Hydra noted, or of its command where Hydra's folder lies elsewhere."""
    noted = run / ".hydra" / "overrides.yaml"
    if noted.is_file():
        return [str(word) for word in OmegaConf.load(noted)]
    return [word for word in shlex.split((run / "command.txt").read_text()) if "=" in word and word[0] != "-"]


def plain(word: str) -> str:
    """An override without quotes and spaces, to compare."""
    return word.translate(str.maketrans("", "", "'\" "))


def of_method(method: Method, found: Iterable[Training]) -> tuple[list[Training], list[Training]]:
    """The newest training of a row for each seed, and runs of its experiment that changed something else.

    Rows that are finetuned need weights to start from (`init=`), and rows from scratch none: their recipes may be the
    same but for that.
    """
    if method.experiment is None or not method.trains:
        return [], []
    recipe = _recipe(method.experiment)
    wanted = frozenset(plain(word) for word in method.overrides)
    mine: dict[int, Training] = {}
    changed = []
    for one in sorted(found, key=lambda training: training.finished):
        if _recipe(one.experiment) != recipe:
            continue
        if one.changed == wanted and bool(one.init) == bool(method.init):
            mine[one.seed] = one
        elif one.changed - wanted or one.changed == wanted:
            changed.append(one)
    return [mine[seed] for seed in sorted(mine)], changed


@cache
def _recipe(experiment: str) -> str:
    """The recipe behind a name: files such as hmsft/3dhp.yaml hold nothing but the name of another."""
    file = config_dir() / "experiment" / f"{experiment}.yaml"
    content: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    first, *rest = content.get("defaults", [None])
    thin = set(content) == {"defaults"} and rest == ["_self_"] and str(first).startswith("/experiment/")
    return str(first).removeprefix("/experiment/") if thin else experiment


def measured(training: Training) -> Measured:
    """The test results that a training left behind, with what it took."""
    values, meta = read_metrics(training.folder)
    config: Any = OmegaConf.load(training.folder / "config.resolved.yaml")
    known = {
        "parameters": meta.get("parameters"),
        "steps": meta.get("step"),
        "CPU min": meta["fit_cpu_seconds"] / 60 if "fit_cpu_seconds" in meta else None,
        "seed": training.seed,
    }
    words = [word for word in typed(training.folder) if not word.startswith(("hydra.", "paths."))]
    return Measured(
        label=f"trained here, `python run.py {' '.join(words)}`, seed {training.seed}, {training.folder.name}",
        metrics=values,
        protocol=str(config.task.protocol),
        version=int(meta.get("protocol_versions", {}).get("test", 0)),
        facts={name: float(value) for name, value in known.items() if value is not None},
    )


def read_metrics(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Test results of a run without "test/", and what they were measured on."""
    document = json.loads((folder / "metrics.json").read_text())
    meta = document.pop("_meta", {})
    return {key.removeprefix("test/"): value for key, value in document.items() if key.startswith("test/")}, meta


def left_out(method: Method, changed: Sequence[Training]) -> str:
    """A sentence about runs that are not the recipe."""
    words = sorted({word for one in changed for word in _difference(method, one)})
    shown = ", ".join(words[:4]) + (", ..." if len(words) > 4 else "")
    return f"{method.name}: {len(changed)} finished runs with other settings are left out ({shown})."


def _difference(method: Method, one: Training) -> set[str]:
    words = set(one.changed - {plain(word) for word in method.overrides})
    return words | ({f"init={one.init or 'null'}"} if bool(one.init) != bool(method.init) else set())

"""mode=monitor: the curves of a training, or of all trainings in a folder, as a table, a picture and a page."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from kinema.callbacks.report import wide_console
from kinema.errors import ConfigError
from kinema.files import write_atomic
from kinema.results.curves import Training, kind, metrics_of, stage, trainings
from kinema.viz.curves import Line, draw_curves, swatches
from kinema.viz.html import Page, png

if TYPE_CHECKING:
    from rich.table import Table

# Metrics that are drawn beside the objective where nobody chose others.
_USUAL = ("top1", "top5", "mean_class", "f1_mean", "mpjpe", "p_mpjpe", "Error P1", "Error P2")
_PANELS = 4  # of metrics
_LOSS, _TERMS, _RATE = "Loss", "Terms of the loss", "Learning rate"
_WIDE = (_LOSS, _TERMS, _RATE)  # may run over orders of magnitude


def run(config: DictConfig) -> float | None:
    """Show the trainings in `monitor.folder`; with `monitor.every`, again and again while one of them is running.

    Returns:
        The best value of the objective where there is one training, else None.
    """
    options = config.monitor
    folder = Path(options.folder)
    target = Path(options.output or folder)
    if options.every is not None and options.every <= 0:
        raise ConfigError(f"monitor.every={options.every} is no time to wait. Use monitor.every=30 (seconds).")
    while True:
        runs = trainings(folder, limit=options.runs)
        _publish(runs, folder, target, options)
        if options.every is None or not any(run.status == "running" for run in runs):
            break
        try:
            time.sleep(options.every)
        except KeyboardInterrupt:
            break
    best = runs[0].best if len(runs) == 1 else None
    return None if best is None else best[1]


def _publish(runs: Sequence[Training], folder: Path, target: Path, options: Any) -> None:
    panels = panels_of(runs, options.metrics)
    units = sorted({run.unit for run in runs})
    names = dict(zip((run.name for run in runs), swatches(len(runs)), strict=True)) if len(runs) > 1 else None
    rows = [row_of(run) for run in runs]
    page = Page(
        f"Trainings in {folder}" if len(runs) > 1 else f"Training {runs[0].name}",
        f"{folder.resolve()}, as of {time.strftime('%Y-%m-%d %H:%M:%S')}",
        refresh=None if options.every is None else max(1, round(options.every)),
    )
    page.table(rows)
    try:
        target.mkdir(parents=True, exist_ok=True)
        if panels:
            picture = png(draw_curves(panels, unit=" or ".join(units), runs=names, wide=_WIDE))
            page.figures({"curves": picture})
            (target / "monitor.png").write_bytes(picture)
        files = _files(runs[0]) if len(runs) == 1 else []
        page.table(files, title="Checkpoints")
        write_atomic(target / "monitor.html", page.render())
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error}). Use monitor.output=some/other/folder.") from error
    console = wide_console()
    console.print(_table(rows, f"{folder}"))
    console.print(f"curves: {target / 'monitor.html'}", markup=False, soft_wrap=True)


def panels_of(runs: Sequence[Training], wanted: Sequence[str] | None = None) -> dict[str, list[Line]]:
    """Losses, the objective and other metrics, and learning rates, one panel each where there are any.

    Args:
        runs: to be drawn; one colour each, or, where there is a single one, one colour for each of its lines.
        wanted: names of metrics without stage; None = the objective and the usual ones.

    Raises:
        ConfigError: for a metric that no run has.
    """
    known = metrics_of(runs)
    if wanted is None:
        first = [kind(run.objective) for run in runs if run.objective]
        chosen = [name for name in dict.fromkeys((*first, *_USUAL)) if name in known][:_PANELS]
    else:
        chosen = list(wanted)
        for name in chosen:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                raise ConfigError(
                    f"monitor.metrics names {name}, which no run has (there are {', '.join(known) or 'none'}). "
                    f"Use monitor.metrics={f'[{near[0]}]' if near else 'null'}."
                )
    panels = {_LOSS: _lines(runs, "loss")} | {name: _lines(runs, name) for name in chosen}
    if len(runs) == 1:
        terms = _lines(runs, "term")
        panels[_TERMS] = terms if len(terms) > 1 else []  # a single one is the loss itself
    panels[_RATE] = _lines(runs, "rate")
    return {title: lines for title, lines in panels.items() if lines}


def _lines(runs: Sequence[Training], what: str) -> list[Line]:
    """The curves of one kind; training is dashed where there is an evaluation of the same thing."""
    alone = len(runs) == 1
    found = [(number, name) for number, run in enumerate(runs) for name in _names(run, what, alone)]
    colours = swatches(len(found) if alone else len(runs))
    judged = any(stage(name) != "train" for _, name in found) and what != "rate"
    lines = []
    for position, (number, name) in enumerate(found):
        run, steps = runs[number], f"{name}_epoch" in runs[number].curves
        style = "faint" if steps else "dashed" if judged and stage(name) == "train" else "solid"
        lines.append(
            Line(
                run.curves[name].x,
                run.curves[name].y,
                label=name if alone else "",
                colour=colours[position if alone else number],
                style=style,
                best=run.best if name == run.objective else None,
                named=alone,
            )
        )
    return lines


def _names(run: Training, what: str, alone: bool) -> list[str]:
    """Curves of a kind; where there are several runs, means over epochs only, not every step."""
    names = [name for name in run.curves if kind(name) == what]
    if what == "term":
        return [name for name in names if f"{name}_epoch" not in names]
    if alone:
        return names
    means = [name for name in names if f"{name}_epoch" not in names]
    return means[:1] if what == "rate" else means


def row_of(run: Training) -> dict[str, Any]:
    """One line of the table: how a training stands."""
    best, objective = run.best, run.objective
    tested = None if objective is None else run.results.get(f"test/{kind(objective)}")
    progress = f"{run.reached:.4g}" + (f" of {run.of}" if run.of and run.unit == "epoch" else "")
    at = f"{run.unit} {progress}"
    if run.steps:
        at = (f"{at}, " if run.unit == "epoch" else "") + "step {} of {}".format(*run.steps)
    rates = [curve.y[-1] for name, curve in run.curves.items() if kind(name) == "rate"]
    losses = [name for name in run.curves if kind(name) == "loss" and stage(name) in ("train", "")]
    return {
        "run": run.name,
        "status": run.status or "-",
        "at": at,
        "loss": f"{run.curves[losses[-1]].y[-1]:.4g}" if losses else "-",
        "objective": objective or "-",
        "now": f"{run.curves[objective].y[-1]:.4g}" if objective else "-",
        "best": f"{best[1]:.4g} at {best[0]:.4g}" if best else "-",
        "test": "-" if tested is None else f"{tested:.4g}",
        "rate": f"{rates[0]:.3g}" if rates else "-",
        "changed": _ago(time.time() - run.changed),
    }


def _files(run: Training) -> list[dict[str, Any]]:
    """Checkpoints of a run: file, size, age."""
    found = [path for pattern in ("checkpoints/*.ckpt", "*.bin", "*.pth") for path in run.folder.glob(pattern)]
    return [
        {
            "file": str(path.relative_to(run.folder)),
            "MB": f"{path.stat().st_size / 1e6:.1f}",
            "changed": _ago(time.time() - path.stat().st_mtime),
        }
        for path in sorted(found)
    ]


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="right" if column in ("loss", "now", "test", "rate") else "left")
    for row in rows:
        table.add_row(*row.values())
    return table

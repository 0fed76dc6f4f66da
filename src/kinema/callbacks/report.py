"""What a run leaves behind: a log line per validation, the result table, `metrics.json`, report.{md,csv,html}."""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from kinema.callbacks.page import report_page
from kinema.files import write_atomic
from kinema.protocols.methods import methods
from kinema.protocols.report import Report
from kinema.tasks.sampling import steps_of

log = logging.getLogger(__name__)
_SHOWN = ("val/mpjpe", "val/p_mpjpe", "val/top1", "val/top5")  # after a validation, where there


def wide_console() -> Any:
    """A console for tables: as wide as the terminal, and wide enough for a result table in a pipe or a log."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=160)


class RunReport(pl.Callback):
    """Write the reports of a task into the run directory, on rank 0.

    Args:
        output_dir: the run directory.
    """

    def __init__(self, output_dir: str) -> None:
        self.folder = Path(output_dir)
        self._clock, self._cpu = time.perf_counter(), time.process_time()
        self._earlier = (0.0, 0.0)  # seconds that the interrupted parts of a resumed training took
        self._spent: tuple[float, float] | None = None
        self._tested = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._spent = self._seconds()

    def _seconds(self) -> tuple[float, float]:
        """Seconds of the training so far, by the clock and of this process's CPU time (all its threads)."""
        earlier, earlier_cpu = self._earlier
        return earlier + time.perf_counter() - self._clock, earlier_cpu + time.process_time() - self._cpu

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training adds its own time to."""
        return {"seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the time of the interrupted part."""
        seconds, cpu = state_dict["seconds"]
        self._earlier = (float(seconds), float(cpu))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        wanted = dict.fromkeys(("train/loss", getattr(pl_module, "objective", "val/mpjpe"), *_SHOWN))
        shown = [f"{key} {float(metrics[key]):.4g}" for key in wanted if key in metrics]
        if not shown:
            shown = [f"{key} {float(value):.4g}" for key, value in list(metrics.items())[:3]]
        seconds = time.perf_counter() - self._clock
        log.info("epoch %d, step %d, %.0f s: %s", trainer.current_epoch, trainer.global_step, seconds, ", ".join(shown))
        self._keep_validation(trainer, pl_module)

    def _keep_validation(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Store the class scores of the best validation: what mode=fuse finds its weights on."""
        report = getattr(pl_module, "reports", {}).get("val")
        keeper: Any = trainer.checkpoint_callback
        if report is None or "scores" not in report.arrays or keeper is None or keeper.monitor is None:
            return
        if getattr(getattr(trainer, "datamodule", None), "selection", None) == "test":
            return  # these are the test clips: weights fitted on them would be judged too well
        # Checkpoints are kept after all other callbacks: the keeper still knows the best one before this.
        value, best = trainer.callback_metrics.get(keeper.monitor), keeper.best_model_score
        if value is None or torch.isnan(value):
            return
        if best is None or (value <= best if keeper.mode == "min" else value >= best):  # of ties the later stays
            report.save_arrays(self.folder / "predictions" / "report_val.npz")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        console = wide_console()
        for name, report in getattr(pl_module, "reports", {}).items():
            suffix = "" if name == "test" else "_" + name.replace("/", "_")
            self._write(f"report{suffix}", report)
            # The first table is the one papers print; the others stand in report.md.
            for table in [] if report.empty else report.to_rich(title=name)[:1]:
                console.print(table)
            if name == "test":
                self._write_official(report)
        compared = _methods(pl_module)
        if compared is not None:
            self._write("methods", compared)
            for table in compared.to_rich(title="test"):
                console.print(table)
        self._tested = True  # the page waits for the figures, which may be drawn after this

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Merge what has been measured so far, which a stage that fails later does not take away; write the page."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        self._merge(trainer, pl_module)
        if self._tested:
            self._tested = False
            self._publish(trainer, pl_module)

    def _merge(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key}
        for name, report in getattr(pl_module, "reports", {}).items():
            values.update(report.to_metrics(name))
        if not values:
            return
        path = self.folder / "metrics.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        meta = {**known.pop("_meta", {}), **self._meta(trainer, pl_module)}
        document: dict[str, Any] = {**dict(sorted({**known, **values}.items())), "_meta": meta}
        write_atomic(path, json.dumps(document, indent=1))

    def _publish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """`report.html` with the pictures of every callback that has some (`Figures`)."""
        reports = getattr(pl_module, "reports", {})
        drawn = [getattr(callback, "pictures", {}) for callback in trainer.callbacks]  # type: ignore[attr-defined]
        pictures = {name: files for one in drawn for name, files in one.items()}
        path = self.folder / "report.html"
        title = f"{type(getattr(pl_module, 'model', pl_module)).__name__} on {_data_name(trainer)}"
        compared = _methods(pl_module)
        shown = reports if compared is None else {"methods": compared, **reports}
        write_atomic(path, report_page(shown, pictures, title=title, folder=self.folder))
        wide_console().print(f"all tables and figures: {path}", markup=False, soft_wrap=True)

    def _meta(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        meta: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        model: Any = getattr(pl_module, "model", None)
        if model is not None:
            meta["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        if self._spent is not None:
            meta["fit_seconds"], meta["fit_cpu_seconds"] = (round(value, 1) for value in self._spent)
        provenance = getattr(model, "provenance", None)
        if provenance is not None:
            meta["checkpoint"] = {"family": provenance.family, "sha256": provenance.sha256}
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        if best:
            meta["best_checkpoint"] = Path(best).name
        versions = {name: report.version for name, report in getattr(pl_module, "reports", {}).items()}
        if versions:
            meta["protocol_versions"] = versions
        fingerprint = getattr(getattr(trainer, "datamodule", None), "fingerprint", None)
        if fingerprint:
            meta["dataset"] = fingerprint
        return meta

    def _write_official(self, report: Report) -> None:
        for name, text in report.official.items():
            path = self.folder / name
            write_atomic(path, text(path.read_text() if path.is_file() else None))

    def _write(self, stem: str, report: Any) -> None:
        write_atomic(self.folder / f"{stem}.md", report.to_markdown())
        write_atomic(self.folder / f"{stem}.csv", report.to_csv())
        for ending, text in report.files.items():
            write_atomic(self.folder / f"{stem}_{ending}", text)
        for ending, text in matrices(report).items():
            write_atomic(self.folder / f"{stem}_{ending}", text)
        if report.arrays:
            report.save_arrays(self.folder / "predictions" / f"{stem}.npz")


def _methods(task: Any) -> Report | None:
    """The table of all variants of the last test, where its protocol makes one."""
    first = next(iter(getattr(task, "variants", {})), "default")
    if first == "default":
        first = type(getattr(task, "model", task)).__name__
    return methods(getattr(task, "reports", {}), first, steps_of(task))


def matrices(report: Report) -> dict[str, str]:
    """Confusion matrices of a classifier as CSV by the end of the file's name: a row per true class, counts."""
    found = {}
    for table, names in (("confusion", "classes"), ("group_confusion", "group_names")):
        if {table, names} <= set(report.arrays):
            file = io.StringIO()
            writer = csv.writer(file, lineterminator="\n")
            labels = [str(name) for name in report.arrays[names]]
            writer.writerow(["true", *labels])
            writer.writerows([name, *map(int, row)] for name, row in zip(labels, report.arrays[table], strict=True))
            found[f"{table}.csv"] = file.getvalue()
    return found


def _data_name(trainer: pl.Trainer) -> str:
    return str(getattr(getattr(trainer, "datamodule", None), "name", "its data"))

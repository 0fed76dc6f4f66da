"""mode=lift: a folder of keypoint files into 3D clips in the layout of MA-52, <output>/<name>/pose_3d.npy."""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from kinema import runs
from kinema.data.convert.command import tracked
from kinema.data.input_clips import LIFTED, LIFTED_CLIP, NO_CLIPS, sources
from kinema.errors import ConfigError, DataError, KinemaError
from kinema.files import write_atomic
from kinema.inference.lifter import Lifter
from kinema.modes.predict import lifter_of
from kinema.viz.prepare import upright

log = logging.getLogger(__name__)

FILE, RECORD = LIFTED_CLIP, LIFTED
# What shapes the poses beside the network; files made with other values do not belong together.
_READING = ("layout", "conversion", "unit", "width", "height", "track", "max_gap", "trajectory", "overlap", "join")
_SHOWN = 10  # failures on the terminal


def run(config: DictConfig) -> None:
    """Lift every keypoint file below `input=`; files that are done are passed over, so a stopped run goes on.

    Label lists beside the clips (.txt, .csv, class names) are copied.

    Raises:
        ConfigError: without checkpoint, input or output, or an output that another network has written.
        DataError: files that cannot be lifted; all others are done then.
    """
    with runs.recorded(config) as record:
        options = config.lift
        source, output = _places(config)
        if options.axes not in ("camera", "up"):
            raise ConfigError(f"lift.axes={options.axes} is not known. Use lift.axes=camera, or up.")
        lifter = lifter_of(config)
        here = sources(source)
        _agree(output / RECORD, _described(config, lifter), overwrite=options.overwrite)
        _copy_lists(source, output)
        left = [one for one in here if options.overwrite or not (output / one[0] / FILE).is_file()]
        if len(left) < len(here):
            log.info("%d of %d files are lifted already", len(here) - len(left), len(here))
        job = Job(lifter, output, up=options.axes == "up", overwrite=options.overwrite)
        workers = _workers(options.workers, lifter, len(left))
        failures: list[tuple[str, str]] = []
        clips = frames = 0
        for done in tracked(_lifted(job, left, workers), "lift", len(left)):
            clips, frames = clips + done.clips, frames + done.frames
            failures += [(str(done.path), done.reason)] if done.reason else []
        log.info("%s: %d clips of %d frames are new", output, clips, frames)
        if failures:
            _refuse(sorted(failures), len(here), record.folder / "failures.csv")


@dataclass(frozen=True)
class Job:
    """What a process needs to lift files.

    Attributes:
        lifter: the network with the options of reading.
        output: folder of the results.
        up: whether the third axis is to point upwards.
        overwrite: whether results that are there are replaced.
    """

    lifter: Lifter
    output: Path
    up: bool
    overwrite: bool

    def lift(self, name: str, path: Path) -> Done:
        """Lift one file into as many clips as it has sequences."""
        clips = frames = 0
        track = self.lifter.config.predict.track
        persons = list(track) if OmegaConf.is_list(track) else None
        try:
            for clip in self.lifter.clips(path, name, persons):
                target = self.output / clip.name / FILE
                if target.is_file() and not self.overwrite:
                    continue
                poses = upright(clip.keypoints) if self.up else clip.keypoints
                _save(target, poses[0] if len(poses) == 1 else poses)
                clips, frames = clips + 1, frames + poses.shape[1]
        except (KinemaError, OSError) as error:
            return Done(path, clips, frames, str(error))
        return Done(path, clips, frames)


@dataclass(frozen=True)
class Done:
    """What became of a file: new clips and their frames, and the reason where it could not be lifted."""

    path: Path
    clips: int
    frames: int
    reason: str = ""


def _places(config: DictConfig) -> tuple[Path, Path]:
    """Input and output folder."""
    if not config.ckpt:
        raise ConfigError("mode=lift needs a lifting network. Use ckpt=path/to/file.")
    if not config.input or config.input == "-":
        raise ConfigError("mode=lift needs a folder of keypoint files. Use input=keypoints.")
    if not config.lift.output:
        raise ConfigError("mode=lift needs a folder for the poses. Use lift.output=data/ma52.")
    source, output = Path(config.input), Path(config.lift.output)
    if output.resolve() == source.resolve() or source.resolve() in output.resolve().parents:
        raise ConfigError(
            f"lift.output={output} lies in input={source}, and would be lifted itself the next time. "
            f"Use lift.output={source.resolve().parent / (source.resolve().name + '_3d')}."
        )
    return source, output


def _described(config: DictConfig, lifter: Lifter) -> dict[str, Any]:
    """How the poses of a folder were made."""
    reading: Any = OmegaConf.to_container(config.predict, resolve=True)
    return {
        "network": lifter.task.model.provenance.sha256,
        "checkpoint": str(config.ckpt),
        **lifter.meaning(),
        "axes": "x right, y away from the camera, z up" if config.lift.axes == "up" else lifter.meaning()["axes"],
        "skeleton": lifter.data.spec.skeleton.name,
        "reading": {key: reading[key] for key in _READING},
    }


def _agree(path: Path, now: dict[str, Any], *, overwrite: bool) -> None:
    """Keep what the poses of a folder were made with, and refuse to mix them with others."""
    if path.is_file() and not overwrite:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is damaged ({error}). Remove it, or use lift.overwrite=true.") from error
        # A checkpoint that was moved is the same one.
        differ = [key for key in now if key != "checkpoint" and before.get(key) != now[key]]
        if differ:
            raise ConfigError(
                f"{path.parent} holds poses that were lifted with another {', '.join(differ)} "
                f"(network of {before.get('checkpoint')}). Use another lift.output, or lift.overwrite=true."
            )
    write_atomic(path, json.dumps(now, indent=1))


def _copy_lists(source: Path, output: Path) -> None:
    """Label lists and class names beside the clips."""
    if not source.is_dir():
        return
    for path in sorted(source.iterdir()):
        if path.is_file() and (path.suffix in (".txt", ".csv") or path.name in NO_CLIPS) and path.name != RECORD:
            shutil.copyfile(path, output / path.name)
            log.info("copied %s", path.name)


def _workers(wanted: int | None, lifter: Lifter, files: int) -> int:
    if wanted is not None and wanted < 1:
        raise ConfigError(f"lift.workers={wanted} does nothing. Use lift.workers=1, or null.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(wanted or (1 if lifter.device.type == "cuda" else cores), files))


def _lifted(job: Job, left: Sequence[tuple[str, Path]], workers: int) -> Iterator[Done]:
    if workers == 1:
        for name, path in left:
            yield job.lift(name, path)
        return
    # Fresh processes: forked ones would inherit locks of the network's threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(job,))
    try:
        for task in as_completed([pool.submit(_lift, name, path) for name, path in left]):
            yield task.result()
    finally:
        pool.shutdown(cancel_futures=True)


_JOB: list[Job] = []  # of this process


def _begin(job: Job) -> None:
    torch.set_num_threads(1)  # as many processes as cores
    _JOB[:] = [job]


def _lift(name: str, path: Path) -> Done:
    return _JOB[0].lift(name, path)


def _save(path: Path, poses: np.ndarray) -> None:
    """Write an array as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            np.save(file, poses.astype(np.float32), allow_pickle=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse(failures: Sequence[tuple[str, str]], count: int, path: Path) -> None:
    """Say which files could not be lifted, and why, on the terminal and in a file."""
    from rich.table import Table

    from kinema.callbacks.report import wide_console

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "reason"])
        writer.writerows(failures)
    table = Table(title="not lifted", title_justify="left")
    table.add_column("file")
    table.add_column("reason")
    for name, reason in failures[:_SHOWN]:
        table.add_row(name, reason)
    wide_console().print(table)
    raise DataError(
        f"{len(failures)} of {count} files could not be lifted, all others are; reasons are in {path}. Repair or "
        "remove them and run the same command again."
    )

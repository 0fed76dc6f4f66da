"""What the modes predict (of motion), switch, control, inbetween and zero_shot share: choose windows, sample, write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from kinema import runs
from kinema.callbacks.report import wide_console
from kinema.core import motion_masks, motion_reach
from kinema.core.skeleton import Skeleton
from kinema.data import input_motion
from kinema.data.input_motion import InputMotion, Reading
from kinema.errors import ConfigError, DataError
from kinema.inference import motion_modes
from kinema.inference.motion_modes import FREE, Sampled, Wish
from kinema.inference.motion_windows import MotionWindow, TestWindows, file_windows, relative
from kinema.results import as_trained, motion_output
from kinema.results.motion_output import Look

log = logging.getLogger(__name__)

# Frames at the end that a motion in between is to reach.
_ENDS = 10
# Lines of the table at the end.
_SHOWN = 30


@dataclass(frozen=True)
class Picture:
    """Windows that are sampled and drawn together.

    Attributes:
        name: of the picture, and of the folder with the arrays.
        windows: one row each.
        wish: makes what the samples are to have.
        drawn: whether there are pictures, not only arrays.
    """

    name: str
    windows: Sequence[MotionWindow]
    wish: Callable[[Sequence[MotionWindow]], Wish] | None = None
    drawn: bool = True


class Modes:
    """One run of a mode: its options, the network and the data.

    Args:
        config: of the run.
        folder: of the run.
        data: PredictionDataModule; its files are opened only where test windows are asked for.
        task: PredictionTask with the trained network.
        mode: predict, switch, control, inbetween or zero_shot.
    """

    def __init__(self, config: DictConfig, folder: Path, data: Any, task: Any, mode: str) -> None:
        options = config.motion
        self.config, self.options, self.data, self.task, self.mode = config, options, data, task, mode
        self.body: Skeleton = data.skeleton
        self.history, self.horizon = int(task.history), int(task.horizon)
        self.folder = (
            Path(options.output) if options.output else folder / ("predictions" if mode == "predict" else mode)
        )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for key in ("num_samples", "rows", "columns", "count"):
            value = options[key]
            if value is not None and value < 1:
                raise ConfigError(f"motion.{key}={value} leaves nothing. Use motion.{key}=1 or more.")
        self.num_samples = int(options.num_samples or task.sampling.num_samples)
        self.look = Look(
            None if options.formats is None else [str(one) for one in options.formats], int(options.columns),
            float(options.size), options.azimuth, int(config.render.bitrate),
        )  # fmt: skip
        self.left_out: list[tuple[str, str]] = []
        self._test: TestWindows | None = None
        self._end: InputMotion | None = None

    @property
    def test(self) -> TestWindows:
        """The test windows of the data set."""
        if self._test is None:
            self._test = TestWindows(self.data, int(self.config.seed))
        return self._test

    # Running.

    def run(self) -> None:
        """Sample, write and draw every picture, and say what came out.

        Raises:
            ConfigError: options that do not fit.
            DataError: files that cannot be used; all others are written then.
        """
        self.task.to(self.device).eval()
        found: list[Sampled] = []
        pictures: list[str] = []
        for picture in self.pictures():
            wish = None if picture.wish is None else picture.wish(picture.windows)
            with torch.inference_mode():
                results = motion_modes.draw(self.task, self.device, picture.windows, self.body, self.num_samples, wish)
            self._write(picture, results)
            found += results[: max(0, _SHOWN - len(found))]
            pictures += [picture.name] * (len(found) - len(pictures))
        if not found:
            raise DataError(f"Nothing of {self.config.input} can be used; the first: {self.left_out[0][1]}")
        wide_console().print(motion_output.table_of(found, self.history, pictures if self.mode == "control" else None))
        self._warn_of_size(found)
        if self.left_out:
            raise DataError(
                f"{len(self.left_out)} files were left out, all others are written; the first, {self.left_out[0][0]}: "
                f"{self.left_out[0][1]}"
            )

    def _warn_of_size(self, found: Sequence[Sampled]) -> None:
        """Say so where samples are no body's size."""
        sampled = [one.samples[:, self.history :] for one in found]
        observed = [one.window.pose[: self.history] for one in found]
        far, near = (
            float(np.mean([np.linalg.norm(pose, axis=-1).max(-1).mean() for pose in poses]))
            for poses in (sampled, observed)
        )
        text = motion_reach.told(far, near)
        if text:
            log.warning(text)

    def _write(self, picture: Picture, results: Sequence[Sampled]) -> None:
        fps = self.data.spec.fps
        meta = {
            "checkpoint": str(self.config.ckpt), "mode": self.mode, "seed": int(self.task.seed),
            "ddim_timesteps": self.task.sampling.ddim_timesteps, "sampler": self.task.sampling.sampler,
            "skeleton": self.body.name, "dataset": str(self.config.input or self.data.name),
        }  # fmt: skip
        arrays = motion_output.write_arrays(
            self.folder / motion_output.stem(picture.name), results, self.body, self.history, fps, meta
        )
        drawn = []
        if picture.drawn:
            drawn = motion_output.draw(self.folder, picture.name, results, self.body, self.history, fps, self.look)
        log.info("wrote %s", ", ".join(map(str, [*arrays[:3], *(["..."] if len(arrays) > 3 else []), *drawn])))

    # Choosing.

    def pictures(self) -> Iterator[Picture]:
        """What is sampled together, in order."""
        if self.mode == "control":
            yield from self._controlled()
            return
        for picture in self._chosen():
            if self.mode == "switch":
                yield Picture(picture.name, picture.windows, self._switch)
            elif self.mode == "inbetween":
                yield Picture(picture.name, picture.windows, self._inbetween)
            else:
                yield picture

    def _chosen(self) -> Iterator[Picture]:
        if self.config.input:
            yield from self._of_files()
        elif self.options.windows is not None:
            wanted = (
                OmegaConf.to_container(self.options.windows)
                if OmegaConf.is_list(self.options.windows)
                else [self.options.windows]
            )
            assert isinstance(wanted, list)
            yield from self._in_rows([self.test.named(str(one)) for one in wanted])
        else:
            yield from self._drawn()

    def _drawn(self) -> Iterator[Picture]:
        """Windows of the test set by chance: of every recording (predict), or of several actions."""
        options, test, rows, count = self.options, self.test, int(self.options.rows), int(self.options.count)
        subject = options.subject
        if subject is None and options.action is None and self.mode != "zero_shot":
            subject = test.first_subject()  # as in the published pictures
        sequences = test.sequences(subject, options.action)
        if self.mode == "predict":
            for sequence in sequences:
                for number in range(count):
                    windows = [test.drawn(sequence, number * rows + row) for row in range(rows)]
                    yield Picture(_numbered(test.label(sequence), number, count), windows)
            return
        for number in range(count):
            some = test.by_action(sequences, number)
            first = number * rows % len(some)
            turned = (some[first:] + some[:first])[:rows]
            windows = [test.drawn(sequence, number) for sequence in turned]
            # Few actions: further windows of the same recordings.
            windows += [test.drawn(turned[row % len(turned)], number + 1000 * row) for row in range(len(turned), rows)]
            yield Picture(_numbered(self.mode, number, count), windows)

    def _in_rows(self, windows: Sequence[MotionWindow]) -> Iterator[Picture]:
        rows = int(self.options.rows)
        parts = [windows[first : first + rows] for first in range(0, len(windows), rows)]
        for number, part in enumerate(parts):
            yield Picture(_numbered(self.mode, number, len(parts)), part)

    def _of_files(self) -> Iterator[Picture]:
        here = input_motion.sources(Path(self.config.input))
        drawn = len(here) == 1 if self.config.predict.draw is None else bool(self.config.predict.draw)
        if self.mode == "predict":
            for motions in self._read(here):
                for window in self._windows(motions, alone=len(here) == 1):
                    yield Picture(window.recording, [window], drawn=drawn)
            return
        motions = [motion for some in self._read(here) for motion in some]
        wanted = int(self.options.rows) * int(self.options.count)
        if self.mode == "zero_shot" and len(motions) > wanted:  # spread over all
            motions = [motions[i * len(motions) // wanted] for i in range(wanted)]
        yield from self._in_rows(self._windows(motions, alone=len(here) == 1)[:wanted])

    def _read(self, here: Sequence[tuple[str, Path]]) -> Iterator[list[InputMotion]]:
        for name, path in here:
            try:
                yield input_motion.motions(path, name, self.body, self.data.spec.fps, self._reading())
            except DataError as error:
                if len(here) == 1:
                    raise
                log.warning("%s is left out: %s", name, error)
                self.left_out.append((name, str(error)))

    def _reading(self) -> Reading:
        options = self.config.predict
        return Reading(
            options.unit, None if options.fps is None else float(options.fps), options.up, options.exchange_sides
        )

    def _windows(self, motions: Sequence[InputMotion], *, alone: bool) -> list[MotionWindow]:
        """Windows of motions of files; one of several that is too short is left out."""
        whole = self.mode == "control" or (self.mode == "inbetween" and self.options.target is None)
        drawn = int(self.config.seed) if whole or self.mode == "zero_shot" else None
        made: list[MotionWindow] = []
        for motion in motions:
            try:
                made += file_windows(
                    [motion], self.body, self.history, self.horizon, start=self.options.start, drawn=drawn, whole=whole
                )
            except DataError as error:
                if alone and len(motions) == 1:
                    raise
                log.warning("%s is left out: %s", motion.name, error)
                self.left_out.append((motion.name, str(error)))
        return made

    # Wishes.

    def _ends(self, standard: int | None) -> int:
        count = self.options.end_frames
        return motion_masks.switch_frames(self.history, self.horizon, standard if count is None else int(count))

    def _until(self, standard: float) -> int:
        """Loop index down to which the end is held."""
        steps = self.task.sampling.ddim_timesteps
        return round(standard * steps) if self.options.until is None else int(self.options.until)

    def _switch(self, windows: Sequence[MotionWindow]) -> Wish:
        count = self._ends(None)
        if self.config.input and self.options.target is None:
            raise ConfigError(
                "mode=switch needs a motion to switch to: motion.target=file.npz, or a test window such as "
                "motion.target=0."
            )
        target = windows[0] if self.options.target is None else self._target(count)
        return motion_modes.switch(
            windows, target, count, self._until(FREE), self.body, self.history, align=bool(self.options.align)
        )

    def _inbetween(self, windows: Sequence[MotionWindow]) -> Wish:
        count = self._ends(min(_ENDS, self.horizon))
        if self.options.target is not None:
            target = self._target(count)
            return motion_modes.switch(
                windows, target, count, self._until(0), self.body, self.history, align=bool(self.options.align)
            )
        return motion_modes.inbetween(windows, windows, count, self._until(0), self.body)

    def _target(self, count: int) -> MotionWindow:
        """The motion whose last frames are given: of a file, or a window of the test set."""
        text = str(self.options.target)
        path = Path(text)
        if path.suffix.lower() not in input_motion.SUFFIXES:
            return self.test.named(text, "motion.target")
        if self._end is None:  # read, and told of, once for all pictures
            self._end = input_motion.motions(
                path, path.stem, self.body, self.data.spec.fps, self._reading(), still=True
            )[0]
            if len(self._end.pose) < count:
                log.info(
                    "%s has %d frames, of which the first stands for the %d before it",
                    text, len(self._end.pose), count - len(self._end.pose),
                )  # fmt: skip
        pose = relative(self._end.pose, self.body)[-(self.history + self.horizon) :]
        lacking = self.history + self.horizon - len(pose)
        return MotionWindow(path.stem, 0, np.concatenate([np.repeat(pose[:1], lacking, 0), pose]))

    def _controlled(self) -> Iterator[Picture]:
        wanted = self.options.parts
        chosen = list(motion_masks.part_names(self.body)) if wanted is None else list(wanted)
        if not chosen:
            raise ConfigError(
                f"The body parts of {self.body.name} have no names. Name joints: motion.parts=[{self.body.joints[-1]}]."
            )
        groups = [[str(one) for one in part] if OmegaConf.is_list(part) else [str(part)] for part in chosen]
        for group in groups:
            motion_masks.joints_of(group, self.body)  # refused before anything is sampled
        for picture in self._chosen():
            for group in groups:
                name = "+".join(group) + picture.name.removeprefix("control")

                def wish(windows: Sequence[MotionWindow], group: list[str] = group) -> Wish:
                    return motion_modes.control(windows, group, self.body, self.history)

                yield Picture(name, picture.windows, wish)


def run(config: DictConfig, mode: str, build: Callable[[DictConfig], tuple[Any, Any, Any]]) -> None:
    """A whole run of a mode, with its checkpoint as it was trained.

    Args:
        config: of the run.
        mode: switch, control, inbetween or zero_shot.
        build: makes model, data and task of a run (`modes.train.build`).
    """
    with runs.recorded(config) as record:
        config = as_trained.for_prediction(config)
        _, data, task = build(config)
        Modes(config, record.folder, data, task, mode).run()


def _numbered(name: str, number: int, count: int) -> str:
    return name if count == 1 else f"{name} {number + 1}"

"""mode=predict: 3D poses for a keypoint file (`input=`), for a live stream, or for a data set's test sequences.

With task=action: classes of a clip, or of every clip of a folder. With task=prediction: possible futures of a motion.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kinema import runs
from kinema.callbacks.report import wide_console
from kinema.data.input_clips import InputClip, keypoints, poses, sources
from kinema.data.readers import detections
from kinema.data.readers.detections.conversion import Conversion
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError
from kinema.inference.lifter import Lifter, Source, conversion_of, reading_of, row_names
from kinema.inference.live import lift_lines
from kinema.inference.recognise import Recogniser, Recognition
from kinema.inference.stream import Stopwatch
from kinema.inference.trajectory import Placed
from kinema.modes.train import build
from kinema.results import as_trained
from kinema.results.motion_modes import Modes
from kinema.results.recognition import Results
from kinema.viz import action_clip
from kinema.viz.clip import check_format, ffmpeg

log = logging.getLogger(__name__)

# From a file and its name to the clips in it.
Reader = Callable[[Path, str], list[InputClip]]
# A clip with so many times more frames than the network sees is probably no single action.
_LONG = 8


def run(config: DictConfig) -> None:
    """Write `pose3d/<sequence>` (T, J, 3) float32 for every sequence into one npz, with what the numbers mean.

    Of task=action, write the classes of clips with their probabilities (`actions`); of task=prediction, possible
    futures of a motion, or of every test recording (`results.motion_modes`).

    A sequence is read, predicted and written in blocks: memory does not grow with its length. With `input=-` frames
    come as lines of JSON on stdin and poses leave as lines on stdout.

    Raises:
        ConfigError: without a checkpoint, and for options that exclude each other.
        DataError: for a keypoint file that does not fit.
    """
    with runs.recorded(config) as record:
        if not config.ckpt:
            raise ConfigError("mode=predict needs a trained network. Use ckpt=path/to/file.")
        if as_trained.task_of(config) == "action":
            actions(as_trained.for_actions(config), record.folder)
            return
        if as_trained.task_of(config) == "prediction":
            config = as_trained.for_prediction(config)
            _, data, task = build(config)
            Modes(config, record.folder, data, task, "predict").run()
            return
        options = config.predict
        streams = options.stream or options.look_ahead is not None or config.input == "-"
        if streams and (options.overlap or options.join != "first"):
            raise ConfigError("predict.overlap and predict.join are for clips, a stream has none. Leave them out.")
        lifter = lifter_of(config)
        if streams:
            lifter.stream()  # refuses a look-ahead before a long file is read
        if config.input == "-":
            _live(lifter)
            return
        output = Path(options.output or record.folder / "predictions" / "predictions.npz")
        if output.suffix != ".npz":
            raise ConfigError(
                f"predict.output={output} must end in .npz. Use predict.output={output.with_suffix('.npz')}."
            )
        source = _source(config, lifter.data)
        watch = Stopwatch() if streams else None
        _write(output, source, lifter, watch)
        sequences = source.sequences
        log.info("wrote %s: %d sequences, %d frames", output, len(sequences), sequences.num_frames)
        if watch is not None:
            log.info("%s", watch.sentence(lifter.stream().latency, lifter.data.spec.fps))


def lifter_of(config: DictConfig) -> Lifter:
    """The lifting network of `ckpt`, ready on the device.

    Raises:
        ConfigError: predict.trajectory of a network that has none.
    """
    _, data, task = build(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.model.to(device).eval()
    lifter = Lifter(config, data, task, device)
    if lifter.placed:
        Placed(task.model)  # refuses a network without a trajectory before a long file is read
    return lifter


def actions(config: DictConfig, folder: Path) -> None:
    """Write the classes of the clips of `input=` into the run directory, and pictures of a single one.

    Raises:
        ConfigError: options that do not fit, a network without classes.
        DataError: no clip can be used, or some cannot; all others are written then.
    """
    options = config.predict
    if not config.input or config.input == "-":
        raise ConfigError(
            "mode=predict task=action needs a file of poses or keypoints, or a folder: input=pose_3d.npy. The test "
            "clips of a data set are recognised by mode=test and mode=submit."
        )
    output = Path(options.output or folder / "predictions" / "actions.json")
    if output.suffix != ".json":
        raise ConfigError(
            f"predict.output={output} must end in .json. Use predict.output={output.with_suffix('.json')}."
        )
    if options.top < 1:
        raise ConfigError(f"predict.top={options.top} names no class. Use predict.top=5.")
    _, data, task = build(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.model.to(device).eval()
    recogniser = Recogniser(data, task, device, window=options.window, stride=options.stride)
    reader = _reader(config, data, recogniser)
    here = sources(Path(config.input))
    left_out: list[tuple[str, str]] = []

    def report(name: str, error: DataError) -> None:
        if len(here) == 1:
            hint = f" With dataset={data.name} beside it." if "dataset." in str(error) else ""
            raise DataError(f"{error}{hint}")
        log.warning("%s is left out: %s", name, error)
        left_out.append((name, str(error)))

    drawn = len(here) == 1 if options.draw is None else options.draw
    found = []
    for one in recogniser(_clips(here, reader, report, options.fps), report):
        found.append(one if drawn else replace(one, clip=None))
    if not found:
        raise DataError(f"None of {len(here)} clips in {config.input} can be recognised; the first: {left_out[0][1]}")
    _warn_of_length(found, recogniser)
    results = Results(data.classes, found, left_out, options.top)
    meta = {"checkpoint": str(config.ckpt), "input": str(config.input), "dataset": data.name,
            "preprocess": data.spec.preprocess, "window": options.window}  # fmt: skip
    for table in results.tables():
        wide_console().print(table)
    log.info("wrote %s", ", ".join(map(str, results.write(output, meta))))
    for one in found if drawn else ():
        _draw(config, one, recogniser, output.parent)
    if left_out:
        raise DataError(
            f"{len(left_out)} of {len(found) + len(left_out)} clips were left out, all others are recognised; reasons "
            f"stand in {output} under left_out. Repair or remove them and run the same command again."
        )


def _reader(config: DictConfig, data: Any, recogniser: Recogniser) -> Reader:
    """What turns a file into clips: poses as they are, keypoints for a network of keypoints, or lifted ones."""
    options, body = config.predict, recogniser.options.taken
    persons = list(options.track) if OmegaConf.is_list(options.track) else None
    if options.lifter is None and data.spec.has_3d:
        return poses
    if options.lifter is None:
        conversion = Conversion(
            options.layout, body, data.spec.preprocess, options.width, options.height, rule=options.conversion,
            unit=options.unit,
        )  # fmt: skip
        reading = detections.Options(None if persons else options.track, options.max_gap, options.check, data.spec.fps)
        return lambda path, name: keypoints(path, name, conversion, reading, persons)
    if not data.spec.has_3d:
        raise ConfigError(
            f"{config.ckpt} takes 2D keypoints as they are, nothing has to be lifted. Drop predict.lifter."
        )
    lifting = as_trained.for_lifting(config)  # takes the run's folder from it, which is not known apart
    with as_trained.apart():
        lifter = lifter_of(lifting)
    if lifter.data.spec.skeleton.joints != body.joints:
        raise ConfigError(
            f"predict.lifter={options.lifter} gives the joints of {lifter.data.spec.skeleton.name}, but {config.ckpt} "
            f"takes those of {body.name}. Use a lifter that was trained on {body.name}."
        )
    return lambda path, name: lifter.clips(path, name, persons)


def _clips(
    here: Sequence[tuple[str, Path]], reader: Reader, report: Callable[[str, DataError], None], fps: float | None
) -> Iterator[InputClip]:
    for name, path in here:
        try:
            clips = reader(path, name)
        except DataError as error:
            report(name, error)
            continue
        yield from clips if fps is None else (replace(clip, fps=float(fps)) for clip in clips)


def _warn_of_length(found: Sequence[Recognition], recogniser: Recogniser) -> None:
    """A video of minutes as a handful of frames shows no action."""
    longest = max(found, key=lambda one: one.frames)
    if recogniser.window is None and longest.frames > _LONG * recogniser.frames:
        log.warning(
            "%s has %d frames, of which the network sees %d in all. If it shows several actions, recognise windows of "
            "it: predict.window=%d",
            longest.name, longest.frames, recogniser.frames, recogniser.frames,
        )  # fmt: skip


def _draw(config: DictConfig, one: Recognition, recogniser: Recogniser, folder: Path) -> None:
    """Pictures of a clip with its labels over time."""
    assert one.clip is not None
    options, points = config.render, one.clip.keypoints
    if options.output:
        check_format(Path(options.output))
    stem = re.sub(r"[^\w.-]+", "_", one.name)
    endings = [".png", ".gif", *([".mp4"] if ffmpeg() else [])]
    paths = [Path(options.output)] if options.output else [folder / f"{stem}{ending}" for ending in endings]
    clip = action_clip.ActionClip(
        points, recogniser.options.taken, one.probabilities, one.own, recogniser.options.class_list.names,
        fps=options.fps or one.fps, title=one.name,
    )  # fmt: skip
    action_clip.write(paths, clip, size=options.size, bitrate=options.bitrate)
    log.info("drew %s", ", ".join(map(str, paths)))


def _source(config: DictConfig, data: Any) -> Source:
    """The sequences of `input=`, a .npy file mapped and converted block by block, or of the data set."""
    if not config.input:
        return Source(data.windows("predict").sequences)
    path, conversion, options = Path(config.input), conversion_of(config, data), reading_of(config, data)
    mapped = detections.mapped(path, conversion, options)
    return Source(*mapped) if mapped is not None else Source(detections.read(path, conversion, options))


def _write(output: Path, source: Source, lifter: Lifter, watch: Stopwatch | None) -> None:
    """Predict block by block into the archive: memory grows neither with the sequences nor with their number."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.writing")
    try:
        _fill(temporary, source, lifter, watch)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def names(sequences: Sequences) -> list[str]:
    """Name of each sequence's array in a file of predictions."""
    return [f"pose3d/{name}" for name in row_names(sequences)]


def _fill(path: Path, source: Source, lifter: Lifter, watch: Stopwatch | None) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, torch.inference_mode():
        for row, name in enumerate(names(source.sequences)):
            parts = lifter.blocks(source, row) if watch is None else lifter.frames(source, row, watch)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                _write_parts(file, parts, int(source.sequences.table["length"][row]))
        with archive.open("meta.npy", "w") as file:
            np.lib.format.write_array(file, np.asarray(json.dumps(lifter.meaning())), allow_pickle=False)


def _write_parts(file: IO[bytes], parts: Iterator[np.ndarray], length: int) -> None:
    """One array of a known length as npy, part after part."""
    for number, part in enumerate(parts):
        if number == 0:
            head = np.lib.format.header_data_from_array_1_0(part)
            np.lib.format.write_array_header_1_0(file, {**head, "shape": (length, *part.shape[1:])})
        file.write(np.ascontiguousarray(part).tobytes())


def _live(lifter: Lifter) -> None:
    """Frames on stdin, poses on stdout, until the input ends."""
    conversion = conversion_of(lifter.config, lifter.data)
    if not conversion.by_frame:
        raise ConfigError("A live stream needs the size of its images. Use predict.width=1920 predict.height=1080.")
    log.info("%s", json.dumps(lifter.meaning()))

    def prepare(points: np.ndarray, number: int) -> Tensor:
        pose = torch.from_numpy(conversion(points[None], Path(f"stdin, line {number + 1},")))[None]  # (1, 1, J, C)
        none = torch.zeros(1, dtype=torch.int64)
        batch = {"pose2d": pose, "draw": none + number, "index": none, "frames": none[None] + number}
        batch |= {"flip": torch.zeros(1, dtype=torch.bool), "valid": torch.ones(1, 1, dtype=torch.bool)}
        return lifter.pose(batch)["pose"][0, 0]

    stream = lifter.stream()
    try:
        watch = lift_lines(sys.stdin, stream, prepare, sys.stdout)
    except BrokenPipeError:  # the reader has gone; what Python flushes at exit must not find it missing again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        log.info("the reader of the poses has gone")
        return
    log.info("%s", watch.sentence(stream.latency, lifter.data.spec.fps))

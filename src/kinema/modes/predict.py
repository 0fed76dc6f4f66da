"""mode=predict: 3D poses for a keypoint file (`input=`), for a live stream, or for a data set's test sequences."""

from __future__ import annotations

import json
import logging
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from kinema import runs
from kinema.data.readers import detections
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError
from kinema.inference.lifter import Lifter, Source, conversion_of, reading_of, row_names
from kinema.inference.live import lift_lines
from kinema.inference.stream import Stopwatch
from kinema.inference.trajectory import Placed
from kinema.modes.train import build

log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Write `pose3d/<sequence>` (T, J, 3) float32 for every sequence into one npz, with what the numbers mean.

    A sequence is read, predicted and written in blocks: memory does not grow with its length. With `input=-` frames
    come as lines of JSON on stdin and poses leave as lines on stdout.

    Raises:
        ConfigError: without a checkpoint, and for options that exclude each other.
        DataError: for a keypoint file that does not fit.
    """
    with runs.recorded(config) as record:
        if not config.ckpt:
            raise ConfigError("mode=predict needs a trained network. Use ckpt=path/to/file.")
        options = config.predict
        streams = options.stream or options.look_ahead is not None or config.input == "-"
        if streams and (options.overlap or options.join != "first"):
            raise ConfigError("predict.overlap and predict.join are for clips, a stream has none. Leave them out.")
        _, data, task = build(config)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        task.model.to(device).eval()
        lifter = Lifter(config, data, task, device)
        if lifter.placed:
            Placed(task.model)  # refuses a network without a trajectory before a long file is read
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
        source = _source(config, data)
        watch = Stopwatch() if streams else None
        _write(output, source, lifter, watch)
        sequences = source.sequences
        log.info("wrote %s: %d sequences, %d frames", output, len(sequences), sequences.num_frames)
        if watch is not None:
            log.info("%s", watch.sentence(lifter.stream().latency, data.spec.fps))


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

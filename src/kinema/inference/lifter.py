"""A lifting network at work on sequences of any length: block by block, or frame by frame as a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinema.data.input_clips import InputClip
from kinema.data.readers import detections
from kinema.data.readers.detections.conversion import Conversion
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows
from kinema.errors import DataError
from kinema.inference.slide import Block, blocks, carries_state
from kinema.inference.stream import CausalStream, Stopwatch


@dataclass(frozen=True)
class Source:
    """Sequences, and what turns their stored points into network units (None = they are)."""

    sequences: Sequences
    convert: Callable[[np.ndarray], np.ndarray] | None = None

    def batch(self, row: int, block: Block, number: int, context: tuple[int, int]) -> dict[str, Tensor]:
        """Input of a block (1, before + frames + after, J, C); the ends of the sequence are repeated beyond it."""
        first, end = block.first - block.before, block.end + block.after
        table = np.array([[row, first, end - first, 0]])
        windows = Windows(self.sequences, table, None, context=context, keys=("pose2d",))
        # What a transform draws differs from block to block.
        batch = windows[torch.tensor([[0, row + number * len(self.sequences), 0]])]
        if self.convert is not None:
            batch["pose2d"] = torch.from_numpy(self.convert(batch["pose2d"][0].numpy()))[None]
        return batch


@dataclass(frozen=True)
class Lifter:
    """A task on a device, with the options of the prediction.

    Attributes:
        config: of the run; what stands under `predict` is read.
        data: DataModule of the kind that the network was trained on.
        task: with the network.
        device: where it is.
    """

    config: Any
    data: Any
    task: Any
    device: torch.device

    def pose(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A gathered batch as the network takes it, on its device."""
        return {key: value.to(self.device) for key, value in self.data.transform(batch).items()}

    @property
    def placed(self) -> bool:
        """Whether root-relative poses are moved along the path that a nested trajectory network predicts."""
        wanted = self.config.predict.trajectory
        has = self.task.model.signature.trajectory if wanted is None else wanted
        return bool(has) and self.task.target == "root_relative"

    def stream(self) -> Any:
        """A stream with the options of the run."""
        path = {"trajectory": True} if self.placed else {}
        return self.task.stream(look_ahead=self.config.predict.look_ahead, **path)

    def blocks(self, source: Source, row: int) -> Iterator[np.ndarray]:
        """Predictions (T, J, 3) of one sequence, block after block, equal to those of the whole."""
        model, options = self.task.model, self.config.predict
        length = int(source.sequences.table["length"][row])
        clips = {"overlap": options.overlap, "join": options.join}
        clips = clips if options.overlap or options.join != "first" else {}
        path = {"trajectory": True} if self.placed else {}
        carried = self.stream() if carries_state(model) and not clips else None
        for number, block in enumerate(blocks(model, length, overlap=options.overlap, chunk=self.task.chunk)):
            batch = self.pose(source.batch(row, block, number, model.signature.context))
            if isinstance(carried, CausalStream):
                out = carried.advance(batch["pose"])
            else:
                out = self.task.predict(batch, **clips, **path)
            yield out[0, block.before : block.before + block.end - block.first].float().cpu().numpy()

    def frames(self, source: Source, row: int, watch: Stopwatch) -> Iterator[np.ndarray]:
        """Predictions (T, J, 3) of one sequence as a stream gives them, timed frame by frame."""
        length = int(source.sequences.table["length"][row])
        stream = self.stream()
        for number, first in enumerate(range(0, length, _READ)):
            block = Block(first, min(first + _READ, length))
            ready = []
            for frame in self.pose(source.batch(row, block, number, (0, 0)))["pose"][0]:
                with watch.frame():
                    out = stream.push(frame)
                    if out is not None:
                        ready.append(out.float().cpu().numpy())
            if ready:
                yield np.stack(ready)
        rest = stream.flush().float().cpu().numpy()
        if len(rest):
            yield rest

    def clips(self, path: Path, name: str, persons: Sequence[int | str] | None = None) -> list[InputClip]:
        """Poses of a keypoint file as clips in camera axes.

        Args:
            path: of any registered format.
            name: of its clip.
            persons: tracks that are the persons of one clip; None = the one that `predict.track` says.

        Raises:
            DataError: as `detections.read`; several persons of a file that has several videos.
        """
        conversion, options = conversion_of(self.config, self.data), reading_of(self.config, self.data)
        if persons is None:
            sequences = detections.read(path, conversion, options)
            found = self.poses(sequences)
            labels = [name] if len(found) == 1 else [f"{name}/{entry}" for entry in row_names(sequences)]
            clips = [pose[None] for pose in found]
        else:
            tracks = [detections.read(path, conversion, replace(options, track=person)) for person in persons]
            if any(len(track) != 1 for track in tracks):
                raise DataError(f"{path} holds several sequences; persons are told apart in one video. Give one.")
            labels, clips = [name], [np.stack([self.poses(track)[0] for track in tracks])]
        known: dict[str, Any] = {"fps": self.data.spec.fps, "unit": self.meaning()["unit"], "camera": True}
        return [InputClip(label, clip, **known) for label, clip in zip(labels, clips, strict=True)]

    def poses(self, sequences: Sequences) -> list[np.ndarray]:
        """Predictions (T, J, 3) float32 of every sequence, in memory."""
        with torch.inference_mode():
            source = Source(sequences)
            return [np.concatenate(list(self.blocks(source, row))) for row in range(len(sequences))]

    def meaning(self) -> dict[str, Any]:
        """Unit, axes and joints of the predictions, because numbers alone have misled many."""
        spec, target = self.data.spec, self.task.target
        image = spec.space == "image"
        return {
            "unit": "half image widths (2.5D, depth relative to the root)" if image else "metres",
            "axes": "camera: x right, y down, z away from the camera",
            "origin": "camera" if self.placed else "root joint of each frame" if target == "root_relative" else target,
            "joints": list(spec.skeleton.joints),
            "fps": spec.fps,
        }


def row_names(sequences: Sequences) -> list[str]:
    """A name for each sequence, without blanks; "a b" and "a_b" are two videos."""
    found: list[str] = []
    times: Counter[str] = Counter()
    for row in range(len(sequences)):
        name = sequences.label(row).replace(" ", "_")
        times[name] += 1
        found.append(name if times[name] == 1 else f"{name}_{times[name]}")
    return found


_READ = 256  # frames that a stream of a file reads at once


def conversion_of(config: Any, data: Any) -> Conversion:
    """What the options say about the points, and what the network takes."""
    options = config.predict
    return Conversion(
        options.layout,
        data.spec.skeleton2d,
        data.spec.preprocess,
        options.width,
        options.height,
        rule=options.conversion,
        unit=options.unit,
    )


def reading_of(config: Any, data: Any) -> detections.Options:
    """How a keypoint file is read."""
    options = config.predict
    return detections.Options(options.track, options.max_gap, options.check, data.spec.fps)

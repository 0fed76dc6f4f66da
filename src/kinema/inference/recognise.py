"""Class probabilities of clips, and of the windows of a long clip, by a network that was trained on whole clips."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinema.data.clip_rows import METRES, PERSON, ClipOptions, clip_rows, clip_store, extent
from kinema.data.input_clips import InputClip
from kinema.data.raw import raise_fault
from kinema.data.windows import Windows
from kinema.errors import ConfigError, DataError
from kinema.viz.prepare import upright

log = logging.getLogger(__name__)

# Windows that are prepared before the network sees them, in batches.
_TOGETHER = 512


@dataclasses.dataclass(frozen=True)
class Recognition:
    """What a network says of one clip.

    Attributes:
        name: of the clip.
        frames: of the clip.
        spans: (W, 2) first frame, and the frame behind the last, of every window; one for the whole clip.
        probabilities: (W, K) of the classes in every window; rows sum to 1.
        fps: frames per second, None where nobody says.
        clip: as it was seen, its joints on the axes of the training data; None where it is no longer needed.
    """

    name: str
    frames: int
    spans: np.ndarray
    probabilities: np.ndarray
    fps: float | None
    clip: InputClip | None = None

    @property
    def mean(self) -> np.ndarray:
        """Mean probabilities (K,) over the windows, each by the frames that are nearest to it."""
        own = self.own
        share = own[:, 1] - own[:, 0]
        return np.asarray((share / share.sum()) @ self.probabilities)

    @property
    def own(self) -> np.ndarray:
        """Part (W, 2) of the clip that is nearest to the middle of each window; they cover it without overlap."""
        middle = self.spans.mean(1)
        cuts = (middle[1:] + middle[:-1]) / 2
        return np.stack([np.append(0.0, cuts), np.append(cuts, float(self.frames))], axis=1)


def spans_of(length: int, window: int | None, stride: int | None) -> np.ndarray:
    """Windows (W, 2) that cover a clip: first frame, and the frame behind the last.

    Args:
        length: frames of the clip.
        window: frames of a window; None = one window, the whole clip, as in training.
        stride: frames from one window to the next; None = half a window. The last window is moved back to end with the
            clip.
    """
    if window is None or window >= length:
        return np.array([[0, length]])
    step = max(1, window // 2) if stride is None else stride
    first = np.minimum(np.arange(-(-(length - window) // step) + 1) * step, length - window)
    return np.stack([first, first + window], axis=1)


class Recogniser:
    """A network and the way of its training data, applied to clips from anywhere.

    Every window is prepared like a clip of its own (preprocessing, stream, frames, transforms), because that is what
    the network was trained on.

    Args:
        data: ActionDataModule of the kind that the network was trained on; none of its files is opened.
        task: ActionTask with the network.
        device: where it is.
        window, stride: of long clips, see `spans_of`.

    Raises:
        ConfigError: a network without class logits, or windows that cannot be.
    """

    def __init__(
        self, data: Any, task: Any, device: torch.device, *, window: int | None = None, stride: int | None = None
    ) -> None:
        if task.signature.output != "logits":
            raise ConfigError(
                f"This network gives {task.signature.output}, which has no class names: it compares clips with "
                "examples. Use mode=test dataset=ntu120_oneshot, or a network that gives logits."
            )
        if window is not None and window < 2:
            raise ConfigError(f"predict.window={window} is too short for an action. Use predict.window=64.")
        if stride is not None and (window is None or not 0 < stride <= window):
            raise ConfigError(
                f"predict.stride={stride} needs windows that are at least as long, or frames would be left out. Use "
                f"predict.window={max(stride, 2)}."
            )
        self.data, self.task, self.device = data, task, device
        self.window, self.stride = window, stride
        known = {field.name for field in dataclasses.fields(ClipOptions)}
        self.options = ClipOptions(**{key: value for key, value in data.source.options.items() if key in known})

    @property
    def frames(self) -> int:
        """Frames that the network sees of a clip."""
        return int(self.data.frames)

    def __call__(self, clips: Iterable[InputClip], report: Callable[[str, DataError], None]) -> Iterator[Recognition]:
        """Recognise clips, many at a time.

        Args:
            clips: in any number.
            report: takes the name of a clip that cannot be used, and why; such clips are left out.
        """
        waiting: list[tuple[InputClip, np.ndarray, list[dict[str, Any]]]] = []
        for clip in clips:
            try:
                waiting.append(self._cut(clip))
            except DataError as error:
                report(clip.name, error)
            if sum(len(spans) for _, spans, _ in waiting) >= _TOGETHER:
                yield from self._recognised(waiting)
                waiting = []
        if waiting:
            yield from self._recognised(waiting)

    def _seen(self, clip: InputClip) -> InputClip:
        """A clip on the axes of the training data: a camera's poses are set upright where these are a room's.

        The camera counts as level.
        """
        if not (clip.camera and self.options.way.vertical):
            return clip
        return dataclasses.replace(clip, keypoints=upright(clip.keypoints), camera=False)

    def _cut(self, clip: InputClip) -> tuple[InputClip, np.ndarray, list[dict[str, Any]]]:
        """A clip, its windows, and their rows for a store."""
        clip = self._seen(clip)
        length = clip.keypoints.shape[1]
        spans = spans_of(length, self.window, self.stride)
        rows: list[dict[str, Any]] = []
        for first, end in spans.tolist():
            score = None if clip.score is None else clip.score[:, first:end]
            name = clip.name if len(spans) == 1 else f"{clip.name}, frames {first} to {end - 1},"
            rows += clip_rows(
                clip=name, keypoints=clip.keypoints[:, first:end], score=score, size=clip.size, label=-1, split="",
                options=self.options, report=raise_fault,
            )  # fmt: skip
        self._warn_of_unit(clip)
        return clip, spans, rows

    def _warn_of_unit(self, clip: InputClip) -> None:
        """In another unit a network of metres is surer, and wrong."""
        if self.options.preprocess not in METRES:
            return
        size, (least, most) = extent(clip.keypoints), PERSON
        if clip.unit not in ("", "metres"):
            what = f"is in {clip.unit}"
        elif not least <= size <= most:
            what = f"has a person who extends over {size:.4g}"
        else:
            return
        log.warning(
            "%s %s: these are no metres, which the network takes (preprocess=%s). Its classes mean nothing. Scale the "
            "clip to metres, or use a network of preprocess=ma52, which takes any unit.",
            clip.name, what, self.options.preprocess,
        )  # fmt: skip

    def _recognised(self, waiting: list[tuple[InputClip, np.ndarray, list[dict[str, Any]]]]) -> Iterator[Recognition]:
        found = self._probabilities([row for _, _, rows in waiting for row in rows])
        start = 0
        for clip, spans, _ in waiting:
            part = found[start : start + len(spans)]
            start += len(spans)
            frames, fps = clip.keypoints.shape[1], clip.fps or self.data.spec.fps
            yield Recognition(clip.name, frames, spans, part, fps, clip)

    @torch.inference_mode()
    def _probabilities(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Probabilities (W, K) of prepared windows, the mean over the test clips of each."""
        data = self.data
        rule = "uniform_test" if data.eval_rule == "uniform" else data.eval_rule
        views = data.test_clips
        windows = Windows.clips(
            clip_store(rows, self.options), self.frames, rule=rule, persons=data.persons, views=views, seed=data.seed
        )
        parts: list[Tensor] = []
        for numbers in torch.arange(len(windows)).split(max(1, data.eval_batch_size)):
            picks = torch.stack([torch.zeros_like(numbers), numbers, numbers], dim=1)
            batch = {key: value.to(self.device) for key, value in windows[picks].items()}
            parts.append(self.task.predict(data.transform(batch)).double().exp().cpu())
        return torch.cat(parts).unflatten(0, (-1, views)).mean(1).numpy()

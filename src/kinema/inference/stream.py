"""Predictions frame by frame: causal networks exactly, all others by a sliding window with a chosen look-ahead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kinema.core.shapes import expect
from kinema.core.skeleton import Skeleton
from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.inference.flip import flip_average, mirror_pose
from kinema.inference.slide import carries_state

Flip = tuple[Skeleton, Skeleton]


def stream(
    model: nn.Module,
    *,
    look_ahead: int | None = None,
    flip: Flip | None = None,
    batch: int = 1,
    settle: Callable[[Tensor], Tensor] | None = None,
) -> Stream:
    """Open a stream: frames in one by one, poses out one by one, in constant memory and time per frame.

    A causal network with a state gives every frame at once, exactly as it would offline. Any other network sees the
    last frames it takes: before the first frame stands the first frame, as often as needed. One that gives a pose for
    every frame of its clip (context (0, 0)) answers for the frame `look_ahead` before the newest; at the end of the
    video the last clip answers for the rest. One that gives the pose inside a window (PoseFormer, VideoPose3D) needs
    its frames behind as well: those that have not come yet are copies of the newest.

    Args:
        model: in evaluation mode, with a `signature`; frames are brought to its device and type.
        look_ahead: frames to wait for; 0 for a causal network. None = half a clip, or all that a window has behind.
        flip: skeletons of input and output, to average with the mirrored pose; None = do not.
        batch: videos side by side.
        settle: applied to predictions before mirrored ones are averaged in.

    Raises:
        ConfigError: for a look-ahead that the network has no frames for, and for a network in training mode.
    """
    signature: Signature = model.signature  # type: ignore[assignment]
    if model.training:
        raise ConfigError("A network that streams must be in evaluation mode. Call model.eval() first.")
    after = signature.context[1]
    clips = signature.context == (0, 0)
    most = 0 if carries_state(model) else signature.frames - 1 if clips else after
    wanted = (min(signature.frames // 2, most) if clips else most) if look_ahead is None else look_ahead
    if not isinstance(wanted, int) or wanted < 0:
        span = "0, it is causal" if most == 0 else f"0 to {most}"
        raise ConfigError(
            f"look_ahead={look_ahead} is no number of frames to wait for. {type(model).__name__} takes {span}. "
            "Use predict.look_ahead=0 for poses without delay."
        )
    if wanted > most:
        reason = "is causal" if most == 0 else f"looks {most} frames ahead at most"
        raise ConfigError(f"look_ahead={look_ahead}: {type(model).__name__} {reason}. Use predict.look_ahead={most}.")
    kind: type[Stream] = CausalStream if carries_state(model) else WindowStream
    return kind(model, wanted, flip, batch, settle or (lambda pose: pose))


class Stream(ABC):
    """Frames of one video, or of `batch` videos side by side; made by `stream`.

    Attributes:
        latency: frames between the newest frame and the one that a pose belongs to.
    """

    def __init__(
        self, model: nn.Module, latency: int, flip: Flip | None, batch: int, settle: Callable[[Tensor], Tensor]
    ) -> None:
        self.model: Any = model
        self.signature: Signature = model.signature  # type: ignore[assignment]
        self.latency = latency
        self._flip = flip
        self._batch = batch
        self._settle = settle
        self._kind = next(model.parameters(), torch.empty(0))
        self._alone = batch == 1
        self.reset()

    def reset(self) -> None:
        """Forget all frames: the next one begins a video."""
        self._seen = 0

    @torch.no_grad()
    def push(self, frame: Tensor | np.ndarray) -> Tensor | None:
        """Take the next frame.

        Args:
            frame: (B, J, C), or (J, C) where batch is 1.

        Returns:
            The pose `latency` frames ago, (B, J', 3) or (J', 3); None for the first `latency` frames.
        """
        pose = torch.as_tensor(frame).to(self._kind)
        self._alone = pose.ndim == 2 and self._batch == 1
        pose = pose[None] if self._alone else pose
        wanted = {"B": self._batch, "J": self.signature.joints, "C": self.signature.in_channels}
        expect(pose, "B J C", "frame", **wanted)
        out = self._next(pose)
        self._seen += 1
        return out[0] if out is not None and self._alone else out

    @torch.no_grad()
    def flush(self) -> Tensor:
        """End the video: poses of the last frames, (B, R, J', 3) or (R, J', 3), R = latency at most; then `reset`."""
        left = min(self.latency, self._seen)
        out = self._rest(left) if left else self._kind.new_zeros(self._batch, 0, self.signature.joints_out, 3)
        self.reset()
        return out[0] if self._alone else out

    @abstractmethod
    def _next(self, pose: Tensor) -> Tensor | None:
        """Pose of the frame that is due, after (B, J, C); `_seen` does not count it yet."""

    @abstractmethod
    def _rest(self, left: int) -> Tensor:
        """Poses of the last `left` frames (B, left, J', 3)."""


class CausalStream(Stream):
    """A network whose state stands for all frames before; with flips, one state each."""

    def reset(self) -> None:
        super().reset()
        self._states = [self.model.start(self._batch) for _ in range(1 + (self._flip is not None))]

    @torch.no_grad()
    def advance(self, pose: Tensor) -> Tensor:
        """Take several frames at once, with the same result as one by one: (B, T, J, C) to (B, T, J', 3)."""
        out = self._each(self.model.advance, pose.to(self._kind))
        self._seen += pose.shape[1]
        return out

    def _next(self, pose: Tensor) -> Tensor:
        return self._each(lambda frame, state: self.model.step(frame, state), pose)

    def _rest(self, left: int) -> Tensor:
        raise AssertionError("a causal stream keeps nothing back")

    def _each(self, function: Callable[[Tensor, Any], tuple[Tensor, Any]], pose: Tensor) -> Tensor:
        sides = iter(range(len(self._states)))

        def run(one: Tensor) -> Tensor:
            side = next(sides)
            out, self._states[side] = function(one, self._states[side])
            return self._settle(out)

        return flip_average(run, pose, *self._flip) if self._flip is not None else run(pose)


class WindowStream(Stream):
    """The last `signature.frames` frames in a ring, and one pass of the network over them per frame."""

    def reset(self) -> None:
        super().reset()
        signature = self.signature
        self._ring = self._kind.new_zeros(self._batch, signature.frames, signature.joints, signature.in_channels)

    def _next(self, pose: Tensor) -> Tensor | None:
        if self._seen == 0:
            self._ring[:] = pose[:, None]
        self._ring[:, self._seen % self.signature.frames] = pose
        if self._seen < self.latency:
            return None
        return self._predict(self._seen, torch.tensor([self.latency]))[:, 0]

    def _rest(self, left: int) -> Tensor:
        return self._predict(self._seen - 1, torch.arange(left - 1, -1, -1))

    def _predict(self, newest: int, back: Tensor) -> Tensor:
        """Poses of the frames that are `back` (R,) before the newest, (B, R, J', 3)."""
        inputs, outputs = window_frames(self.signature, back)
        if self.signature.context == (0, 0):
            inputs = inputs[:1]  # one clip answers for all
        frames = (newest + inputs) % self.signature.frames
        windows = self._ring[:, frames.to(self._ring.device)].flatten(0, 1)
        out = lift_windows(self.model, windows, self._flip, self._settle).unflatten(0, (self._batch, -1))
        if self.signature.context == (0, 0):
            return out[:, 0, outputs.to(out.device)]
        return out[:, :, 0]


def window_frames(signature: Signature, back: Tensor) -> tuple[Tensor, Tensor]:
    """Where the windows of a stream lie.

    Args:
        signature: of the network.
        back: (R,) how many frames before the newest the wanted poses are.

    Returns:
        Input frames relative to the newest (R, frames), none above 0, and the output of each that is wanted (R,).
    """
    span = torch.arange(signature.frames)
    if signature.context == (0, 0):
        return (span - (signature.frames - 1)).expand(len(back), -1), signature.frames - 1 - back
    inputs = span - signature.context[0] - back[:, None]
    return inputs.clamp(max=0), torch.zeros_like(back)


def lift_windows(
    model: nn.Module, windows: Tensor, flip: Flip | None, settle: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """One pass over windows (N, frames, J, C) to (N, T', J', 3); both views in one batch where flips are averaged."""
    if flip is None:
        out = model(windows)
        return settle(out) if settle else out
    both = model(torch.cat([windows, mirror_pose(windows, flip[0])]))
    straight, mirrored = (settle(both) if settle else both).chunk(2)
    return (straight + mirror_pose(mirrored, flip[1])) / 2


class Stopwatch:
    """Time per frame of a stream, in memory that does not grow: the mean over all, the spread over the last ones."""

    def __init__(self, kept: int = 2000) -> None:
        self.frames = 0
        self.seconds = 0.0
        self._last: deque[float] = deque(maxlen=kept)

    @contextmanager
    def frame(self) -> Iterator[None]:
        """Time one frame."""
        before = perf_counter()
        yield
        spent = perf_counter() - before
        self.frames += 1
        self.seconds += spent
        self._last.append(spent)

    def quantiles(self, shares: Sequence[float] = (0.5, 0.99)) -> list[float]:
        """Milliseconds per frame that these shares of the last frames stayed within."""
        return [1000 * float(value) for value in np.quantile(list(self._last) or [0.0], shares)]

    def sentence(self, latency: int, fps: float | None) -> str:
        """Throughput, time per frame and latency, for the log."""
        middle, late = self.quantiles()
        rate = self.frames / self.seconds if self.seconds else 0.0
        behind = f" = {1000 * latency / fps:.0f} ms of video" if fps else ""
        return (
            f"{self.frames} frames one by one: {rate:.1f} frames/s, "
            f"{middle:.2f} ms per frame (99 % within {late:.2f}); "
            f"latency {latency} frames{behind}"
        )

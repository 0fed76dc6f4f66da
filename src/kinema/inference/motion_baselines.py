"""The predictions that need no training, as variants of a test: what every method is read against."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from kinema.core import baselines
from kinema.core.heading import heading, turn
from kinema.core.skeleton import Skeleton

log = logging.getLogger(__name__)

# Standing still, going on, and two that show futures of the training set.
BASELINES = ("zero_velocity", "constant_velocity", "nearest", "random_futures")
FROM_TRAINING = frozenset({"nearest", "random_futures"})


class MotionBaselines:
    """Futures by the name of a baseline.

    Args:
        history: observed frames H.
        horizon: predicted frames P.
        hips: feature joints (without the root) of the right and the left hip, None where they are not known.
        candidates: (M, N, F) training windows, None where there are none: what needs them gives NaN then.
        seed: of `random_futures`.
    """

    def __init__(
        self, history: int, horizon: int, hips: tuple[int, int] | None, candidates: Tensor | None, seed: int
    ) -> None:
        self.history, self.horizon, self.hips, self.seed = history, horizon, hips, seed
        self._candidates = candidates if candidates is not None and len(candidates) else None
        self._turned: Tensor | None = None
        self._told: set[str] = set()

    def __call__(
        self,
        name: str,
        history: Tensor,
        num_samples: int,
        ids: Tensor,
        *,
        frames: int = 1,
        fade: float | None = 10.0,
        align: bool = True,
    ) -> Tensor:
        """Predict by one of `BASELINES`.

        Args:
            name: of the baseline.
            history: (W, H, F) metres.
            num_samples: futures of those that give several.
            ids: (W,) numbers of the windows, for draws.
            frames: steps whose mean velocity goes on.
            fade: of `nearest`, frames after which the step at the last observed frame has fallen to 1 / e; None = none.
            align: turn histories and training windows to one heading of the last observed pose.

        Returns:
            (W, K, P, F), K = 1 of those that give one, and at most as many as there are training windows.
        """
        if name == "zero_velocity":
            return baselines.zero_velocity(history, self.horizon)
        if name == "constant_velocity":
            return baselines.constant_velocity(history, self.horizon, frames=frames)
        if self._candidates is None:
            return history.new_full((len(history), num_samples, self.horizon, history.shape[-1]), torch.nan)
        num_samples = self._available(name, num_samples, len(self._candidates))
        align = align and self.hips is not None
        angle = self._heading(history) if align else history.new_zeros(len(history))
        seen, candidates = turn(history, -angle) if align else history, self._of(history, align)
        if name == "nearest":
            futures = baselines.nearest(seen, candidates, num_samples, fade=fade)
        else:
            futures = baselines.random_futures(seen, candidates, num_samples, seed=self.seed, ids=ids)
        return turn(futures, angle) if align else futures

    def _available(self, name: str, wanted: int, there: int) -> int:
        """How many futures a baseline can show; said once where they are fewer than asked for."""
        if wanted > there and name not in self._told:
            self._told.add(name)
            log.warning("%s: %d futures are asked for, but there are %d training windows to show.", name, wanted, there)
        return min(wanted, there)

    def _heading(self, motion: Tensor) -> Tensor:
        """Heading of the last observed pose: (B, T, F) to (B,)."""
        assert self.hips is not None
        return heading(motion[:, self.history - 1].unflatten(-1, (-1, 3)), self.hips)

    def _of(self, history: Tensor, align: bool) -> Tensor:
        """Training windows on the device of the histories, turned once."""
        assert self._candidates is not None
        self._candidates = self._candidates.to(history)
        if not align:
            return self._candidates
        if self._turned is None:
            self._turned = turn(self._candidates, -self._heading(self._candidates))
        return self._turned


def hips_of(body: Skeleton) -> tuple[int, int] | None:
    """Feature joints (the skeleton without its root) of the right and the left hip: by name, else the paired joints
    nearest to the root; None where no sides are known.
    """
    names = ("right_hip", "left_hip")
    if all(name in body.joints for name in names):
        right, left = (body.index(name) for name in names)
    elif body.left:
        pairs = zip(body.right, body.left, strict=True)
        right, left = min(pairs, key=lambda pair: _depth(body, pair[0]))
    else:
        return None
    return right - (right > body.root), left - (left > body.root)


def _depth(body: Skeleton, joint: int) -> int:
    depth = 0
    while body.parents[joint] >= 0:
        joint, depth = body.parents[joint], depth + 1
    return depth

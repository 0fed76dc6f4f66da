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
# Bytes of training motion that are turned at a time.
_MEMORY = 2**26


class MotionBaselines:
    """Futures by the name of a baseline.

    Args:
        history: observed frames H.
        horizon: predicted frames P.
        hips: feature joints (without the root) of the right and the left hip, None where they are not known.
        candidates: (M, N, F) training windows, None where there are none: what needs them gives NaN then. They stay
            where they are, on the CPU; the device of the predicted windows sees their histories alone.
        seed: of `random_futures`.
    """

    def __init__(
        self, history: int, horizon: int, hips: tuple[int, int] | None, candidates: Tensor | None, seed: int
    ) -> None:
        self.history, self.horizon, self.hips, self.seed = history, horizon, hips, seed
        self._candidates = candidates if candidates is not None and len(candidates) else None
        self._known: dict[bool, Tensor] = {}  # histories that are searched, as they are and turned
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
        angle = self._heading(history[:, -1]) if align else history.new_zeros(len(history))
        seen = turn(history, -angle) if align else history
        if name == "nearest":
            picks = baselines.nearest_rows(seen, self._histories(history, align), num_samples).cpu()
        else:
            picks, fade = baselines.random_rows(ids.cpu(), len(self._candidates), num_samples, self.seed), None
        futures = history.new_empty(len(history), num_samples, self.horizon, history.shape[-1])
        for rows in torch.arange(len(history)).split(self._several(num_samples * (1 + self.horizon), history)):
            chosen = self._candidates[picks[rows], self.history - 1 :].to(history)  # (w, K, 1 + P, F)
            if align:
                flat = chosen.flatten(0, 1)
                chosen = turn(flat, -self._heading(flat[:, 0])).view_as(chosen)
            some = baselines.continued(seen[rows], chosen, fade)
            futures[rows] = turn(some, angle[rows]) if align else some
        return futures

    def _available(self, name: str, wanted: int, there: int) -> int:
        """How many futures a baseline can show; said once where they are fewer than asked for."""
        if wanted > there and name not in self._told:
            self._told.add(name)
            log.warning("%s: %d futures are asked for, but there are %d training windows to show.", name, wanted, there)
        return min(wanted, there)

    def _heading(self, pose: Tensor) -> Tensor:
        """Heading of the last observed pose: (B, F) to (B,)."""
        assert self.hips is not None
        return heading(pose.unflatten(-1, (-1, 3)), self.hips)

    def _several(self, frames: int, like: Tensor) -> int:
        """Motions of so many frames that are turned at a time."""
        return max(1, _MEMORY // (frames * like.shape[-1] * like.element_size()))

    def _histories(self, history: Tensor, align: bool) -> Tensor:
        """Histories (M, H, F) of the training windows on the device of those that are predicted, turned once."""
        assert self._candidates is not None
        known = self._known.get(align)
        if known is None or known.device != history.device:
            known = history.new_empty(len(self._candidates), self.history, history.shape[-1])
            for rows in torch.arange(len(known)).split(self._several(self.history, history)):
                some = self._candidates[rows, : self.history].to(history)
                known[rows] = turn(some, -self._heading(some[:, -1])) if align else some
            self._known[align] = known
        return known


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

"""Clip rules: which frames of a whole clip a network sees, for clips of any length and a fixed number of frames.

A rule is a function (length (B,), count, chance) -> positions (B, count); whatever is random comes from `chance`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kinema.core import motion, random


class Chance:
    """Random numbers of the picks of a batch, as functions of (seed, epoch, position in the order, name).

    Args:
        seed: of the run.
        epoch, draw: (B,) of the picks.
        view: (B,) number of the test clip, 0 where there is one.
        views: how many test clips there are.
    """

    def __init__(self, seed: int, epoch: Tensor, draw: Tensor, view: np.ndarray, views: int) -> None:
        self.seed, self.epoch, self.draw = seed, epoch, draw
        self.view, self.views = view, views

    def uniform(self, name: str, shape: Sequence[int] = ()) -> np.ndarray:
        """(B, *shape) float32 in [0, 1)."""
        return random.uniform(self.seed, self.epoch, self.draw, name, shape).numpy()


ClipRule = Callable[[np.ndarray, int, Chance], np.ndarray]


def resample(length: np.ndarray, count: int, chance: Chance) -> np.ndarray:
    """Frames spread evenly over the clip; further test clips of it draw around these.

    Source: MotionBERT, lib/utils/utils_data.py (resample); it has one test clip.
    """
    positions = motion.resample_indices(length, count)
    if chance.view.any():
        others = random_frames(length, count, chance)
        positions = np.where(chance.view[:, None] > 0, others, positions)
    return positions


def random_frames(length: np.ndarray, count: int, chance: Chance) -> np.ndarray:
    """A random frame of each of `count` equal parts of the clip; a short clip repeats frames at random."""
    return motion.resample_spread(length, count, chance.uniform("frames", (count,)))


def uniform(length: np.ndarray, count: int, chance: Chance) -> np.ndarray:
    """Frames as PYSKL samples them in training: one per segment, or a stretch with gaps, or a loop of a short clip."""
    return motion.uniform_indices(length, count, chance.uniform("frames", (motion.uniform_draws(count),)))


def uniform_test(length: np.ndarray, count: int, chance: Chance) -> np.ndarray:
    """Frames of test clip `view` as PYSKL draws them, from a generator that every clip seeds anew."""
    pairs = zip(length.tolist(), chance.view.tolist(), strict=True)
    return np.stack([_published(frames, count, chance.views)[view] for frames, view in pairs])


@lru_cache(maxsize=4096)
def _published(length: int, count: int, clips: int) -> np.ndarray:
    return motion.uniform_test_indices(length, count, clips)


CLIP_RULES: dict[str, ClipRule] = {
    "resample": resample,
    "random": random_frames,
    "uniform": uniform,
    "uniform_test": uniform_test,
}


def cut(length: np.ndarray, share: tuple[float, float], chance: Chance) -> tuple[np.ndarray, np.ndarray]:
    """A random stretch of every clip, (first frame, length), of a share of it between two bounds; 2 frames at least."""
    low, high = share
    drawn = chance.uniform("cut", (2,)).astype(np.float64)
    kept = np.rint(length * (low + (high - low) * drawn[:, 0])).astype(np.int64)
    kept = np.clip(kept, np.minimum(2, length), length)
    return np.floor(drawn[:, 1] * (length - kept + 1)).astype(np.int64), kept


def once(draw: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Epoch and draw for what is drawn once per row and kept: published behaviour of both action data sets."""
    return torch.zeros_like(draw), index.clamp_min(0)

"""What transforms are made of: the random draws of a batch, the batch keys a transform needs, joint orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from kinema.core import random
from kinema.core.skeleton import Skeleton
from kinema.data.mirror import mirrored

Batch = dict[str, Tensor]


class Draws:
    """Random numbers of one batch: functions of (seed, epoch, position, name), see `core/random.py`.

    Attributes:
        seed, epoch: of the run.
        draw: (B,) positions in the epoch's order.
        step: (1,) number of the batch in its epoch, for what a paper draws once per batch.
        training: whether the batch is trained on, for what a paper draws from other ranges in a test.
    """

    def __init__(self, seed: int, epoch: int, draw: Tensor, step: Tensor, *, training: bool = False) -> None:
        self.seed, self.epoch, self.draw, self.step = seed, epoch, draw, step
        self.training = training

    def uniform(self, name: str, shape: Sequence[int] = ()) -> Tensor:
        """(B, *shape) float32 in [0, 1)."""
        return random.uniform(self.seed, self.epoch, self.draw, name, shape)

    def normal(self, name: str, shape: Sequence[int] = ()) -> Tensor:
        """(B, *shape) float32 standard normal."""
        return random.normal(self.seed, self.epoch, self.draw, name, shape)


def needs(*keys: str) -> Callable[[Callable[..., Batch]], Callable[..., Batch]]:
    """Declare which batch keys a transform reads beside `pose2d` and `pose3d`; they are then gathered."""

    def mark(function: Callable[..., Batch]) -> Callable[..., Batch]:
        function.needs = keys  # type: ignore[attr-defined]
        return function

    return mark


@lru_cache(maxsize=64)
def joint_order(order: tuple[int, ...], device: torch.device) -> Tensor:
    """A joint order on the device, copied there once and not at every step."""
    with torch.inference_mode(False):  # a tensor born in inference mode could not be used in training
        return torch.tensor(order, device=device)


def mirror_some(pose: Tensor, chosen: Tensor, skeleton: Skeleton) -> Tensor:
    """Mirror the chosen samples (B,) of (B, T, J, C): x negated, left and right exchanged; the input stays as it is."""
    if pose.device.type != "cpu":  # which ones they are is known to the device only, and nobody waits for it
        swapped = pose.index_select(-2, joint_order(skeleton.flip_index, pose.device))
        swapped = torch.cat([-swapped[..., :1], swapped[..., 1:]], dim=-1)
        return torch.where(chosen[:, None, None, None], swapped, pose)
    out, rows = pose.numpy().copy(), chosen.numpy()
    out[rows] = mirrored(out[rows], skeleton, negate=True, axis=2)
    return torch.from_numpy(out)

"""What the protocols on image-space poses share: millimetres, the frames that count, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kinema.core import align
from kinema.core.preprocess import preprocess
from kinema.core.shapes import expect
from kinema.core.skeleton import Skeleton
from kinema.errors import ConfigError
from kinema.protocols.measures import groups_of

if TYPE_CHECKING:
    from kinema.data.windows import Windows

# Videos with wrong ground truth, all cameras: S9 Greet, SittingDown and Wait.
BLOCKED = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")
NEEDS = frozenset({"pose3d_eval", "factor", "size", "frames", "index"})


class Frames:
    """The stored frames that an evaluation covers: one row of sums each, in the order of the store.

    Args:
        windows: evaluation clips over a store with `pose3d_eval`, `factor` and `size`.
        blocked: sequences left out, by their name without the camera; None = the three with wrong ground truth.
        protocol: name, for the message.

    Raises:
        ConfigError: the store has no 2.5D targets.
    """

    def __init__(self, windows: Windows, blocked: Sequence[str] | None, protocol: str) -> None:
        sequences = windows.sequences
        missing = {"pose3d_eval", "factor", "size"} - set(sequences.arrays)
        if sequences.skeleton is None or missing:
            raise ConfigError(
                f"The {protocol} protocol needs {', '.join(sorted(missing)) or '3D truth'} in the data, as the "
                f"MotionBERT Human3.6M file has. Use task.protocol=videopose3d, or dataset=h36m_sh."
            )
        self.skeleton: Skeleton = sequences.skeleton
        self.sequences = sequences
        self.step = sequences.step
        table = sequences.table
        self.first = int(table["start"].min())
        self.count = int((table["start"] + (table["length"] - 1) * self.step).max()) + 1 - self.first
        names = BLOCKED if blocked is None else tuple(blocked)
        left_out = torch.tensor([str(trial) in names for trial in table["trial"]])
        # No buffer: what averages the weights of a module averages its buffers too.
        self.left_out = left_out[torch.from_numpy(np.asarray(windows.table)[:, 0].astype(np.int64))]

    def rows(self, frames: Tensor) -> Tensor:
        """Rows of the sums that stored frames (B, T) stand in, (B * T,)."""
        return (frames - self.first).flatten()

    def valid(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Which frames of a batch count (B, T): no fillers, no blocked sequences, nothing marked as missing."""
        index = batch["index"]
        self.left_out = self.left_out.to(index.device)
        valid = ((index >= 0) & ~self.left_out[index.clamp_min(0)])[:, None].expand(batch["frames"].shape)
        if "valid" not in batch:
            return valid
        known = batch["valid"].bool()
        return valid & (known if known.ndim == 2 else known.all(-1))

    def actions(self) -> tuple[np.ndarray, list[str]]:
        """Action of every frame: the file's own column where the store kept it, else that of its sequence."""
        if "action" in self.sequences.arrays:
            column = np.asarray(self.sequences.arrays["action"][self.first : self.first + self.count])
            return column.astype(np.int64), list(self.sequences.meta["actions"])
        return self.spread(self.sequences.table["action"])

    def spread(self, column: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Spread a column of the table over the frames of its sequences; -1 between them."""
        of_sequence, names = groups_of(column)
        spread = np.full(self.count, -1)
        table = self.sequences.table
        for start, length, group in zip(table["start"] - self.first, table["length"], of_sequence, strict=True):
            spread[start : start + length * self.step] = group
        return spread, names


def with_root_at_zero(prediction: Tensor, skeleton: Skeleton) -> Tensor:
    """Set the predicted root to zero; the other joints (..., J, 3) stay as they are."""
    is_root = torch.arange(len(skeleton), device=prediction.device)[:, None] == skeleton.root
    return torch.where(is_root, 0, prediction)


def millimetres(prediction: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Undo the normalisation: (B, T, J, 3) image units to mm, x and y from the image's corner, z from the root.

    Args:
        prediction: (B, T, J, 3).
        batch: `size` (B, T, 2) width and height in pixels, `factor` (B, T) mm per pixel.
    """
    size = batch["size"][:, 0].double()  # the ratio of the sides must not be rounded to float32
    pixels = preprocess("motionbert").image_from_network(prediction, size[:, 0], size[:, 1])
    return pixels * batch["factor"][..., None, None]


def relative_pair(prediction: Tensor, batch: Mapping[str, Tensor], skeleton: Skeleton) -> tuple[Tensor, Tensor]:
    """Prediction in mm and the batch's target, (B, T, J, 3) each and both root-relative."""
    sizes = expect(batch["pose3d_eval"], "B T J 3", "pose3d_eval", J=len(skeleton))
    expect(prediction, "B T J 3", "prediction", **sizes)
    target = batch["pose3d_eval"].to(prediction.dtype)
    return align.root_relative(prediction, skeleton), align.root_relative(target, skeleton)


def last_of_repeats(frames: Tensor, valid: Tensor) -> Tensor:
    """Of a frame that a clip repeats only the last occurrence counts, as where numpy adds to repeated indices.

    Args:
        frames: (B, T) in time order.
        valid: (B, T) bool.
    """
    kept = valid.clone()
    kept[:, :-1] &= ~(valid[:, 1:] & (frames[:, 1:] == frames[:, :-1]))
    return kept


def step_errors(
    pred: Tensor, target: Tensor, frames: Tensor, valid: Tensor, step: int, order: int
) -> tuple[Tensor, Tensor]:
    """Mean distance of the joints' first or second differences in time, at the first of the frames they need.

    Args:
        pred: (B, T, J, 3).
        target: (B, T, J, 3).
        frames: (B, T) rows of the store.
        valid: (B, T) bool.
        step: distance of neighbouring frames in the store.
        order: 1 for velocity, 2 for acceleration.

    Returns:
        (B, T) float64, and whether a frame has such neighbours inside its clip, (B, T) bool.
    """
    errors = torch.zeros(frames.shape, dtype=torch.float64, device=frames.device)
    exists = torch.zeros(frames.shape, dtype=torch.bool, device=frames.device)
    length = frames.shape[1] - order
    if length < 1:
        return errors, exists
    pairs = (frames.diff(dim=1) == step) & valid[:, 1:] & valid[:, :-1]
    if order == 2:
        pairs = pairs[:, 1:] & pairs[:, :-1]
    distance = torch.linalg.vector_norm((pred - target).diff(n=order, dim=1), dim=-1).mean(-1)
    errors[:, :length] = torch.where(pairs, distance.double(), 0)
    exists[:, :length] = pairs
    return errors, exists

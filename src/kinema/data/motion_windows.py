"""Windows of motion prediction, at all places for training, at published ones for evaluation; and what they tell."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kinema.core.motion_features import to_features
from kinema.data.sequences import Sequences
from kinema.data.windows import SEQUENCE, SPAN, START, VIEW, Windows

# Windows that are gathered at a time.
_TOGETHER = 1024


def every(sequences: Sequences, length: int, reach: int) -> Windows:
    """A row for every window of every sequence, T - length + 1 of each.

    Args:
        sequences: of at least `length` frames each.
        length: frames of a window.
        reach: frames it is gathered with; beyond the end of its sequence the last one stands again, not `valid`.
    """
    return _windows(sequences, sequences.table["length"] - length + 1, 1, length, reach)


def published(sequences: Sequences, length: int, stride: int) -> Windows:
    """Windows that begin at range(0, T - length, stride), of sequences in their order.

    A sequence of exactly `length` frames gives none, nor does the last place where T - length is a multiple of the
    stride (published behaviour).

    Source: HumanMAC, data_loader/dataset.py (iter_generator).
    """
    places = np.maximum(-(-(sequences.table["length"] - length) // stride), 0)
    return _windows(sequences, places, stride, length, length)


def counts(windows: Windows) -> np.ndarray:
    """Rows of each sequence."""
    found: np.ndarray = np.bincount(windows.table[:, SEQUENCE], minlength=len(windows.sequences))
    return found


def as_motion(windows: Windows, root: int) -> Tensor:
    """Every window as networks see it, without augmentation: (W, N, F) float32.

    All in one array from the beginning: there may be gigabytes of them.
    """
    windows = windows.subset(np.arange(len(windows)))
    windows.keys = ("pose3d",)
    motion = torch.empty(0)
    for rows in torch.arange(len(windows)).split(_TOGETHER):
        picks = torch.stack([torch.zeros_like(rows), rows, rows], dim=1)
        part = to_features(windows[picks]["pose3d"], root)
        if not len(motion):
            motion = part.new_empty(len(windows), *part.shape[1:])
        motion[rows] = part
    return motion


def mean_motion(sequences: Sequences, root: int) -> dict[str, float]:
    """Mean way of a joint relative to the root from frame to frame, by action, in metres."""
    way: dict[str, list[float]] = {}
    for row, action in enumerate(sequences.table["action"].tolist()):
        pose = torch.from_numpy(np.array(sequences.sequence(row)["pose3d"]))
        steps = to_features(pose, root).unflatten(-1, (-1, 3)).diff(dim=0).norm(dim=-1)
        total = way.setdefault(action, [0.0, 0.0])
        total[0] += float(steps.double().sum())
        total[1] += steps.numel()
    return {action: total / count for action, (total, count) in way.items()}


def _windows(sequences: Sequences, count: np.ndarray, stride: int, length: int, reach: int) -> Windows:
    table = np.zeros((int(count.sum()), 4), np.int32)
    table[:, SEQUENCE] = np.repeat(np.arange(len(count)), count)
    table[:, START] = (np.arange(len(table)) - np.repeat(np.cumsum(count) - count, count)) * stride
    table[:, SPAN], table[:, VIEW] = length, 0
    return Windows(sequences, table, reach)

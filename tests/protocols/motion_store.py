"""Windows of invented motion: what the protocol of motion prediction is built from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kinema.core.skeleton import skeleton
from kinema.data.motion_windows import published
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows

HISTORY, HORIZON = 3, 5
ACTIONS = ("Walking", "Sitting", "Walking", "Eating")


def windows(
    lengths: Sequence[int] = (16, 12, 20, 11), actions: Sequence[str] = ACTIONS, *, fps: float = 50.0, seed: int = 0
) -> Windows:
    """Published windows of slow random walks of a body; the last poses of some are closer than 0.5."""
    random = np.random.default_rng(seed)
    body = random.normal(size=(17, 3)) * 0.3
    items = []
    for number, (length, action) in enumerate(zip(lengths, actions, strict=True)):
        steps = random.normal(size=(length, 17, 3)) * 0.03
        pose = body + number % 3 * 0.02 + steps.cumsum(0)
        items.append(
            {"pose3d": pose.astype(np.float32), "subject": f"S{number % 2}", "trial": f"{action} {number}",
             "action": action, "fps": fps}
        )  # fmt: skip
    store = Sequences.from_arrays(items, skeleton=skeleton("h36m17"), space="world")
    return published(store, HISTORY + HORIZON, HISTORY)


def motion(made: Windows) -> Tensor:
    """(W, N, 48) joints of all windows relative to the pelvis."""
    rows = torch.arange(len(made))
    pose = made[torch.stack([rows, rows, rows], dim=1)]["pose3d"]
    return (pose - pose[:, :, :1])[:, :, 1:].flatten(2)


def samples(made: Windows, count: int = 4, seed: int = 0) -> Tensor:
    """(W, count, P, 48) futures around the true ones."""
    truth = motion(made)[:, HISTORY:]
    generator = torch.Generator().manual_seed(seed)
    return truth[:, None] + 0.05 * torch.randn(len(made), count, *truth.shape[1:], generator=generator)


def batch(rows: Sequence[int]) -> dict[str, Tensor]:
    """What the protocol needs of a batch; -1 is a filler."""
    return {"index": torch.tensor(list(rows))}

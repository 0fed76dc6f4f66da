"""Small stores and plain loops: what the protocols are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinema.core.skeleton import SKELETONS
from kinema.data.sequences import Sequences
from kinema.data.windows import Windows

SKELETON = SKELETONS["h36m17"]
JOINTS = len(SKELETON)


def store(lengths: list[int], seed: int = 0, **columns: Any) -> Sequences:
    """Camera-space sequences of given lengths; subjects and actions alternate unless columns say otherwise."""
    random = np.random.default_rng(seed)
    actions, subjects = ("Walking", "Sitting", "Eating"), ("S9", "S11")
    items = []
    for number, length in enumerate(lengths):
        item = {
            "pose3d": random.normal(size=(length, JOINTS, 3)).astype(np.float32),
            "pose2d": random.normal(size=(length, JOINTS, 2)).astype(np.float32),
            "subject": subjects[number % 2],
            "action": actions[number % 3],
            "trial": f"{actions[number % 3]} {number}",
            "camera": "0",
            "fps": 50.0,
        }
        items.append({**item, **{key: values[number] for key, values in columns.items()}})
    return Sequences.from_arrays(items, skeleton=SKELETON, skeleton2d=SKELETON, space="camera")


def picks(rows: list[int]) -> Tensor:
    """Picks of some rows; -1 is a filler."""
    index = torch.tensor(rows)
    return torch.stack([torch.zeros_like(index), torch.arange(len(rows)), index], dim=1)


def batches(windows: Windows) -> list[dict[str, Tensor]]:
    """One batch per row."""
    return [windows[picks([row])] for row in range(len(windows))]


def noisy(batch: dict[str, Tensor], seed: int = 1, scale: float = 0.1) -> Tensor:
    """A prediction near the root-relative target; the same for the same frames, whatever the batch."""
    target = batch["pose3d"]
    out = target - target[..., :1, :]
    noise = np.stack(
        [
            [np.random.default_rng([seed, int(frame)]).normal(size=(JOINTS, 3)) for frame in row]
            for row in batch["frames"].tolist()
        ]
    )
    return out + scale * torch.from_numpy(noise.astype(np.float32))


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Joint distances in mm of poses in metres."""
    return np.linalg.norm(a.astype(np.float64) - b, axis=-1) * 1000


def procrustes(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """One pose (J, 3) moved onto another by rotation, scale and translation: Kabsch's textbook form."""
    mean_p, mean_t = pred.mean(0), target.mean(0)
    p, t = (pred - mean_p).astype(np.float64), (target - mean_t).astype(np.float64)
    u, s, vt = np.linalg.svd(p.T @ t)
    sign = np.sign(np.linalg.det(u @ vt))
    rotation = u @ np.diag([1, 1, sign]) @ vt
    scale = (s * [1, 1, sign]).sum() / (p**2).sum()
    return scale * p @ rotation + mean_t

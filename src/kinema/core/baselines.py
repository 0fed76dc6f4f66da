"""Predictions that need no training, against which every method is read.

Notation: W windows of H observed and P future frames, F features, K samples, M training windows. All are root-relative
motions in one unit; nearest neighbours and random futures are found for histories of one heading, which the caller sees
to (`core.heading`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.core.random import uniform
from kinema.errors import DataError

# Bytes of distances at a time.
_MEMORY = 2**26


def zero_velocity(history: Tensor, horizon: int) -> Tensor:
    """Stand still in the last observed pose: (W, H, F) to (W, 1, P, F)."""
    return history[:, -1:, :].expand(-1, horizon, -1)[:, None].clone()


def constant_velocity(history: Tensor, horizon: int, *, frames: int = 1) -> Tensor:
    """Go on at the mean velocity of the last steps.

    Args:
        history: (W, H, F).
        horizon: P.
        frames: steps whose mean is taken, fewer than H.

    Returns:
        (W, 1, P, F).
    """
    if not 1 <= frames < history.shape[1]:
        raise DataError(
            f"A velocity over {frames} steps cannot be taken from {history.shape[1]} frames. Use 1 to "
            f"{history.shape[1] - 1}."
        )
    last = history[:, -1]
    velocity = (last - history[:, -1 - frames]) / frames
    ahead = torch.arange(1, horizon + 1, dtype=history.dtype, device=history.device)
    return (last[:, None] + velocity[:, None] * ahead[:, None])[:, None]


def nearest(history: Tensor, candidates: Tensor, num_samples: int, *, fade: float | None = None) -> Tensor:
    """Futures of the training windows whose histories are nearest (L2 over all observed frames), nearest first.

    Args:
        history: (W, H, F).
        candidates: (M, N, F) with M >= K.
        num_samples: K.
        fade: frames after which what is added to a future has fallen to 1 / e: the difference of the poses in the last
            observed frame, whole in the first future frame, so that the future goes on where the history ends. None =
            the futures as they are.

    Returns:
        (W, K, P, F).
    """
    frames = history.shape[1]
    picks = nearest_rows(history, candidates[:, :frames], num_samples)
    return continued(history, candidates[picks, frames - 1 :], fade)


def nearest_rows(history: Tensor, known: Tensor, num_samples: int) -> Tensor:
    """Rows of the nearest histories (M, H, F) for each of (W, H, F), nearest first: (W, K) int64."""
    _check_count(known, num_samples)
    known = known.flatten(1)
    rows = max(1, _MEMORY // (known.element_size() * len(known)))
    found = []
    for some in history.flatten(1).split(rows):
        distances = torch.cdist(some, known, compute_mode="donot_use_mm_for_euclid_dist")
        found.append(distances.topk(num_samples, largest=False, sorted=True).indices)
    return torch.cat(found) if found else torch.empty(0, num_samples, dtype=torch.int64, device=history.device)


def continued(history: Tensor, motion: Tensor, fade: float | None) -> Tensor:
    """Futures of other motions, as they are or going on from where a history ends.

    Args:
        history: (W, H, F).
        motion: (W, K, 1 + P, F) from the last observed frame on.
        fade: see `nearest`.

    Returns:
        (W, K, P, F).
    """
    futures = motion[:, :, 1:]
    if fade is None:
        return futures
    ahead = torch.arange(futures.shape[2], dtype=history.dtype, device=history.device)
    gap = history[:, None, -1] - motion[:, :, 0]  # (W, K, F)
    return futures + gap[:, :, None] * torch.exp(-ahead / fade)[:, None]


def random_futures(
    history: Tensor, candidates: Tensor, num_samples: int, *, seed: int = 0, ids: Tensor | None = None
) -> Tensor:
    """Futures of random training windows, none twice for one history; they do not depend on the other windows.

    Args:
        history: (W, H, F), of which the number of frames is read.
        candidates: (M, N, F) with M >= K.
        num_samples: K.
        seed: of the draws.
        ids: (W,) numbers of the windows, None = 0, 1, ...

    Returns:
        (W, K, P, F).
    """
    _check_count(candidates, num_samples)
    rows = torch.arange(len(history)) if ids is None else ids.cpu()
    chosen = random_rows(rows, len(candidates), num_samples, seed)
    return candidates[chosen.to(candidates.device), history.shape[1] :]


def random_rows(ids: Tensor, count: int, num_samples: int, seed: int) -> Tensor:
    """K different rows of `count`, for windows by their numbers (W,) on the CPU: (W, K) int64."""
    several = max(1, _MEMORY // (4 * count))
    picks = [
        uniform(seed, 0, some, "random_futures", (count,)).topk(num_samples).indices for some in ids.split(several)
    ]
    return torch.cat(picks) if picks else torch.empty(0, num_samples, dtype=torch.int64)


def _check_count(candidates: Tensor, num_samples: int) -> None:
    if len(candidates) < num_samples:
        raise DataError(
            f"{num_samples} futures are asked for, but there are only {len(candidates)} training windows. Use "
            f"task.num_samples={max(1, len(candidates))}."
        )

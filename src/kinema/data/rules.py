"""Frame rules: from rows of a Windows table to positions inside their sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# (start (B,), length (B,), offsets (T,), given (B, T') or None) -> positions (B, T) in [0, length), inside (B, T) bool.
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray]]


def clamp(
    start: np.ndarray, length: np.ndarray, offsets: np.ndarray, given: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Consecutive frames; beyond the ends of a sequence its first or last frame stands again."""
    wanted = start[:, None] + offsets
    last = length[:, None] - 1
    positions = np.maximum(wanted, 0)
    np.minimum(positions, last, out=positions)
    return positions, positions == wanted


def given(
    start: np.ndarray, length: np.ndarray, offsets: np.ndarray, given: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Positions from a stored table: what a paper drew once with a generator of its own; every target is inside."""
    if given is None:
        raise ValueError("The rule 'given' needs a table of positions.")
    columns = np.clip(offsets, 0, given.shape[1] - 1)
    positions = given[:, columns].astype(np.int64)
    return positions, np.ones(positions.shape, dtype=bool)


def centre(
    start: np.ndarray, length: np.ndarray, offsets: np.ndarray, given: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """As `clamp`, for the sake of the middle frame: no other counts."""
    positions, inside = clamp(start, length, offsets, given)
    return positions, inside & (np.arange(len(offsets)) == len(offsets) // 2)


RULES: dict[str, Rule] = {"clamp": clamp, "given": given, "centre": centre}

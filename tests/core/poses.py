"""Random and hard poses for the tests of core."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)


def poses(seed: int, *shape: int) -> np.ndarray:
    """Standard normal float64 poses of a shape such as (T, J, 3)."""
    return np.random.default_rng(seed).standard_normal(shape)


def rotation(seed: int) -> np.ndarray:
    """A random (3, 3) rotation matrix."""
    q, _ = np.linalg.qr(poses(seed, 3, 3))
    return q * np.sign(np.linalg.det(q))


def shapes(max_frames: int = 6) -> st.SearchStrategy[tuple[int, int]]:
    """(frames, joints), from a single frame and two joints on."""
    return st.tuples(st.integers(1, max_frames), st.integers(2, 21))

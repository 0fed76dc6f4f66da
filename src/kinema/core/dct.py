"""The discrete cosine transform along an axis of known length, as constant matrices in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dct_matrix(length: int, count: int | None = None) -> Tensor:
    """Rows of the unnormalised DCT-II: 2 cos(pi k (2m + 1) / (2 length)), (count, length) float64 on the CPU.

    Args:
        length: samples of a signal.
        count: coefficients, the lowest first; None = all.
    """
    # The device is said, because models are also built where tensors have no values (torch.device("meta")).
    rows = torch.arange(length if count is None else count, dtype=torch.float64, device="cpu")
    times = torch.arange(length, dtype=torch.float64, device="cpu")
    return 2 * torch.cos(math.pi / (2 * length) * rows[:, None] * (2 * times + 1))


def inverse_dct_matrix(length: int) -> Tensor:
    """Inverse of `dct_matrix(length)`, (length, length) float64 on the CPU."""
    weights = torch.full((length,), 1 / (2 * length), dtype=torch.float64, device="cpu")
    weights[0] = 1 / (4 * length)
    return dct_matrix(length).T * weights


def orthonormal_dct_matrix(length: int, count: int | None = None) -> Tensor:
    """`dct_matrix` with rows of length 1, so that the inverse of the whole is its transpose."""
    rows = dct_matrix(length, count)
    return rows / rows.norm(dim=1, keepdim=True)


def product(matrix: Tensor, x: Tensor) -> Tensor:
    """Product along the last but one axis in the matrix' own format, under autocast too.

    Sums over hundreds of frames do not fit into the 8 bits of a short format.

    Args:
        matrix: (K, N).
        x: (..., N, C).

    Returns:
        (..., K, C).
    """
    if x.is_meta:  # autocast does not know this device
        return matrix @ x.to(matrix.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return matrix @ x.to(matrix.dtype)

"""The discrete cosine transform along a short axis, as a product with a constant matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


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


class ConstantProduct(nn.Module):
    """Product with a constant matrix along the last but one axis: (..., N, C) to (..., K, C).

    The matrix is no part of the state dict, and it is made anew from float64 whenever the module changes its number
    format: `.double()` has it exact and not rounded to float32 first.

    Args:
        make: returns the matrix, (K, N) float64 on the CPU.
    """

    matrix: Tensor

    def __init__(self, make: Callable[[], Tensor]) -> None:
        super().__init__()
        self.make = make
        self.register_buffer("matrix", make().to(torch.empty(0)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return _product(self.matrix, x)

    def transposed(self, x: Tensor) -> Tensor:
        """Product with the transpose, the inverse of an orthonormal transform: (..., K, C) to (..., N, C)."""
        return _product(self.matrix.T, x)

    def _apply(self, fn: Any, recurse: bool = True) -> ConstantProduct:
        super()._apply(fn, recurse)
        self.matrix = self.make().to(self.matrix)
        return self

    def extra_repr(self) -> str:
        return f"{tuple(self.matrix.shape)}"


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """Product in the matrix' own format, under autocast too: sums over hundreds of frames do not fit into 8 bits."""
    if x.is_meta:  # autocast does not know this device
        return matrix @ x.to(matrix.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return matrix @ x.to(matrix.dtype)

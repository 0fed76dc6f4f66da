"""A layer without weights: the product with a constant matrix, such as one of `core.dct`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kinema.core.dct import product


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
        return product(self.matrix, x)

    def transposed(self, x: Tensor) -> Tensor:
        """Product with the transpose, the inverse of an orthonormal transform: (..., K, C) to (..., N, C)."""
        return product(self.matrix.T, x)

    def _apply(self, fn: Any, recurse: bool = True) -> ConstantProduct:
        super()._apply(fn, recurse)
        self.matrix = self.make().to(self.matrix)
        return self

    def extra_repr(self) -> str:
        return f"{tuple(self.matrix.shape)}"

"""The two-layer perceptron of transformer blocks."""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear to `hidden`, exact (erf) GELU, Linear back, dropout after both.

    Parameter names: `fc1`, `fc2`. Input and output (..., dim).
    """

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(self.act(self.fc1(x)))))

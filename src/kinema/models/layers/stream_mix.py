"""The fusion of two streams that look at the same tokens, as MotionBERT introduced it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StreamMix(nn.Linear):
    """Mix two streams token by token: softmax over the two outputs of Linear(2 * dim, 2) on concat(st, ts).

    A softmax over two logits is the sigmoid of their difference, and the product with the concatenation is the sum
    of two products, so neither the concatenation nor the pair of weights is built.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(2 * dim, 2)

    def forward(self, st: Tensor, ts: Tensor) -> Tensor:  # type: ignore[override]
        """Return the mixed stream, (..., dim) like both inputs."""
        of_st, of_ts = self.weight.chunk(2, dim=1)
        logits = F.linear(st, of_st, self.bias) + F.linear(ts, of_ts)
        share = torch.sigmoid(logits[..., :1] - logits[..., 1:])
        return torch.lerp(ts, st, share.to(st.dtype))

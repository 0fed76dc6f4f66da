"""Stochastic depth: whole residual branches are left out at random during training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kinema.errors import ConfigError


class DropPath(nn.Module):
    """Drop the branch of a sample with probability `rate` and scale the kept ones by 1 / (1 - rate).

    A sample is one entry of the leading `sample_axes` axes: MotionBERT and the spatial stage of PoseFormer count
    every frame as a sample, the temporal stage of PoseFormer every window.

    Args:
        rate: probability of dropping, in [0, 1).
        sample_axes: how many leading axes tell samples apart.

    Source: Huang et al. 2016; form of MotionBERT lib/model/drop.py: x / keep * floor(keep + U[0, 1)).
    """

    def __init__(self, rate: float, *, sample_axes: int = 1) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ConfigError(f"A drop path rate of {rate} is outside [0, 1). Use model.drop_path=0.1.")
        self.rate = rate
        self.sample_axes = sample_axes

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with some samples set to zero; the input itself in evaluation or at rate 0."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = x.shape[: self.sample_axes] + (1,) * (x.ndim - self.sample_axes)
        # Drawn in float32 whatever x is: keep + U rounds too coarsely in bfloat16.
        mask = torch.floor(keep + torch.rand(shape, device=x.device))
        return x / keep * mask.to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, sample_axes={self.sample_axes}"


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates of the blocks, rising linearly from 0 to `rate`: linspace(0, rate, depth)."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]

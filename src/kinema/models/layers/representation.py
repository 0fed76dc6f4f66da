"""The representation that the lifters for clips give before their last layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def representation(dim: int, dim_rep: int) -> nn.Sequential:
    """Linear(dim, dim_rep) and tanh under the official names `fc` and `act`."""
    return nn.Sequential(OrderedDict(fc=nn.Linear(dim, dim_rep), act=nn.Tanh()))

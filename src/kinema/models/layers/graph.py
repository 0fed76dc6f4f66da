"""Graphs over joints and frames: adjacency matrices, graph convolution, and the temporal convolution beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from kinema.errors import ConfigError

Edges = Iterable[tuple[int, int]]


def parent_edges(parents: Sequence[int]) -> list[tuple[int, int]]:
    """Edges (child, parent) of a tree; a parent of -1 marks a root."""
    return [(child, parent) for child, parent in enumerate(parents) if parent >= 0]


def chain_edges(frames: int, steps: Iterable[int] = (1,)) -> list[tuple[int, int]]:
    """Edges (i, i + step) of frames in time; steps (1, 2) add those to the next but one."""
    return [(i, i + step) for step in steps for i in range(frames - step)]


def row_normalised_adjacency(edges: Edges, nodes: int) -> Tensor:
    """Symmetric 0/1 adjacency whose rows are divided by their sums, with a diagonal of exactly 1.

    The self loop is added after the division, so rows of linked nodes sum to 2 (published behaviour).

    Args:
        edges: pairs of nodes, either direction.
        nodes: number of nodes N.

    Returns:
        (N, N) float32.

    Source: DBMambaPose, the adjacency of its model loader (that of GraphFormer-like networks).
    """
    adjacency = torch.zeros(nodes, nodes)
    for a, b in edges:
        adjacency[a, b] = adjacency[b, a] = 1.0
    adjacency /= adjacency.sum(dim=1, keepdim=True).clamp_min(1.0)
    return adjacency.fill_diagonal_(1.0)


def forward_adjacency(frames: int, reach: int) -> Tensor:
    """(T, T) matrix of 0 and 1: frame t sees itself and the `reach` frames after it."""
    ones = torch.ones(frames, frames)
    return ones.triu().tril(reach)


def neighbour_adjacency(neighbours: Sequence[Sequence[int]]) -> Tensor:
    """(N, N) matrix of 0 and 1 from the neighbours of each node; it need not be symmetric."""
    nodes = len(neighbours)
    return torch.tensor([[float(other in row) for other in range(nodes)] for row in neighbours])


def similarity_adjacency(x: Tensor, neighbours: int) -> Tensor:
    """Link every node to those most like it: 1 where x_t . x_f reaches the k-th largest product of row t.

    Ties add edges, and a node need not be linked to itself. The threshold is discontinuous, so the products are taken
    in the precision of `x` even under autocast. No gradient flows.

    Args:
        x: (..., N, C).
        neighbours: k, at least 1 and at most N.

    Returns:
        (..., N, N) of 0 and 1, in the type of `x`.

    Source: MotionAGFormer, model/modules/graph.py.
    """
    x = x.detach()
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            products = x @ x.mT
    else:
        products = x @ x.mT
    least = products.topk(neighbours, dim=-1).values[..., -1:]
    return (products >= least).to(x.dtype)


class GraphConvolution(nn.Module):
    """relu(x + BN(D^-1/2 A D^-1/2 V(x) + U(x))) over the last but one axis, D the row sums of A.

    Parameter names: `U`, `V`, `batch_norm`. The batch normalisation has one channel per **node**, so the number of
    nodes is part of the weights. Input and output (..., N, dim).

    Args:
        dim: channels of a node.
        nodes: number of nodes N.
        adjacency: (N, N), fixed; None where `neighbours` is given. It is no part of the state dict.
        neighbours: link nodes by their similarity instead (`similarity_adjacency`).

    Initialisation: weights of `U` and `V` normal with standard deviation sqrt(2 / dim).

    Source: MotionAGFormer, model/modules/graph.py.
    """

    adjacency: Tensor  # registered as None where nodes are linked by similarity

    def __init__(self, dim: int, nodes: int, adjacency: Tensor | None = None, *, neighbours: int | None = None) -> None:
        super().__init__()
        if (adjacency is None) == (neighbours is None):
            raise ConfigError(
                "A graph convolution takes a fixed adjacency or a number of neighbours. Give one of them."
            )
        if neighbours is not None and not 1 <= neighbours <= nodes:
            raise ConfigError(f"{neighbours} neighbours among {nodes} nodes are impossible. Use 1 to {nodes}.")
        self.neighbours = neighbours
        self.U = nn.Linear(dim, dim)
        self.V = nn.Linear(dim, dim)
        self.batch_norm = nn.BatchNorm1d(nodes)
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights as published."""
        for linear in (self.U, self.V):
            nn.init.normal_(linear.weight, std=math.sqrt(2 / linear.in_features))

    def forward(self, x: Tensor) -> Tensor:
        links = similarity_adjacency(x, self.neighbours) if self.neighbours is not None else self.adjacency
        # Scaled here and not in the buffer: 0 and 1 are exact in every type that the module may be cast to.
        scale = links.sum(dim=-1, keepdim=True).rsqrt()
        gathered = scale * (links @ (scale * self.V(x)))
        mixed = (gathered + self.U(x)).flatten(0, -3)  # (batch, N, dim)
        return torch.relu(x + self.batch_norm(mixed).reshape(x.shape))


class TemporalUnit(nn.Module):
    """Convolution of five frames and batch normalisation over channels, (B, C, T, J) to the same."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (5, 1), padding=(2 * dilation, 0), dilation=(dilation, 1))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class MultiScaleTCN(nn.Module):
    """Four temporal branches of a quarter of the channels each, side by side, added to the input.

    Convolutions of five frames with dilation 1 and 2, a maximum over three frames, and a plain projection.
    Parameter names: `branches`. Input and output (B, J, T, dim), like a graph over frames; any number of frames.

    Source: MotionAGFormer, model/modules/tcn.py (after MS-G3D).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 4:
            raise ConfigError(f"{dim} channels do not divide into the 4 branches of the TCN. Use a multiple of 4.")
        width = dim // 4

        def entry() -> list[nn.Module]:
            return [nn.Conv2d(dim, width, 1), nn.BatchNorm2d(width)]

        self.branches = nn.ModuleList(
            [
                nn.Sequential(*entry(), nn.ReLU(), TemporalUnit(width, 1)),
                nn.Sequential(*entry(), nn.ReLU(), TemporalUnit(width, 2)),
                nn.Sequential(*entry(), nn.ReLU(), nn.MaxPool2d((3, 1), 1, (1, 0)), nn.BatchNorm2d(width)),
                nn.Sequential(*entry()),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        channels_first = x.permute(0, 3, 2, 1)  # (B, dim, T, J)
        mixed = torch.cat([branch(channels_first) for branch in self.branches], dim=1)
        return x + mixed.permute(0, 3, 2, 1)

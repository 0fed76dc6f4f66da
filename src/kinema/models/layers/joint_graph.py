"""Graph convolutions over joints of the networks for action recognition; tensors (N, C, T, V)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.models.layers.fused import channels_second, joints_last, mix, mix_all

ADAPTIVE = (None, "init", "offset", "importance")


class JointGraph(nn.Module):
    """relu(bn(sum over k of A_k applied to conv_k(x)) + r), the spatial unit of ST-GCN and ST-GCN++.

    Parameter names: `A`, `PA`, `conv`, `bn`, `down`.

    Args:
        in_channels, out_channels: channels.
        links: adjacency stack (K, V, V) float32; joint w gathers from v by links[k, v, w].
        adaptive: None = fixed links; "init" = learned from there on; "offset" = fixed plus a learned part that starts
            near 0; "importance" = fixed times a learned part that starts at 1.
        conv_first: "pre" of the paper: channels are mixed before joints. Otherwise after.
        residual: r is the input (through a 1x1 convolution where channels change) instead of 0.

    Source: pyskl, gcns/utils/gcn.py, unit_gcn.
    """

    A: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        links: Tensor,
        *,
        adaptive: str | None,
        conv_first: bool,
        residual: bool,
    ) -> None:
        super().__init__()
        self.adaptive, self.conv_first, self.residual = adaptive, conv_first, residual
        parts = links.shape[0]
        if adaptive == "init":
            self.A = nn.Parameter(links.clone())
        else:
            self.register_buffer("A", links.clone())  # official files hold it
        if adaptive == "offset":
            self.PA = nn.Parameter(torch.empty_like(links).uniform_(-1e-6, 1e-6))
        elif adaptive == "importance":
            self.PA = nn.Parameter(torch.ones_like(links))
        if conv_first:
            self.conv = nn.Conv2d(in_channels, parts * out_channels, 1)
        else:
            self.conv = nn.Conv2d(parts * in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)
        self.down = projection(in_channels, out_channels) if residual else nn.Identity()

    def links(self) -> Tensor:
        """The adjacency stack in use, (K, V, V)."""
        if self.adaptive == "offset":
            return self.A + self.PA
        return self.A * self.PA if self.adaptive == "importance" else self.A

    def forward(self, x: Tensor) -> Tensor:
        # Joints first, channels after, in both orders of the paper: the cheaper way, and the bias follows the links.
        links = self.links()  # (K, V, V)
        parts, joints, _ = links.shape
        batch, channels, frames, _ = x.shape
        gather = links.permute(2, 0, 1).reshape(1, joints * parts, joints).expand(batch * frames, -1, -1)
        gathered = torch.bmm(gather, joints_last(x).reshape(batch * frames, joints, channels))
        conv: Any = self.conv
        weight, bias = conv.weight.flatten(1), conv.bias
        if self.conv_first:
            weight = weight.unflatten(0, (parts, -1)).transpose(0, 1).flatten(1)  # (C', K * C)
            bias = links.sum(1).t() @ bias.view(parts, -1)  # (V, C')
        mixed = F.linear(gathered.view(batch, frames, joints, parts * channels), weight).add_(bias)
        out = self.bn(channels_second(mixed))
        return torch.relu_(out.add_(self.down(x)) if self.residual else out)


class ChannelTopology(nn.Module):
    """Weights of one subset of `RefinedGraph`, under their official names `conv1` to `conv4`.

    Source: pyskl, gcns/utils/gcn.py, CTRGC.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width = 8 if in_channels <= 16 else in_channels // 8
        self.conv1 = nn.Conv2d(in_channels, width, 1)
        self.conv2 = nn.Conv2d(in_channels, width, 1)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv4 = nn.Conv2d(width, out_channels, 1)


class RefinedGraph(nn.Module):
    """Spatial unit of CTR-GCN: links refined per sample and channel.

    out = relu(bn(sum over k, u of G_k[c, u, v] conv3_k(x)[c, t, u]) + down(x)) with
    G_k[c, u, v] = alpha * conv4_k(tanh(p_u - q_v))_c + A[k, u, v], p and q the means over time of conv1_k and conv2_k.
    Parameter names: `A`, `alpha`, `convs`, `bn`, `down`.

    Args:
        in_channels, out_channels: channels.
        links: adjacency stack (K, V, V) float32, learned from there on.

    Initialisation: convolutions Kaiming-normal by their outputs with bias 0, the norm's weight 1e-6, alpha 0.

    Source: pyskl, gcns/utils/gcn.py, unit_ctrgcn and CTRGC.
    """

    def __init__(self, in_channels: int, out_channels: int, links: Tensor) -> None:
        super().__init__()
        self.A = nn.Parameter(links.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.convs = nn.ModuleList(ChannelTopology(in_channels, out_channels) for _ in range(len(links)))
        self.bn = nn.BatchNorm2d(out_channels)
        self.down = projection(in_channels, out_channels)
        reset_convolutions(self)
        nn.init.constant_(self.bn.weight, 1e-6)

    def refined(self, x: Tensor) -> Tensor:
        """The links of each sample and channel, (N, C', K, V, V), from (N, C, T, V)."""
        parts: list[Any] = list(self.convs)
        mean = x.mean(2, keepdim=True)  # the mean over time commutes with a 1x1 convolution
        ends = [part.conv1 for part in parts] + [part.conv2 for part in parts]
        p, q = mix_all(mean, ends).squeeze(2).unflatten(1, (2, len(parts), -1)).unbind(1)  # (N, K, R, V)
        nearness = torch.tanh(p.unsqueeze(-1) - q.unsqueeze(-2))
        weight = torch.stack([part.conv4.weight.flatten(1) for part in parts])  # (K, C', R)
        bias = torch.stack([part.conv4.bias for part in parts], dim=1)  # (C', K)
        learned = torch.einsum("kcr,nkruv->nckuv", weight, nearness) + bias[..., None, None]
        return self.alpha * learned + self.A

    def forward(self, x: Tensor) -> Tensor:
        values = mix_all(x, [part.conv3 for part in self.convs]).unflatten(1, (len(self.convs), -1))
        links = self.refined(x).flatten(2, 3)  # (N, C', K * V, V)
        mixed = values.permute(0, 2, 3, 1, 4).flatten(3) @ links  # (N, C', T, K * V) @ ...
        out = self.bn(mixed.contiguous(memory_format=torch.channels_last))
        return torch.relu(out + self.down(x))


def projection(in_channels: int, out_channels: int) -> nn.Module:
    """The input itself, or a 1x1 convolution and a norm where the number of channels changes."""
    if in_channels == out_channels:
        return nn.Identity()
    return Projection(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))


class Projection(nn.Sequential):
    """1x1 convolution and batch normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        parts: Any = self
        conv, norm = parts
        return norm(mix(x, conv.weight, conv.bias))


def reset_convolutions(module: nn.Module) -> None:
    """Draw every convolution inside Kaiming-normal by its outputs, bias 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
            if part.bias is not None:
                nn.init.zeros_(part.bias)

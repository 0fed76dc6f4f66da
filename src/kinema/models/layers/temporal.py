"""Convolutions over time of the networks for action recognition; tensors (N, C, T, V)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.models.layers.fused import mix, mix_all, norm_all, parted

MAX, POINT = "max", "1x1"  # branches without a kernel of their own
Branch = int | str


class TemporalUnit(nn.Module):
    """Convolution of `kernel` frames, batch normalisation and dropout, without an activation.

    Parameter names: `conv`, `bn`. (N, in_channels, T, V) to (N, out_channels, ceil(T / stride), V).

    Args:
        in_channels, out_channels: channels.
        kernel: frames, odd.
        stride: frames per step.
        dilation: distance of the frames.
        norm: whether there is a batch normalisation.
        dropout: rate.

    Source: pyskl, gcns/utils/tcn.py, unit_tcn.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ConfigError(f"A convolution over {kernel} frames has no middle frame. Use an odd number.")
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            (kernel, 1),
            stride=(stride, 1),
            padding=((kernel - 1) * dilation // 2, 0),
            dilation=(dilation, 1),
        )
        self.bn = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv.kernel_size == (1, 1):
            return self.drop(self.bn(mix(x[:, :, :: self.conv.stride[0]], self.conv.weight, self.conv.bias)))
        return self.drop(self.bn(self.conv(x)))


def _entry(in_channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()]


class MixedTemporal(nn.Module):
    """Temporal branches of ST-GCN++ side by side, mixed by a 1x1 convolution; no activation at the end.

    Parameter names: `branches`, `transform`, `bn`.

    Args:
        in_channels, out_channels: channels.
        branches: per branch the frames of its convolution, "max" (maximum of three frames) or "1x1".
        dilations: one per convolution.
        mid_fraction: every branch has this share of the output's channels; None = an even split, whose first branch
            takes the remainder.
        stride: frames per step.
        dropout: rate at the end.

    Source: pyskl, gcns/utils/tcn.py, mstcn.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        branches: Sequence[Branch],
        dilations: Sequence[int],
        mid_fraction: float | None = None,
        stride: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = branch_widths(out_channels, len(branches), mid_fraction)
        steps = iter(dilations)

        def branch(kind: Branch, width: int) -> nn.Module:
            if kind == POINT:
                return nn.Conv2d(in_channels, width, 1, stride=(stride, 1))
            if kind == MAX:
                return nn.Sequential(*_entry(in_channels, width), _max_pool(stride))
            unit = TemporalUnit(width, width, kernel=int(kind), stride=stride, dilation=next(steps), norm=False)
            return nn.Sequential(*_entry(in_channels, width), unit)

        self.stride = stride
        self.branches = nn.ModuleList(branch(kind, width) for kind, width in zip(branches, widths, strict=True))
        self.transform = nn.Sequential(nn.BatchNorm2d(sum(widths)), nn.ReLU(), nn.Conv2d(sum(widths), out_channels, 1))
        self.bn = nn.BatchNorm2d(out_channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.cat(self._branches(x), dim=1)
        transform: Any = self.transform
        norm, _, conv = transform
        return self.drop(self.bn(mix(torch.relu_(norm(mixed)), conv.weight, conv.bias)))

    def _branches(self, x: Tensor) -> list[Tensor]:
        """Outputs of the branches; what they do frame by frame is done for all of them at once."""
        branches: list[Any] = list(self.branches)
        plain = [isinstance(branch, nn.Conv2d) for branch in branches]
        order = sorted(range(len(plain)), key=lambda i: plain[i])  # those with a norm in front
        entries = [branches[i] if plain[i] else branches[i][0] for i in order]
        inner = [branches[i] for i in order if not plain[i]]
        widths = [conv.out_channels for conv in entries]
        normed, *bare = parted(mix_all(x, entries), [sum(widths[: len(inner)]), *widths[len(inner) :]])
        active = torch.relu_(norm_all(normed, [branch[1] for branch in inner]))
        outs: list[Tensor] = [x] * len(order)
        for i, part in zip(order, [*parted(active, widths[: len(inner)]), *bare], strict=True):
            outs[i] = part[:, :, :: self.stride] if plain[i] else branches[i][3](part)
        return outs


def branch_widths(channels: int, branches: int, mid_fraction: float | None) -> list[int]:
    """Channels of each branch of `MixedTemporal`."""
    if mid_fraction is not None:
        return [int(channels * mid_fraction)] * branches
    width = channels // branches
    if not width:
        raise ConfigError(
            f"{channels} channels do not divide among {branches} temporal branches. Use a larger model.dim."
        )
    return [channels - width * (branches - 1)] + [width] * (branches - 1)


class MultiScaleTemporal(nn.Module):
    """Temporal branches of CTR-GCN side by side with a ReLU at the end.

    Dilated convolutions, a maximum of three frames and a 1x1 convolution, each with batch normalisation. The last
    branch takes the remainder of the channels. Parameter names: `branches`.

    Args:
        in_channels, out_channels: channels.
        kernels, dilations: of the convolutions.
        stride: frames per step.
        dropout: rate at the end.

    Source: pyskl, gcns/utils/msg3d_utils.py, MSTCN.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernels: Sequence[int],
        dilations: Sequence[int],
        stride: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        count = len(kernels) + 2
        width = out_channels // count
        if not width:
            raise ConfigError(
                f"{out_channels} channels do not divide among {count} temporal branches. Use a larger model.dim."
            )
        last = out_channels - width * (count - 1)
        dilated = [
            nn.Sequential(
                *_entry(in_channels, width),
                TemporalUnit(width, width, kernel=kernel, stride=stride, dilation=dilation),
            )
            for kernel, dilation in zip(kernels, dilations, strict=True)
        ]
        self.branches = nn.ModuleList(
            [
                *dilated,
                nn.Sequential(*_entry(in_channels, width), _max_pool(stride), nn.BatchNorm2d(width)),
                nn.Sequential(nn.Conv2d(in_channels, last, 1, stride=(stride, 1)), nn.BatchNorm2d(last)),
            ]
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        branches: list[Any] = list(self.branches)
        entries = [branch[0] for branch in branches]
        *inner, last = branches
        widths = [conv.out_channels for conv in entries[:-1]]
        normed, bare = parted(mix_all(x, entries), [sum(widths), entries[-1].out_channels])
        active = torch.relu_(norm_all(normed, [branch[1] for branch in inner]))
        outs = [branch[3:](part) for branch, part in zip(inner, parted(active, widths), strict=True)]
        outs.append(last[1](bare[:, :, :: last[0].stride[0]]))  # its statistics are those of the frames kept
        return self.drop(torch.relu_(torch.cat(outs, dim=1)))


def _max_pool(stride: int) -> nn.MaxPool2d:
    return nn.MaxPool2d((3, 1), stride=(stride, 1), padding=(1, 0))

"""What networks that predict the noise in DCT coefficients of motion share: time, attention, checks, groups of samples.

Such a network takes noisy coefficients x (B, n, F), timesteps t (B,), the coefficients of the observed frames or None,
and returns (B, n, F). Its tokens are the n coefficients.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.shapes import expect
from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.models.layers.attention import attend


def timestep_embedding(t: Tensor, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Cosines, then sines, of t times dim // 2 falling frequencies, and a zero where `dim` is odd: (B,) to (B, dim).

    Computed in float32, as published, or in float64 where that is asked for.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    half = dim // 2
    steps = torch.arange(half, dtype=wide, device=t.device)
    angles = t[:, None].to(wide) * torch.exp(-math.log(10000) * steps / half)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, dim % 2)).to(dtype)


def time_network(dim: int) -> nn.Sequential:
    """The two layers between `timestep_embedding` and the blocks."""
    return nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))


def embed_time(network: nn.Sequential, t: Tensor) -> Tensor:
    """Embed timesteps: (B,) to (B, dim)."""
    weight = next(network.parameters())
    embedded: Tensor = network(timestep_embedding(t, weight.shape[1], weight.dtype))
    return embedded


def head_attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, dropout: float = 0.0, mask: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention of tokens (B, N, dim) to (B, M, dim), with contiguous heads and no layer after it.

    Args:
        query, key, value: (B, N, dim), (B, M, dim), (B, M, dim).
        heads: a divisor of dim.
        dropout: rate on the attention weights.
        mask: (B, 1, 1, M) bool, false where nobody looks.
    """
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    if mask is None:
        mixed = attend(query, key, value, dropout)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return mixed.transpose(1, 2).flatten(2)


def refuse_heads(dim: int, num_heads: int) -> None:
    """Refuse channels that do not divide into heads.

    Raises:
        ConfigError: with a number of heads that works.
    """
    if num_heads < 1 or dim % num_heads:
        near = max(number for number in range(1, max(num_heads, 1) + 1) if dim % number == 0)
        raise ConfigError(f"{dim} channels do not divide into {num_heads} heads. Use model.num_heads={near}.")


def expect_noise(
    x: Tensor, t: Tensor, condition: Tensor | None, present: Tensor | None, kept_coeffs: int, num_features: int
) -> None:
    """Refuse arguments of `forward` with other shapes than the network was built for.

    Raises:
        DataError: naming the argument and the axis that does not fit.
    """
    sizes = expect(x, "B n F", "x", n=kept_coeffs, F=num_features)
    expect(t, "B", "t", B=sizes["B"])
    if condition is not None:
        expect(condition, "B n F", "condition", **sizes)
    if present is not None:
        expect(present, "B", "present", B=sizes["B"])


def expect_condition(condition: Tensor | None, kept_coeffs: int, num_features: int) -> None:
    """Refuse a condition (W, n, F) of other sizes than the network was built for, before windows share it.

    Raises:
        DataError: naming the axis that does not fit.
    """
    if condition is not None:
        expect(condition, "W n F", "condition", n=kept_coeffs, F=num_features)


def noise_signature(kept_coeffs: int, num_features: int, condition_frames: int | None = None) -> Signature:
    """The signature of a network for n coefficients of F features: x, y, z of F / 3 joints where 3 divides F."""
    channels = 1 if num_features % 3 else 3
    joints = num_features // channels
    return Signature(
        output="noise",
        in_channels=channels,
        joints=joints,
        joints_out=joints,
        frames=kept_coeffs,
        frames_rule="exact",
        condition_frames=condition_frames,
    )


def refuse_training(model: nn.Module) -> None:
    """Refuse to draw samples from a network in training mode, whose dropout would make them worse without a word.

    Raises:
        ConfigError: with the remedy.
    """
    if model.training:
        raise ConfigError("Samples are drawn from a network in eval mode. Call model.eval() first.")


def seeing_samples(condition: Tensor | None, conditioned: int | None, x: Tensor) -> int:
    """How many of the K samples of every window of x (W, K, n, F) see the condition; the first ones do.

    Args:
        condition: (W, n, F), None = nobody sees one.
        conditioned: the number asked for, None = all.
        x: what the network is given.

    Raises:
        ConfigError: for more samples than there are.
        DataError: for other windows or sizes than those of the condition.
    """
    expect(x, "W K n F", "x")
    if condition is None:
        return 0
    expect(condition, "W m F", "condition", W=x.shape[0], F=x.shape[3])
    count = x.shape[1]
    if conditioned is None:
        return count
    if not 0 <= conditioned <= count:
        raise ConfigError(f"{conditioned} of {count} samples cannot see the history. Use 0 to {count}.")
    return conditioned


def grouped(x: Tensor, seeing: int) -> Tensor:
    """All samples of all windows in one axis, those that see the condition first: (W, K, ...) to (W * K, ...)."""
    if seeing in (0, x.shape[1]):
        return x.flatten(0, 1)
    return torch.cat([x[:, :seeing].flatten(0, 1), x[:, seeing:].flatten(0, 1)])


def ungrouped(flat: Tensor, windows: int, seeing: int) -> Tensor:
    """Inverse of `grouped`."""
    if seeing in (0, flat.shape[0] // windows):
        return flat.unflatten(0, (windows, -1))
    first, second = flat.split([windows * seeing, flat.shape[0] - windows * seeing])
    return torch.cat([first.unflatten(0, (windows, -1)), second.unflatten(0, (windows, -1))], dim=1)

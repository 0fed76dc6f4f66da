"""Mamba blocks: a selective scan between two projections, in one direction or in both."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.models.layers.selective_scan import (
    causal_conv1d,
    causal_conv1d_step,
    check_backend,
    selective_scan,
    selective_scan_step,
)

# What a block keeps of the frames it has seen: the last inputs of its convolution (B, D, K - 1) and the state of its
# scan (B, D, N).
MambaState = tuple[Tensor, Tensor]

# Step sizes at initialisation, drawn log-uniformly.
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class Mamba(nn.Module):
    """The official block, causal along the last but one axis; with `init_layer_scale` the UniSSM of DBMambaPose.

    [x, z] = in_proj(h); x = silu(conv1d(x)); [dt, B, C] = x_proj(x); y = scan(x, softplus(dt_proj(dt)),
    -exp(A_log), B, C, D) * silu(z); out_proj(y), times `gamma` where there is one. Input and output (B, L, dim).

    Parameter names: `in_proj`, `conv1d`, `x_proj`, `dt_proj`, `A_log`, `D`, `out_proj`, `gamma`. `A_log` and `D` want
    float32 and no weight decay (`_no_weight_decay`); `dt_proj.bias` holds the step sizes and is left alone by loops
    that draw fresh weights (`_no_reinit`).

    Args:
        dim: channels of a token.
        d_state: N, numbers that each inner channel remembers.
        d_conv: K, taps of the causal convolution.
        expand: inner channels over `dim`, D = int(expand * dim).
        dt_rank: R, rank of the step sizes; None = ceil(dim / 16).
        bias: whether `in_proj` and `out_proj` have a bias.
        conv_bias: whether `conv1d` has one.
        init_layer_scale: first value of `gamma`, a factor per channel of the output; None = no such factor.
        scan_backend: one of `kinema.models.layers.selective_scan.BACKENDS`.

    Source: Gu and Dao 2023, mamba_ssm/modules/mamba_simple.py.
    """

    # Scans over the sequence, and sets of conv1d, x_proj and dt_proj: both enter the count of multiply-accumulates.
    scans = 1
    branches = 1

    def __init__(
        self,
        dim: int,
        *,
        d_state: int,
        d_conv: int,
        expand: float,
        dt_rank: int | None = None,
        bias: bool = False,
        conv_bias: bool = True,
        init_layer_scale: float | None = None,
        scan_backend: str = "auto",
    ) -> None:
        super().__init__()
        self.scan_backend = check_backend(scan_backend)
        self.d_state = d_state
        self.inner = inner = int(expand * dim)
        self.dt_rank = rank = math.ceil(dim / 16) if dt_rank is None else dt_rank
        self.in_proj = nn.Linear(dim, 2 * inner, bias=bias)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1, bias=conv_bias)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = step_size_projection(rank, inner)
        self.A_log = decay_rates(inner, d_state)
        self.D = skip_weights(inner)
        self.out_proj = nn.Linear(inner, dim, bias=bias)
        self.gamma = None if init_layer_scale is None else nn.Parameter(torch.full((dim,), float(init_layer_scale)))

    def forward(self, x: Tensor, state: MambaState | None = None) -> Tensor | tuple[Tensor, MambaState]:
        """Mix the tokens of a sequence, each with those before it.

        Args:
            x: (B, L, dim).
            state: where an earlier part of the sequence ended, from `start` or from the call before.

        Returns:
            (B, L, dim); with a state also the new one, so that a long sequence can be taken in parts.
        """
        inner, gate = self._enter(x)
        earlier, memory = (None, None) if state is None else state
        mixed = self._convolve(inner, self.conv1d.weight, self.conv1d.bias, earlier)
        delta, b, c = self._select(mixed, self.x_proj.weight[None], self.dt_proj.weight[None])
        y, last = selective_scan(
            mixed,
            delta,
            -torch.exp(self.A_log),
            b,
            c,
            self.D,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            return_last_state=True,
            initial_state=memory,
            backend=self.scan_backend,
        )
        out = self._leave(y, gate)
        if earlier is None:
            return out
        seen = torch.cat((earlier, inner.to(earlier.dtype)), dim=-1)
        return out, (seen[..., seen.shape[-1] - earlier.shape[-1] :], last)

    def start(self, batch: int) -> MambaState:
        """The state before the first token of `batch` sequences."""
        weight = self.conv1d.weight
        return (
            weight.new_zeros(batch, self.inner, weight.shape[-1] - 1),
            weight.new_zeros(batch, self.inner, self.d_state),
        )

    def step(self, x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """Take one token, (B, dim) to (B, dim) and the new state."""
        earlier, memory = state
        inner, gate = self.in_proj(x).chunk(2, dim=-1)
        conv = self.conv1d
        mixed, earlier = causal_conv1d_step(earlier, inner, conv.weight.squeeze(1), conv.bias, activation="silu")
        dt, b, c = self.x_proj(mixed).split((self.dt_rank, self.d_state, self.d_state), dim=-1)
        y, memory = selective_scan_step(
            memory,
            mixed,
            F.linear(dt, self.dt_proj.weight),
            -torch.exp(self.A_log),
            b,
            c,
            self.D,
            z=gate,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
        )
        out = self.out_proj(y)
        return out if self.gamma is None else out * self.gamma, (earlier, memory)

    def stated_macs(self, tokens: int) -> dict[str, int]:
        """Multiply-accumulates of `forward` on so many tokens, by kind."""
        inner, states, rank = self.inner, self.d_state, self.dt_rank
        linear = self.in_proj.weight.numel() + self.out_proj.weight.numel()
        linear += self.branches * inner * (rank + 2 * states + rank)
        return {
            "linear": tokens * linear,
            "convolution": tokens * self.branches * inner * self.conv1d.weight.shape[-1],
            "scan": tokens * self.scans * inner * (3 * states + 1),
        }

    def visible_macs(self, tokens: int) -> int:
        """Those that profilers see which do not look inside the fused kernel: `in_proj` alone."""
        return tokens * self.in_proj.weight.numel()

    def _enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input of the convolution (B, D, L) and the gate (B, L, D) of tokens (B, L, dim)."""
        inner, gate = self.in_proj(x).chunk(2, dim=-1)
        return inner.transpose(1, 2).contiguous(), gate

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, earlier: Tensor | None = None) -> Tensor:
        return causal_conv1d(
            x, weight.squeeze(1), bias, activation="silu", initial_state=earlier, backend=self.scan_backend
        )

    def _select(self, x: Tensor, x_weight: Tensor, dt_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Derive step sizes and the input and output vectors of the scan from its input.

        Args:
            x: (B, G * D, L), the sequences of G directions.
            x_weight: (G, R + 2 N, D).
            dt_weight: (G, D, R).

        Returns:
            delta (B, G * D, L) before bias and softplus; B and C (B, G, N, L).
        """
        projected = torch.matmul(x_weight, x.unflatten(1, (x_weight.shape[0], -1)))
        dt, b, c = projected.split((self.dt_rank, self.d_state, self.d_state), dim=2)
        return torch.matmul(dt_weight, dt).flatten(1, 2), b, c

    def _leave(self, y: Tensor, gate: Tensor) -> Tensor:
        """Gate the scanned sequence (B, D, L) and project it to tokens (B, L, dim)."""
        out = self.out_proj(y.transpose(1, 2) * F.silu(gate))
        return out if self.gamma is None else out * self.gamma


class BiMamba(Mamba):
    """The bidirectional blocks of Vim: every token sees the whole sequence.

    v1 scans the same projected sequence forwards and backwards with decay rates of its own (`A_b_log`). v2 has a
    second set of weights (`conv1d_b`, `x_proj_b`, `dt_proj_b`, `A_b_log`, `D_b`) for the reversed sequence. The sum
    of both directions is gated (the gate of a token is the same in both) and projected once. Both directions run as
    two groups of channels of a single scan.

    Args:
        variant: "v1" or "v2".
        divide: halve the sum (`if_divide_out`).

    All other arguments are those of `Mamba`.

    Source: Zhu et al. 2024 (Vision Mamba), mamba_simple.py with bimamba_type.
    """

    scans = 2

    def __init__(
        self,
        dim: int,
        *,
        variant: str,
        d_state: int,
        d_conv: int,
        expand: float,
        divide: bool = False,
        dt_rank: int | None = None,
        bias: bool = False,
        conv_bias: bool = True,
        init_layer_scale: float | None = None,
        scan_backend: str = "auto",
    ) -> None:
        if variant not in ("v1", "v2"):
            raise ConfigError(f"A bidirectional Mamba {variant!r} is unknown. Use 'v1' or 'v2'.")
        super().__init__(
            dim,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            dt_rank=dt_rank,
            bias=bias,
            conv_bias=conv_bias,
            init_layer_scale=init_layer_scale,
            scan_backend=scan_backend,
        )
        self.variant, self.divide = variant, divide
        inner, rank = self.inner, self.dt_rank
        self.A_b_log = decay_rates(inner, d_state)
        if variant == "v2":
            self.branches = 2
            self.conv1d_b = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1, bias=conv_bias)
            self.x_proj_b = nn.Linear(inner, rank + 2 * d_state, bias=False)
            self.dt_proj_b = step_size_projection(rank, inner)
            self.D_b = skip_weights(inner)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Mix the tokens of a sequence, (B, L, dim) to the same."""
        inner, gate = self._enter(x)
        mixed, delta, b, c, skip, bias = self._own_weights(inner) if self.variant == "v2" else self._shared(inner)
        rates = -torch.exp(torch.cat((self.A_log, self.A_b_log)))
        y = selective_scan(
            mixed, delta, rates, b, c, skip, delta_bias=bias, delta_softplus=True, backend=self.scan_backend
        )
        forwards, backwards = y.chunk(2, dim=1)
        both = forwards + backwards.flip(-1)
        return self._leave(both * 0.5 if self.divide else both, gate)

    def start(self, batch: int) -> MambaState:
        """Refused: a bidirectional block needs the future."""
        raise ConfigError("A bidirectional Mamba cannot run frame by frame. Use mixer=official.")

    def _own_weights(self, inner: Tensor) -> tuple[Tensor, ...]:
        """v2: convolution and projections of each direction's own."""
        conv, conv_b = self.conv1d, self.conv1d_b
        bias = None if conv.bias is None or conv_b.bias is None else torch.cat((conv.bias, conv_b.bias))
        mixed = self._convolve(torch.cat((inner, inner.flip(-1)), 1), torch.cat((conv.weight, conv_b.weight)), bias)
        x_weight = torch.stack((self.x_proj.weight, self.x_proj_b.weight))
        dt_weight = torch.stack((self.dt_proj.weight, self.dt_proj_b.weight))
        delta, b, c = self._select(mixed, x_weight, dt_weight)
        skip = torch.cat((self.D, self.D_b))
        return mixed, delta, b, c, skip, torch.cat((self.dt_proj.bias, self.dt_proj_b.bias))

    def _shared(self, inner: Tensor) -> tuple[Tensor, ...]:
        """v1: the reversed sequence is convolved and projected before it is reversed."""
        mixed = self._convolve(inner, self.conv1d.weight, self.conv1d.bias)
        parts = self._select(mixed, self.x_proj.weight[None], self.dt_proj.weight[None])
        mixed, delta, b, c = (torch.cat((part, part.flip(-1)), dim=1) for part in (mixed, *parts))
        return mixed, delta, b, c, self.D.repeat(2), self.dt_proj.bias.repeat(2)


def step_size_projection(rank: int, inner: int) -> nn.Linear:
    """Linear from `rank` to `inner` whose bias is the inverse softplus of log-uniform step sizes."""
    projection = nn.Linear(rank, inner)
    nn.init.uniform_(projection.weight, -(rank**-0.5), rank**-0.5)
    with torch.no_grad():
        projection.bias.copy_(step_size_bias(inner))
    projection.bias._no_reinit = True  # type: ignore[attr-defined]
    return projection


def step_size_bias(count: int) -> Tensor:
    """Draw step sizes between DT_MIN and DT_MAX and return what softplus maps to them, (count,)."""
    low, high = math.log(DT_MIN), math.log(DT_MAX)
    steps = torch.exp(torch.rand(count) * (high - low) + low).clamp(min=DT_FLOOR)
    return steps + torch.log(-torch.expm1(-steps))


def decay_rates(inner: int, d_state: int) -> nn.Parameter:
    """log(1), ..., log(N) in every row, (inner, d_state)."""
    rates = nn.Parameter(torch.log(torch.arange(1, d_state + 1, dtype=torch.float32)).repeat(inner, 1))
    rates._no_weight_decay = True  # type: ignore[attr-defined]
    return rates


def skip_weights(inner: int) -> nn.Parameter:
    """Ones, (inner,)."""
    skip = nn.Parameter(torch.ones(inner))
    skip._no_weight_decay = True  # type: ignore[attr-defined]
    return skip

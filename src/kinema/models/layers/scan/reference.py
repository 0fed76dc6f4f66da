"""The recurrence of the selective scan as it is defined: any dtype, any kind of B and C, the oracle of all backends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence step by step; arguments as in `kinema.models.layers.selective_scan.selective_scan`.

    Returns:
        y (B, D, L) in the dtype of u, and the last state (B, D, N).
    """
    kind, work = u.dtype, work_dtype(u)
    u, delta, A, B, C = widened(u, delta, A, B, C, delta_bias, delta_softplus)
    batch, channels = u.shape[:2]
    B, C = (_per_channel(x, channels) for x in (B, C))
    state = u.new_zeros(batch, channels, A.shape[1]) if initial_state is None else initial_state.to(work)
    outputs = []
    for t, (dt, x) in enumerate(zip(delta.unbind(-1), u.unbind(-1), strict=True)):
        step = min(t, B.shape[-1] - 1), min(t, C.shape[-1] - 1)
        state = torch.exp(dt[..., None] * A) * state + (dt * x)[..., None] * B[..., step[0]]
        outputs.append((state * C[..., step[1]]).sum(-1))
    y = torch.stack(outputs, dim=-1)
    if D is not None:
        y = y + u * D.to(work)[:, None]
    if z is not None:
        y = y * F.silu(z.to(work))
    return y.to(kind), state


def work_dtype(u: Tensor) -> torch.dtype:
    """What a scan computes in: float64 for float64, float32 for everything else."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def widened(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, delta_bias: Tensor | None, delta_softplus: bool
) -> tuple[Tensor, ...]:
    """Bring u, delta, A, B and C to the dtype of the work, delta after its bias and softplus."""
    u, delta, A, B, C = (x.to(work_dtype(u)) for x in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(u.dtype)[:, None]
    return u, F.softplus(delta) if delta_softplus else delta, A, B, C


def _per_channel(x: Tensor, channels: int) -> Tensor:
    """Give B or C of any kind the shape (1 or B, 1 or D, N, 1 or L)."""
    if x.ndim == 2:  # constant in time and batch, per channel
        return x[None, :, :, None]
    if x.ndim == 3:  # one group
        return x[:, None]
    return x.repeat_interleave(channels // x.shape[1], dim=1)


def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, initial_state: Tensor | None
) -> Tensor:
    """Convolve every channel with its own weights over the samples up to each; arguments as in `causal_conv1d`."""
    kind, width = x.dtype, weight.shape[1]
    x = F.pad(x, (width - 1, 0)) if initial_state is None else torch.cat((initial_state, x), -1)
    y = F.conv1d(x, weight.to(kind)[:, None], None if bias is None else bias.to(kind), groups=weight.shape[0])
    return F.silu(y) if activation == "silu" else y


def conv_unavailable(*_: object) -> str | None:
    """Give the reason why the convolution cannot run: there is none."""
    return None


def unavailable(*_: object) -> str | None:
    """Give the reason why the scan cannot run: there is none."""
    return None

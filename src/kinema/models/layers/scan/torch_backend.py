"""The selective scan in plain PyTorch, for any device: a custom backward, time-major and blocked over the batch.

Written with autograd, the recurrence is quadratic in its length: the gradient of every slice of a
(.., L, ..) tensor is a zero tensor of full size. Here the states lie as (L, B, N, D), so that a step is one
contiguous in-place operation and a vector loop runs over the channels, not over the few state entries.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kinema.models.layers.scan import reference

# About 4 MB in float32: a block's states and decays stay in the cache between the passes over them.
BLOCK = 1 << 20


def unavailable(u: Tensor, *_: object) -> str | None:
    """Give the reason why this backend cannot run: there is none."""
    return None


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
    """Run the scan; arguments as in `kinema.models.layers.selective_scan.selective_scan`.

    Returns:
        y (B, D, L) in the dtype of u, and the last state (B, D, N).
    """
    kind, work = u.dtype, reference.work_dtype(u)
    u, delta, A, B, C = reference.widened(u, delta, A, B, C, delta_bias, delta_softplus)
    if initial_state is not None:
        initial_state = initial_state.to(work).transpose(1, 2)
    y, state = _Recurrence.apply(
        delta.permute(2, 0, 1), (delta * u).permute(2, 0, 1), A.t(), _groups(B), _groups(C), initial_state
    )
    y = y.permute(1, 2, 0)
    if D is not None:
        y = torch.addcmul(y, u, D.to(work)[:, None])
    if z is not None:
        y = y * F.silu(z.to(work))
    return y.to(kind), state.transpose(1, 2)


def _groups(x: Tensor) -> Tensor:
    """Bring B or C of any kind to (L or 1, B or 1, N, G, 1): one value for every channel of a group."""
    if x.ndim == 2:  # constant in time and batch: every channel is a group of its own
        return x.t()[None, None, :, :, None]
    if x.ndim == 3:
        x = x[:, None]
    return x.permute(3, 0, 2, 1)[..., None]


class _Recurrence(torch.autograd.Function):
    """h_t = exp(delta_t A) h_{t-1} + x_t B_t, y_t = C_t h_t, over delta and x (L, B, D), A (N, D), B and C by group."""

    @staticmethod
    def forward(
        ctx: Any, delta: Tensor, x: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        length, batch, channels = x.shape
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        last = x.new_empty(batch, A.shape[0], channels)
        A = A.contiguous()
        blocks = _blocks(batch, max(1, BLOCK // max(1, A.numel() * length)))
        keep: tuple[Tensor, ...] = ()
        for block in blocks:
            decay, states = _states(delta, x, A, B, initial, block)
            y[:, block] = (_grouped(states, C) * _part(C, block)).sum(2).flatten(2)
            last[block] = states[-1]
            if batch * A.numel() * length <= BLOCK:  # small enough to keep; otherwise computed again in backward
                keep = decay, states
        ctx.blocks, ctx.given = blocks, initial is not None
        ctx.save_for_backward(delta, x, A, B, C, *(() if initial is None else (initial,)), *keep)
        ctx.mark_non_differentiable(last)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, _grad_last: Tensor) -> tuple[Tensor | None, ...]:
        delta, x, A, B, C, *rest = ctx.saved_tensors
        initial = rest.pop(0) if ctx.given else None
        grad_delta, grad_x = torch.empty_like(grad_y), torch.empty_like(grad_y)
        grad_A, grad_B, grad_C = torch.zeros_like(A), torch.zeros_like(B), torch.zeros_like(C)
        # Backward may be called inside autocast, where the products would run in half precision.
        with torch.autocast(x.device.type, enabled=False):
            for block in ctx.blocks:
                decay, states = rest or _states(delta, x, A, B, initial, block)
                gy = grad_y[:, block].contiguous()
                _part(grad_C, block).add_(_grad_groups(states, gy, C))
                g = (_grouped(gy[:, :, None], C) * _part(C, block)).flatten(3)
                steps, decays = g.unbind(0), decay.unbind(0)
                for t in range(len(steps) - 2, -1, -1):
                    steps[t].addcmul_(decays[t + 1], steps[t + 1])
                grad_x[:, block] = (_grouped(g, B) * _part(B, block)).sum(2).flatten(2)
                _part(grad_B, block).add_(_grad_groups(g, x[:, block], B))
                q = g.mul_(decay)
                q[1:].mul_(states[:-1])
                q[:1].mul_(0 if initial is None else initial[None, block])
                grad_delta[:, block] = (q * A).sum(2)
                grad_A.add_(q.mul_(delta[:, block, None]).sum((0, 1)))
        return grad_delta, grad_x, grad_A, grad_B, grad_C, None


def _blocks(batch: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, batch)) for start in range(0, batch, size)]


def _states(
    delta: Tensor, x: Tensor, A: Tensor, B: Tensor, initial: Tensor | None, block: slice
) -> tuple[Tensor, Tensor]:
    """Compute decays exp(delta A) and states of one block of the batch, both (L, b, N, D)."""
    decay = (delta[:, block].contiguous()[:, :, None] * A).exp_()
    states = (_grouped(x[:, block].contiguous()[:, :, None], B) * _part(B, block)).flatten(3)
    steps, decays = states.unbind(0), decay.unbind(0)
    if initial is not None:
        steps[0].addcmul_(decays[0], initial[block])
    for t in range(1, len(steps)):
        steps[t].addcmul_(decays[t], steps[t - 1])
    return decay, states


def _grouped(x: Tensor, B: Tensor) -> Tensor:
    """Split the channels, the last axis, into the groups of B or C."""
    return x.unflatten(-1, (B.shape[3], -1))


def _part(B: Tensor, block: slice) -> Tensor:
    return B if B.shape[1] == 1 else B[:, block]


def _grad_groups(states: Tensor, x: Tensor, B: Tensor) -> Tensor:
    """Sum states (L, b, N, D) times x (L, b, D) to the shape of this block's B or C."""
    if B.shape[3] == 1:
        product = torch.matmul(states, x[..., None])[..., None, :]  # (L, b, N, 1, 1)
    else:
        product = _grouped(states * x[:, :, None], B).sum(-1, keepdim=True)
    over = [axis for axis in (0, 1) if B.shape[axis] == 1 and product.shape[axis] != 1]
    return product.sum(over, keepdim=True) if over else product


conv, conv_unavailable = reference.conv, reference.conv_unavailable

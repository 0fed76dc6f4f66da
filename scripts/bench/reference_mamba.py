"""The published forms of the selective scan and of bidirectional Mamba in plain PyTorch.

The scan is the loop that every published implementation falls back to without its CUDA kernel: two tensors over batch,
channels, time and states, sliced step by step. Its backward pass is quadratic in time, since the gradient of every
slice is a tensor of full size. The networks are functions of our models, of which only the parameters are used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """The recurrence on slices of whole tensors, with the softplus of delta, the skip D and the gate z.

    Args:
        u: (B, D, L), as delta and z.
        delta: steps before bias and softplus.
        A: (D, N).
        B: (B, N, L), as C.
        C: output weights.
        D: (D,), as delta_bias.
        z: gate.
        delta_bias: added to delta.

    Returns:
        (B, D, L) in the dtype of u, computed in float32.

    Source: state-spaces/mamba, selective_scan_interface.py (selective_scan_ref).
    """
    with torch.autocast(u.device.type, enabled=False):
        kind = u.dtype
        u, B, C = u.float(), B.float(), C.float()
        delta = F.softplus(delta.float() + delta_bias[:, None].float())
        decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
        drive = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
        state = torch.zeros_like(decay[:, :, 0])
        outputs = []
        for i in range(u.shape[2]):
            state = decay[:, :, i] * state + drive[:, :, i]
            outputs.append(torch.einsum("bdn,bn->bd", state, C[:, :, i]))
        y = torch.stack(outputs, dim=2) + u * D[:, None]
        return (y * F.silu(z.float())).to(kind)


def dbmambapose(model: Any, pose: Tensor) -> Tensor:
    """A single-stream DBMambaPose of mixer v2 with the scan above and the convolution of torch.

    Args:
        model: a DBMambaPose; in evaluation mode, or without dropout and drop path.
        pose: (B, T, J, C).

    Returns:
        (B, T, J, 3).
    """
    batch, frames, joints, _ = pose.shape
    x = _linear(pose, model.joints_embed) + model.pos_embed
    for layer in model.layers:
        x = x.reshape(batch * frames, joints, -1)
        x = mamba_block(layer.spatial, x).reshape(batch, frames, joints, -1)
        x = x.transpose(1, 2).reshape(batch * joints, frames, -1)
        x = mamba_block(layer.temporal, x).reshape(batch, joints, frames, -1).transpose(1, 2)
    x = torch.tanh(_linear(_norm(x, model.norm), model.rep_logit.fc))
    return _linear(x, model.head)


def mamba_block(block: Any, x: Tensor) -> Tensor:
    """Bidirectional Mamba and MLP, pre-norm and residual with layer scales, on sequences (B, L, C)."""
    x = x + block.layer_scale_1 * bidirectional_mamba(block.mixer, _norm(x, block.norm1))
    hidden = F.gelu(_linear(_norm(x, block.norm2), block.mlp.fc1))
    return x + block.layer_scale_2 * _linear(hidden, block.mlp.fc2)


def bidirectional_mamba(mixer: Any, x: Tensor) -> Tensor:
    """Vim's version 2 with its division by 2: two paths with weights of their own between shared projections."""
    mixed = _linear(x, mixer.in_proj).transpose(1, 2)  # (B, 2 D, L)
    forward = _path(mixed, mixer, "")
    backward = _path(mixed.flip(2), mixer, "_b").flip(2)
    return _linear(((forward + backward) / 2).transpose(1, 2), mixer.out_proj)


def _path(mixed: Tensor, mixer: Any, suffix: str) -> Tensor:
    """Convolution, projections and scan in one direction: (B, 2 D, L) to (B, D, L)."""
    conv, projection, step = (getattr(mixer, f"{name}{suffix}") for name in ("conv1d", "x_proj", "dt_proj"))
    a_log = mixer.A_log if not suffix else mixer.A_b_log
    skip = mixer.D if not suffix else mixer.D_b
    u, z = mixed.chunk(2, dim=1)
    width = conv.weight.shape[-1]
    u = F.conv1d(u, conv.weight, conv.bias, padding=width - 1, groups=u.shape[1])[..., : u.shape[2]]
    u = F.silu(u)
    rank, states = step.weight.shape[1], a_log.shape[1]
    parts = F.linear(u.transpose(1, 2), projection.weight)  # (B, L, R + 2 N)
    delta, b, c = parts.split([rank, states, states], dim=-1)
    delta = F.linear(delta, step.weight).transpose(1, 2)
    return selective_scan(u, delta, -torch.exp(a_log), b.transpose(1, 2), c.transpose(1, 2), skip, z, step.bias)


def _linear(x: Tensor, layer: Any) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)


def _norm(x: Tensor, norm: Any) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
